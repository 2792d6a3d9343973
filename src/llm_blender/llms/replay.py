"""An LLM that returns recorded answers of another one, from a file of rows."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_blender._hub import file_sha256
from llm_blender.conversations import prompt_key
from llm_blender.errors import InputError, LLMError, NotFoundError
from llm_blender.types import Candidate, Message, OnText, Sampling, Usage, instruction_text

_SAMPLING = Sampling()


class ReplayLLM:
    """Recorded answers of a model, by prompt, at no cost.

    A prompt is found by its text (instruction and input, without white space at the ends). Sample k is the model's
    k-th candidate of that prompt. Temperature and seed have no effect.

    Attributes:
        name: its name in the ensemble.
        path: the file of rows.
        model: name of the recorded model; None is any.

    Args:
        name: see above.
        path: JSON Lines (``.gz``, ``.zst``) in MixInstruct's format; read with the first use.
        model: its name in the rows; None takes the candidates of all models, in the order of the row.

    Raises:
        NotFoundError: the file does not exist.
    """

    def __init__(self, name: str, path: str | Path, model: str | None = None) -> None:
        self.name, self.path, self.model = name, Path(path), model
        if not self.path.is_file():
            raise NotFoundError(f"{name}: there is no file {self.path.absolute()} of recorded answers.")
        self._lock = threading.Lock()
        self._digest: str | None = None
        self._answers: dict[bytes, list[Candidate]] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {str(self.path)!r}, {self.model!r})"

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that its answers depend on, apart from messages and sampling; part of `call_key`."""
        with self._lock:
            if self._digest is None:
                self._digest = file_sha256(self.path)
        return {"provider": "replay", "rows_sha256": self._digest, "model": self.model}

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float:
        """Return 0: recorded answers cost nothing."""
        return 0.0

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        """Return the recorded answer; `on_text` gets it in one piece.

        Raises:
            LLMError: there is no recorded answer for this prompt, or for this sample.
            InputError: the file cannot be read, or holds no candidate of the model.
        """
        known = self._load().get(_key(instruction_text(list(messages))), [])
        if sampling.sample >= len(known):
            found = f"holds {len(known)} answers" if known else "holds no answer"
            by = f" by {self.model}" if self.model else ""
            raise LLMError(self.name, "not_found", f"{self.path} {found}{by} to this prompt; sample {sampling.sample}")
        answer = known[sampling.sample]
        if on_text is not None:
            on_text(answer.text)
        return answer

    def _load(self) -> dict[bytes, list[Candidate]]:
        with self._lock:
            if self._answers is None:
                self._answers = self._read()
            return self._answers

    def _read(self) -> dict[bytes, list[Candidate]]:
        answers: dict[bytes, list[Candidate]] = {}
        models: dict[str, None] = {}
        for number, line in enumerate(self._lines(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                prompt = instruction_text(row[prompt_key(row, "instruction") or "instruction"], row.get("input") or "")
                candidates = row.get("candidates") or []
                for candidate in candidates:
                    values = {"text": candidate} if isinstance(candidate, str) else candidate
                    models[str(values.get("model"))] = None
                    if self.model is None or values.get("model") == self.model:
                        answers.setdefault(_key(prompt), []).append(self._candidate(values))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise InputError(
                    f"{self.path}, line {number}: this is no row of recorded answers ({type(error).__name__}: {error})."
                ) from None
        if not answers:
            raise InputError(
                f"{self.path} holds no answer by {self.model!r}; its models: {', '.join(models) or 'none'}."
            )
        return answers

    def _candidate(self, values: Mapping[str, Any]) -> Candidate:
        if not isinstance(values["text"], str):
            raise TypeError("`text` is no text")
        usage = values.get("usage")
        return Candidate(
            values["text"],
            model=self.name,
            usage=Usage.from_dict(usage) if isinstance(usage, Mapping) else None,
            cost=0.0,
            finish_reason="stop",
        )

    def _lines(self) -> Iterator[bytes]:
        try:
            if self.path.suffix == ".gz":
                with gzip.open(self.path) as lines:
                    yield from lines
            elif self.path.suffix == ".zst":
                import zstandard

                with self.path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as reader:
                    yield from io.BufferedReader(reader)
            else:
                with self.path.open("rb") as lines:
                    yield from lines
        except (OSError, EOFError) as error:
            raise InputError(f"{self.path} cannot be read: {error}.") from error


def _key(prompt: str) -> bytes:
    return hashlib.blake2b(prompt.strip().encode("utf-8", "replace"), digest_size=16).digest()
