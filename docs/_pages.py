"""Pages of the site that are made from other files: the README, the model card, the commands' help, the docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer
from mkdocs.structure.files import File, Files

import llm_blender
from llm_blender.cli import app

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "MIGRATION.md": "migration.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
    "src/llm_blender/bundled/ranker/README.md": "model-card.md",
}
"""Pages of the site by the files that they are made from."""
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from other files."""
    for source, page in PAGES.items():
        path = ROOT / source
        text = _relink(path.read_text(encoding="utf-8"), path.parent, Path())
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "reference/options.md", content="\n".join(_options())))
    files.append(File.generated(config, "reference/python.md", content="\n".join(_python())))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to files outside of the folder to their pages, and keep the language of a block of code, and its file."""
    own = Path(page.file.src_uri)
    if page.file.generated_by is not None:
        return markdown
    markdown = re.sub(r"^```(\w+) (\w+\.\w+)$", r'```\1 title="\2"', markdown, flags=re.M)
    markdown = re.sub(r"^```(\w+) \w+$", r"```\1", markdown, flags=re.M)
    return _relink(markdown, ROOT / "docs" / own.parent, own.parent)


def _relink(text: str, folder: Path, place: Path) -> str:
    """Rewrite the links of a file in `folder` for a page in `place`; a link to a file without a page becomes text."""

    def rewrite(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if not target.is_relative_to(ROOT):
            return match[0]
        source = target.relative_to(ROOT).as_posix()
        page = PAGES.get(source) or (source.removeprefix("docs/") if source.startswith("docs/") else None)
        if page is None:
            return f"] (`{source}`)"
        up = "../" * len(place.parts)
        return f"]({up}{page}{match[2] or ''})"

    return _LINK.sub(rewrite, text)


def _options() -> Iterator[str]:
    """Yield the lines of the page with the help of all commands."""
    yield "# Options of the commands\n"
    root = typer.main.get_command(app)

    def walk(command: click.Command, name: str) -> Iterator[str]:
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name)
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                if found is not None:
                    yield from walk(found, f"{name} {child}")
            return
        yield f"## `{name}`\n"
        yield (command.help or "").replace("\b", "").replace("<", "&lt;") + "\n"
        yield "| option | meaning |\n|---|---|"
        for option in command.params:
            if not getattr(option, "hidden", False):
                names = ", ".join(f"`{one}`" for one in [*option.opts, *option.secondary_opts])
                meaning = (getattr(option, "help", None) or "").replace("|", "\\|").replace("<", "&lt;")
                yield f"| {names} | {' '.join(meaning.split())} |"
        yield ""

    yield from walk(root, "blend")


def _python() -> Iterator[str]:
    """Yield the lines of the page with the docstrings of the public names."""
    yield "# Python\n"
    for name in sorted(llm_blender.__all__, key=str.lower):
        value = getattr(llm_blender, name)
        if isinstance(value, type) or callable(value):
            path = Path(inspect.getfile(value)).with_suffix("").relative_to(ROOT / "src")
            yield f"::: {'.'.join(path.parts).removesuffix('.__init__')}.{value.__qualname__}\n"
