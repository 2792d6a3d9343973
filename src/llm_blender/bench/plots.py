"""Plots of agreement and calibration, and what all plots share; matplotlib is an extra."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from llm_blender.bench.report import LIGHT, Theme
from llm_blender.errors import InputError, MissingExtraError
from llm_blender.ranking import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from llm_blender.bench.agreement import Agreement


def require_matplotlib() -> None:
    """Check that matplotlib is installed, before hours of comparisons.

    Raises:
        MissingExtraError: it is not.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("Drawing plots", "plot")


def save_figures(figures: Mapping[str, Callable[[Theme], Figure]], folder: str | Path) -> list[Path]:
    """Draw figures, by name of the file, in the light theme and write each as PNG and SVG.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the folder cannot be written.
    """
    require_matplotlib()
    import matplotlib

    folder, paths = Path(folder), []
    with matplotlib.rc_context(LIGHT.style):
        for name, draw in figures.items():
            figure = draw(LIGHT)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for kind, metadata in (("png", None), ("svg", {"Date": None})):
                    figure.savefig(folder / f"{name}.{kind}", dpi=160, metadata=metadata)
                    paths.append(folder / f"{name}.{kind}")
            except OSError as error:
                raise InputError(f"{folder} cannot hold the plots ({error.strerror or error}).") from error
    return paths


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def bar_axis(axis: Axes, names: Sequence[str], theme: Theme) -> None:
    """Prepare an axis of horizontal bars, one for each name, from top to bottom."""
    axis.grid(axis="x", color=theme.grid, linewidth=0.8)
    axis.set_yticks(range(len(names)), names, color=theme.ink)
    axis.set(ylim=(len(names) - 0.4, -0.6), axisbelow=True)
    axis.tick_params(length=0)
    axis.spines[["left", "bottom"]].set_visible(False)


def point_axis(axis: Axes, theme: Theme) -> None:
    """Prepare an axis of points and lines."""
    axis.grid(axis="y", color=theme.grid, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(length=2)


def outer_legend(axis: Axes) -> None:
    """Write the legend to the right of the axis, once all is drawn."""
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)


