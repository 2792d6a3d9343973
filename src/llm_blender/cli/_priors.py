"""What the commands share that take ``--priors``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from llm_blender.cli._output import note

if TYPE_CHECKING:
    from llm_blender.ranking import Priors

__all__ = ["load_priors", "note_other_ranker", "note_unknown"]


def load_priors(path: Path | None) -> Priors | None:
    """The priors of a file, if one is given."""
    if path is None:
        return None
    from llm_blender.ranking import Priors

    return Priors.load(path)


def note_other_ranker(priors: Priors | None, ranker: str) -> None:
    """Tell where the weight was fitted beside another ranker."""
    if priors is not None and priors.ranker not in (None, ranker):
        note(f"the priors were fitted beside the ranker {priors.ranker}: their weight may not suit {ranker}")


def note_unknown(priors: Priors | None, models: Iterable[str | None]) -> None:
    """Tell which LLMs have no strength and count as the mean."""
    if priors is None:
        return
    named = {model for model in models if model is not None}
    unknown = sorted(named - set(priors.strengths))
    if not named & set(priors.strengths):
        note("the priors know none of the LLMs of these candidates: they change nothing")
    elif unknown:
        note(f"the priors do not know {', '.join(unknown)}: taken to be as good as the mean")
