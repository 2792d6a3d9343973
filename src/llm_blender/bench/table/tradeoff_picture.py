"""Quality against comparisons, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from llm_blender.bench._drawing import Theme, headline, short_names
from llm_blender.bench.table.paper import Line, PaperTable
from llm_blender.bench.table.tradeoff import TradeoffPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_tradeoff"]

_LABELS = {"max_logits": "MaxLogits", "max_wins": "MaxWins"}
_MARKS = {"knockout": "v", "bubble": "o", "top_k": "^", "single": "s", "full": "D", "active": "."}
_DODGE = 0.018  # of the axis: what costs the same stands side by side


def draw_tradeoff(table: PaperTable, theme: Theme) -> Figure:
    """A panel a ranker; strategies as points with intervals, ``active`` as a line over its budgets."""
    from matplotlib.figure import Figure

    panels = [(name, list(points)) for name, points in groupby(table.tradeoff, key=lambda point: point.ranker)]
    figure = Figure(figsize=(6.4, 0.4 + 3.4 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
    names = short_names([name for name, _ in panels])
    best = table.lines[0]
    for axis, (name, points) in zip(axes, panels, strict=True):
        _panel(axis, table, points, best, theme)
        headline(axis, f"Quality for comparisons: {names[name]}", "whiskers, band: 95 % intervals", theme)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, labelcolor=theme.ink)
    axes[-1].set_xlabel("comparisons an instruction")
    return figure


def _panel(axis: Axes, table: PaperTable, points: Sequence[TradeoffPoint], best: Line, theme: Theme) -> None:
    scale = 100 if table.quality.percent else 1
    axis.grid(axis="y", color=theme.grid, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(length=0)
    most = max(point.comparisons for point in points)
    colours = dict(zip(_MARKS, (*theme.accents, theme.quiet), strict=True))
    line = sorted((point for point in points if point.strategy == "active"), key=lambda point: point.comparisons)
    if line:
        x, y = [point.comparisons for point in line], [scale * point.quality for point in line]
        axis.plot(x, y, color=theme.quiet, linewidth=1.2, marker=".", label="active, by budget", zorder=1)
        ends = [point.ci95 or (point.quality, point.quality) for point in line]
        low, high = [scale * end for end, _ in ends], [scale * end for _, end in ends]
        axis.fill_between(x, low, high, color=theme.quiet, alpha=0.15, linewidth=0)
    for point, place in _placed([point for point in points[1:] if point.strategy != "active"], _DODGE * most):
        _mark(axis, point, place, colours[point.strategy], scale, theme)
    reach = _reach(points[1:], scale)
    cell = best.cells[table.quality.key]
    if cell is not None:
        _level(axis, scale * cell.value, f"always {best.method}", (4, 3), reach, theme)
    _level(axis, scale * points[0].quality, "random", (1, 2), reach, theme)
    axis.set_ylim(reach if table.quality.better == "higher" else reach[::-1])
    axis.set(ylabel=table.quality.title + (", %" if scale == 100 else ""), xlim=(0, 1.04 * most))


def _reach(points: Sequence[TradeoffPoint], scale: int) -> tuple[float, float]:
    """Ends of the axis: the intervals, and something around them."""
    ends = [scale * end for point in points for end in point.ci95 or (point.quality, point.quality)]
    room = 0.25 * (max(ends) - min(ends)) or 0.5
    return min(ends) - room, max(ends) + room


def _level(
    axis: Axes, value: float, name: str, dashes: tuple[int, int], reach: tuple[float, float], theme: Theme
) -> None:
    """A line across; what lies far off the strategies is named without one, so that they fill the picture."""
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"color": theme.quiet, "linewidth": 1, "dashes": dashes}
    if reach[0] <= value <= reach[1]:
        axis.axhline(value, label=f"{name}: {value:.3g}", **style)
    else:
        axis.add_line(Line2D([], [], label=f"{name}: {value:.3g} (not drawn)", **style))


def _placed(points: Sequence[TradeoffPoint], step: float) -> list[tuple[TradeoffPoint, float]]:
    """Points with their place on the axis, moved apart where they cost the same."""
    taken: list[float] = []
    placed = []
    for point in points:
        crowd = sum(abs(point.comparisons - other) < step for other in taken)
        taken.append(point.comparisons)
        placed.append((point, point.comparisons + crowd * step))
    return placed


def _mark(axis: Axes, point: TradeoffPoint, place: float, colour: str, scale: int, theme: Theme) -> None:
    remark = f", {_LABELS[point.aggregation]}" if point.aggregation else ""
    if point.ci95 is not None:
        axis.plot([place, place], [scale * end for end in point.ci95], color=colour, linewidth=1, alpha=0.6)
    axis.plot(
        place,
        scale * point.quality,
        color=colour,
        marker=_MARKS[point.strategy],
        markersize=6,
        markerfacecolor=theme.paper if point.aggregation == "max_wins" else colour,
        linestyle="none",
        label=point.strategy + remark,
        zorder=3,
    )
