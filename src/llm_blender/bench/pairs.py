"""Agreement with judges, on pairs of answers of which the better one is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.comparing import TextPair, compare_pairs
from llm_blender.bench.scored import ScoredRow, group_ids
from llm_blender.errors import InputError
from llm_blender.ranking import Interval, bootstrap_interval, brier_score, expected_calibration_error
from llm_blender.types import Example, OnProgress, Ranker

__all__ = ["Agreement", "JudgedPairs", "baseline_agreements", "implied_pairs", "labelled_pairs", "ranker_agreement"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class JudgedPairs:
    """The pairs of one file in which a judge preferred one answer.

    Attributes:
        file: where they come from.
        pairs: of texts; at least one.
        a_wins: per pair, whether a is the better one.
        groups: per pair, a number of its instruction.
        ties: pairs left out since the judge preferred none.
    """

    file: str
    pairs: tuple[TextPair, ...]
    a_wins: tuple[bool, ...]
    groups: tuple[int, ...]
    ties: int

    @property
    def sides(self) -> _Floats:
        """``[n]``: 1 where a is the better one, −1 where b is."""
        return np.where(self.a_wins, 1.0, -1.0)

    @property
    def longer(self) -> _Floats:
        """``[n]``: 1 where a has more characters, −1 where b has, 0 where they are equally long."""
        return np.sign([float(len(pair.a) - len(pair.b)) for pair in self.pairs])


@dataclass(frozen=True)
class Agreement:
    """How well one method agrees with the judges of one file.

    Attributes:
        file: where the pairs come from.
        method: a ranker's name, ``random``, ``longest`` or ``first``.
        pairs: how many were judged, ties left out.
        ties: how many were left out.
        accuracy: share in which it prefers the better answer, both orders taken together; a half where it prefers
            none. That of ``random`` is what is expected.
        ci95: interval of `accuracy`, resampled by instruction; None for ``random``.
        longest: accuracy of ``longest`` on the same pairs, which is how often the judges preferred the longer one.
        flip_rate: share in which reading the two in the other order changes what is preferred. None for baselines.
        ece: mean distance between confidence (the probability of what is preferred) and accuracy, over ten bins of
            equal mass. None for baselines.
        brier: mean squared error of the probability. None for the baselines that promise none.
    """

    file: str
    method: str
    pairs: int
    ties: int
    accuracy: float
    ci95: Interval | None
    longest: float
    flip_rate: float | None = None
    ece: float | None = None
    brier: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def labelled_pairs(file: str, rows: Iterable[Example]) -> JudgedPairs:
    """The pairs that the rows themselves hold.

    Raises:
        InputError: there are none, or only ties.
    """
    margins = {"a": 1.0, "b": -1.0, "tie": 0.0}
    found = [
        (row.prompt, [(row.candidates[p.a].text, row.candidates[p.b].text, margins[p.label]) for p in row.pairs])
        for row in rows
    ]
    if not any(judgements for _, judgements in found):
        raise InputError(f"{file} holds no labelled pairs: its rows need `pairs`, or name a score to compare by.")
    return _judged(file, found)


def implied_pairs(file: str, rows: Iterable[ScoredRow]) -> JudgedPairs:
    """All pairs of candidates of one row, the higher score being the better answer and equal ones a tie.

    Raises:
        InputError: there are only ties.
    """
    return _judged(
        file,
        [
            (
                row.prompt,
                [(a, b, x - y) for (a, x), (b, y) in combinations(zip(row.texts, row.qualities, strict=True), 2)],
            )
            for row in rows
        ],
    )


def _judged(file: str, rows: Sequence[tuple[str, list[tuple[str, str, float]]]]) -> JudgedPairs:
    """From prompts with their judgements: text a, text b, and by how much a is better."""
    groups = group_ids(prompt for prompt, _ in rows)
    found = [
        (TextPair(prompt, a, b), margin > 0, group)
        for (prompt, judgements), group in zip(rows, groups, strict=True)
        for a, b, margin in judgements
        if margin
    ]
    total = sum(len(judgements) for _, judgements in rows)
    if not found:
        raise InputError(f"{file} holds no pair with a better answer, only ties: {total:,}.")
    pairs, a_wins, of_group = zip(*found, strict=True)
    return JudgedPairs(file, pairs, a_wins, of_group, ties=total - len(found))


def baseline_agreements(judged: JudgedPairs, *, seed: int = 0) -> list[Agreement]:
    """What needs no model: ``random`` (a half, by definition), ``longest`` by characters, and ``first``, always a."""
    chance = Agreement(
        judged.file,
        "random",
        len(judged.pairs),
        judged.ties,
        accuracy=0.5,
        ci95=None,
        longest=float(_hits(judged, judged.longer).mean()),
        brier=0.25,
    )
    first = np.ones(len(judged.pairs))
    return [chance, _agreement(judged, "longest", judged.longer, seed), _agreement(judged, "first", first, seed)]


def ranker_agreement(
    judged: JudgedPairs, ranker: Ranker, name: str, *, seed: int = 0, progress: OnProgress | None = None
) -> Agreement:
    """Compare all pairs in both orders, and see how often the judge is met.

    Args:
        judged: the pairs.
        ranker: any; of a pointwise one the comparisons are differences of scores.
        name: for `Agreement.method`.
        seed: of the bootstrap.
        progress: called with comparisons done and expected.
    """
    comparisons = compare_pairs(ranker, judged.pairs, progress=progress)
    logits = np.array([comparison.logit for comparison in comparisons])
    probabilities = np.array([comparison.probability for comparison in comparisons])
    flips = [np.sign(comparison.forward) != -np.sign(comparison.backward) for comparison in comparisons]
    # Which of the two is called a means nothing, so calibration is that of the answer preferred. Rounded, since
    # 1 − p has lost digits, and what is equal must fall into one bin.
    confidence = np.maximum(probabilities, 1 - probabilities).round(9)
    return _agreement(
        judged,
        name,
        logits,
        seed,
        flip_rate=float(np.mean(flips)),
        ece=expected_calibration_error(confidence, _hits(judged, logits)),
        brier=brier_score(probabilities, np.array(judged.a_wins, dtype=np.float64)),
    )


def _hits(judged: JudgedPairs, evidence: _Floats) -> _Floats:
    """``[n]``: 1 where evidence for a (against b: below zero) agrees with the judge, 0 where not, ½ where it is 0."""
    hits: _Floats = (1 + np.sign(evidence) * judged.sides) / 2
    return hits


def _agreement(judged: JudgedPairs, method: str, evidence: _Floats, seed: int, **measures: float) -> Agreement:
    hits = _hits(judged, evidence)
    return Agreement(
        judged.file,
        method,
        len(judged.pairs),
        judged.ties,
        accuracy=float(hits.mean()),
        ci95=bootstrap_interval(hits, judged.groups, seed=seed),
        longest=float(_hits(judged, judged.longer).mean()),
        **measures,
    )
