"""PairRanker: reads an instruction with two candidates at a time and says which is better."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError
from llm_blender.rankers.pair_ranker.backends import Backend, OnnxBackend, TorchBackend
from llm_blender.rankers.pair_ranker.batching import token_batches
from llm_blender.rankers.pair_ranker.checkpoint import BUNDLED, copy_checkpoint, find_checkpoint, onnx_file
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import OVERHEAD, InputFormat, PairBatch, PairSequence
from llm_blender.ranking import DEFAULT_BUDGET, DEFAULT_TOP_K, Advance, Pool, rank_with
from llm_blender.types import Comparison, Instruction, OnProgress, Ranking, instruction_text

__all__ = ["PairRanker"]

_CHUNK = 8_192  # pairs that are put together as token lists at a time: bounds memory, keeps lengths alike
_MAX_TOKENS = 2_048  # of a batch on a CPU: larger ones pad more (benchmarks/ranker_speed.py)


class PairRanker:
    """Compares candidates in pairs with a small cross-encoder (arXiv 2306.02561, section 3).

    Args:
        backend: runs the model.
        input_format: puts texts together as the model reads them.
        folder: the checkpoint that both come from.
        max_tokens: of a batch, padding included; more suits an accelerator.

    Example:
        >>> ranker = PairRanker.from_pretrained()
        >>> ranker.rank("Why is the sky blue?", ["Blue light scatters most.", "Because."]).best
        0
    """

    def __init__(
        self, backend: Backend, input_format: InputFormat, folder: Path, *, max_tokens: int = _MAX_TOKENS
    ) -> None:
        self.backend, self.input_format, self.folder = backend, input_format, folder
        self.config: PairRankerConfig = input_format.config
        self.max_tokens = max_tokens

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] = BUNDLED,
        *,
        backend: Literal["onnx", "torch"] = "onnx",
        precision: Literal["int8", "fp32"] = "int8",
        device: Any = None,
        dtype: str = "float32",
        threads: int | None = None,
        revision: str | None = None,
        max_tokens: int = _MAX_TOKENS,
    ) -> Self:
        """Load a checkpoint.

        Args:
            name: ``bundled``, a folder, or a Hub repository.
            backend: ``onnx`` (the core) or ``torch`` (the extra; accelerators).
            precision: of the ``onnx`` backend.
            device: of the ``torch`` backend: ``cpu``, ``cuda``, ``mps``, …; None picks.
            dtype: of the ``torch`` backend: ``float32``, ``bfloat16``, ``float16``.
            threads: of the ``onnx`` backend; None takes the processors this process may use.
            revision: on the Hub.
            max_tokens: of a batch.

        Raises:
            NotFoundError: there is no such checkpoint; the message says where it was looked for.
            CheckpointError: it is not a PairRanker, or lacks what the backend needs.
            MissingExtraError: ``torch`` is not installed.
        """
        folder = find_checkpoint(name, revision)
        config = PairRankerConfig.load(folder)
        runner: Backend
        if backend == "onnx":
            runner = OnnxBackend(onnx_file(folder, precision), threads=threads)
        elif backend == "torch":
            runner = TorchBackend(folder, config, device=device, dtype=dtype)
        else:
            raise InputError(f"Unknown backend {backend!r}: onnx or torch.")
        return cls(runner, InputFormat.load(folder, config), folder, max_tokens=max_tokens)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Copy the checkpoint to a folder that `from_pretrained` reads."""
        copy_checkpoint(self.folder, Path(folder))

    def rank(
        self,
        instruction: Instruction,
        candidates: Sequence[str],
        *,
        strategy: str = "auto",
        seed: int = 0,
        budget: int = DEFAULT_BUDGET,
        k: int = DEFAULT_TOP_K,
        progress: OnProgress | None = None,
    ) -> Ranking:
        """Rank the candidates of one instruction; see `rank_many`."""
        (ranking,) = self.rank_many(
            [instruction], [candidates], strategy=strategy, seed=seed, budget=budget, k=k, progress=progress
        )
        return ranking

    def rank_many(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        strategy: str = "auto",
        seed: int = 0,
        budget: int = DEFAULT_BUDGET,
        k: int = DEFAULT_TOP_K,
        progress: OnProgress | None = None,
    ) -> list[Ranking]:
        """Rank the candidates of many instructions, with all their comparisons batched together.

        Args:
            instructions: prompts or conversations.
            candidates: texts of each; lists may differ in length.
            strategy: one of `llm_blender.ranking.STRATEGIES`.
            seed: of the strategies.
            budget: comparisons per instruction for ``auto`` and ``active``.
            k: how many ``top_k`` puts in order.
            progress: called with comparisons done and expected.

        Raises:
            InputError: the lists differ in length, an instruction has no candidates, a text is no text.
        """
        texts = _Texts(self.input_format, instructions, candidates)
        rankings = rank_with(
            candidates,
            lambda pool, advance: self._logits(texts, pool, advance),
            strategy=strategy,
            seed=seed,
            budget=budget,
            k=k,
            temperature=self.config.temperature,
            progress=progress,
        )
        return [texts.note_truncation(i, ranking) for i, ranking in enumerate(rankings)]

    def compare(self, instruction: Instruction, a: str, b: str) -> Comparison:
        """Candidate `a` against candidate `b`, in both orders."""
        ranking = self.rank(instruction, [a, b], strategy="full")
        forward, backward = (0.0, 0.0) if a == b else (ranking.logits[0, 1], ranking.logits[1, 0])
        return Comparison.from_logits(float(forward), float(backward), self.config.temperature)

    def _logits(self, texts: _Texts, pool: Pool, advance: Advance) -> NDArray[np.float64]:
        """The logits of a pool of ordered pairs, whatever their number and order."""
        lengths = np.array([texts.length(*pair) for pair in pool])
        by_length = np.argsort(-lengths, kind="stable")
        logits = np.empty(len(pool))
        for start in range(0, len(pool), _CHUNK):
            chunk = by_length[start : start + _CHUNK]
            for batch in token_batches(lengths[chunk].tolist(), self.max_tokens):
                rows = chunk[batch]
                sequences = [texts.sequence(*pool[row]) for row in rows]
                padded = PairBatch.pad(sequences, self.input_format.pad_id)
                logits[rows] = self.backend(padded).mean(axis=-1)
                advance(len(rows))
        return logits


