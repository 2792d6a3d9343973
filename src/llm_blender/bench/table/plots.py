"""Plots of the paper's table; matplotlib is an extra."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_blender.bench import plots
from llm_blender.bench.report import Theme
from llm_blender.bench.table.paper import Line, PaperTable
from llm_blender.bench.table.statistics import JUDGE
from llm_blender.bench.table.tradeoff import TradeoffPoint
from llm_blender.ranking import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {"max_logits": "MaxLogits", "max_wins": "MaxWins"}
_MARKS = {"knockout": "v", "bubble": "o", "top_k": "^", "single": "s", "full": "D", "active": "."}
_DODGE = 0.018  # share of the axis between points with the same number of comparisons


def _draw_tradeoff(table: PaperTable, theme: Theme) -> Figure:
    """Draw a panel for each ranker: strategies as points with intervals, ``active`` as a line over its budgets."""
    from matplotlib.ticker import MaxNLocator

    panels = [(name, list(points)) for name, points in groupby(table.tradeoff, key=lambda point: point.ranker)]
    figure = plots.new_figure(_WIDTH, 0.4 + 3.4 * len(panels))
    axes = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
    names = plots.short_names([name for name, _ in panels])
    best = table.lines[0]
    for axis, (name, points) in zip(axes, panels, strict=True):
        _panel(axis, table, points, best, theme)
        plots.headline(axis, f"Quality for comparisons: {names[name]}", "whiskers, band: 95 % intervals", theme)
        plots.outer_legend(axis)
    axes[-1].set_xlabel("comparisons an instruction")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _panel(axis: Axes, table: PaperTable, points: Sequence[TradeoffPoint], best: Line, theme: Theme) -> None:
    scale = 100 if table.quality.percent else 1
    plots.point_axis(axis, theme)
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
    """Return the ends of the axis: those of the intervals, with a margin."""
    ends = [scale * end for point in points for end in point.ci95 or (point.quality, point.quality)]
    margin = 0.25 * (max(ends) - min(ends)) or 0.5
    return min(ends) - margin, max(ends) + margin


def _level(
    axis: Axes, value: float, name: str, dashes: tuple[int, int], reach: tuple[float, float], theme: Theme
) -> None:
    """Draw a horizontal line; one far off the strategies is only named, so that they fill the panel."""
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"color": theme.quiet, "linewidth": 1, "dashes": dashes}
    if reach[0] <= value <= reach[1]:
        axis.axhline(value, label=f"{name}: {value:.3g}", **style)
    else:
        axis.add_line(Line2D([], [], label=f"{name}: {value:.3g} (not drawn)", **style))


def _placed(points: Sequence[TradeoffPoint], step: float) -> list[tuple[TradeoffPoint, float]]:
    """Return points with their place on the axis, moved apart where they cost the same."""
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


TIES = (
    "Where k LLMs tie for the best, each gets 1/k of the instruction; GPT-Rank counts\n"
    "all places. So an LLM that is often best, and else bad, can be last in the table."
)
"""Explanation of the picture ``best`` beside the table."""

_NUMBERED = 20  # LLMs up to which a heat map has room for numbers
_WIDTH = 6.4


def plot_table(table: PaperTable, folder: str | Path) -> list[Path]:
    """Draw ``best``, ``wins``, ``lengths`` and, after `with_tradeoff`, ``tradeoff``, each as PNG and SVG.

    Returns:
        The files written.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the folder cannot be written.
    """
    return plots.save_figures(_pictures(table), folder)


def svg_pictures(table: PaperTable, theme: Theme) -> dict[str, str]:
    """Return the plots as SVG texts, by name.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    plots.require_matplotlib()
    import matplotlib

    found = {}
    with matplotlib.rc_context(theme.style):
        for name, draw in _pictures(table).items():
            written = io.StringIO()
            draw(theme).savefig(written, format="svg", metadata={"Date": None})
            found[name] = written.getvalue()
    return found


def _pictures(table: PaperTable) -> dict[str, Callable[[Theme], Figure]]:
    pictures = {"best": _best, "wins": _wins, "tradeoff": _draw_tradeoff, "lengths": _lengths}
    left_out = {name for name in ("tradeoff", "lengths") if not getattr(table, name)}
    return {name: partial(draw, table) for name, draw in pictures.items() if name not in left_out}


