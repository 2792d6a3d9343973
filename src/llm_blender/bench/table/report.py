"""The paper's table, its correlations and its plots as Markdown and as a page that needs no network."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from llm_blender.bench.report import (
    DARK,
    LIGHT,
    NOTHING,
    Table,
    format_interval,
    format_number,
    html_row,
    html_table,
    page,
)
from llm_blender.bench.resampling import Estimate
from llm_blender.bench.table.paper import Line, PaperTable
from llm_blender.bench.table.plots import TIES, svg_pictures

_MEASURES = {
    "pearson": ("Pearson", True),
    "spearman": ("Spearman", True),
    "spearman_footrule": ("footrule (less is better)", False),
    "set_based": ("overlap of the best k", True),
}


def method_table(table: PaperTable, kinds: Sequence[str] = ("metric", "rank", "versus", "top")) -> Table:
    """Return methods by measures; shares and rates in percent, each with half the width of its interval.

    `kinds` are those of `Column.kind`; all of them make a table that is wide for a terminal.
    """
    columns = [column for column in table.columns if column.kind in kinds]
    rows = [
        (line.method, *(_estimate(line.cells[column.key], column.percent) for column in columns))
        for line in table.lines
    ]
    return Table(("method", *(column.title for column in columns)), tuple(rows), names=1)


def correlation_table(table: PaperTable) -> Table:
    """Return correlations of rankers and metrics with GPT-Rank, times 100; the footrule as it is."""
    return Table(
        ("correlation with GPT-Rank", "rows", *(title for title, _ in _MEASURES.values())),
        tuple(
            (
                correlation.method,
                f"{correlation.rows:,}",
                *(_estimate(correlation.measures[name], percent) for name, (_, percent) in _MEASURES.items()),
            )
            for correlation in table.correlations
        ),
        names=1,
    )


def _form(percent: bool) -> tuple[str, float]:
    """Return digits and scale of a number."""
    return (".1f", 100) if percent else (".2f", 1)


def _estimate(estimate: Estimate | None, percent: bool) -> str:
    """Format a value with half the width of its interval."""
    if estimate is None or estimate.value is None or estimate.ci95 is None:
        return NOTHING
    half = (estimate.ci95.high - estimate.ci95.low) / 2
    return " ±".join(format_number(value, *_form(percent)) for value in (estimate.value, half))


_PICTURES = {
    "best": f"How often each LLM's answer is the best one. {' '.join(TIES.split())}",
    "wins": "How often the judge prefers the row's LLM to the column's.",
    "tradeoff": "Quality of each strategy by number of comparisons, all from the same full matrix.",
    "lengths": "How often the longer of two answers is preferred.",
}
_STYLE = """
.wide { overflow-x: auto; }
thead th { white-space: normal; vertical-align: bottom; min-width: 5.2rem; max-width: 9rem; }
th:first-child { position: sticky; left: 0; background: var(--paper); }
tbody + tbody { border-top: 2px solid var(--quiet); }
figure { margin: 1.5rem 0 2.5rem; } img { max-width: 100%; height: auto; }
"""


def report_page(table: PaperTable) -> str:
    """Return the table, the correlations and the plots as an HTML page.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    title = f"LLMs and rankers on {Path(table.coverage.file).name}"
    remarks = "".join(f"<li>{_prose(remark)}</li>" for remark in table.coverage.remarks())
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{_prose(table.caption.replace('± is half the width of', 'Small: the ends of'))}</p>",
        f'<div class="wide"><table>{_head(table)}{"".join(_bodies(table))}</table></div>',
        "<p>Bold: the best of the column, oracles left out.</p>",
        "<h2>Correlation with GPT-Rank</h2>",
        _correlations(table),
        *_pictures(table),
        f"<h2>Coverage</h2><ul>{remarks}</ul>" if remarks else "",
    ]
    return page(title, parts, _STYLE)


def _prose(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _head(table: PaperTable) -> str:
    # Long names of scores may break after their underscores.
    titles = [f'<th scope="col">{escape(column.title).replace("_", "_<wbr>")}</th>' for column in table.columns]
    return f"<thead>{html_row('method', titles, 'col')}</thead>"


def _bodies(table: PaperTable) -> Iterator[str]:
    """Yield one table body for each kind of method."""
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
        cell, form = line.cells[column.key], _form(column.percent)
        mark = ' class="best"' if best[column.key] == line.method else ""
        ends = f"<small>{format_interval(cell.ci95, *form)}</small>" if cell else ""
        cells.append(f"<td{mark}>{format_number(cell.value if cell else None, *form)}{ends}</td>")
    return html_row(line.method, cells)


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
