"""Agreement and calibration as pictures; matplotlib is an extra."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_blender.bench.agreement import Agreement
from llm_blender.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DARK", "LIGHT", "Theme", "headline", "plot_agreements", "require_matplotlib", "save_figure", "short_names"]


@dataclass(frozen=True)
class Theme:
    """Colours of a picture.

    Attributes:
        ink: of text and lines.
        quiet: of what stands back.
        grid: of lines behind everything.
        paper: behind the picture.
        baseline: of what is no ranker.
        accents: of rankers; they stay apart in greyscale and for the colour-blind.
    """

    ink: str
    quiet: str
    grid: str
    paper: str
    baseline: str
    accents: tuple[str, ...]

    @property
    def style(self) -> dict[Any, Any]:
        """Settings for ``matplotlib.rc_context``."""
        return {
            "font.family": "sans-serif",
            "font.size": 9,
            "text.color": self.ink,
            "axes.labelcolor": self.ink,
            "axes.edgecolor": self.quiet,
            "axes.facecolor": self.paper,
            "figure.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": self.quiet,
            "ytick.color": self.quiet,
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": "llm-blender",  # the same results, the same bytes
        }


# Dark to light (on a dark paper light to dark); baselines stand back behind any ranker.
LIGHT = Theme(
    ink="#222222",
    quiet="#777777",
    grid="#eeeeee",
    paper="#ffffff",
    baseline="#d4d4d4",
    accents=("#1b3a5c", "#a3431f", "#4f9f94", "#b08cc4", "#c4b24a"),
)
DARK = Theme(
    ink="#e8e8e8",
    quiet="#9a9a9a",
    grid="#333333",
    paper="#1c1c1e",
    baseline="#5a5a5a",
    accents=("#a9cbf0", "#e8865a", "#5fb3a6", "#a67fbf", "#b5a23a"),
)


def require_matplotlib() -> None:
    """For who wants to know before hours of comparisons.

    Raises:
        MissingExtraError: it is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("Drawing plots", "plot")


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write it as PNG and SVG.

    Raises:
        InputError: the folder cannot be written.
    """
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, dpi=160, metadata=metadata)
    except OSError as error:
        raise InputError(f"{stem.parent} cannot hold the plots ({error.strerror or error}).") from error
    return paths


def headline(axis: Axes, title: str, remark: str, theme: Theme, *, below: bool = False) -> None:
    """A bold title and a quiet remark, beside or below it."""
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
    """Methods without the folder or owner before their name, unless two would be called the same."""
    short = {name: name.rstrip("/").rpartition("/")[2] for name in names}
    twice = {one for one in short.values() if list(short.values()).count(one) > 1}
    return {name: name if one in twice else one for name, one in short.items()}


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
