"""Results as tables: for a terminal, a log, a model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_blender.bench.pairs import Agreement
from llm_blender.bench.select import Selection
from llm_blender.ranking import Interval

__all__ = ["Table", "agreement_table", "selection_table"]

_NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        columns: their titles; all but the first `names` hold numbers.
        rows: as many cells each as there are columns.
        names: how many columns hold text.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int

    def markdown(self) -> str:
        """GitHub's Markdown, numbers to the right, aligned in the source as well."""
        lines = [[cell.replace("|", "\\|") for cell in line] for line in (self.columns, *self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]

        def line(cells: Sequence[str]) -> str:
            padded = [
                cell.ljust(width) if i < self.names else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            return f"| {' | '.join(padded)} |"

        rule = ["-" * width if i < self.names else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
        return "\n".join([line(lines[0]), line(rule), *map(line, lines[1:])])


def agreement_table(results: Sequence[Agreement]) -> Table:
    """Accuracy, flip rate and ECE in percent, Brier's score as it is."""
    return Table(
        ("file", "method", "pairs", "ties", "accuracy", "95 %", "longest", "flips", "ECE", "Brier"),
        tuple(
            (
                result.file,
                result.method,
                f"{result.pairs:,}",
                f"{result.ties:,}",
                _number(result.accuracy, 100),
                _interval(result.ci95, 100) if result.ci95 else "by definition",
                _number(result.longest, 100),
                _number(result.flip_rate, 100),
                _number(result.ece, 100),
                _NOTHING if result.brier is None else f"{result.brier:.3f}",
            )
            for result in results
        ),
        names=2,
    )


def selection_table(results: Sequence[Selection], *, percent: bool) -> Table:
    """Quality on the score's own scale, or times 100.

    Args:
        results: of the same rows.
        percent: multiply by 100, as suits scores from 0 to 1.
    """
    scale = 100 if percent else 1
    return Table(
        ("method", "rows", "quality", "95 %", "against random, 95 %", "comparisons"),
        tuple(
            (
                result.method,
                f"{result.rows:,}",
                _number(result.quality, scale),
                _interval(result.ci95, scale),
                _interval(result.vs_random_ci95, scale, sign="+") if result.vs_random_ci95 else _NOTHING,
                f"{result.comparisons:,}",
            )
            for result in results
        ),
        names=1,
    )


def _number(value: float | None, scale: float, sign: str = "") -> str:
    if value is None:
        return _NOTHING
    return format(value * scale, f"{sign}.1f" if scale != 1 else f"{sign}.3g")


def _interval(interval: Interval, scale: float, sign: str = "") -> str:
    return f"{_number(interval.low, scale, sign)} to {_number(interval.high, scale, sign)}"
