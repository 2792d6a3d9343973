"""``blend config``: show the resolved configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from llm_blender.cli._options import ConfigOption, JsonOption
from llm_blender.cli._output import print_json

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show the configuration.")


@app.callback()
def _config() -> None:
    """Keep `show` a subcommand; typer makes an only command the group itself."""


@app.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the resolved configuration, with defaults; of an API key, show only whether it is set.

    JSON: the sections of blend.toml, and path (null without a file).
    """
    from llm_blender.config import load_config

    resolved = load_config(config).resolved()
    if as_json:
        print_json(resolved)
        return
    path = resolved.pop("path")
    typer.echo(f"# {path or 'no file: these are the defaults'}")
    for line in _toml(resolved):
        typer.echo(line)


def _toml(sections: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a ``blend.toml`` with these values."""
    for name, section in sections.items():
        for table in section if isinstance(section, list) else [section]:
            yield ""
            yield f"[[{name}]]" if isinstance(section, list) else f"[{name}]"
            for key, value in table.items():
                if key == "api_key_set":  # a finding, not a setting
                    yield f"# {table['api_key_env']} is {'set' if value else 'not set'}"
                else:
                    yield f"{key} = {toml_value(value)}"


_BARE = re.compile(r"[A-Za-z0-9_-]+")  # keys without quotes


def toml_value(value: Any) -> str:
    """Write a value as TOML does, on one line."""
    if isinstance(value, Mapping):
        items = (f"{key if _BARE.fullmatch(key) else json.dumps(key)} = {toml_value(value[key])}" for key in value)
        return "{ " + ", ".join(items) + " }" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML accepts JSON's values
