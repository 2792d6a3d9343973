"""What a ranker says of texts, unrounded and in float32, as 0.0.2 reckoned."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError, unknown_name
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.types import Instruction, OnProgress

from ..gpt_eval.utils import get_scores_from_cmps
from ._progress import progress_bar
from ._texts import Texts

__all__ = ["MODES", "Match", "Pointwise", "Reader", "Truncation", "make_reader"]

Floats = NDArray[np.float32]
Match = tuple[int, int, int]
"""(source, candidate A, candidate B), by index."""
Truncation = Literal["auto", "right", "left", "middle", "reference"]

BOTH, FORWARD, BACKWARD = MODES = ("[A,B]+[B,A]", "[A,B]", "[B,A]")
"""Which orders a comparison is read in; ``[B,A]`` is above zero where B, read first, is better."""


class Pointwise(Protocol):
    """A ranker that scores each candidate by itself."""

    def scores(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        progress: OnProgress | None = None,
    ) -> Sequence[NDArray[np.float64]]:
        """Scores of the candidates of each instruction, higher is better."""
        ...


class Reader(Protocol):
    """A ranker, set up for one call."""

    @property
    def pairwise(self) -> bool:
        """Whether comparisons are its own, and not differences of scores."""
        ...

    def scores(self, texts: Texts) -> list[Floats]:
        """Of the candidates of each source, higher is better."""
        ...

    def compare(self, texts: Texts, matches: Sequence[Match], mode: str = BOTH) -> Floats:
        """A logit for each match: above zero, A is better (in the mode ``[B,A]``, B)."""
        ...


def make_reader(
    ranker: PairRanker | Pointwise,
    *,
    truncation: str = "auto",
    batch_size: int = 1,
    lengths: tuple[int | None, int | None] = (None, None),
    title: str = "",
) -> Reader:
    """Set up a ranker for one call.

    Args:
        ranker: a pairwise or a pointwise one.
        truncation: ``reference``, or one of `PairRanker`'s.
        batch_size: of ``reference``.
        lengths: of source and candidate in tokens; None is the ranker's own.
        title: of a progress bar; empty for none.

    Raises:
        InputError: a value is out of range, or not for this ranker.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size must be a number above zero, not {batch_size!r}.")
    if not isinstance(ranker, PairRanker):
        if truncation != "auto" or any(lengths):
            raise InputError("Truncation and lengths can be chosen for a PairRanker only, not for the one loaded.")
        return _PointwiseReader(ranker, title)
    known = ("auto", "right", "left", "middle", "reference")
    if truncation not in known:
        raise unknown_name("truncation", truncation, known)
    ranker = ranker.with_lengths(*lengths) if any(lengths) else copy(ranker)
    if truncation != "auto":
        ranker.truncation = "right" if truncation == "reference" else truncation  # type: ignore[assignment]
    return _PairReader(ranker, batch_size if truncation == "reference" else 0, title)


@dataclass(frozen=True)
class _PairReader:
    ranker: PairRanker
    coupled: int
    title: str
    pairwise: bool = True

    def scores(self, texts: Texts) -> list[Floats]:
        pairs = [(i, a, b) for i, size in enumerate(texts.sizes) for a, b in permutations(range(size), 2)]
        logits = self._logits(texts, pairs)
        scores, start = [], 0
        for size in texts.sizes:
            matrix = np.zeros((size, size), np.float32)
            matrix[~np.eye(size, dtype=bool)] = logits[start : start + size * (size - 1)]  # row by row, as the pairs
            scores.append(get_scores_from_cmps(matrix))
            start += size * (size - 1)
        return scores

    def compare(self, texts: Texts, matches: Sequence[Match], mode: str = BOTH) -> Floats:
        turned = [(i, b, a) for i, a, b in matches]
        if mode != BOTH:
            return self._logits(texts, list(matches) if mode == FORWARD else turned)
        # A text beside itself: nothing is left of it.
        differ = [row for row, (i, a, b) in enumerate(matches) if texts.candidates[i][a] != texts.candidates[i][b]]
        logits = self._logits(texts, [pairs[row] for pairs in (matches, turned) for row in differ])
        found = np.zeros(len(matches), np.float32)
        found[differ] = logits[: len(differ)] - logits[len(differ) :]
        return found

    def _logits(self, texts: Texts, pairs: list[Match]) -> Floats:
        if not pairs:
            return np.zeros(0, np.float32)
        with progress_bar(self.title, bool(self.title)) as progress:
            return self.ranker.pair_logits(
                texts.sources, texts.candidates, pairs, coupled=self.coupled, progress=progress
            )


@dataclass(frozen=True)
class _PointwiseReader:
    ranker: Pointwise
    title: str
    pairwise: bool = False

    def scores(self, texts: Texts) -> list[Floats]:
        with progress_bar(self.title, bool(self.title)) as progress:
            scores = self.ranker.scores(texts.sources, texts.candidates, progress=progress)
        return [np.asarray(row, np.float32) for row in scores]

    def compare(self, texts: Texts, matches: Sequence[Match], mode: str = BOTH) -> Floats:
        scores = self.scores(texts)
        differences = np.array([scores[i][a] - scores[i][b] for i, a, b in matches], np.float32)
        # So that, as with a PairRanker, both orders together are the one minus the other.
        return differences * np.float32({BOTH: 1, FORWARD: 0.5, BACKWARD: -0.5}[mode])
