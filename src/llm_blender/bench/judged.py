"""Pairs of answers of which the better one is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.comparing import TextPair
from llm_blender.bench.scored import ScoredRow, group_ids
from llm_blender.bench.subsets import subset_names
from llm_blender.errors import InputError
from llm_blender.ranking import consensus
from llm_blender.types import Example

__all__ = ["JudgedPairs", "implied_pairs", "labelled_pairs"]

_Floats = NDArray[np.float64]
_Judgement = tuple[str, str, float, float]
"""Text a, text b, by how much a is better, and by how much it agrees more with all candidates."""


@dataclass(frozen=True)
class JudgedPairs:
    """The pairs of one file in which a judge preferred one answer.

    Attributes:
        file: where they come from.
        pairs: of texts; at least one.
        a_wins: per pair, whether a is the better one.
        groups: per pair, a number of its instruction.
        subsets: per pair, the part of the file that it belongs to; None where the file was not divided.
        consensus: per pair, that of a minus that of b among all candidates of their row
            (`llm_blender.ranking.consensus`); NaN where these have none.
        tied: the subsets of the pairs that were left out since the judge preferred neither.
        subset: the part of the file that this is; None for all of it.
    """

    file: str
    pairs: tuple[TextPair, ...]
    a_wins: tuple[bool, ...]
    groups: tuple[int, ...]
    subsets: tuple[str | None, ...]
    consensus: tuple[float, ...]
    tied: tuple[str | None, ...] = ()
    subset: str | None = None

    @property
    def ties(self) -> int:
        """How many pairs were left out since the judge preferred neither."""
        return len(self.tied)

    @property
    def sides(self) -> _Floats:
        """``[n]``: 1 where a is the better one, −1 where b is."""
        return np.where(self.a_wins, 1.0, -1.0)

    def parts(self) -> list[tuple[JudgedPairs, NDArray[np.intp]]]:
        """Each subset, by name, with the places of its pairs in the whole; one with ties alone is left out."""
        names = np.array([name or "" for name in self.subsets])
        return [self._part(name, np.flatnonzero(names == name)) for name in sorted(set(filter(None, self.subsets)))]

    def _part(self, name: str, places: NDArray[np.intp]) -> tuple[JudgedPairs, NDArray[np.intp]]:
        part = JudgedPairs(
            self.file,
            tuple(self.pairs[place] for place in places),
            tuple(self.a_wins[place] for place in places),
            tuple(self.groups[place] for place in places),
            subsets=(name,) * len(places),
            consensus=tuple(self.consensus[place] for place in places),
            tied=tuple(other for other in self.tied if other == name),
            subset=name,
        )
        return part, places


def labelled_pairs(file: str, rows: Iterable[Example], *, by: str | None = None) -> JudgedPairs:
    """The pairs that the rows themselves hold.

    Args:
        file: where the rows come from.
        rows: at least one with `pairs`.
        by: divide them into subsets by this key of the rows.

    Raises:
        InputError: there are none, or only ties; or see `subset_names`.
    """
    margins = {"a": 1.0, "b": -1.0, "tie": 0.0}
    examples = list(rows)
    judgements = [_labelled(row, margins) for row in examples]
    if not any(judgements):
        raise InputError(f"{file} holds no labelled pairs: its rows need `pairs`, or name a score to compare by.")
    subsets = None if by is None else subset_names((row.extra for row in examples), by)
    return _judged(file, [row.prompt for row in examples], judgements, subsets)


def implied_pairs(file: str, rows: Iterable[ScoredRow], *, by: str | None = None) -> JudgedPairs:
    """All pairs of candidates of one row, the higher score being the better answer and equal ones a tie.

    Args:
        file: where the rows come from.
        rows: at least one.
        by: divide them into subsets by this key of the rows.

    Raises:
        InputError: there are only ties; or see `subset_names`.
    """
    scored = list(rows)
    judgements = [_implied(row) for row in scored]
    subsets = None if by is None else subset_names((row.extra for row in scored), by)
    return _judged(file, [row.prompt for row in scored], judgements, subsets)


def _labelled(row: Example, margins: Mapping[str, float]) -> list[_Judgement]:
    texts = [candidate.text for candidate in row.candidates]
    shares = _shares(texts)
    return [(texts[p.a], texts[p.b], margins[p.label], shares[p.a] - shares[p.b]) for p in row.pairs]


def _implied(row: ScoredRow) -> list[_Judgement]:
    entries = zip(row.texts, row.qualities, _shares(row.texts), strict=True)
    return [(a, b, x - y, u - v) for (a, x, u), (b, y, v) in combinations(entries, 2)]


def _shares(texts: Sequence[str]) -> list[float]:
    """The consensus of each one, NaN where there is none."""
    shares: list[float] = consensus(texts).tolist()
    return shares if any(shares) else [math.nan] * len(texts)


def _judged(
    file: str, prompts: Sequence[str], judgements: Sequence[Sequence[_Judgement]], subsets: Sequence[str] | None
) -> JudgedPairs:
    """From prompts with their judgements and, where asked for, their subsets."""
    of_row: Sequence[str | None] = subsets or [None] * len(prompts)
    found = [
        (TextPair(prompt, a, b), margin, group, subset, share)
        for prompt, group, subset, of_prompt in zip(prompts, group_ids(prompts), of_row, judgements, strict=True)
        for a, b, margin, share in of_prompt
    ]
    tied = tuple(subset for _, margin, _, subset, _ in found if not margin)
    if len(tied) == len(found):
        raise InputError(f"{file} holds no pair with a better answer, only ties: {len(tied):,}.")
    pairs, margins, groups, of_subset, shares = zip(*(entry for entry in found if entry[1]), strict=True)
    return JudgedPairs(file, pairs, tuple(margin > 0 for margin in margins), groups, of_subset, shares, tied)
