"""Confidence of a comparison, and of a mean over many instructions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import InputError
from llm_blender.ranking.aggregation import Floats, both_orders, sigmoid
from llm_blender.types import Ranking


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


_SIGMAS = 1.96  # of a 95 % interval


class CalibrationBin(NamedTuple):
    """Pairs of similar predicted probability.

    Attributes:
        members: ``[m]`` indices of its pairs.
        promised: mean predicted probability.
        happened: mean label.
    """

    members: NDArray[np.intp]
    promised: float
    happened: float


def probability(logit: ArrayLike, temperature: float = 1.0) -> Floats:
    """Return P(A is better than B) = sigmoid(logit / temperature); NaN where the logit is NaN.

    Args:
        logit: evidence that A is better, of any shape; see `Comparison.logit`.
        temperature: above 1 softens, below 1 sharpens.

    Raises:
        InputError: the temperature is not above zero.
    """
    if not temperature > 0:
        raise InputError(f"The temperature must be above zero, not {temperature}.")
    return sigmoid(np.asarray(logit, dtype=np.float64) / temperature)


def probability_matrix(ranking: Ranking) -> Floats:
    """Return ``[N, N]``, P(i is better than j) from both orders; NaN where not compared, ½ on the diagonal."""
    return probability(both_orders(ranking.logits), ranking.temperature)


def win_probabilities(ranking: Ranking) -> Floats:
    """Return ``[N]``, the mean probability to beat the others; NaN for a candidate that was not compared."""
    matrix = probability_matrix(ranking)
    np.fill_diagonal(matrix, np.nan)
    opponents = (~np.isnan(matrix)).sum(axis=1)
    return np.where(opponents > 0, np.nansum(matrix, axis=1) / np.maximum(opponents, 1), np.nan)


def log_loss(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> float:
    """Return the mean of −log P(label) in nats; a coin flip has log 2.

    Args:
        logits: ``[n]`` evidence that A is better.
        labels: ``[n]``, 1 where A is better, 0 where B is, one half for a tie.
        temperature: of the probabilities.

    Raises:
        InputError: the shapes differ, there is no pair, or a label is not in [0, 1].
    """
    z, y = _pairs(logits, labels)
    z = z / temperature
    return float((np.logaddexp(0, z) - y * z).mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Fit the temperature of calibrated probabilities, by least log loss (Guo et al., arXiv 1706.04599).

    Log loss is convex in 1 / temperature: the zero of its slope is found by bisection.

    Args:
        logits: ``[n]`` evidence that A is better, of pairs outside the training data.
        labels: ``[n]``, 1 where A is better, 0 where B is, one half for a tie.

    Returns:
        The temperature, between 0.001 (all labels agree with the logits) and 1000 (the logits are uninformative).

    Raises:
        InputError: as in `log_loss`.
    """
    z, y = _pairs(logits, labels)
    low, high = np.log(1e-3), np.log(1e3)
    while high - low > 1e-9:
        middle = (low + high) / 2
        slope = ((probability(z, float(np.exp(middle))) - y) * z).mean()  # over 1 / temperature
        low, high = (middle, high) if slope > 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean squared difference of probability and label (Brier 1950); a coin flip has 0.25.

    Args:
        probabilities: ``[n]``, P(A is better).
        labels: ``[n]``, 1 where A is better, 0 where B is, one half for a tie.

    Raises:
        InputError: as in `log_loss`.
    """
    p, y = _pairs(probabilities, labels)
    return float(((p - y) ** 2).mean())


def calibration_bins(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> list[CalibrationBin]:
    """Group pairs into bins of equal size by predicted probability.

    Equal probabilities fall into the same bin, so the order of the pairs does not matter.

    Args:
        probabilities: ``[n]``, P(A is better).
        labels: ``[n]``, 1 where A is better, 0 where B is, one half for a tie.
        bins: number of bins; fewer if probabilities coincide.

    Returns:
        The bins that are not empty, lowest probabilities first.

    Raises:
        InputError: as in `log_loss`, or `bins` is below 1.
    """
    p, y = _pairs(probabilities, labels)
    if bins < 1:
        raise InputError(f"Calibration needs at least 1 bin, not {bins}.")
    edges = np.quantile(p, np.arange(1, bins) / bins)
    bin_of = np.searchsorted(edges, p, side="right")
    parts = [np.flatnonzero(bin_of == number) for number in np.unique(bin_of)]
    return [CalibrationBin(part, float(p[part].mean()), float(y[part].mean())) for part in parts]


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> float:
    """Return the mean distance of predicted probability and label over `calibration_bins`.

    Args:
        probabilities: ``[n]``, P(A is better).
        labels: ``[n]``, 1 where A is better, 0 where B is, one half for a tie.
        bins: number of bins; fewer if probabilities coincide.

    Returns:
        From 0 to 1.

    Raises:
        InputError: as in `calibration_bins`.
    """
    parts = calibration_bins(probabilities, labels, bins)
    total = sum(len(part.members) for part in parts)
    return sum(len(part.members) * abs(part.promised - part.happened) for part in parts) / total


def bootstrap_interval(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
    cells: int = 4_000_000,
) -> Interval:
    """Return the percentile bootstrap interval of the mean, resampled by group (Efron, Tibshirani 1993, chapter 13).

    Args:
        values: ``[n]``.
        groups: ``[n]`` names or numbers; values of one instruction are not independent, so they are drawn
            together. None makes every value a group.
        seed: of the draws.
        level: share of the resampled means inside the interval.
        resamples: number of draws.
        cells: number of indices drawn at a time, 8 bytes each; affects memory, not the result.

    Raises:
        InputError: there are no values, `groups` differs in length, or `level` is not between 0 and 1.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x):
        raise InputError(f"A bootstrap needs a list of at least one value, not an array of shape {list(x.shape)}.")
    if not 0 < level < 1:
        raise InputError(f"The level of an interval must be between 0 and 1, not {level}.")
    group_of = np.arange(len(x)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if group_of.shape != x.shape:
        raise InputError(f"{len(x)} values need as many groups, not an array of shape {list(group_of.shape)}.")
    sums, counts = np.bincount(group_of, weights=x), np.bincount(group_of)
    draws = bootstrap_draws(len(sums), seed=seed, resamples=resamples, cells=cells)
    means = [sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1) for drawn in draws]
    return percentile_interval(np.concatenate(means), level)


