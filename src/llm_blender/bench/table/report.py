"""The paper's table, its correlations and its pictures as one page that needs no network."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

from llm_blender.bench._drawing import DARK, LIGHT
from llm_blender.bench._page import html_table, page, write_page
from llm_blender.bench.table.paper import Line, PaperTable
from llm_blender.bench.table.pictures import svg_pictures
from llm_blender.bench.table.text import cell_text, correlation_table, interval_text

__all__ = ["report_page", "write_report"]

_PICTURES = {
    "best": "How often each LLM's answer is the best one.",
    "wins": "How often the judge prefers the row's LLM to the column's.",
    "tradeoff": "What each strategy selects for how many comparisons, all from the same full matrix.",
    "lengths": "How often the longer of two answers is preferred.",
}
_STYLE = """
.wide { overflow-x: auto; }
thead th { white-space: normal; vertical-align: bottom; min-width: 5.2rem; max-width: 9rem; }
th:first-child { position: sticky; left: 0; background: var(--paper); }
tbody + tbody { border-top: 2px solid var(--quiet); }
figure { margin: 1.5rem 0 2.5rem; } img { max-width: 100%; height: auto; }
"""


def write_report(table: PaperTable, path: Path) -> Path:
    """Write the page.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the file cannot be written.
    """
    return write_page(report_page(table), path)


def report_page(table: PaperTable) -> str:
    """The page, in HTML; it follows the reader's choice of light or dark.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    title = f"LLMs and rankers on {Path(table.census.file).name}"
    remarks = "".join(f"<li>{_prose(remark)}</li>" for remark in table.census.remarks())
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{_prose(table.caption.replace('± is half the width of', 'Small: the ends of'))}</p>",
        f'<div class="wide"><table>{_head(table)}{"".join(_bodies(table))}</table></div>',
        "<p>Bold: the best of the column, oracles left out.</p>",
        "<h2>Correlation with GPT-Rank</h2>",
        _correlations(table),
        *_pictures(table),
        f"<h2>What does not count, or counts in its own way</h2><ul>{remarks}</ul>" if remarks else "",
    ]
    return page(title, parts, _STYLE)


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
    return f'<div class="wide">{html_table(found)}</div>'


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
