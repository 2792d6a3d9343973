"""EmbeddedFuser: the embedded LLM writes the fused answer through a LoRA adapter, run by llama.cpp."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict

from llm_blender._hub import file_sha256
from llm_blender.errors import CheckpointError, InputError, LLMError
from llm_blender.fusers.base import BaseFuser, Row
from llm_blender.fusers.gen_fuser.prompts import SETTINGS, CausalFormat, Lengths
from llm_blender.fusers.texts import find_flaw
from llm_blender.types import Candidate, Fusion, OnText, Usage

ADAPTER, TOKENIZER = "adapter.gguf", "tokenizer.json"


class Base(BaseModel):
    """The GGUF file that an adapter adapts.

    Attributes:
        model: name of the embedded model, or path of its file.
        size: of the file, in bytes.
        sha256: of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    size: int
    sha256: str

    @classmethod
    def of(cls, model: str, path: Path) -> Self:
        """Describe the file of a model."""
        return cls(model=model, size=path.stat().st_size, sha256=file_sha256(path))

    def is_file(self, path: Path) -> bool:
        """Return whether a file has this size and sha256."""
        return path.stat().st_size == self.size and file_sha256(path) == self.sha256


class Settings(Lengths):
    """Settings of an embedded fuser, stored in ``fuser.json``.

    Attributes:
        base: file that the adapter adapts.
        chat: text of the base's chat template before and after the user's message; None if it has no template.
        format_version: of the folder.
    """

    base: Base
    chat: tuple[str, str] | None
    format_version: Literal[1] = 1

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the settings from the folder of a fuser.

        Raises:
            CheckpointError: a file is missing, or ``fuser.json`` is invalid.
        """
        for name in (SETTINGS, ADAPTER, TOKENIZER):
            if not (folder / name).is_file():
                raise CheckpointError(
                    f"{folder} is no embedded fuser: it lacks {name}. Make one with `blend export ADAPTER DIR`."
                )
        return super().load(folder)


class ChatTokenizer:
    """A tokenizer for `CausalFormat` without transformers; the tokens are the same.

    Args:
        file: a ``tokenizer.json``.
        chat: text of the chat template before and after the user's message; None without a template.

    Raises:
        CheckpointError: the file is damaged.
    """

    def __init__(self, file: Path, chat: tuple[str, str] | None) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises no class of its own
            raise CheckpointError(f"{file} is no tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.added_tokens_decoder = self._tokenizer.get_added_tokens_decoder()
        self.chat_template = chat

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, return_offsets_mapping: bool = False
    ) -> dict[str, Any]:
        """Tokenise a text; return ids and character offsets."""
        encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": encoding.ids, "offset_mapping": encoding.offsets}

    def apply_chat_template(self, conversation: Sequence[Mapping[str, str]], **options: Any) -> str:
        """Render the only message of a conversation, with the beginning of the answer."""
        (message,) = conversation
        before, after = self.chat_template or ("", "")
        return f"{before}{message['content']}{after}"


@runtime_checkable
class AdaptableLLM(Protocol):
    """An LLM in this process that can write through a LoRA adapter, such as `llm_blender.llms.embedded.EmbeddedLLM`."""

    @property
    def path(self) -> Path:
        """File of the model."""
        ...

    def adapt(self, adapter: Path) -> None:
        """Load an adapter with the model."""
        ...

    async def complete(
        self, prompt: Sequence[int], *, max_tokens: int, adapter: Path | None = None, on_text: OnText | None = None
    ) -> Candidate:
        """Continue a prompt of tokens greedily."""
        ...


class EmbeddedFuser(BaseFuser):
    """A fuser that runs in this process without torch: a LoRA adapter of an embedded LLM, which may write candidates.

    The prompt is `CausalFormat`'s, token for token the same as that of `GenFuser` with the same adapter on torch. One
    model in memory writes both: candidates without, fused answers with the adapter. It writes greedily, one row after
    another, since other work in the same llama.cpp batch can tip a close choice between tokens.

    Attributes:
        name: of the fuser.
        llm: runs model and adapter.
        settings: of the folder.

    Args:
        folder: made by `blend export`.
        llm: an LLM with the base's file.
        name: of the fuser; None takes the folder's.

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
                "make one for it with `blend export --base`."
            )
        self._adapter = (self._folder / ADAPTER).absolute()
        llm.adapt(self._adapter)

    @classmethod
    def load(
        cls, folder: Path, llms: Iterable[object], run: Callable[[str], AdaptableLLM] | None, *, name: str | None = None
    ) -> Self:
        """Load a fuser with the first of the LLMs that runs the base's file, or with a new LLM.

        Args:
            folder: made by `blend export`.
            llms: LLMs of any kind.
            run: makes an LLM from the name of a model; None makes none.
            name: of the fuser; None takes the folder's.

        Raises:
            CheckpointError: a file of the folder is missing or damaged.
            InputError: no LLM runs the base, or `run` made an LLM of another file.
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
        """The prompt format, by the tokenizer of the folder."""
        return CausalFormat(
            ChatTokenizer(self._folder / TOKENIZER, self.settings.chat),
            max_length=self.settings.max_length,
            candidate_max_length=self.settings.candidate_max_length,
        )

    async def _fuse(self, row: Row, seed: int, on_text: OnText | None) -> Fusion:
        started = time.perf_counter()
        prompt = self.prompts.prompt(row.instruction, row.input, row.candidates)
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
            flaw=find_flaw(written.text, row.prompt, row.candidates, prompt.marks, cut_off=written.cut_off),
            usage=written.usage or Usage(len(prompt.ids)),
            seconds=time.perf_counter() - started,
        )
