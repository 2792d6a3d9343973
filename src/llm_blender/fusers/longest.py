"""The fuser that any other must beat: it copies the longest candidate."""

from __future__ import annotations

from collections.abc import Sequence

from llm_blender.types import Fusion, Instruction, OnProgress, OnText

__all__ = ["LongestFuser"]


class LongestFuser:
    """Copies the longest candidate, by characters; of equal ones the first.

    Judges, rankers and metrics that count what a reference says all like long answers: what a fuser gains over this
    one, it gains by more than length.
    """

    name = "longest"

    def fuse_many(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        inputs: Sequence[str] | None = None,
        seed: int = 0,
        progress: OnProgress | None = None,
    ) -> list[Fusion]:
        """One `Fusion` per instruction, which the instruction has no part in."""
        fusions = [self._copy(texts) for texts in candidates]
        if progress is not None and fusions:
            progress(len(fusions), len(fusions))
        return fusions

    async def afuse(
        self,
        instruction: Instruction,
        candidates: Sequence[str],
        *,
        input: str = "",
        seed: int = 0,
        on_text: OnText | None = None,
    ) -> Fusion:
        """`fuse_many` for one instruction."""
        fusion = self._copy(candidates)
        if on_text is not None:
            on_text(fusion.text)
        return fusion

    def _copy(self, candidates: Sequence[str]) -> Fusion:
        place = max(range(len(candidates)), key=lambda i: len(candidates[i]))
        return Fusion(candidates[place].strip(), self.name, (place,))
