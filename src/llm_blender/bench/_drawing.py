"""How the pictures of the benches look, in a light and a dark room, and how they are written."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_blender.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DARK", "LIGHT", "Theme", "headline", "require_matplotlib", "save_figure", "short_names"]


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
