"""Results as a page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from llm_blender.bench._drawing import DARK, LIGHT
from llm_blender.bench.tables import Table
from llm_blender.errors import InputError

__all__ = ["html_table", "page", "write_page"]

_STYLE = f"""
:root {{ color-scheme: light dark; --ink: {LIGHT.ink}; --quiet: #5f5f5f; --line: #dddddd; --paper: {LIGHT.paper}; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: {DARK.ink}; --quiet: #a8a8a8; --line: #3a3a3a; --paper: {DARK.paper}; }}
}}
body {{ margin: 0 auto; max-width: 84rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.1rem; margin-top: 2.5rem; }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .4rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }}
th:first-child {{ text-align: left; font-weight: 600; }}
tbody th {{ font-weight: 400; }}
small {{ display: block; color: var(--quiet); font-size: .7rem; font-weight: 400; }}
.best {{ font-weight: 700; }}
p, li, figcaption {{ max-width: 60rem; }} figcaption, footer {{ color: var(--quiet); }}
"""


def page(title: str, parts: Sequence[str], style: str = "") -> str:
    """The page, in HTML; it follows the reader's choice of light or dark.

    Args:
        title: as text.
        parts: of its body, in HTML.
        style: rules beside those of all pages.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def html_table(table: Table) -> str:
    """The table in HTML."""
    head, *lines = [_row(cells, head=not number) for number, cells in enumerate((table.columns, *table.rows))]
    return f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>"


def write_page(page: str, path: Path) -> Path:
    """Write a page, and the folders that it needs.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot hold the page ({error.strerror or error}).") from error
    return path


def _row(cells: Sequence[str], *, head: bool) -> str:
    name, *others = (escape(cell) for cell in cells)
    rest = "".join(f'<th scope="col">{cell}</th>' if head else f"<td>{cell}</td>" for cell in others)
    return f'<tr><th scope="{"col" if head else "row"}">{name}</th>{rest}</tr>'
