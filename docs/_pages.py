"""Pages of the site that are made: from other files, the commands, the configuration and docstrings."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from mkdocs.structure.files import File, Files

import llm_blender
from llm_blender.cli import app
from llm_blender.config import (
    EmbeddedConfig,
    EnsembleConfig,
    FuserConfig,
    LimitsConfig,
    OpenAIConfig,
    RankerConfig,
    ReplayConfig,
    ServerConfig,
)

ROOT = Path(__file__).parents[1]
PAGES = {
    "MIGRATION.md": "migration.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
    "src/llm_blender/bundled/ranker/README.md": "model-card.md",
}
"""Pages of the site by the files that they are made from."""
LINKED = PAGES | {"README.md": "index.md"}
"""Pages that links to files of the repository lead to."""
_LINK = re.compile(r"\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from other files."""
    for source, page in PAGES.items():
        path = ROOT / source
        text = _relink(path.read_text(encoding="utf-8"), path.parent, Path())
        if source == "examples/README.md":
            text += "\n".join(_programs(path.parent))
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "reference/options.md", content="\n".join(_options())))
    files.append(File.generated(config, "reference/configuration.md", content="\n".join(_configuration())))
    files.append(File.generated(config, "reference/python.md", content="\n".join(_python())))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to files outside of the folder to their pages, and keep a block of code's language and file."""
    own = Path(page.file.src_uri)
    if page.file.generated_by is not None:
        return markdown
    markdown = re.sub(r"^```(\w+) (\w+\.\w+)$", r'```\1 title="\2"', markdown, flags=re.M)
    markdown = re.sub(r"^```(\w+) \w+$", r"```\1", markdown, flags=re.M)
    return _relink(markdown, ROOT / "docs" / own.parent, own.parent)


def _relink(text: str, folder: Path, place: Path) -> str:
    """Rewrite the links of a file in `folder` for a page in `place`; a link to a file without a page becomes text."""

    def rewrite(match: re.Match[str]) -> str:
        words, link, anchor = match[1], match[2], match[3] or ""
        target = (folder / link).resolve()
        if not target.is_relative_to(ROOT):
            return match[0]
        source = target.relative_to(ROOT).as_posix()
        page = LINKED.get(source) or (source.removeprefix("docs/") if source.startswith("docs/") else None)
        if source.startswith("examples/") and page is None:
            page, anchor = "examples.md", f"#{target.name.replace('.', '')}"
        if page is None:
            return words if words.strip("`") in source else f"{words} (`{source}`)"
        up = "../" * len(place.parts)
        return f"[{words}]({up}{page}{anchor})"

    return _LINK.sub(rewrite, text)


def _options() -> Iterator[str]:
    """Yield the lines of the page with the help of all commands."""
    yield "# Options of the commands\n"

    def walk(command: Any, name: str) -> Iterator[str]:
        if children := getattr(command, "commands", None):
            for child in children:
                yield from walk(children[child], f"{name} {child}")
            return
        command = getattr(command, "_whole", lambda: command)()  # a command is a stub until it is run
        yield f"## `{name}`\n"
        yield (command.help or "").replace("\b", "").replace("<", "&lt;") + "\n"
        yield "| argument or option | meaning |\n|---|---|"
        for option in command.params:
            if not getattr(option, "hidden", False):
                names = (
                    [*option.opts, *option.secondary_opts]
                    if option.opts[0][0] == "-"
                    else [(option.metavar or option.name or "").upper()]
                )
                yield f"| {', '.join(f'`{one}`' for one in names)} | {_meaning(option)} |"
        yield ""

    yield from walk(typer.main.get_command(app), "blend")


