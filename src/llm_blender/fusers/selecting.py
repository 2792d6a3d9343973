"""What fusers share that write nothing of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from llm_blender._inputs import check_inputs
from llm_blender.errors import InputError
from llm_blender.types import Fusion, Instruction, OnProgress, OnText

__all__ = ["SelectingFuser"]


class SelectingFuser(ABC):
    """Makes its text of the candidates' alone: instruction, input and seed are of no effect."""

    @abstractmethod
    def select(self, texts: Sequence[str]) -> Fusion:
        """What is made of candidates, best first; at least one."""

    def fuse(self, instruction: Instruction, candidates: Sequence[str], *, input: str = "", seed: int = 0) -> Fusion:
        """Fuse the candidates of one instruction, best first."""
        (fusion,) = self.fuse_many([instruction], [candidates])
        return fusion

    def fuse_many(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        inputs: Sequence[str] | None = None,
        seed: int = 0,
        progress: OnProgress | None = None,
    ) -> list[Fusion]:
        """One `Fusion` per instruction.

        Args:
            instructions: as many as there are lists of candidates.
            candidates: texts of each, best first; lists may differ in length.
            inputs: of no effect.
            seed: of no effect.
            progress: called with the rows done and all of them.

        Raises:
            InputError: the lists differ in length, an instruction has no candidates, a text is no text.
        """
        check_inputs(instructions, candidates)
        if inputs is not None and len(inputs) != len(instructions):
            raise InputError(f"{len(instructions)} instructions need as many inputs, not {len(inputs)}.")
        fusions = []
        for texts in candidates:
            fusions.append(self.select(list(texts)))
            if progress is not None:
                progress(len(fusions), len(candidates))
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
        """`fuse` in an event loop; `on_text` gets the text in one piece."""
        fusion = self.fuse(instruction, candidates)
        if on_text is not None:
            on_text(fusion.text)
        return fusion
