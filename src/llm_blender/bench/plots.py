"""Agreement and calibration as pictures; matplotlib is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from llm_blender.bench._drawing import LIGHT, headline, require_matplotlib, save_figure, short_names
from llm_blender.bench.pairs import Agreement
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_agreements", "require_matplotlib"]


def plot_agreements(results: Sequence[Agreement], folder: Path) -> list[Path]:
    """Draw ``agreement`` (bars) and ``reliability`` (promised against kept), each as PNG and SVG.

    Args:
        results: of `agreements`, of one or several files.
        folder: made if it is not there.

    Returns:
        The files written; without a ranker that promises probabilities there is no reliability diagram.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: there are no results, or the folder cannot be written.
    """
    if not results:
        raise InputError("There are no results to draw.")
    require_matplotlib()
    import matplotlib

    with matplotlib.rc_context(LIGHT.style):
        figures = {"agreement": _bars(results)}
        if any(result.bins for result in results):
            figures["reliability"] = _reliability(results)
        return [path for name, figure in figures.items() for path in save_figure(figure, folder / name)]


def _bars(results: Sequence[Agreement]) -> Figure:
    """A panel per file or subset; a bar shows how far a method is from a coin, which has none itself."""
    from matplotlib.figure import Figure

    panels = _panels([result for result in results if result.ci95 is not None])
    heights = [len(panel) + 0.6 for panel in panels]
    figure = Figure(figsize=(6.4, 0.7 + 0.27 * sum(heights) + 0.3 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    colours, names, limits = _colours(results), short_names([result.method for result in results]), _limits(results)
    for axis, panel in zip(axes, panels, strict=True):
        headline(axis, _title(panel[0]), f"{panel[0].pairs:,} pairs", LIGHT)
        axis.grid(axis="x", color=LIGHT.grid, linewidth=0.8)
        axis.axvline(50, color=LIGHT.ink, linewidth=0.8)
        for row, result in enumerate(panel):
            _bar(axis, row, result, colours[result.method])
        axis.set_yticks(range(len(panel)), [names[result.method] for result in panel], color=LIGHT.ink)
        axis.set(xlim=limits, ylim=(len(panel) - 0.4, -0.6), axisbelow=True)
        axis.tick_params(length=0)
        axis.spines[["left", "bottom"]].set_visible(False)
    axes[-1].set_xlabel("agreement with the judges, %. Bars start at a coin's 50; whiskers are 95 % intervals.")
    return figure


def _bar(axis: Axes, row: int, result: Agreement, colour: str) -> None:
    from matplotlib.patheffects import withStroke

    value = 100 * result.accuracy
    axis.barh(row, value - 50, left=50, height=0.62, color=colour)
    ends = [100 * end for end in result.ci95 or ()]
    halo = withStroke(linewidth=3, foreground="white")  # a thin line is lost on a dark bar
    axis.plot(ends, [row] * len(ends), color=LIGHT.ink, linewidth=1, solid_capstyle="butt", path_effects=[halo])
    # All numbers in one column to the right, where no bar or whisker can run into them.
    axis.annotate(
        f"{value:.1f}", (1, row), xycoords=("axes fraction", "data"), xytext=(28, 0), textcoords="offset points",
        va="center", ha="right", annotation_clip=False,
    )  # fmt: skip


def _reliability(results: Sequence[Agreement]) -> Figure:
    """A panel per file and ranker; of subsets none, as their tenths are too few pairs to show anything."""
    from matplotlib.figure import Figure

    drawn = [result for result in results if result.bins and result.subset is None]
    rankers = len({result.method for result in drawn})
    across = min(len(drawn), rankers if rankers > 1 else 3)
    down = -(-len(drawn) // across)
    figure = Figure(figsize=(0.4 + 2.9 * across, 0.4 + 2.9 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    colours, names = _colours(results), short_names([result.method for result in results])
    lowest = 100 * min(part.ci95.low for result in drawn for part in result.bins)
    for place, (axis, result) in enumerate(zip(axes, drawn, strict=False)):
        title = _title(result) if rankers == 1 else f"{names[result.method]}, {_title(result)}"
        base = f"base rate's {result.brier_base_rate:.3f}"
        remark = f"ECE {100 * (result.ece or 0):.1f} %, Brier {result.brier:.3f} ({base})"
        headline(axis, title, remark, LIGHT, below=True)
        axis.set(xlim=(49, 101), ylim=(min(45.0, lowest - 3), 105), xlabel="promised, %")
        _curve(axis, result, colours[result.method])
        axis.tick_params(length=2)
        if place % across == 0:
            axis.set_ylabel("judges agree, % (dashed: as promised)")
    for axis in axes[len(drawn) :]:
        axis.set_visible(False)
    return figure


def _curve(axis: Axes, result: Agreement, colour: str) -> None:
    axis.plot([50, 100], [50, 100], color=LIGHT.quiet, linewidth=0.8, dashes=(4, 3))
    promised = [100 * part.confidence for part in result.bins]
    for x, part in zip(promised, result.bins, strict=True):
        axis.plot([x, x], [100 * end for end in part.ci95], color=colour, linewidth=1, alpha=0.45)
    kept = [100 * part.accuracy for part in result.bins]
    axis.plot(promised, kept, color=colour, linewidth=1.2, marker="o", markersize=4)


def _panels(results: Sequence[Agreement]) -> list[list[Agreement]]:
    return [list(group) for _, group in groupby(results, key=lambda result: (result.file, result.subset))]


def _title(result: Agreement) -> str:
    name = Path(result.file).name.partition(".jsonl")[0].removesuffix(".parquet")
    return name if result.subset is None else f"{name}: {result.subset}"


def _colours(results: Sequence[Agreement]) -> dict[str, str]:
    rankers = dict.fromkeys(result.method for result in results if result.bins)
    colours = {result.method: LIGHT.baseline for result in results}
    return colours | {name: LIGHT.accents[place % len(LIGHT.accents)] for place, name in enumerate(rankers)}


def _limits(results: Sequence[Agreement]) -> tuple[float, float]:
    """Ends of the axis, in percent: whole tens around everything drawn and around a coin's 50."""
    ends = [100 * end for result in results for end in (result.accuracy, *(result.ci95 or ()))] + [45.0, 55.0]
    return 10 * (min(ends) // 10), -10 * (-max(ends) // 10)