def _best(table: PaperTable, theme: Theme) -> Figure:
    """Draw a bar for each LLM: the share of the instructions in which it is best."""
    figure = _bar_figure([best.model for best in table.best], theme)
    (axis,) = figure.axes
    for row, best in enumerate(table.best):
        axis.barh(row, 100 * best.share, height=0.62, color=theme.accents[2])
        plots.draw_whisker(axis, row, best.ci95, theme)
        plots.annotate_share(axis, row, best.share)
    axis.set_xlim(left=0)
    plots.headline(axis, "How often each LLM is best", "ties share the instruction", theme)
    axis.set_xlabel(f"% of the instructions, whiskers are 95 % intervals\n{TIES}", fontsize=8)
    return figure


def _lengths(table: PaperTable, theme: Theme) -> Figure:
    """Draw a dot for each method: how often it prefers the longer answer."""
    names = plots.short_names([bias.method for bias in table.lengths])
    figure = _bar_figure([names[bias.method] for bias in table.lengths], theme)
    (axis,) = figure.axes
    judge = table.lengths[0]
    axis.axvline(50, color=theme.quiet, linewidth=0.8, dashes=(4, 3))
    axis.axvline(100 * judge.rate, color=theme.accents[1], linewidth=1)
    for row, bias in enumerate(table.lengths):
        colour = theme.accents[1] if bias.method == JUDGE else theme.accents[0]
        if bias.ci95 is not None:
            axis.plot([100 * end for end in bias.ci95], [row, row], color=colour, linewidth=1.2)
        axis.plot(100 * bias.rate, row, color=colour, marker="o", markersize=5)
        plots.annotate_share(axis, row, bias.rate)
    plots.headline(axis, "Preference for the longer answer", f"{judge.pairs:,} pairs without a tie by the judge", theme)
    axis.set_xlabel("the longer one is preferred, % of the pairs (line: by the judge; dashed: by chance)")
    axis.margins(x=0.06)
    return figure


def _wins(table: PaperTable, theme: Theme) -> Figure:
    """Draw a heat map of win rates, LLMs by GPT-Rank; numbers are bold where the interval is on one side of 50."""
    from matplotlib.colors import LinearSegmentedColormap

    models = [line.method for line in table.lines if line.kind == "LLM"]
    rates = {(pair.model, pair.other): pair for pair in table.pairs}
    found = np.array([[rates[a, b].rate if (a, b) in rates else np.nan for b in models] for a in models])
    side = 2.6 + (0.36 if len(models) <= _NUMBERED else 0.16) * len(models)
    figure = plots.new_figure(side, side - 0.7)
    axis = figure.subplots()
    # Colour-blind readers can distinguish blue and orange; the middle is the colour of the paper.
    ends = LinearSegmentedColormap.from_list("wins", [theme.accents[1], theme.paper, theme.accents[0]])
    colours = ends.with_extremes(bad=theme.grid)
    reach = 10 * np.ceil(10 * max(0.1, np.nanmax(np.abs(found - 0.5))))
    image = axis.imshow(100 * found, cmap=colours, vmin=50 - reach, vmax=50 + reach)
    if len(models) <= _NUMBERED:
        for (row, column), rate in np.ndenumerate(found):
            if not np.isnan(rate):
                sure = _is_sure(rates[models[row], models[column]].ci95)
                axis.text(
                    column, row, f"{100 * rate:.0f}", ha="center", va="center", fontsize=8,
                    color=_readable_on(image.to_rgba(100 * rate)), fontweight="bold" if sure else "normal",
                )  # fmt: skip
    size = 9 if len(models) <= _NUMBERED else 6
    axis.set_yticks(range(len(models)), models, color=theme.ink, fontsize=size)
    axis.set_xticks(
        range(len(models)), models, color=theme.ink, fontsize=size, rotation=40, ha="right", rotation_mode="anchor"
    )
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    plots.headline(axis, "Win rates", "bold: the 95 % interval is on one side of 50", theme, below=True)
    bar = figure.colorbar(image, ax=axis, shrink=0.6, aspect=24, label="the row wins, % (ties half)")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure


def _bar_figure(names: Sequence[str], theme: Theme) -> Figure:
    figure = plots.new_figure(_WIDTH, 0.9 + 0.27 * len(names))
    plots.bar_axis(figure.subplots(), names, theme)
    return figure


def _is_sure(interval: Interval | None) -> bool:
    return interval is not None and not interval.low <= 0.5 <= interval.high


def _readable_on(colour: Sequence[float] | Any) -> str:
    """Return black or white, whichever has more contrast (relative luminance as in WCAG 2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"
