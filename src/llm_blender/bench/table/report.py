"""The paper's table, its correlations and its pictures as one page that needs no network."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from llm_blender.bench._drawing import DARK, LIGHT
from llm_blender.bench.table.paper import Line, PaperTable
from llm_blender.bench.table.pictures import svg_pictures
from llm_blender.bench.table.text import cell_text, correlation_table, interval_text
from llm_blender.errors import InputError

__all__ = ["report_page", "write_report"]

_PICTURES = {
    "best": "How often each LLM's answer is the best one.",
    "wins": "How often the judge prefers the row's LLM to the column's.",
    "tradeoff": "What each strategy selects for how many comparisons, all from the same full matrix.",
    "lengths": "How often the longer of two answers is preferred.",
}
_STYLE = f"""
:root {{ color-scheme: light dark; --ink: {LIGHT.ink}; --quiet: #5f5f5f; --line: #dddddd; --paper: {LIGHT.paper}; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: {DARK.ink}; --quiet: #a8a8a8; --line: #3a3a3a; --paper: {DARK.paper}; }}
}}
body {{ margin: 0 auto; max-width: 84rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.1rem; margin-top: 2.5rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .4rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }}
thead th {{ white-space: normal; vertical-align: bottom; min-width: 5.2rem; max-width: 9rem; }}
th:first-child {{ text-align: left; position: sticky; left: 0; background: var(--paper); font-weight: 600; }}
tbody th {{ font-weight: 400; }}
tbody + tbody {{ border-top: 2px solid var(--quiet); }}
small {{ display: block; color: var(--quiet); font-size: .7rem; font-weight: 400; }}
.best {{ font-weight: 700; }}
p, li, figcaption {{ max-width: 60rem; }} figcaption, footer {{ color: var(--quiet); }}
figure {{ margin: 1.5rem 0 2.5rem; }} img {{ max-width: 100%; height: auto; }}
"""


def write_report(table: PaperTable, path: Path) -> Path:
    """Write the page.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the file cannot be written.
    """
    page = report_page(table)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot hold the page ({error.strerror or error}).") from error
    return path


def report_page(table: PaperTable) -> str:
    """The page, in HTML; it follows the reader's choice of light or dark.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    title = f"LLMs and rankers on {escape(Path(table.census.file).name)}"
    remarks = "".join(f"<li>{_prose(remark)}</li>" for remark in table.census.remarks())
    parts = [
        f"<h1>{title}</h1>",
        f"<p>{_prose(table.caption.replace('± is half the width of', 'Small: the ends of'))}</p>",
        f'<div class="wide"><table>{_head(table)}{"".join(_bodies(table))}</table></div>',
        "<p>Bold: the best of the column, oracles left out.</p>",
        "<h2>Correlation with GPT-Rank</h2>",
        _correlations(table),
        *_pictures(table),
        f"<h2>What does not count, or counts in its own way</h2><ul>{remarks}</ul>" if remarks else "",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _prose(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _head(table: PaperTable) -> str:
    # Long names of scores may break after their underscores.
    titles = "".join(f'<th scope="col">{escape(column.title).replace("_", "_<wbr>")}</th>' for column in table.columns)
    return f'<thead><tr><th scope="col">method</th>{titles}</tr></thead>'


def _bodies(table: PaperTable) -> Iterator[str]:
    """One body a kind of method."""
    best = {column.key: _best_line(table, column.key, column.better == "lower") for column in table.columns}
    for kind in dict.fromkeys(line.kind for line in table.lines):
        rows = [_row(table, line, best) for line in table.lines if line.kind == kind]
        yield f"<tbody>{''.join(rows)}</tbody>"


def _best_line(table: PaperTable, column: str, lower: bool) -> str | None:
    values = {line.method: cell.value for line in table.lines if line.kind != "oracle" and (cell := line.cells[column])}
    return (min if lower else max)(values, key=lambda method: values[method], default=None)


def _row(table: PaperTable, line: Line, best: dict[str, str | None]) -> str:
    cells = []
    for column in table.columns:
        cell = line.cells[column.key]
        mark = ' class="best"' if best[column.key] == line.method else ""
        interval = interval_text(column, cell)
        cells.append(f"<td{mark}>{cell_text(column, cell)}{f'<small>{interval}</small>' if interval else ''}</td>")
    return f'<tr><th scope="row">{escape(line.method)}</th>{"".join(cells)}</tr>'


def _correlations(table: PaperTable) -> str:
    found = correlation_table(table)
    if not found.rows:
        return "<p>There is no row in which every LLM was judged and ranked.</p>"
    head, *lines = [_plain_row(cells, head=not number) for number, cells in enumerate((found.columns, *found.rows))]
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'


def _plain_row(cells: Sequence[str], *, head: bool) -> str:
    name, *others = (escape(cell) for cell in cells)
    rest = "".join(f'<th scope="col">{cell}</th>' if head else f"<td>{cell}</td>" for cell in others)
    return f'<tr><th scope="{"col" if head else "row"}">{name}</th>{rest}</tr>'


def _pictures(table: PaperTable) -> Iterator[str]:
    light, dark = (svg_pictures(table, theme) for theme in (LIGHT, DARK))
    for name, drawn in light.items():
        caption = escape(_PICTURES[name])
        yield (
            f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{_data(dark[name])}">'
            f'<img src="{_data(drawn)}" alt="{caption}"></picture><figcaption>{caption}</figcaption></figure>'
        )


def _data(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
