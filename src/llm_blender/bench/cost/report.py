"""Methods beside the best single LLM: what more they give, and for how much more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.cost.methods import Played
from llm_blender.bench.cost.rows import PaidRow
from llm_blender.bench.plots import LIGHT, headline, require_matplotlib, save_figure
from llm_blender.bench.report import Table
from llm_blender.bench.rows import group_ids
from llm_blender.bench.table import Estimate
from llm_blender.bench.table.statistics import Resampling, intervals
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Payoff", "payoff_table", "payoffs", "plot_payoffs"]

_Floats = NDArray[np.float64]

_ANSWERS = 1000  # of which a price is told: that of one is too small a number to read


@dataclass(frozen=True)
class Payoff:
    """What one method gives for dollars and seconds; all intervals are resampled by instruction.

    Attributes:
        method: its name.
        kind: as in `Played`.
        rows: instructions that count.
        calls: of LLMs for one answer, mean.
        comparisons: ordered pairs for one answer, mean.
        quality: mean score, on the score's own scale.
        gain: in quality against the best single LLM on the same rows, paired; None for that one itself.
        dollars: of 1,000 answers; None where a price is unknown.
        seconds: of one answer; None where a time is unknown.
        extra_dollars: of 1,000 answers, against the best single LLM, paired; None where a price is unknown.
        gain_per_dollar: `gain` over `extra_dollars`: quality for each dollar more that 1,000 answers cost. None where
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

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; null is unknown, or does not apply."""
        return asdict(self)


def payoffs(rows: Sequence[PaidRow], played: Sequence[Played], *, seed: int = 0) -> list[Payoff]:
    """All methods against the first one.

    Args:
        rows: n, at least one.
        played: the best single LLM first, as of `singles`.
        seed: of the bootstrap.
    """
    weights = Resampling(group_ids(row.scored.prompt for row in rows), seed=seed).weights
    return [_payoff(method, None if method is played[0] else played[0], played[0], weights) for method in played]


def _payoff(method: Played, other: Played | None, base: Played, weights: _Floats) -> Payoff:
    counts = ~np.isnan(method.quality)
    drawn = weights[:, counts]
    gain = (method.quality - base.quality)[counts]
    extra = _ANSWERS * (method.dollars - base.dollars)[counts]
    return Payoff(
        method.method,
        method.kind,
        int(counts.sum()),
        float(method.calls[counts].mean()),
        float(method.comparisons[counts].mean()),
        quality=_estimate(method.quality[counts], drawn),
        gain=None if other is None else _estimate(gain, drawn),
        dollars=_known(_ANSWERS * method.dollars[counts], drawn),
        seconds=_known(method.seconds[counts], drawn),
        extra_dollars=None if other is None else _known(extra, drawn),
        gain_per_dollar=None if other is None else _ratio(gain, extra, drawn),
    )


def _estimate(values: _Floats, drawn: _Floats) -> Estimate:
    return Estimate(float(values.mean()), _interval(_means(values, drawn)))


def _known(values: _Floats, drawn: _Floats) -> Estimate | None:
    return None if np.isnan(values).any() else _estimate(values, drawn)


def _ratio(gain: _Floats, extra: _Floats, drawn: _Floats) -> Estimate | None:
    if np.isnan(extra).any() or extra.mean() <= 0:
        return None
    dollars = _means(extra, drawn)
    dearer = np.isnan(dollars) | (dollars > 0)
    # A ratio over a cost around zero has no ends: where the extra cost is not sure, there is no interval.
    ci95 = _interval(_means(gain, drawn) / dollars) if dearer.all() else None
    return Estimate(float(gain.mean() / extra.mean()), ci95)


def _means(values: _Floats, drawn: _Floats) -> _Floats:
    """``[resamples]``; NaN for a draw without any of these rows."""
    sizes = drawn.sum(axis=1)
    return np.where(sizes > 0, drawn @ values / np.maximum(sizes, 1), np.nan)


def _interval(resampled: _Floats) -> Any:
    return intervals(resampled[:, None])[0]


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


_AXES = {"dollars": "dollars for 1,000 answers", "seconds": "seconds an answer"}
_MARKS = {"best-of-n": "P", "routing": "D", "fused": "s", "random": "X"}
_ORACLES = {"oracle, routing": "*", "oracle, picking": "p"}
_PICKS = ("o", "v", "^", "<", ">")
_DODGE = 3.0  # points between curves, as picks with and without priors cost the same
_WIDE = 10.0  # times from the cheapest to the dearest, beyond which the axis is logarithmic


def plot_payoffs(results: Sequence[Payoff], folder: Path, *, percent: bool) -> list[Path]:
    """Draw ``pays-dollars`` and ``pays-seconds``, each as PNG and SVG.

    Args:
        results: of `payoffs`; lines whose dollars or seconds are unknown are left out of that picture.
        folder: made if it is not there.
        percent: draw quality times 100.

    Returns:
        The files written; none for what is unknown of all lines.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: neither dollars nor seconds are known of any line, or the folder cannot be written.
    """
    require_matplotlib()
    import matplotlib

    known = [axis for axis in ("dollars", "seconds") if any(_of(result, axis) for result in results)]
    if not known:
        raise InputError("Neither dollars nor seconds are known of any line: there is nothing to draw.")
    with matplotlib.rc_context(LIGHT.style):
        return [
            path
            for axis in known
            for path in save_figure(_figure(results, axis, 100 if percent else 1), folder / f"pays-{axis}")
        ]


def _of(result: Payoff, axis: str) -> Estimate | None:
    return result.dollars if axis == "dollars" else result.seconds


def _figure(results: Sequence[Payoff], axis_of: str, scale: int) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    drawn = [(result, cost) for result in results if (cost := _value(_of(result, axis_of))) is not None]
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.grid(axis="y", color=LIGHT.grid, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(length=2)
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
    _points(axis, [pair for pair in singles if pair[0] is best], scale, LIGHT.ink, "h", best.method)
    _points(axis, [pair for pair in singles if pair[0] is not best], scale, LIGHT.quiet, ".", "other single LLMs")
    for place, (name, points) in enumerate(_curves(drawn)):
        colour = LIGHT.accents[(place + 1) % len(LIGHT.accents)]
        _points(axis, points, scale, colour, _PICKS[place % len(_PICKS)], f"{name}, best 2, 3, … LLMs", curve=place)
    for result, cost in drawn:
        mark = _MARKS.get(result.kind) or _ORACLES.get(result.method)
        if mark is not None:
            colour = LIGHT.quiet if result.kind in ("random", "oracle") else LIGHT.accents[0]
            _points(axis, [(result, cost)], scale, colour, mark, result.method)
    axis.axhline(scale * (best.quality.value or 0), color=LIGHT.ink, linewidth=0.8, dashes=(4, 3), zorder=0)
    headline(axis, "Does it pay?", f"{best.rows:,} instructions; whiskers: 95 % intervals; dashed: best single", LIGHT)
    axis.set(xlabel=_AXES[axis_of], ylabel="quality, %" if scale == 100 else "quality")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return figure


def _ends(result: Payoff) -> Sequence[float]:
    return result.quality.ci95 or (result.quality.value or 0,)


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis: matplotlib's own are wrong where points are moved aside."""
    room = 0.05 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 1
    return min(values) - room, max(values) + room


def _curves(drawn: Sequence[tuple[Payoff, float]]) -> list[tuple[str, list[tuple[Payoff, float]]]]:
    """The picks of each ranker, fewest LLMs first."""
    picks = [(result.method.rpartition(", ")[0], result, cost) for result, cost in drawn if result.kind == "pick"]
    ordered = sorted(picks, key=lambda pick: (pick[0], pick[1].calls))
    return [
        (name, [(result, cost) for _, result, cost in group]) for name, group in groupby(ordered, key=lambda p: p[0])
    ]


def _points(
    axis: Axes,
    points: Sequence[tuple[Payoff, float]],
    scale: int,
    colour: str,
    mark: str,
    label: str,
    *,
    curve: int | None = None,
) -> None:
    """Marks with whiskers; a curve is joined, and each one stands a little to the right of the one before."""
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


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value