def _programs(folder: Path) -> Iterator[str]:
    """Yield the lines of the examples themselves."""
    for path in sorted(folder.glob("*.py")):
        yield f"\n## {path.name}\n\n```python\n{path.read_text(encoding='utf-8').rstrip()}\n```"
    yield "\n## notebook.ipynb\n\nThe cells of code, one after another:\n"
    for cell in json.loads((folder / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]:
        yield f"```python\n{''.join(cell['source'])}\n```\n" if cell["cell_type"] == "code" else ""


def _meaning(option: Any) -> str:
    """Return the help of an option in one line, with its default."""
    words = " ".join((getattr(option, "help", None) or "").split())
    default = option.show_default if isinstance(option.show_default, str) else option.default
    if default not in (None, False, ()) and not callable(default) and "[default" not in words:
        words += f" [default: {default}]"
    return words.replace("|", "\\|").replace("<", "&lt;")


SECTIONS = {
    "[[llm]]: an LLM behind an API": OpenAIConfig,
    "[[llm]]: an LLM in this process": EmbeddedConfig,
    "[[llm]]: recorded answers": ReplayConfig,
    "[ensemble]": EnsembleConfig,
    "[ranker]": RankerConfig,
    "[fuser]": FuserConfig,
    "[limits]": LimitsConfig,
    "[server]": ServerConfig,
}
"""Sections of ``blend.toml`` by their titles."""


def _configuration() -> Iterator[str]:
    """Yield the lines of the page with all keys of ``blend.toml``, their types, defaults and meanings."""
    yield "# Configuration\n"
    yield (
        "All keys of `blend.toml`, from the models that check it. It is read from the current folder, else from the "
        "user's configuration folder; `--config FILE` names another. An unknown key is an error that names the nearest "
        "one. `blend config show` prints what is in force. [Examples](../llms.md).\n"
    )
    for title, section in SECTIONS.items():
        meanings = _meanings(inspect.getdoc(section) or "")
        yield f"## `{title.partition(':')[0]}`{title.partition(']:')[2] and ':' + title.partition(']:')[2]}\n"
        yield "| key | type | default | meaning |\n|---|---|---|---|"
        for name, field in section.model_fields.items():
            kind = _type(field.annotation)
            unset = field.default is None or field.default_factory is not None  # then the meaning tells it
            default = "required" if field.is_required() else "none" if unset else _toml(field.default)
            yield f"| `{field.alias or name}` | {kind} | {default} | {meanings.get(name, '')} |"
        yield ""


def _meanings(docstring: str) -> dict[str, str]:
    """Return the descriptions of attributes in a docstring, in one line each."""
    _, _, attributes = docstring.partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", attributes, re.MULTILINE)
    plain = {name: " ".join(text.split()).replace("``", "`").replace("|", "\\|") for name, text in found}
    return {**plain, "provider": "`openai`, `embedded` or `replay`: the kind of the LLM."}


def _toml(value: Any) -> str:
    """Write a default as TOML does, as code."""
    text = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | float) else None
    return f"`{text or json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def _type(annotation: Any) -> str:
    """Name a type in plain words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}s"
    if arguments and origin is not dict:
        return " or ".join(_type(each) for each in arguments if each is not type(None))
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(annotation, "table")


FIRST = ("Ensemble", "Answer", "PairRanker", "Ranking", "Candidate", "Example", "load_ranker", "load_fuser")
"""Names that most programs begin with."""


def _python() -> Iterator[str]:
    """Yield the lines of the page with the docstrings of the public names, the most used ones first."""
    names = [name for name in sorted(llm_blender.__all__, key=str.lower) if callable(getattr(llm_blender, name))]
    first = [name for name in FIRST if name in names]
    old = [name for name in names if ".legacy." in getattr(llm_blender, name).__module__]
    errors = [name for name in names if name.endswith("Error")]
    others = [name for name in names if name not in {*first, *old, *errors}]
    yield "# Python\n"
    for title, group in {"Begin here": first, "More": others, "Errors": errors, "llm-blender 0.0.2": old}.items():
        yield f"## {title}\n"
        for name in group:
            value = getattr(llm_blender, name)
            path = Path(inspect.getfile(value)).with_suffix("").relative_to(ROOT / "src")
            yield f"::: {'.'.join(path.parts).removesuffix('.__init__')}.{value.__qualname__}\n"
