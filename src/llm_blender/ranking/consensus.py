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
from llm_blender.ranking._math import Floats, sigmoid
from llm_blender.ranking.confidence import Interval

__all__ = ["EvidenceFit", "consensus", "fit_evidence"]

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
class EvidenceFit:
    """How a ranker's logit and the consensus together become a probability.

    Attributes:
        temperature: of the evidence.
        consensus: weight of the consensus, in logits, never below 0.
        ci95: its interval, resampled by instruction.
        pairs: judged pairs it rests on.
        log_loss: of these pairs, in nats, each file counting alike.
        log_loss_without: with the temperature alone.
    """

    temperature: float
    consensus: float
    ci95: Interval
    pairs: int
    log_loss: float
    log_loss_without: float


def fit_evidence(
    logits: Sequence[Floats],
    shares: Sequence[Floats],
    labels: Sequence[Floats],
    groups: Sequence[NDArray[np.int64]],
    *,
    seed: int = 0,
) -> EvidenceFit:
    """The temperature T and the weight w that make a judge's labels likeliest.

    P(a is better than b) = sigmoid((logit + w · (consensus of a − consensus of b)) / T): a logistic regression on two
    numbers, by Newton's method. Every file counts alike, and within it every instruction.

    Args:
        logits: of each file ``[n]``, the ranker's evidence that a is better.
        shares: of each file ``[n]``, by how much a agrees more than b with all candidates of its prompt.
        labels: of each file ``[n]``, 1 where a is better, 0 where b is.
        groups: of each file ``[n]``, the number of the instruction.
        seed: of the bootstrap.

    Raises:
        InputError: there is no pair.
    """
    if not sum(map(len, labels)):
        raise InputError("There is no judged pair to calibrate on.")
    files = [_File.of(*parts) for parts in zip(logits, shares, labels, groups, strict=True) if len(parts[2])]
    temperature, weight = _fit(files)
    rng = np.random.default_rng(seed)
    drawn = [_fit([file.drawn(rng) for file in files])[1] for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    alone = _fit([file.without_consensus() for file in files])[0]
    return EvidenceFit(
        temperature,
        weight,
        Interval(float(low), float(high)),
        sum(len(file.labels) for file in files),
        float(np.mean([file.loss(temperature, weight) for file in files])),
        float(np.mean([file.loss(alone, 0.0) for file in files])),
    )


@dataclass(frozen=True)
class _File:
    features: Floats  # [n, 2]: logit, consensus
    labels: Floats
    groups: NDArray[np.int64]
    weights: Floats  # sum 1

    @classmethod
    def of(cls, logits: Floats, shares: Floats, labels: Floats, groups: NDArray[np.int64]) -> _File:
        _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        weights = 1 / (sizes[numbers] * len(sizes))
        return cls(np.stack([logits, shares], -1), np.asarray(labels, np.float64), numbers, weights)

    def drawn(self, rng: np.random.Generator) -> _File:
        """As many instructions, drawn with replacement."""
        times = np.bincount(rng.integers(self.groups.max() + 1, size=self.groups.max() + 1), minlength=len(self.groups))
        weights = self.weights * times[self.groups]
        return _File(self.features, self.labels, self.groups, weights / weights.sum())

    def without_consensus(self) -> _File:
        return _File(self.features * [1, 0], self.labels, self.groups, self.weights)

    def loss(self, temperature: float, weight: float) -> float:
        evidence = (self.features @ [1, weight]) / temperature
        return float(self.weights @ np.logaddexp(0, np.where(self.labels == 1, -evidence, evidence)))


def _fit(files: Sequence[_File]) -> tuple[float, float]:
    """(temperature, weight); log loss is convex in (1 / temperature, weight / temperature)."""
    features = np.concatenate([file.features for file in files])
    labels = np.concatenate([file.labels for file in files])
    weights = np.concatenate([file.weights for file in files]) / len(files)
    free = np.array([True, bool(features[:, 1].any())])
    slopes = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        promised = sigmoid(features @ slopes)
        gradient = features.T @ (weights * (promised - labels))
        curvature = (features.T * (weights * promised * (1 - promised))) @ features
        free[1] = free[1] and (slopes[1] > 0 or gradient[1] < 0)
        step = np.zeros(2)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)] + 1e-9 * np.eye(free.sum()), gradient[free])
        moved = slopes - np.clip(step, -2, 2)
        moved = np.maximum(moved, [_LEAST_SLOPE, 0.0])
        if np.abs(moved - slopes).max() < 1e-9:
            break
        slopes = moved
    return float(1 / slopes[0]), float(slopes[1] / slopes[0])
