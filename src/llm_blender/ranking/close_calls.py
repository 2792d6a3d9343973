"""Close calls: the pairs for which the evidence is about even, and a judge's verdicts on them.

A judge, such as a strong LLM, costs more than all other evidence. So it reads only the best candidate and its closest
opponent, and only where P(the best is better) is within `CloseCalls.margin` of ½. A verdict v in [−1, 1] on the pair
(i, j) is one more piece of evidence, with the weight that fits its accuracy:

    offset_i += temperature · logit(accuracy) · v / 2,   offset_j −= the same

`closest_pair` and `add_verdicts` take turns until there is no close pair, or no budget. They call no judge themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llm_blender.errors import InputError
from llm_blender.ranking.evidence import add_evidence
from llm_blender.types import Comparison, Evidence, Judging, Ranking


@dataclass(frozen=True)
class CloseCalls:
    """Rule for the pairs that a judge compares, and for the weight of its verdicts.

    Attributes:
        margin: a pair is close if P(the best is better) is at most this far from ½.
        pairs: maximum number of pairs of one prompt; 0 for no judge.
        accuracy: share of the close pairs on which a judge with a clear verdict is right.

    The defaults were chosen on development rows, see ``docs/judge.md``.

    Raises:
        InputError: `margin` is not from 0 to ½, `pairs` is below 0, or `accuracy` is not above ½ and below 1.
    """

    margin: float = 0.25
    pairs: int = 1
    accuracy: float = 0.82

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 0.5:
            raise InputError(f"The margin of close calls is from 0 to 0.5, not {self.margin}.")
        if self.pairs < 0:
            raise InputError(f"The number of pairs for a judge is at least 0, not {self.pairs}.")
        if not 0.5 < self.accuracy < 1:
            raise InputError(f"The accuracy of a judge is above 0.5 and below 1, not {self.accuracy}.")

    @property
    def weight(self) -> float:
        """Log odds that a clear verdict is right."""
        return math.log(self.accuracy / (1 - self.accuracy))


def closest_pair(
    ranking: Ranking, texts: Sequence[str], rule: CloseCalls, cut: Sequence[bool] = ()
) -> tuple[int, int] | None:
    """Return the best candidate and its closest opponent; None if there is no close pair.

    An opponent was compared with the best candidate, has another text, and has no verdict against it yet. There is no
    pair once the budget is spent, or the judge has failed. A candidate that was cut off ranks behind the whole ones
    whatever a judge prefers, so it is in no pair, unless all of them were cut off.

    Args:
        ranking: of N candidates.
        texts: of the candidates.
        rule: what is close, and the budget.
        cut: which candidates were cut off; empty for none.
    """
    judging = ranking.evidence.judging if ranking.evidence is not None else None
    known = {frozenset((verdict.a, verdict.b)) for verdict in judging.verdicts} if judging is not None else set()
    if len(known) >= rule.pairs or (judging is not None and judging.failure is not None):
        return None
    order = [i for i in ranking.order if not (cut and cut[i])] or ranking.order
    best = order[0]
    others = [i for i in order if texts[i] != texts[best] and frozenset((best, i)) not in known]
    distances = [abs(ranking.probability(best, i) - 0.5) for i in others]
    close = [(distance, place) for place, distance in enumerate(distances) if distance <= rule.margin]  # NaN is not
    return (best, others[min(close)[1]]) if close else None


def verdict_of(comparison: Comparison) -> float:
    """Return the verdict in a comparison: ±1 where both orders prefer the same candidate, 0 where they contradict.

    Only the signs count, as scores of reward models have no common scale.
    """
    return float(np.sign(comparison.forward) - np.sign(comparison.backward)) / 2


def add_verdicts(ranking: Ranking, judging: Judging, rule: CloseCalls) -> Ranking:
    """Return the ranking with all verdicts of a judge in its evidence, in place of those that it has.

    Args:
        ranking: of N candidates.
        judging: the verdicts, those that are in the evidence already included.
        rule: weight of the verdicts.
    """
    offsets = np.zeros(len(ranking))
    for verdict in judging.verdicts:
        change = ranking.temperature * rule.weight * verdict.value / 2
        offsets[verdict.a] += change
        offsets[verdict.b] -= change
    judged = add_evidence(ranking, {"judge": offsets})
    return replace(judged, evidence=replace(judged.evidence or Evidence(), judging=judging))
