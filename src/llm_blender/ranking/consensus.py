"""What the candidates themselves say of each other: an answer that says what the others say too is rarely wrong.

A ranker that reads two candidates at a time cannot see this, an ensemble has it for nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError
from llm_blender.ranking.aggregation import Floats, sigmoid
from llm_blender.ranking.confidence import Interval

__all__ = ["EvidenceFit", "EvidenceWeights", "consensus", "fit_evidence"]

_STEPS = 100
_RESAMPLES = 200
_LEAST_SLOPE = 1e-3  # 1 / temperature of a ranker that says nothing
_LEAST = 3  # different candidates from which on there are others to agree

# Scripts without spaces between words: each character counts as one.
_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKENS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


def consensus(texts: Sequence[str]) -> NDArray[np.float64]:
    """How much of what the other candidates say each one says, from 0 to 1.

    For candidate i the mean over the others of |V_i ∩ V_j| / |V_j|, where V is the set of a text's words and
    punctuation marks in lower case, and the same with pairs of neighbouring ones, averaged: the recall of ROUGE-1 and
    ROUGE-2 on sets, with every other candidate as a reference. To choose the highest is minimum Bayes risk decoding
    (Kumar and Byrne 2004, aclanthology.org/N04-1022), with the candidates as the sample and this as the gain. It
    favours answers that say more, as far as the others say it too.

    Args:
        texts: N candidates of one prompt; equal ones count as often as they occur.

    Returns:
        ``[N]``; all 0 where fewer than three are different.
    """
    if len({text.strip() for text in texts}) < _LEAST:
        return np.zeros(len(texts))
    words = [_TOKENS.findall(text.lower()) for text in texts]
    return (_recall([set(said) for said in words]) + _recall([set(itertools.pairwise(said)) for said in words])) / 2


def _recall(sets: Sequence[AbstractSet[Any]]) -> NDArray[np.float64]:
    """``[N]``: the mean share of the other sets that each one holds."""
    numbers: dict[Any, int] = {}
    rows = [[numbers.setdefault(item, len(numbers)) for item in items] for items in sets]
    held = np.zeros((len(sets), len(numbers)))
    for row, columns in enumerate(rows):
        held[row, columns] = 1
    shares = (held @ held.T) / np.maximum(held.sum(axis=1), 1)
    np.fill_diagonal(shares, 0)
    return np.asarray(shares.sum(axis=1) / (len(sets) - 1))


@dataclass(frozen=True)
class EvidenceWeights:
    """What a ranker's own logit and the candidates' consensus count.

    Where a prompt has three or more different candidates, evidence(a, b) = model · logit + consensus · (share of a −
    share of b). Of two candidates the logit alone decides, in full.

    Attributes:
        consensus: in logits; 0 lets the ranker's own logit alone decide everywhere, in full.
        model: of the ranker's own logit beside the consensus.
    """

    consensus: float = 0.0
    model: float = 1.0

    def evidence(self, logits: Floats, gains: Floats) -> NDArray[np.float64]:
        """Both together.

        Args:
            logits: ``[n]``: the ranker's own.
            gains: ``[n]``: share of a minus share of b; NaN where the prompt has no consensus.
        """
        if not self.consensus:
            return np.asarray(logits, np.float64)
        both = self.model * logits + self.consensus * np.nan_to_num(gains)
        return np.where(np.isnan(gains), logits, both)


@dataclass(frozen=True)
class EvidenceFit:
    """How a ranker's logit and the consensus together become a probability.

    Attributes:
        temperature: of the evidence.
        weights: of its two parts, neither below 0.
        ci95: interval of the consensus' weight, resampled by instruction.
        pairs: judged pairs that all rests on.
        log_loss: of the pairs with a consensus, in nats, each file counting alike; of all where none has one.
        log_loss_without: of the same pairs, the ranker's logit alone, at the best temperature for them.
    """

    temperature: float
    weights: EvidenceWeights
    ci95: Interval
    pairs: int
    log_loss: float
    log_loss_without: float


def fit_evidence(
    logits: Sequence[Floats],
    gains: Sequence[Floats],
    labels: Sequence[Floats],
    groups: Sequence[NDArray[np.int64]],
    *,
    seed: int = 0,
) -> EvidenceFit:
    """The temperature T and the `EvidenceWeights` that make a judge's labels likeliest.

    P(a is better than b) = sigmoid(evidence(a, b) / T). T is that of the ranker's logit alone, on all pairs, as if
    there were no other candidates; at this T the weights are fitted on the pairs that have a consensus. Both are
    logistic regressions, by Newton's method. Every file counts alike, and within it every instruction.

    Args:
        logits: of each file ``[n]``, the ranker's own, that a is better.
        gains: of each file ``[n]``, by how much a agrees more than b with all candidates of its prompt; NaN where the
            prompt has no consensus.
        labels: of each file ``[n]``, 1 where a is better, 0 where b is.
        groups: of each file ``[n]``, the number of the instruction.
        seed: of the bootstrap.

    Raises:
        InputError: there is no pair.
    """
    parts = list(zip(logits, gains, labels, groups, strict=True))
    alone = [_File.of(part) for part in parts if len(part[2])]
    if not alone:
        raise InputError("There is no judged pair to calibrate on.")
    pairs = sum(len(file.labels) for file in alone)
    temperature = 1 / _fit(alone, [True, False])[0]
    agreeing = [_File.of(tuple(column[~np.isnan(part[1])] for column in part)) for part in parts]
    agreeing = [file for file in agreeing if file.features[:, 1].any()]
    if not agreeing:
        loss = _loss(alone, np.array([1 / temperature, 0.0]))
        return EvidenceFit(temperature, EvidenceWeights(), Interval(0.0, 0.0), pairs, loss, loss)
    slopes = _fit(agreeing)
    rng = np.random.default_rng(seed)
    drawn = [_fit([file.drawn(rng) for file in agreeing])[1] * temperature for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    model, weight = slopes * temperature
    return EvidenceFit(
        temperature,
        EvidenceWeights(float(weight), float(model)) if weight else EvidenceWeights(),
        Interval(float(low), float(high)),
        pairs,
        _loss(agreeing, slopes),
        _loss(agreeing, _fit(agreeing, [True, False])),
    )


@dataclass(frozen=True)
class _File:
    features: Floats  # [n, 2]: logit, consensus
    labels: Floats
    groups: NDArray[np.int64]
    weights: Floats  # sum 1

    @classmethod
    def of(cls, part: tuple[NDArray[Any], ...]) -> _File:
        logits, gains, labels, groups = part
        _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        weights = 1 / (sizes[numbers] * len(sizes))
        features = np.stack([logits, np.nan_to_num(gains)], -1)
        return cls(features, np.asarray(labels, np.float64), numbers, weights)

    def drawn(self, rng: np.random.Generator) -> _File:
        """As many instructions, drawn with replacement."""
        times = np.bincount(rng.integers(self.groups.max() + 1, size=self.groups.max() + 1), minlength=len(self.groups))
        weights = self.weights * times[self.groups]
        return _File(self.features, self.labels, self.groups, weights / weights.sum())


def _loss(files: Sequence[_File], slopes: Floats) -> float:
    """Log loss, each file counting alike."""
    return float(
        np.mean(
            [
                file.weights @ np.logaddexp(0, np.where(file.labels == 1, -1, 1) * (file.features @ slopes))
                for file in files
            ]
        )
    )


def _fit(files: Sequence[_File], fitted: Sequence[bool] = (True, True)) -> NDArray[np.float64]:
    """``[2]``: slopes of logit and consensus, of which log loss is a convex function; those not fitted are 0."""
    features = np.concatenate([file.features for file in files])
    labels = np.concatenate([file.labels for file in files])
    weights = np.concatenate([file.weights for file in files]) / len(files)
    wanted = np.array(fitted) & features.any(axis=0)
    least = np.array([_LEAST_SLOPE, 0.0])
    slopes: NDArray[np.float64] = np.maximum(wanted.astype(float) * [1, 0], least)
    for _ in range(_STEPS):
        promised = sigmoid(features @ slopes)
        gradient = features.T @ (weights * (promised - labels))
        curvature = (features.T * (weights * promised * (1 - promised))) @ features
        free = wanted & ((slopes > least) | (gradient < 0))
        step = np.zeros(2)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)] + 1e-9 * np.eye(free.sum()), gradient[free])
        moved = np.maximum(slopes - np.clip(step, -2, 2), least)
        if np.abs(moved - slopes).max() < 1e-9:
            break
        slopes = moved
    return slopes