def headline(axis: Axes, title: str, remark: str, theme: Theme, *, below: bool = False) -> None:
    """Write a bold title and a quiet remark beside or below it."""
    written = axis.annotate(
        title, (0, 1), xycoords="axes fraction", xytext=(0, 16 if below else 4), textcoords="offset points",
        fontweight="bold", va="bottom",
    )  # fmt: skip
    place, offset = ((0, 1), (0, 5)) if below else ((1, 0), (6, 0))
    axis.annotate(
        remark, place, xycoords="axes fraction" if below else written, xytext=offset, textcoords="offset points",
        fontsize=8, color=theme.quiet, va="bottom",
    )  # fmt: skip


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return names without the folder or owner, unless two would be equal."""
    short = {name: name.rstrip("/").rpartition("/")[2] for name in names}
    twice = {one for one in short.values() if list(short.values()).count(one) > 1}
    return {name: name if one in twice else one for name, one in short.items()}


def draw_whisker(axis: Axes, row: int, interval: Interval | None, theme: Theme) -> None:
    """Draw an interval of shares over a horizontal bar, in percent."""
    from matplotlib.patheffects import withStroke

    if interval is not None:
        halo = withStroke(linewidth=3, foreground=theme.paper)  # a thin line is lost on a dark bar
        ends = [100 * end for end in interval]
        axis.plot(ends, [row, row], color=theme.ink, linewidth=1, solid_capstyle="butt", path_effects=[halo])


def annotate_share(axis: Axes, row: int, share: float) -> None:
    """Write a share in percent in the column to the right, where no bar or whisker can run into it."""
    axis.annotate(
        f"{100 * share:.1f}", (1, row), xycoords=("axes fraction", "data"), xytext=(28, 0), textcoords="offset points",
        va="center", ha="right", annotation_clip=False,
    )  # fmt: skip


def plot_agreements(results: Sequence[Agreement], folder: str | Path) -> list[Path]:
    """Draw ``agreement`` (bars) and ``reliability`` (accuracy by confidence), each as PNG and SVG; return the files.

    The second needs a ranker with probabilities.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: there are no results, or the folder cannot be written.
    """
    if not results:
        raise InputError("There are no results to draw.")
    figures: dict[str, Callable[[Theme], Figure]] = {"agreement": lambda theme: _bars(results, theme)}
    if any(result.bins for result in results):
        figures["reliability"] = lambda theme: _reliability(results, theme)
    return save_figures(figures, folder)


def _bars(results: Sequence[Agreement], theme: Theme) -> Figure:
    """Draw a panel for each file or subset; bars start at 50 %, so that ``random`` needs none."""
    drawn = [result for result in results if result.ci95 is not None]
    panels = [list(group) for _, group in groupby(drawn, key=lambda result: (result.file, result.subset))]
    heights = [len(panel) + 0.6 for panel in panels]
    figure = new_figure(6.4, 0.7 + 0.27 * sum(heights) + 0.3 * len(panels))
    axes = figure.subplots(len(panels), squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    colours, names = _colours(results, theme), short_names([result.method for result in results])
    limits = _limits(results)
    for axis, panel in zip(axes, panels, strict=True):
        headline(axis, _title(panel[0]), f"{panel[0].pairs:,} pairs", theme)
        bar_axis(axis, [names[result.method] for result in panel], theme)
        axis.set_xlim(limits)
        axis.axvline(50, color=theme.ink, linewidth=0.8)
        for row, result in enumerate(panel):
            axis.barh(row, 100 * result.accuracy - 50, left=50, height=0.62, color=colours[result.method])
            draw_whisker(axis, row, result.ci95, theme)
            annotate_share(axis, row, result.accuracy)
    axes[-1].set_xlabel(
        "agreement with the judges, %. Bars start at 50, the agreement by chance; whiskers are 95 % intervals."
    )
    return figure


def _reliability(results: Sequence[Agreement], theme: Theme) -> Figure:
    """Draw a panel for each file and ranker; the bins of a subset hold too few pairs."""
    drawn = [result for result in results if result.bins and result.subset is None]
    rankers = len({result.method for result in drawn})
    across = min(len(drawn), rankers if rankers > 1 else 3)
    down = -(-len(drawn) // across)
    figure = new_figure(0.4 + 2.9 * across, 0.4 + 2.9 * down)
    axes = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    colours, names = _colours(results, theme), short_names([result.method for result in results])
    lowest = 100 * min(part.ci95.low for result in drawn for part in result.bins)
    for place, (axis, result) in enumerate(zip(axes, drawn, strict=False)):
        title = _title(result) if rankers == 1 else f"{names[result.method]}, {_title(result)}"
        base = f"base rate's {result.brier_base_rate:.3f}"
        remark = f"ECE {100 * (result.ece or 0):.1f} %, Brier {result.brier:.3f} ({base})"
        headline(axis, title, remark, theme, below=True)
        axis.set(xlim=(49, 101), ylim=(min(45.0, lowest - 3), 105), xlabel="confidence, %")
        _curve(axis, result, colours[result.method], theme)
        axis.tick_params(length=2)
        if place % across == 0:
            axis.set_ylabel("judges agree, % (dashed: calibrated)")
    for axis in axes[len(drawn) :]:
        axis.set_visible(False)
    return figure


def _curve(axis: Axes, result: Agreement, colour: str, theme: Theme) -> None:
    axis.plot([50, 100], [50, 100], color=theme.quiet, linewidth=0.8, dashes=(4, 3))
    confidence = [100 * part.confidence for part in result.bins]
    for x, part in zip(confidence, result.bins, strict=True):
        axis.plot([x, x], [100 * end for end in part.ci95], color=colour, linewidth=1, alpha=0.45)
    accuracy = [100 * part.accuracy for part in result.bins]
    axis.plot(confidence, accuracy, color=colour, linewidth=1.2, marker="o", markersize=4)


def _title(result: Agreement) -> str:
    name = Path(result.file).name.partition(".jsonl")[0].removesuffix(".parquet")
    return name if result.subset is None else f"{name}: {result.subset}"


def _colours(results: Sequence[Agreement], theme: Theme) -> dict[str, str]:
    rankers = dict.fromkeys(result.method for result in results if result.bins)
    colours = {result.method: theme.baseline for result in results}
    return colours | {name: theme.accents[place % len(theme.accents)] for place, name in enumerate(rankers)}


def _limits(results: Sequence[Agreement]) -> tuple[float, float]:
    """Return the ends of the axis, in percent: whole tens around all values and around 50."""
    ends = [100 * end for result in results for end in (result.accuracy, *(result.ci95 or ()))] + [45.0, 55.0]
    return 10 * (min(ends) // 10), -10 * (-max(ends) // 10)
