"""EmbeddedFuser: the embedded LLM, through a LoRA adapter, writes the fused answer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from llm_blender._inputs import check_inputs
from llm_blender.calls import run_to_end
from llm_blender.errors import InputError, LLMError
from llm_blender.fusers.embedded_fuser.settings import ADAPTER, TOKENIZER, Settings
from llm_blender.fusers.embedded_fuser.tokenizer import ChatTokenizer
from llm_blender.fusers.flaws import find_flaw
from llm_blender.fusers.gen_fuser.prompts import CausalFormat
from llm_blender.types import Candidate, Fusion, Instruction, OnProgress, OnText, Usage, instruction_text

__all__ = ["AdaptableLLM", "EmbeddedFuser"]


@runtime_checkable
class AdaptableLLM(Protocol):
    """An LLM in this process that can write through a LoRA adapter; `llm_blender.llms.embedded.EmbeddedLLM` is one."""

    @property
    def path(self) -> Path:
        """The model's file."""
        ...

    def adapt(self, adapter: Path) -> None:
        """Load an adapter with the model."""
        ...

    async def complete(
        self, prompt: Sequence[int], *, max_tokens: int, adapter: Path | None = None, on_text: OnText | None = None
    ) -> Candidate:
        """Write on behind a prompt of tokens, always the likeliest token."""
        ...


class EmbeddedFuser:
    """A fuser that runs here without torch: an adapter of the file that may also write the candidates.

    The prompt is `CausalFormat`'s, token for token, with which `GenFuser` writes by the same adapter on torch. One
    model in memory serves both: candidates are written by it as it is, fused answers through the adapter. It writes
    greedily; rows are written one after another, since what else llama.cpp computes meanwhile can turn a close choice.

    Attributes:
        name: of its folder.
        llm: who runs it.
        settings: of the folder.

    Args:
        folder: made by `blend export`.
        llm: an LLM with the base's file.
        name: None is the folder's.

    Raises:
        CheckpointError: a file of the folder is missing or damaged.
        InputError: the LLM has another file.
    """

    def __init__(self, folder: str | os.PathLike[str], llm: AdaptableLLM, *, name: str | None = None) -> None:
        self._folder = Path(folder).expanduser()
        self.name, self.llm = name or os.fspath(folder), llm
        self.settings = Settings.load(self._folder)
        if not self.settings.base.is_file(llm.path):
            raise InputError(
                f"The fuser {self.name} is an adapter of {self.settings.base.model}, and {llm.path} is another file: "
                "make one for it by `blend export --base`."
            )
        self._adapter = (self._folder / ADAPTER).absolute()
        llm.adapt(self._adapter)

    @classmethod
    def load(
        cls,
        folder: Path,
        llms: Iterable[object],
        run: Callable[[str], AdaptableLLM] | None,
        *,
        name: str | None = None,
    ) -> Self:
        """With the first of the LLMs that runs the base's file, or one of its own.

        Args:
            folder: made by `blend export`.
            llms: some of which may be embedded.
            run: from the name of a model to an LLM that runs it; None makes none.
            name: None is the folder's.

        Raises:
            CheckpointError: a file of the folder is missing or damaged.
            InputError: nobody runs the base, or `run` made an LLM of another file.
        """
        base = Settings.load(folder).base
        able = (llm for llm in llms if isinstance(llm, AdaptableLLM))
        llm = next((llm for llm in able if llm.path.stat().st_size == base.size), None)
        if llm is None:
            if run is None:
                raise InputError(f"The fuser {name or folder} needs an embedded LLM of {base.model}: give one in llms.")
            llm = run(base.model)
        return cls(folder, llm, name=name)

    @cached_property
    def prompts(self) -> CausalFormat:
        """How it reads instruction and candidates."""
        return CausalFormat(
            ChatTokenizer(self._folder / TOKENIZER, self.settings.chat),
            max_length=self.settings.max_length,
            candidate_max_length=self.settings.candidate_max_length,
        )

    def fuse(self, instruction: Instruction, candidates: Sequence[str], *, input: str = "", seed: int = 0) -> Fusion:
        """Fuse the candidates of one instruction; see `afuse`. Works inside a notebook, too."""
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
            inputs: MixInstruct's second field, one for each; None has none.
            seed: of no effect.
            progress: called with the rows done and all of them.

        Raises:
            InputError: the lists differ in length, an instruction has no candidates, a text is no text.
            LLMError: llama.cpp cannot run the model or the adapter.
        """
        check_inputs(instructions, candidates)
        extra = [""] * len(instructions) if inputs is None else list(inputs)
        if len(extra) != len(instructions):
            raise InputError(f"{len(instructions)} instructions need as many inputs, not {len(extra)}.")

        async def write() -> list[Fusion]:
            fusions = []
            for instruction, texts, given in zip(instructions, candidates, extra, strict=True):
                fusions.append(await self.afuse(instruction, texts, input=given))
                if progress is not None:
                    progress(len(fusions), len(instructions))
            return fusions

        return run_to_end(write)

    async def afuse(
        self,
        instruction: Instruction,
        candidates: Sequence[str],
        *,
        input: str = "",
        seed: int = 0,
        on_text: OnText | None = None,
    ) -> Fusion:
        """Fuse the candidates of one instruction; cancelling ends the writing.

        Args:
            instruction: a prompt or a conversation.
            candidates: texts, best first.
            input: MixInstruct's second field.
            seed: of no effect.
            on_text: gets the answer as it comes, in the event loop.

        Raises:
            InputError: there are no candidates, or a text is no text.
            LLMError: llama.cpp cannot run the model or the adapter.
        """
        check_inputs([instruction], [candidates])
        started = time.perf_counter()
        prompt = self.prompts.prompt(instruction, input, candidates)
        if prompt is None:
            error = f"the prompt holds at most {self.settings.max_length} tokens: no room for two candidates"
            return Fusion("", self.name, flaw="too_small", error=error, truncated=1.0)
        try:
            written = await self.llm.complete(
                prompt.ids, max_tokens=self.settings.max_new_tokens, adapter=self._adapter, on_text=on_text
            )
        except LLMError as error:
            if error.reason != "empty":
                raise
            written = Candidate("")
        return Fusion(
            text=written.text,
            fuser=self.name,
            used=prompt.used,
            truncated=prompt.truncated,
            flaw=find_flaw(written.text, instruction_text(instruction, input), candidates, prompt.marks),
            usage=written.usage or Usage(len(prompt.ids)),
            seconds=time.perf_counter() - started,
        )
