"""The fuser that any other must beat: it copies the longest candidate."""

from __future__ import annotations

from collections.abc import Sequence

from llm_blender.fusers.selecting import SelectingFuser
from llm_blender.types import Fusion

__all__ = ["LongestFuser"]


class LongestFuser(SelectingFuser):
    """Copies the longest candidate, by characters; of equal ones the first.

    Judges, rankers and metrics that count what a reference says all like long answers: what a fuser gains over this
    one, it gains by more than length.
    """

    name = "longest"

    def select(self, texts: Sequence[str]) -> Fusion:
        """The longest one."""
        place = max(range(len(texts)), key=lambda i: len(texts[i]))
        return Fusion(texts[place].strip(), self.name, (place,))
