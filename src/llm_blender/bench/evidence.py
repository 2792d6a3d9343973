"""What a method says of each judged pair, before anybody asks whether it is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.comparing import compare_pairs, evidence_weights
from llm_blender.bench.judged import JudgedPairs
from llm_blender.rankers.heuristics import Consensus, First, Heuristic, Longest, Random
from llm_blender.types import OnProgress, Ranker

__all__ = ["Evidence", "baseline_evidence", "lengths_compared", "ranker_evidence"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one method says of n pairs.

    Attributes:
        method: its name.
        logits: ``[n]``: above zero, a is better; below, b is; at zero the method prefers none.
        probabilities: ``[n]``: that a is better; None for a method that promises none.
        flips: ``[n]``: whether reading the two in the other order changes what is preferred; None where there is no
            order.
        drawn: its accuracy is what is expected of a draw, and so has no interval.
    """

    method: str
    logits: _Floats
    probabilities: _Floats | None = None
    flips: NDArray[np.bool_] | None = None
    drawn: bool = False

    def take(self, places: NDArray[np.intp]) -> Evidence:
        """On some of the pairs only."""
        return Evidence(
            self.method,
            self.logits[places],
            None if self.probabilities is None else self.probabilities[places],
            None if self.flips is None else self.flips[places],
            self.drawn,
        )


def ranker_evidence(judged: JudgedPairs, ranker: Ranker, name: str, *, progress: OnProgress | None = None) -> Evidence:
    """Compare all pairs in both orders.

    Args:
        judged: the pairs.
        ranker: any; of a pointwise one the comparisons are differences of scores.
        name: for `Evidence.method`.
        progress: called with comparisons done and expected.
    """
    comparisons = compare_pairs(ranker, judged.pairs, consensus=judged.consensus, progress=progress)
    # The model's own wish in either order; the consensus knows none.
    gains = evidence_weights(ranker).consensus * np.nan_to_num(judged.consensus)
    forward = np.array([comparison.forward for comparison in comparisons]) - gains
    backward = np.array([comparison.backward for comparison in comparisons]) + gains
    return Evidence(
        name,
        np.array([comparison.logit for comparison in comparisons]),
        np.array([comparison.probability for comparison in comparisons]),
        np.sign(forward.round(9)) != -np.sign(backward.round(9)),
    )


def baseline_evidence(judged: JudgedPairs) -> list[Evidence]:
    """What needs no model: ``random`` (a half, by definition), ``longest`` by characters, ``first``, always a.

    And ``consensus``, where there is any: what all candidates of the prompt say.
    """
    n = len(judged.pairs)
    shares = np.sign(np.nan_to_num(judged.consensus))
    return [
        Evidence(Random.name, np.zeros(n), np.full(n, 0.5), drawn=True),
        *(Evidence(heuristic.name, _preferred(judged, heuristic)) for heuristic in (Longest(), First())),
        *([Evidence(Consensus.name, shares)] if shares.any() else []),
    ]


def _preferred(judged: JudgedPairs, heuristic: Heuristic) -> _Floats:
    """``[n]``: which of the two a heuristic prefers, which promises no probability that is worth measuring."""
    rankings = heuristic.rank_many([pair.prompt for pair in judged.pairs], [[pair.a, pair.b] for pair in judged.pairs])
    return np.sign([ranking.logits[0, 1] for ranking in rankings])


def lengths_compared(judged: JudgedPairs) -> _Floats:
    """``[n]``: 1 where a has more characters, −1 where b has, 0 where they are equally long."""
    return np.sign([float(len(pair.a) - len(pair.b)) for pair in judged.pairs])
