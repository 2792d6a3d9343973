"""Pairs of answers with a known better one, and how a ranker compares them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.resampling import Floats
from llm_blender.bench.rows import BenchRow, group_ids, subset_names
from llm_blender.errors import InputError
from llm_blender.ranking import FEATURES, EvidenceWeights, Features, JudgedFeatures, Situation, Weights, model_alone
from llm_blender.types import Comparison, Example, OnProgress, Ranker, Ranking


class TextPair(NamedTuple):
    """Two answers to one prompt."""

    prompt: str
    a: str
    b: str

    def swapped(self) -> Self:
        """Return the pair in its other order."""
        return self._replace(a=self.b, b=self.a)

    def sorted(self) -> Self:
        """Return the one of its two orders that names the pair."""
        return self if self.a <= self.b else self.swapped()


def rank_pairs(ranker: Ranker, pairs: Sequence[TextPair], *, progress: OnProgress | None = None) -> list[Ranking]:
    """Rank each pair as two candidates, a and b, in both orders, by the ranker's model alone.

    All pairs go through one call of the ranker and share its batches.
    """
    return model_alone(ranker).rank_many(
        [pair.prompt for pair in pairs], [[pair.a, pair.b] for pair in pairs], strategy="full", progress=progress
    )


def compare_pairs(
    ranker: Ranker,
    pairs: Sequence[TextPair],
    *,
    gains: Sequence[PairGain] = (),
    progress: OnProgress | None = None,
) -> list[Comparison]:
    """Compare a with b in each pair; a pair that occurs more than once, in either order, is compared once.

    `gains` are what else is known, by pair: it has the weight that it has in a ranking of all candidates. Without them
    the ranker's model alone counts.
    """
    unique = list(dict.fromkeys(pair.sorted() for pair in pairs))
    found = dict(zip(unique, rank_pairs(ranker, unique, progress=progress), strict=True))
    weights = evidence_weights(ranker)
    compared = []
    for number, pair in enumerate(pairs):
        ranking = found[pair.sorted()]
        a, b = (0, 1) if pair == pair.sorted() else (1, 0)
        own = weights[gains[number].situation] if gains else Weights()
        gain = gains[number].weigh(weights) if gains else 0.0
        forward, backward = (own.model * float(ranking.logits[i, j]) for i, j in ((a, b), (b, a)))
        compared.append(Comparison.from_logits(forward + gain, backward - gain, ranking.temperature))
    return compared


def evidence_weights(ranker: Ranker) -> EvidenceWeights:
    """Return the weights of a ranker's logits and of what else is known."""
    weights: EvidenceWeights = getattr(ranker, "evidence_weights", EvidenceWeights())
    return weights


@dataclass(frozen=True)
class PairGain:
    """Difference of two candidates a and b in the features of the evidence.

    Attributes:
        situation: of their prompt, with all its candidates.
        values: ``[4]``, features of a minus those of b.
    """

    situation: Situation
    values: tuple[float, ...]

    def weigh(self, weights: EvidenceWeights) -> float:
        """Return the offset of a minus that of b, in logits."""
        own = weights[self.situation]
        return float(sum(getattr(own, name) * value for name, value in zip(FEATURES, self.values, strict=True)))


_Judgement = tuple[str, str, float, PairGain]
"""Text a, text b, difference in quality (a − b), and what else is known of them."""
_MARGINS = {"a": 1.0, "b": -1.0, "tie": 0.0}


