"""Agreement with judges, on pairs of answers of which the better one is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.judged_pairs import JudgedPairs, compare_pairs, evidence_weights
from llm_blender.rankers.heuristics import Consensus, First, Heuristic, Longest, Random
from llm_blender.ranking import Interval, bootstrap_interval, brier_score, calibration_bins, expected_calibration_error
from llm_blender.types import OnProgress, Ranker

__all__ = [
    "Agreement",
    "Difference",
    "Evidence",
    "ReliabilityBin",
    "agreements",
    "baseline_evidence",
    "lengths_compared",
    "ranker_evidence",
]

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


@dataclass(frozen=True)
class ReliabilityBin:
    """A tenth of the pairs, those that were promised about the same.

    Attributes:
        pairs: how many.
        confidence: mean probability of what is preferred.
        accuracy: how often the judge preferred it too.
        ci95: interval of `accuracy`, resampled by instruction.
    """

    pairs: int
    confidence: float
    accuracy: float
    ci95: Interval


@dataclass(frozen=True)
class Difference:
    """One method against another on the same pairs.

    Attributes:
        method: the other one.
        accuracy: by how much the accuracy is higher than the other's.
        ci95: interval of that, both drawn together, resampled by instruction.
    """

    method: str
    accuracy: float
    ci95: Interval


@dataclass(frozen=True)
class Agreement:
    """How well one method agrees with the judges of one file, or of one subset of it.

    Attributes:
        file: where the pairs come from.
        subset: the part of the file; None for all of it.
        method: a ranker's name, ``random``, ``longest`` or ``first``.
        pairs: how many were judged, the judges' ties left out.
        ties: how many were left out.
        accuracy: share in which it prefers the better answer, both orders taken together; a half where it prefers
            none. That of ``random`` is what is expected.
        ci95: interval of `accuracy`, resampled by instruction; None for ``random``.
        with_ties: accuracy over the judges' ties as well, a half each, whatever the method says of them.
        undecided: share of the pairs in which the method prefers none.
        longest: accuracy of ``longest`` on the same pairs, which is how often the judges preferred the longer one; a
            half where two are equally long.
        prefers_longer: how often the method does, counted likewise.
        flip_rate: share in which reading the two in the other order changes what is preferred: the model's own wish,
            before both orders are taken together. None for baselines.
        ece: mean distance between confidence (the probability of what is preferred) and accuracy, over ten bins of
            equal mass. None for baselines.
        brier: mean squared error of the probability. None for the baselines that promise none.
        brier_base_rate: Brier score of a constant, the share of pairs in which a is better. Near 0.25 where a and b
            are in no order; lower where a file always calls the same LLM a, which no ranker is told.
        versus: this method against the first one of the table; None for that one.
        bins: what `ece` sums up.
    """

    file: str
    subset: str | None
    method: str
    pairs: int
    ties: int
    accuracy: float
    ci95: Interval | None
    with_ties: float
    undecided: float
    longest: float
    prefers_longer: float
    flip_rate: float | None
    ece: float | None
    brier: float | None
    brier_base_rate: float
    versus: Difference | None = None
    bins: tuple[ReliabilityBin, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def agreements(judged: JudgedPairs, methods: Sequence[Evidence], *, seed: int = 0) -> list[Agreement]:
    """How often each method meets the judge: on all pairs, then on each subset of them.

    Args:
        judged: the pairs.
        methods: what each says of them; the others are compared with the first.
        seed: of the bootstrap.
    """
    results = [_agreement(judged, method, methods[0], seed) for method in methods]
    for part, places in judged.parts():
        taken = [method.take(places) for method in methods]
        results += [_agreement(part, method, taken[0], seed) for method in taken]
    return results


def _agreement(judged: JudgedPairs, method: Evidence, reference: Evidence, seed: int) -> Agreement:
    a_wins = np.array(judged.a_wins, dtype=np.float64)
    longer = lengths_compared(judged)
    hits = _shares(method.logits, judged.sides)
    accuracy, pairs = float(hits.mean()), len(judged.pairs)
    bins = () if method.drawn else _bins(judged, method, hits, seed)
    promised = method.probabilities
    return Agreement(
        file=judged.file,
        subset=judged.subset,
        method=method.method,
        pairs=pairs,
        ties=judged.ties,
        accuracy=accuracy,
        ci95=None if method.drawn else bootstrap_interval(hits, judged.groups, seed=seed),
        with_ties=(accuracy * pairs + judged.ties / 2) / (pairs + judged.ties),
        undecided=float((method.logits == 0).mean()),
        longest=float(_shares(longer, judged.sides).mean()),
        prefers_longer=float(_shares(longer, method.logits).mean()),
        flip_rate=None if method.flips is None else float(method.flips.mean()),
        ece=None if promised is None or method.drawn else expected_calibration_error(_confidence(promised), hits),
        brier=None if promised is None else brier_score(promised, a_wins),
        brier_base_rate=float(a_wins.mean() * (1 - a_wins.mean())),
        versus=None if method is reference else _difference(judged, hits, reference, seed),
        bins=bins,
    )


def _difference(judged: JudgedPairs, hits: _Floats, reference: Evidence, seed: int) -> Difference:
    gain = hits - _shares(reference.logits, judged.sides)
    return Difference(reference.method, float(gain.mean()), bootstrap_interval(gain, judged.groups, seed=seed))


def _bins(judged: JudgedPairs, method: Evidence, hits: _Floats, seed: int) -> tuple[ReliabilityBin, ...]:
    if method.probabilities is None:
        return ()
    groups = np.array(judged.groups)
    return tuple(
        ReliabilityBin(
            len(part.members),
            part.promised,
            part.happened,
            bootstrap_interval(hits[part.members], groups[part.members], seed=seed),
        )
        for part in calibration_bins(_confidence(method.probabilities), hits)
    )


def _confidence(probabilities: _Floats) -> _Floats:
    # Which of the two is called a means nothing, so calibration is that of the answer preferred. Rounded, since
    # 1 − p has lost digits, and what is equal must fall into one bin.
    return np.maximum(probabilities, 1 - probabilities).round(9)


def _shares(one: _Floats, other: _Floats) -> _Floats:
    """``[n]``: 1 where two pieces of evidence for a prefer the same answer, 0 where not, ½ where one prefers none."""
    shares: _Floats = (1 + np.sign(one) * np.sign(other)) / 2
    return shares
