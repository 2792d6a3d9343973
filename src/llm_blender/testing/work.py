"""Counted work of a ranker's model, and texts with the lengths of chat answers to count it on."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np

Part = Literal["read", "compare", "pairs"]
"""What a batch computes: states of texts, comparisons of their states, or sequences that hold both candidates."""


@dataclass(frozen=True)
class CountedBatch:
    """A batch that a model has computed.

    Attributes:
        part: what it computes.
        lengths: tokens of each row, without padding; in a ``compare`` batch of P pairs, those of the P left candidates,
            then those of the P right ones.
        widths: tokens of each row, padding included.
        seconds: taken by the backend, on the clock of its `CountingBackend`.
    """

    part: Part
    lengths: tuple[int, ...]
    widths: tuple[int, ...]
    seconds: float = 0.0

    @property
    def pairs(self) -> int:
        """Number of pairs compared."""
        return {"read": 0, "compare": len(self.lengths) // 2, "pairs": len(self.lengths)}[self.part]


@dataclass(frozen=True)
class Work:
    """Sum of what some batches compute; it depends on the input and not on the machine.

    Attributes:
        batches: number of calls of the model.
        rows: number of sequences in them.
        pairs: number of pairs compared.
        tokens: of all rows, without padding.
        computed: tokens, padding included.
        layer_sequences: rows, each times the number of layers that it passes through.
    """

    batches: int
    rows: int
    pairs: int
    tokens: int
    computed: int
    layer_sequences: int

    @classmethod
    def of(cls, batches: Iterable[CountedBatch], layers: int) -> Self:
        """Add up the batches of one part of a model, which has so many layers."""
        counted = list(batches)
        rows = sum(len(batch.lengths) for batch in counted)
        return cls(
            batches=len(counted),
            rows=rows,
            pairs=sum(batch.pairs for batch in counted),
            tokens=sum(sum(batch.lengths) for batch in counted),
            computed=sum(sum(batch.widths) for batch in counted),
            layer_sequences=rows * layers,
        )


class CountingBackend:
    """Backend of a PairRanker that counts the batches which it passes on to another; other attributes are the other's.

    Args:
        backend: what computes: `llm_blender.rankers.pair_ranker.backends.Backend` or
            `llm_blender.rankers.pair_ranker.late.LateBackend`.
        clock: for the seconds of a batch.

    Attributes:
        batches: all batches so far.
    """

    def __init__(self, backend: Any, clock: Callable[[], float] = time.perf_counter) -> None:
        self.backend, self._clock = backend, clock
        self.batches: list[CountedBatch] = []

    def __call__(self, batch: Any) -> Any:
        """Return the logits of a `PairBatch`."""
        result, seconds = self._timed(lambda pairs: np.asarray(self.backend(pairs)), batch)
        self._add("pairs", batch.attention_mask.sum(axis=-1).tolist(), True, seconds)
        return result

    def read(self, sequences: Sequence[Any], *device: int) -> Any:
        """Return what the reading layers compute for sequences; on CUDA, the seconds are those of beginning it."""
        result, seconds = self._timed(lambda texts: self.backend.read(texts, *device), sequences)
        self._add("read", list(map(len, sequences)), not self.backend.singly, seconds)
        return result

    def compare(self, pairs: Sequence[tuple[Any, Any]], *device: int) -> Any:
        """Return the logits of pairs of texts that were read."""
        result, seconds = self._timed(lambda texts: np.asarray(self.backend.compare(texts, *device)), pairs)
        lengths = [len(text.sequence) for side in zip(*pairs, strict=True) for text in side]
        self._add("compare", lengths, not self.backend.singly, seconds)
        return result

    def _timed(self, run: Callable[[Any], Any], batch: Any) -> tuple[Any, float]:
        started = self._clock()
        return run(batch), self._clock() - started

    def _add(self, part: Part, lengths: list[int], padded: bool, seconds: float) -> None:
        widths = [max(lengths)] * len(lengths) if padded else lengths
        self.batches.append(CountedBatch(part, tuple(lengths), tuple(widths), seconds))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


class _Countable(Protocol):
    backend: Any
    config: Any


def layers_of(config: Any) -> dict[Part, int]:
    """Return the number of encoder layers of each part of a model, by its `PairRankerConfig`."""
    total, alone = int(config.backbone["num_hidden_layers"]), int(config.alone_layers)
    return {"read": alone, "compare": total - alone} if alone else {"pairs": total}


def work_of(batches: Iterable[CountedBatch], config: Any) -> dict[Part, Work]:
    """Add up batches, for each part of the model of a `PairRankerConfig`."""
    counted = list(batches)
    return {
        part: Work.of((batch for batch in counted if batch.part == part), layers)
        for part, layers in layers_of(config).items()
    }


@contextmanager
def counted(
    ranker: _Countable, counting: Callable[[Any], CountingBackend] = CountingBackend
) -> Iterator[CountingBackend]:
    """Count the work of a PairRanker within a ``with`` block.

    Args:
        ranker: its backend is replaced inside the block.
        counting: makes the counting backend.

    Examples:
        >>> from llm_blender import PairRanker
        >>> ranker = PairRanker.from_pretrained()
        >>> with counted(ranker) as backend:
        ...     _ = ranker.rank("Name a colour.", ["Red.", "Blue, like the sky."], strategy="full")
        >>> work = work_of(backend.batches, ranker.config)
        >>> work["read"].rows, work["compare"].pairs
        (2, 1)
    """
    before = ranker.backend
    ranker.backend = backend = counting(before)
    try:
        yield backend
    finally:
        ranker.backend = before


def chat_texts(
    prompts: int, candidates: int, *, words: float = 120, seed: int = 0
) -> tuple[list[str], list[list[str]]]:
    """Draw instructions and candidates with the lengths of chat answers, in English words without a meaning.

    Lengths are log-normal, as those of 438 instructions with the answers of 11 LLMs each: instructions have a median of
    18 words (standard deviation of the logarithm 0.8); the answers of one instruction lie around a mean of their own
    (0.75), each with a deviation of 0.7.

    Args:
        prompts: number of instructions.
        candidates: number of candidates of each.
        words: median of the candidates' lengths.
        seed: of the draws; a seed gives the same texts on each machine.

    Returns:
        The instructions, and the candidates of each.
    """
    draw, known = random.Random(seed), _WORDS.split()

    def text(median: float, deviation: float) -> str:
        count = max(1, min(1_500, round(median * math.e ** draw.gauss(0, deviation))))
        return " ".join(draw.choices(known, k=count)).capitalize() + "."

    instructions, answers = [], []
    for _ in range(prompts):
        instructions.append(text(18, 0.8))
        own = words * math.e ** draw.gauss(0, 0.75)
        answers.append([text(own, 0.7) for _ in range(candidates)])
    return instructions, answers


_WORDS = """
the answer depends on how many people are tested because light from the sun is scattered in air and water while a good
night of sleep needs a dark room, no coffee after lunch and the same hour every day; however, this is only one of
several explanations that have been given by those who study it. Photosynthesis, (carbohydrates) encyclopedias,
1,250 misinterpreted "recommendations" unquestionably: reproducibility
"""
