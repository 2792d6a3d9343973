"""Pairs of texts, compared in both orders by any ranker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

from llm_blender.types import Comparison, OnProgress, Ranker, Ranking

__all__ = ["TextPair", "compare_pairs", "rank_pairs"]


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
        consensus: per pair, by how much a agrees more than b with all candidates of its prompt; weighted as the ranker
            does when it sees them all, it is added to the evidence.
        progress: called with comparisons done and expected.

    Returns:
        One comparison per pair.
    """
    unique = list(dict.fromkeys(pair.sorted() for pair in pairs))
    found = dict(zip(unique, rank_pairs(ranker, unique, progress=progress), strict=True))

    weight = getattr(ranker, "consensus", 0.0)

    def comparison(pair: TextPair, gain: float) -> Comparison:
        ranking = found[pair.sorted()]
        a, b = (0, 1) if pair == pair.sorted() else (1, 0)
        forward, backward = float(ranking.logits[a, b]), float(ranking.logits[b, a])
        return Comparison.from_logits(forward + gain, backward - gain, ranking.temperature)

    gains = [0.0] * len(pairs) if consensus is None else [weight * share for share in consensus]
    return [comparison(pair, gain) for pair, gain in zip(pairs, gains, strict=True)]
