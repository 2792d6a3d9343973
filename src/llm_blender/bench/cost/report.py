"""Methods against the best single LLM: gain in quality and additional cost, as figures, a table and plots."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench import plots
from llm_blender.bench.cost.methods import MethodCosts
from llm_blender.bench.report import NOTHING, Result, Table, Theme, format_interval, format_number
from llm_blender.bench.resampling import Estimate, Floats, Resampling, intervals
from llm_blender.bench.rows import BenchRow, group_ids
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ANSWERS = 1000  # the unit of dollars: the price of one answer is too small to read
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class CostQuality(Result):
    """Quality, dollars and seconds of one method; all intervals are resampled by instruction.

    Attributes:
        kind: as in `MethodCosts`.
        calls: of LLMs for one answer, mean.
        comparisons: ordered pairs for one answer, mean.
        quality: mean score, on the score's own scale.
        gain: in quality against the best single LLM on the same rows, paired; None for that one itself.
        dollars: of 1,000 answers; None where a price is unknown.
        seconds: of one answer; None where a time is unknown.
        extra_dollars: of 1,000 answers, against the best single LLM, paired; None where a price is unknown.
        gain_per_dollar: `gain` over `extra_dollars`: quality for each additional dollar of 1,000 answers. None where
            they cost no more, or a price is unknown; without an interval where a resample costs no more.
    """

    method: str
    kind: str
    rows: int
    calls: float
    comparisons: float
    quality: Estimate
    gain: Estimate | None
    dollars: Estimate | None
    seconds: Estimate | None
    extra_dollars: Estimate | None
    gain_per_dollar: Estimate | None


def cost_quality(rows: Sequence[BenchRow], costs: Sequence[MethodCosts], *, seed: int = 0) -> list[CostQuality]:
    """Compare all methods with the first one, which is the best single LLM."""
    resampling = Resampling(group_ids(row.prompt for row in rows), seed=seed)
    return [_compare(method, costs[0], resampling) for method in costs]


def _compare(method: MethodCosts, base: MethodCosts, resampling: Resampling) -> CostQuality:
    counts = ~np.isnan(method.quality)
    gain = np.where(counts, method.quality - base.quality, np.nan)
    extra = _ANSWERS * np.where(counts, method.dollars - base.dollars, np.nan)

    def estimate(values: Floats) -> Estimate | None:
        """Return the mean of the rows that count; None if one of them is unknown."""
        if np.isnan(values[counts]).any():
            return None
        return Estimate(float(values[counts].mean()), resampling.interval(np.where(counts, values, np.nan)))

    first = method is base
    return CostQuality(
        method.method,
        method.kind,
        int(counts.sum()),
        float(method.calls[counts].mean()),
        float(method.comparisons[counts].mean()),
        quality=estimate(method.quality) or Estimate(None, None),
        gain=None if first else estimate(gain),
        dollars=estimate(_ANSWERS * method.dollars),
        seconds=estimate(method.seconds),
        extra_dollars=None if first else estimate(extra),
        gain_per_dollar=None if first else _ratio(gain, extra, counts, resampling),
    )


def _ratio(gain: Floats, extra: Floats, counts: NDArray[np.bool_], resampling: Resampling) -> Estimate | None:
    if np.isnan(extra[counts]).any() or extra[counts].mean() <= 0:
        return None
    gains, dollars = resampling.resample(np.stack([gain, extra], axis=1)).T
    dearer = np.isnan(dollars) | (dollars > 0)
    # A ratio over a cost around zero is unbounded: where a resample costs no more, there is no interval.
    ci95 = intervals((gains / dollars)[:, None])[0] if dearer.all() else None
    return Estimate(float(gain[counts].mean() / extra[counts].mean()), ci95)


def cost_table(results: Sequence[CostQuality], *, percent: bool) -> Table:
    """Return the results as a table; `percent` multiplies quality by 100, for scores from 0 to 1."""
    scale, digits = (100, ".1f") if percent else (1, ".3f")
    points = "points" if percent else "gain"
    columns = ("quality", "gain", "$ per 1,000", "seconds", f"{points} per $ more")
    return Table(
        ("method", "rows", "calls", "comparisons", *(title for column in columns for title in (column, "95 %"))),
        tuple(
            (
                result.method,
                f"{result.rows:,}",
                f"{result.calls:.3g}",
                f"{result.comparisons:.3g}",
                *_cells(result.quality, digits, scale),
                *_cells(result.gain, f"+{digits}", scale, NOTHING),
                *_cells(result.dollars, ".3g"),
                *_cells(result.seconds, ".3g"),
                *_cells(result.gain_per_dollar, f"+{digits}", scale, _without_ratio(result)),
            )
            for result in results
        ),
        names=1,
    )


def _without_ratio(result: CostQuality) -> str:
    if result.gain is None:
        return NOTHING
    if result.extra_dollars is None:
        return _UNKNOWN
    return "costs less" if (result.extra_dollars.value or 0) < 0 else "costs the same"


def _cells(estimate: Estimate | None, form: str, scale: float = 1, otherwise: str = _UNKNOWN) -> tuple[str, str]:
    if estimate is None or estimate.value is None:
        return otherwise, NOTHING
    return format_number(estimate.value, form, scale), format_interval(estimate.ci95, form, scale)


_AXES = {"dollars": "dollars for 1,000 answers", "seconds": "seconds an answer"}
_MARKS = {"best-of-n": "P", "routing": "D", "fused": "s", "random": "X"}
_ORACLES = {"oracle, routing": "*", "oracle, picking": "p"}
_PICKS = ("o", "v", "^", "<", ">")
_DODGE = 3.0  # points between curves: picks with and without priors cost the same
_LINE = 90  # characters of a line of remarks
_WIDE = 10.0  # ratio of the dearest to the cheapest, above which the axis is logarithmic


def plot_costs(results: Sequence[CostQuality], folder: str | Path, *, percent: bool) -> list[Path]:
    """Draw ``pays-dollars`` and ``pays-seconds``, each as PNG and SVG; return the files.

    A method with an unknown cost is left out of that plot, which names it and what is unknown; a plot without methods
    is not drawn. `percent` draws
    quality times 100.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: neither dollars nor seconds are known of any method, or the folder cannot be written.
    """
    plots.require_matplotlib()
    known = [axis for axis in _AXES if any(getattr(result, axis) for result in results)]
    if not known:
        raise InputError("Neither dollars nor seconds are known of any line: there is nothing to draw.")
    scale = 100 if percent else 1
    return plots.save_figures({f"pays-{axis}": partial(_figure, results, axis, scale) for axis in known}, folder)


def _cost(result: CostQuality, axis: str) -> float | None:
    cost = result.dollars if axis == "dollars" else result.seconds
    return None if cost is None else cost.value


def _figure(results: Sequence[CostQuality], axis_of: str, scale: int, theme: Theme) -> Figure:
    from matplotlib.ticker import LogLocator, NullLocator

    drawn = [(result, cost) for result in results if (cost := _cost(result, axis_of)) is not None]
    figure = plots.new_figure(7.6, 4.2)
    axis = figure.subplots()
    plots.point_axis(axis, theme)
    costs = [cost for _, cost in drawn]
    cheapest, dearest = min(costs), max(costs)
    if cheapest > 0 and dearest > _WIDE * cheapest:
        axis.set(xscale="log", xlim=(cheapest / 1.2, dearest * 1.2))
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.set_xlim(_around(costs))
    axis.set_ylim(_around([scale * end for result, _ in drawn for end in _ends(result)]))
    singles = [(result, cost) for result, cost in drawn if result.kind == "single"]
    best = results[0]
    _points(axis, [pair for pair in singles if pair[0] is best], scale, theme.ink, "h", best.method)
    _points(axis, [pair for pair in singles if pair[0] is not best], scale, theme.quiet, ".", "other single LLMs")
    for place, (name, points) in enumerate(_curves(drawn)):
        colour = theme.accents[(place + 1) % len(theme.accents)]
        _points(axis, points, scale, colour, _PICKS[place % len(_PICKS)], f"{name}, best 2, 3, … LLMs", curve=place)
    for result, cost in drawn:
        mark = _MARKS.get(result.kind) or _ORACLES.get(result.method)
        if mark is not None:
            colour = theme.quiet if result.kind in ("random", "oracle") else theme.accents[0]
            _points(axis, [(result, cost)], scale, colour, mark, result.method)
    axis.axhline(scale * (best.quality.value or 0), color=theme.ink, linewidth=0.8, dashes=(4, 3), zorder=0)
    plots.headline(
        axis, "Quality and cost", f"{best.rows:,} instructions; whiskers: 95 % intervals; dashed: best single", theme
    )
    remark = "".join(f"\n{line}" for line in _left_out(results, axis_of))
    axis.set_xlabel(f"{_AXES[axis_of]}{remark}")
    axis.set_ylabel("quality, %" if scale == 100 else "quality")
    plots.outer_legend(axis)
    return figure


def _left_out(results: Sequence[CostQuality], axis: str) -> list[str]:
    """Return lines that name the methods without this cost, and what is unknown."""
    missing = [result for result in results if _cost(result, axis) is None]
    if not missing:
        return []
    kinds = {result.kind for result in missing}
    names = dict.fromkeys(
        f"{result.method.rpartition(', ')[0]}, best 2, 3, … LLMs" if result.kind == "pick" else result.method
        for result in missing
    )
    if "single" in kinds:
        unknown = "an answer by an LLM"
    elif kinds & {"pick", "best-of-n"}:
        unknown = "a comparison by the ranker" + (" (cached ones have none)" if axis == "seconds" else "")
    else:
        unknown = "fusing"
    what = "price" if axis == "dollars" else "time"
    text = f"Not drawn: {'; '.join(names)}. The {what} of {unknown} is unknown; --prices gives it."
    return textwrap.wrap(text, _LINE)


def _ends(result: CostQuality) -> Sequence[float]:
    return result.quality.ci95 or (result.quality.value or 0,)


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis; matplotlib's own ignore that points are moved aside."""
    margin = 0.05 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 1
    return min(values) - margin, max(values) + margin