def bootstrap_draws(
    groups: int, *, seed: int = 0, resamples: int = 2000, cells: int = 4_000_000
) -> Iterator[NDArray[np.int64]]:
    """Draw as many groups as there are, with replacement, again and again.

    Args:
        groups: number of groups, at least 1.
        seed: of the draws.
        resamples: number of draws.
        cells: number of indices drawn at a time, 8 bytes each; affects memory, not the draws.

    Yields:
        ``[draws, groups]`` indices of groups, `resamples` draws in all.
    """
    rng, block = np.random.default_rng(seed), max(1, cells // groups)
    for start in range(0, resamples, block):
        yield rng.integers(groups, size=(min(block, resamples - start), groups))


def percentile_interval(resampled: Floats, level: float = 0.95) -> Interval:
    """Return the interval that holds the middle of ``[resamples]`` values, `level` of them."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(low, high)


def _pairs(values: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise InputError(f"Values and labels must be lists of equal length, not {list(x.shape)} and {list(y.shape)}.")
    if not ((y >= 0) & (y <= 1)).all():
        raise InputError("A label must be 1 (A is better), 0 (B is better) or between.")
    return x, y


def wilson_interval(share: float, count: float) -> Interval:
    """Return the 95 % score interval of a share (Wilson, JASA 22, 1927, p. 209).

    With z = 1.96, the ends are (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n). Unlike a bootstrap interval it
    has a width where all was won or lost.

    Args:
        share: p, from 0 to 1.
        count: n, number of independent trials, above 0; for clusters the effective one, which need not be whole.
    """
    z2 = _SIGMAS**2 / count
    spread = _SIGMAS * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    low, high = ((share + z2 / 2 + sign * spread) / (1 + z2) for sign in (-1, 1))
    return Interval(max(low, 0.0), min(high, 1.0))
