"""Pairs of texts, compared in both orders by any ranker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from llm_blender.ranking import EvidenceWeights
from llm_blender.types import Comparison, OnProgress, Ranker, Ranking

__all__ = ["TextPair", "compare_pairs", "evidence_weights", "rank_pairs"]


class TextPair(NamedTuple):
    """Two answers to one prompt."""

    prompt: str
    a: str
    b: str

    def swapped(self) -> Self:
        """The pair in its other order."""
        return self._replace(a=self.b, b=self.a)

    def sorted(self) -> Self:
        """The one of its two orders that names the pair."""
        return self if self.a <= self.b else self.swapped()


def rank_pairs(ranker: Ranker, pairs: Sequence[TextPair], *, progress: OnProgress | None = None) -> list[Ranking]:
    """Each pair as a ranking of two candidates, a and b, from both orders.

    All go through one call of the ranker, so that they share its batches.
    """
    return ranker.rank_many(
        [pair.prompt for pair in pairs], [[pair.a, pair.b] for pair in pairs], strategy="full", progress=progress
    )


def compare_pairs(
    ranker: Ranker,
    pairs: Sequence[TextPair],
    *,
    consensus: Sequence[float] | None = None,
    progress: OnProgress | None = None,
) -> list[Comparison]:
    """Compare a with b in each pair; what occurs more than once, in whichever order, is compared once.

    Args:
        ranker: any; a pointwise one compares by differences of scores.
        pairs: of texts.
        consensus: per pair, by how much a agrees more than b with all candidates of its prompt, NaN where there are
            no others; it counts as it does where the ranker sees them all.
        progress: called with comparisons done and expected.

    Returns:
        One comparison per pair.
    """
    unique = list(dict.fromkeys(pair.sorted() for pair in pairs))
    found = dict(zip(unique, rank_pairs(ranker, unique, progress=progress), strict=True))
    rankings = [found[pair.sorted()] for pair in pairs]
    forward, backward = (
        np.array([ranking.logits[order] for ranking, order in zip(rankings, orders, strict=True)])
        for orders in zip(
            *(((0, 1), (1, 0)) if pair == pair.sorted() else ((1, 0), (0, 1)) for pair in pairs), strict=True
        )
    )
    if consensus is not None:
        weights, gains = evidence_weights(ranker), np.array(consensus)
        forward, backward = weights.evidence(forward, gains), weights.evidence(backward, -gains)
    return [
        Comparison.from_logits(float(one), float(other), ranking.temperature)
        for one, other, ranking in zip(forward, backward, rankings, strict=True)
    ]


def evidence_weights(ranker: Ranker) -> EvidenceWeights:
    """What a ranker that sees all candidates of a prompt makes of their consensus."""
    weights: EvidenceWeights = getattr(ranker, "evidence_weights", EvidenceWeights())
    return weights