def _curves(drawn: Sequence[tuple[CostQuality, float]]) -> list[tuple[str, list[tuple[CostQuality, float]]]]:
    """Group the picks by ranker, fewest LLMs first."""
    picks = [(result.method.rpartition(", ")[0], result, cost) for result, cost in drawn if result.kind == "pick"]
    ordered = sorted(picks, key=lambda pick: (pick[0], pick[1].calls))
    return [
        (name, [(result, cost) for _, result, cost in group]) for name, group in groupby(ordered, key=lambda p: p[0])
    ]


def _points(
    axis: Axes,
    points: Sequence[tuple[CostQuality, float]],
    scale: int,
    colour: str,
    mark: str,
    label: str,
    *,
    curve: int | None = None,
) -> None:
    """Draw marks with whiskers; a curve is joined, and each curve is a little to the right of the last."""
    from matplotlib.transforms import offset_copy

    moved = offset_copy(axis.transData, axis.get_figure(root=True), x=_DODGE * (curve or 0), units="points")
    for result, cost in points:
        ends = [scale * end for end in result.quality.ci95 or ()]
        axis.plot([cost] * len(ends), ends, color=colour, linewidth=1, alpha=0.4, zorder=1, transform=moved)
    axis.plot(
        [cost for _, cost in points],
        [scale * (result.quality.value or 0) for result, _ in points],
        color=colour,
        marker=mark,
        markersize=6,
        linestyle="none" if curve is None else "-",
        linewidth=1,
        label=label if points else None,
        zorder=3,
        transform=moved,
    )
