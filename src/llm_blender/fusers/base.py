"""The base class of fusers: a subclass writes the fusion of one row and inherits the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from llm_blender._inputs import check_inputs
from llm_blender.calls import run_to_end
from llm_blender.errors import InputError
from llm_blender.types import Fusion, Instruction, OnProgress, OnText, instruction_text, with_input


@dataclass(frozen=True)
class Row:
    """Input of one fusion.

    Attributes:
        instruction: a prompt or a conversation.
        candidates: texts, best first; at least one.
        input: MixInstruct's second field; often empty.
    """

    instruction: Instruction
    candidates: Sequence[str]
    input: str = ""

    @property
    def prompt(self) -> str:
        """Instruction and input as one text."""
        return instruction_text(self.instruction, self.input)

    @property
    def full_instruction(self) -> Instruction:
        """Instruction and input, which a ranker reads; a conversation without an input stays one."""
        return with_input(self.instruction, self.input)


def fuser_rows(
    instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]], inputs: Sequence[str] | None = None
) -> list[Row]:
    """Check the input of a fuser and return it row by row.

    Args:
        instructions: prompts or conversations.
        candidates: texts of each.
        inputs: MixInstruct's second field of each; None leaves it empty.

    Raises:
        InputError: the lists differ in length, an instruction has no candidates, or a candidate is not a text.
    """
    check_inputs(instructions, candidates)
    extra = [""] * len(instructions) if inputs is None else list(inputs)
    if len(extra) != len(instructions):
        raise InputError(f"{len(instructions)} instructions need as many inputs, not {len(extra)}.")
    return [Row(*row) for row in zip(instructions, candidates, extra, strict=True)]


class BaseFuser(ABC):
    """A fuser. A subclass implements `_fuse`; one that can fuse several rows at a time overrides `_fuse_rows`, too.

    Attributes:
        name: of the fuser, for answers and rows.
    """

    name: str

    @abstractmethod
    async def _fuse(self, row: Row, seed: int, on_text: OnText | None) -> Fusion:
        """Fuse one checked row."""

    async def _fuse_rows(self, rows: Sequence[Row], seed: int, progress: OnProgress | None) -> list[Fusion]:
        """Fuse checked rows, one after another."""
        fusions: list[Fusion] = []
        for row in rows:
            fusions.append(await self._fuse(row, seed, None))
            if progress is not None:
                progress(len(fusions), len(rows))
        return fusions

    def fuse(self, instruction: Instruction, candidates: Sequence[str], *, input: str = "", seed: int = 0) -> Fusion:
        """Fuse the candidates of one instruction; see `afuse`. Also works inside a running event loop (a notebook)."""
        return run_to_end(lambda: self.afuse(instruction, candidates, input=input, seed=seed))

    def fuse_many(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        inputs: Sequence[str] | None = None,
        seed: int = 0,
        progress: OnProgress | None = None,
    ) -> list[Fusion]:
        """Fuse the candidates of many instructions.

        Args:
            instructions: prompts or conversations.
            candidates: texts of each, best first; lists may differ in length.
            inputs: MixInstruct's second field of each; None leaves it empty.
            seed: of random choices; fusers that make none ignore it.
            progress: called with the number of finished rows and of all rows.

        Returns:
            One fusion per instruction; one that an LLM refused or answered unreadably has the flaw ``failed``.

        Raises:
            InputError: the lists differ in length, an instruction has no candidates, or a candidate is not a text.
            LLMError: the LLM cannot be reached or run, or refuses every row. Answers received before are in the store
                of a fuser that has one.
        """
        rows = fuser_rows(instructions, candidates, inputs)
        return run_to_end(lambda: self._fuse_rows(rows, seed, progress))

    async def afuse(
        self,
        instruction: Instruction,
        candidates: Sequence[str],
        *,
        input: str = "",
        seed: int = 0,
        on_text: OnText | None = None,
    ) -> Fusion:
        """Fuse the candidates of one instruction; cancelling stops the writing.

        Args:
            instruction: a prompt or a conversation.
            candidates: texts, best first.
            input: MixInstruct's second field.
            seed: of random choices; fusers that make none ignore it.
            on_text: called with each piece of the answer, in the event loop; with the whole answer at once if the
                fuser cannot stream.

        Raises:
            InputError: there are no candidates, or one is not a text.
            LLMError: the LLM gives no answer.
            WorkError: the device has too little memory for the model.
        """
        (row,) = fuser_rows([instruction], [candidates], [input])
        return await self._fuse(row, seed, on_text)