@dataclass(frozen=True)
class JudgedPairs:
    """The pairs of one file in which a judge preferred one answer.

    Attributes:
        file: source of the pairs.
        pairs: of texts; at least one.
        a_wins: per pair, whether a is the better one.
        groups: per pair, number of its instruction.
        subsets: per pair, its part of the file; None for a file that is not divided.
        gains: per pair, what else is known about a and b among all candidates of their row.
        tied: subsets of the pairs that are left out because the judge preferred neither.
        subset: the part of the file; None for all of it.
    """

    file: str
    pairs: tuple[TextPair, ...]
    a_wins: tuple[bool, ...]
    groups: tuple[int, ...]
    subsets: tuple[str | None, ...]
    gains: tuple[PairGain, ...]
    tied: tuple[str | None, ...] = ()
    subset: str | None = None

    @property
    def ties(self) -> int:
        """Number of pairs that are left out because the judge preferred neither."""
        return len(self.tied)

    @property
    def sides(self) -> Floats:
        """``[n]``: 1 where a is the better one, −1 where b is."""
        return np.where(self.a_wins, 1.0, -1.0)

    def features(self, logits: Floats) -> JudgedFeatures:
        """Return the pairs for `fit_evidence`, with the logits ``[n]`` of a ranker's model."""
        return JudgedFeatures(
            [gain.situation for gain in self.gains],
            logits,
            np.array([gain.values for gain in self.gains]),
            np.array(self.a_wins, np.float64),
            np.array(self.groups),
        )

    def take(self, places: Sequence[int] | NDArray[np.intp]) -> JudgedPairs:
        """Return some of the pairs, by their places."""
        columns = ("pairs", "a_wins", "groups", "subsets", "gains")
        kept: dict[str, Any] = {name: tuple(getattr(self, name)[place] for place in places) for name in columns}
        return replace(self, **kept)

    def parts(self) -> list[tuple[JudgedPairs, NDArray[np.intp]]]:
        """Return each subset that has pairs, by name, with their places in the whole."""
        found = []
        for name in sorted(set(filter(None, self.subsets))):
            places = np.flatnonzero([subset == name for subset in self.subsets])
            tied = tuple(subset for subset in self.tied if subset == name)
            found.append((replace(self.take(places), tied=tied, subset=name), places))
        return found


def labelled_pairs(file: str, rows: Iterable[Example], *, by: str | None = None) -> JudgedPairs:
    """Collect the pairs that the rows label; `by` is the key that divides the rows into subsets.

    Raises:
        InputError: there are no pairs, or only ties; or see `subset_names`.
    """
    judged = [(row, _labelled(row)) for row in rows]
    if not any(judgements for _, judgements in judged):
        raise InputError(f"{file} holds no labelled pairs: its rows need `pairs`, or name a score to compare by.")
    return _judged(file, judged, by)


def implied_pairs(file: str, rows: Iterable[BenchRow], *, by: str | None = None) -> JudgedPairs:
    """Pair all candidates of each row: the higher score is the better answer, equal scores are a tie.

    Raises:
        InputError: there are only ties; or see `subset_names`.
    """
    return _judged(file, [(row, _implied(row)) for row in rows], by)


def _labelled(row: Example) -> list[_Judgement]:
    texts = [candidate.text for candidate in row.candidates]
    found = Features.read(texts, row.prompt)
    return [(texts[p.a], texts[p.b], _MARGINS[p.label], _gain(found, p.a, p.b)) for p in row.pairs]


def _implied(row: BenchRow) -> list[_Judgement]:
    found, qualities = Features.read(row.texts, row.prompt), row.qualities
    return [
        (row.texts[a], row.texts[b], qualities[a] - qualities[b], _gain(found, a, b))
        for a, b in combinations(range(len(row.texts)), 2)
    ]


def _gain(found: Features, a: int, b: int) -> PairGain:
    return PairGain(found.situation, tuple((found.values[a] - found.values[b]).tolist()))


def _judged(
    file: str, judged: Sequence[tuple[Example | BenchRow, Sequence[_Judgement]]], by: str | None
) -> JudgedPairs:
    """Join the judgements of all rows, without the ties."""
    subsets: Sequence[str | None] = [None] * len(judged)
    if by is not None:
        subsets = subset_names((row.extra for row, _ in judged), by)
    groups_of = group_ids(row.prompt for row, _ in judged)
    found = [
        (TextPair(row.prompt, a, b), margin, group, subset, gain)
        for (row, judgements), group, subset in zip(judged, groups_of, subsets, strict=True)
        for a, b, margin, gain in judgements
    ]
    tied = tuple(subset for _, margin, _, subset, _ in found if not margin)
    if len(tied) == len(found):
        raise InputError(f"{file} holds no pair with a better answer, only ties: {len(tied):,}.")
    pairs, margins, groups, of_subset, gains = zip(*(entry for entry in found if entry[1]), strict=True)
    return JudgedPairs(file, pairs, tuple(margin > 0 for margin in margins), groups, of_subset, gains, tied)
