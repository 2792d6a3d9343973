"""The lines as a table."""

from __future__ import annotations

from collections.abc import Sequence

from llm_blender.bench.pays.lines import Payoff
from llm_blender.bench.table import Estimate
from llm_blender.bench.tables import Table

__all__ = ["payoff_table"]

_NOTHING, _UNKNOWN = "–", "unknown"


def payoff_table(results: Sequence[Payoff], *, percent: bool) -> Table:
    """Quality on the score's own scale, or times 100.

    Args:
        results: of the same rows.
        percent: multiply by 100, as suits scores from 0 to 1.
    """
    scale, digits = (100, ".1f") if percent else (1, ".3g")
    points = "points" if percent else "gain"
    columns = (
        "quality",
        "95 %",
        "gain",
        "95 %",
        "$ per 1,000",
        "95 %",
        "seconds",
        "95 %",
        f"{points} per $ more",
        "95 %",
    )
    return Table(
        ("method", "rows", "calls", "comparisons", *columns),
        tuple(
            (
                result.method,
                f"{result.rows:,}",
                f"{result.calls:.3g}",
                f"{result.comparisons:.3g}",
                *_cells(result.quality, digits, scale),
                *_cells(result.gain, f"+{digits}", scale, _NOTHING),
                *_cells(result.dollars, ".3g"),
                *_cells(result.seconds, ".3g"),
                *_cells(result.gain_per_dollar, f"+{digits}", scale, _without_ratio(result)),
            )
            for result in results
        ),
        names=1,
    )


def _without_ratio(result: Payoff) -> str:
    if result.gain is None:
        return _NOTHING
    if result.extra_dollars is None:
        return _UNKNOWN
    return "costs less" if (result.extra_dollars.value or 0) < 0 else "costs the same"


def _cells(estimate: Estimate | None, form: str, scale: float = 1, otherwise: str = _UNKNOWN) -> tuple[str, str]:
    if estimate is None or estimate.value is None:
        return otherwise, _NOTHING
    ends = [format(scale * end, form) for end in estimate.ci95 or ()]
    return format(scale * estimate.value, form), " to ".join(ends) or _NOTHING
