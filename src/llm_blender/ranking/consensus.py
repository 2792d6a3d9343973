"""Consensus of candidates: an answer that agrees with the others is rarely wrong.

A ranker that reads two candidates at a time cannot see this; an ensemble gets it for free.
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
from llm_blender.ranking.form import is_degenerate

_STEPS = 100
_LEAST_SLOPE = 1e-3  # 1 / temperature of an uninformative ranker
_LONGEST = 20_000  # characters of a text that count
_BLOCK = 4096  # different items at a time, which bounds the memory
_LEAST = 3  # number of different candidates from which on there is a consensus

# Scripts without spaces between words: each character counts as one.
_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKENS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


def consensus(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return for each candidate its share of the content of the others, from 0 to 1.

    For candidate i this is the mean over the others of |V_i ∩ V_j| / |V_j|, where V is the set of a text's words and
    punctuation marks in lower case, averaged with the same for bigrams: the recall of ROUGE-1 and ROUGE-2 on sets,
    with every other candidate as a reference. Choosing the highest is minimum Bayes risk decoding (Kumar and Byrne
    2004, aclanthology.org/N04-1022), with the candidates as the sample and this as the gain. It favours longer answers
    as far as their content is in the others too.

    A degenerate text (empty, or a loop) has no vote: its share is 0, and it counts for no other candidate. Beside it,
    texts that are too few for a consensus all have the share 1/2.

    Args:
        texts: N candidates of one prompt; equal texts count as often as they occur.

    Returns:
        ``[N]``; all 0 if N is below three or fewer than three texts are different, and no text is a loop.
    """
    votes = [place for place, text in enumerate(texts) if not is_degenerate(text)]
    shares = np.zeros(len(texts))
    if len({texts[place].strip() for place in votes}) >= _LEAST:
        tokens = [_TOKENS.findall(texts[place][:_LONGEST].lower()) for place in votes]
        bigrams = _recall([set(itertools.pairwise(words)) for words in tokens])
        shares[votes] = (_recall([set(words) for words in tokens]) + bigrams) / 2
    elif len(votes) < len(texts) and len(texts) >= _LEAST:
        shares[votes] = 0.5
    return shares


def _recall(sets: Sequence[AbstractSet[Any]]) -> NDArray[np.float64]:
    """Return ``[N]``, the mean share of the other sets that each set contains."""
    numbers: dict[Any, int] = {}
    rows = [np.sort([numbers.setdefault(item, len(numbers)) for item in items]).astype(np.int64) for items in sets]
    common = np.zeros((len(sets), len(sets)))
    for start in range(0, len(numbers), _BLOCK):
        held = np.zeros((len(sets), _BLOCK))
        for row, columns in enumerate(rows):
            held[row, columns[slice(*np.searchsorted(columns, (start, start + _BLOCK)))] - start] = 1
        common += held @ held.T
    shares = common / np.maximum(np.array([len(items) for items in sets]), 1)
    np.fill_diagonal(shares, 0)
    return np.asarray(shares.sum(axis=1) / (len(sets) - 1))


@dataclass(frozen=True)
class LogitWeights:
    """Weights of a ranker's logit and of the candidates' consensus.

    For a prompt with three or more different candidates, evidence(a, b) = model · logit + consensus · (share of a −
    share of b). For two candidates the evidence is the logit.

    Attributes:
        consensus: weight of the consensus, in logits; 0 makes the evidence the logit for all prompts.
        model: weight of the ranker's logit where there is a consensus.
    """

    consensus: float = 0.0
    model: float = 1.0

    def evidence(self, logits: Floats, gains: Floats) -> NDArray[np.float64]:
        """Combine logits and consensus.

        Args:
            logits: ``[n]`` of the ranker.
            gains: ``[n]``, share of a minus share of b; NaN if the prompt has no consensus.
        """
        if not self.consensus:
            return np.asarray(logits, np.float64)
        both = self.model * logits + self.consensus * np.nan_to_num(gains)
        return np.where(np.isnan(gains), logits, both)


@dataclass(frozen=True)
class EvidenceFit:
    """Fitted calibration of a ranker's logit and the consensus.

    Attributes:
        temperature: of the evidence.
        weights: of its two parts, neither below 0.
        ci95: interval of the consensus' weight, resampled by instruction.
        pairs: number of judged pairs.
        log_loss: of the pairs with a consensus, in nats, all files weighted equally; of all pairs if none has one.
        log_loss_without: of the same pairs by the ranker's logit only, at its best temperature.
    """

    temperature: float
    weights: LogitWeights
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
    resamples: int = 200,
) -> EvidenceFit:
    """Fit the temperature T and the `LogitWeights` of maximum likelihood to a judge's labels.

    P(a is better than b) = sigmoid(evidence(a, b) / T). T is fitted to the ranker's logit only, on all pairs, as if
    there were no other candidates; at this T the weights are fitted on the pairs with a consensus. Both are logistic
    regressions, by Newton's method. All files have equal weight, and so have all instructions of a file.

    Args:
        logits: for each file ``[n]``, the ranker's logit that a is better.
        gains: for each file ``[n]``, the consensus of a minus that of b among all candidates of its prompt; NaN if
            the prompt has no consensus.
        labels: for each file ``[n]``, 1 where a is better, 0 where b is.
        groups: for each file ``[n]``, the number of the instruction.
        seed: of the bootstrap.
        resamples: number of bootstrap draws for the interval.

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
        return EvidenceFit(temperature, LogitWeights(), Interval(0.0, 0.0), pairs, loss, loss)
    slopes = _fit(agreeing)
    rng = np.random.default_rng(seed)
    drawn = [_fit([file.drawn(rng) for file in agreeing])[1] * temperature for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    model, weight = slopes * temperature
    return EvidenceFit(
        temperature,
        LogitWeights(float(weight), float(model)) if weight else LogitWeights(),
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
        """Draw as many instructions, with replacement."""
        times = np.bincount(rng.integers(self.groups.max() + 1, size=self.groups.max() + 1), minlength=len(self.groups))
        weights = self.weights * times[self.groups]
        return _File(self.features, self.labels, self.groups, weights / weights.sum())


def _loss(files: Sequence[_File], slopes: Floats) -> float:
    """Return the log loss, all files weighted equally."""
    signs = [np.where(file.labels == 1, -1, 1) for file in files]
    losses = [
        file.weights @ np.logaddexp(0, sign * (file.features @ slopes)) for file, sign in zip(files, signs, strict=True)
    ]
    return float(np.mean(losses))


def _fit(files: Sequence[_File], fitted: Sequence[bool] = (True, True)) -> NDArray[np.float64]:
    """Fit ``[2]``, the slopes of logit and consensus, in which log loss is convex; a slope not fitted is 0."""
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
