"""The paper's table, its correlations and its pictures as one page that needs no network."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from llm_blender.bench.plots import DARK, LIGHT
from llm_blender.bench.report import Table, html_table, page, write_page
from llm_blender.bench.table.methods import Column
from llm_blender.bench.table.paper import Cell, Line, PaperTable
from llm_blender.bench.table.plots import svg_pictures
from llm_blender.bench.table.statistics import Estimate
from llm_blender.ranking import Interval

__all__ = ["cell_text", "correlation_table", "interval_text", "method_table", "report_page", "write_report"]

_NOTHING = "–"
_MEASURES = {
    "pearson": ("Pearson", 100),
    "spearman": ("Spearman", 100),
    "spearman_footrule": ("footrule (less is better)", 1),
    "set_based": ("overlap of the best k", 100),
}


def method_table(table: PaperTable, kinds: Sequence[str] = ("metric", "rank", "versus", "top")) -> Table:
    """Methods by measures; shares and rates in percent, each with half the width of its interval.

    Args:
        table: the figures.
        kinds: of columns, see `Column.kind`; all of them make a table that is wide for a terminal.
    """
    columns = [column for column in table.columns if column.kind in kinds]
    return Table(
        ("method", *(column.title for column in columns)),
        tuple(
            (line.method, *(_with_width(column, line.cells[column.key]) for column in columns)) for line in table.lines
        ),
        names=1,
    )


def correlation_table(table: PaperTable) -> Table:
    """Rankers and metrics by their correlation with GPT-Rank, times 100; the footrule as it is."""
    return Table(
        ("correlation with GPT-Rank", "rows", *(title for title, _ in _MEASURES.values())),
        tuple(
            (
                correlation.method,
                f"{correlation.rows:,}",
                *(_estimate(correlation.measures[name], scale) for name, (_, scale) in _MEASURES.items()),
            )
            for correlation in table.correlations
        ),
        names=1,
    )


def cell_text(column: Column, cell: Cell | None) -> str:
    """The value alone, as the table shows it."""
    return _NOTHING if cell is None else _number(cell.value, 100 if column.percent else 1)


def interval_text(column: Column, cell: Cell | None) -> str:
    """The ends of its interval."""
    if cell is None or cell.ci95 is None:
        return ""
    low, high = (_number(end, 100 if column.percent else 1) for end in cell.ci95)
    return f"{low} to {high}"


def _with_width(column: Column, cell: Cell | None) -> str:
    text = cell_text(column, cell)
    if cell is None or cell.ci95 is None:
        return text
    return f"{text} ±{_width(cell.ci95, 100 if column.percent else 1)}"


def _estimate(estimate: Estimate, scale: int) -> str:
    if estimate.value is None or estimate.ci95 is None:
        return _NOTHING
    return f"{_number(estimate.value, scale)} ±{_width(estimate.ci95, scale)}"


def _width(interval: Interval, scale: int) -> str:
    return _number((interval.high - interval.low) / 2, scale)


def _number(value: float, scale: int) -> str:
    return f"{value * scale:.1f}" if scale == 100 else f"{value:.2f}"


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
