"""Quality against dollars, and against seconds, drawn; matplotlib is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from llm_blender.bench._drawing import LIGHT, headline, require_matplotlib, save_figure
from llm_blender.bench.pays.lines import Payoff
from llm_blender.bench.table import Estimate
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_payoffs"]

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
