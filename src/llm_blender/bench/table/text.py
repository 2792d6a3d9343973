"""The paper's table as text: for a terminal, a log, a model card."""

from __future__ import annotations

from collections.abc import Sequence

from llm_blender.bench.table.columns import Column
from llm_blender.bench.table.correlating import Estimate
from llm_blender.bench.table.paper import Cell, PaperTable
from llm_blender.bench.tables import Table
from llm_blender.ranking import Interval

__all__ = ["cell_text", "correlation_table", "interval_text", "method_table"]

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