class _Texts:
    """The texts of a call as token ids, each tokenised once and fitted to its room."""

    def __init__(
        self,
        input_format: InputFormat,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
    ) -> None:
        if len(instructions) != len(candidates):
            raise InputError(
                f"{len(instructions)} instructions need as many lists of candidates, not {len(candidates)}."
            )
        self._format = input_format
        prompts = [instruction_text(instruction) for instruction in instructions]
        for i, texts in enumerate(candidates):
            if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
                raise InputError(f"The candidates of instruction {i} must be a list of texts.")
        unique = list(dict.fromkeys([*prompts, *(text for texts in candidates for text in texts)]))
        ids = dict(zip(unique, input_format.tokenize(unique), strict=True))
        self._sources = [input_format.fit_source(ids[prompt]) for prompt in prompts]
        self._candidates = [
            [input_format.fit_candidate(ids[text], len(source)) for text in texts]
            for source, texts in zip(self._sources, candidates, strict=True)
        ]
        whole = [
            len(ids[prompt]) + sum(len(ids[t]) for t in texts)
            for prompt, texts in zip(prompts, candidates, strict=True)
        ]
        read = [
            len(source) + sum(map(len, texts)) for source, texts in zip(self._sources, self._candidates, strict=True)
        ]
        self._truncated = [1 - r / w if w else 0.0 for r, w in zip(read, whole, strict=True)]

    def length(self, prompt: int, left: int, right: int) -> int:
        texts = self._candidates[prompt]
        return OVERHEAD + len(self._sources[prompt]) + len(texts[left]) + len(texts[right])

    def sequence(self, prompt: int, left: int, right: int) -> PairSequence:
        texts = self._candidates[prompt]
        return self._format.join(self._sources[prompt], texts[left], texts[right])

    def note_truncation(self, prompt: int, ranking: Ranking) -> Ranking:
        return dataclasses.replace(ranking, truncated=self._truncated[prompt])
