"""Aggregation of comparisons to scores and ranks.

All functions here take a matrix of ordered logits ``[N, N]``: ``[i, j]`` is l(i, j), above zero where candidate
i, read first, is better than j; NaN where the pair was not compared. The diagonal is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import InputError, unknown_name
from llm_blender.types import Ranking

Floats = NDArray[np.float64]


def sigmoid(x: Floats) -> Floats:
    """Compute 1 / (1 + exp(−x)) without overflow; NaN stays NaN."""
    return (1 + np.tanh(x / 2)) / 2


class Strengths(NamedTuple):
    """Strengths estimated from games.

    Attributes:
        mean: ``[N]`` strengths in logits, their sum 0.
        covariance: ``[N, N]`` with the penalty as a Gaussian prior: the inverse curvature at `mean`.
    """

    mean: Floats
    covariance: Floats


def fit_strengths(wins: Floats, penalty: float) -> Strengths:
    """Fit the strengths θ of maximum likelihood, P(i beats j) being sigmoid(θ_i − θ_j).

    Args:
        wins: ``[N, N]``, number of wins of i over j, possibly fractional or weighted.
        penalty: λ above zero of λ·Σθ²; as a Gaussian prior, its variance is 1 / 2λ.
    """
    games, theta = wins + wins.T, np.zeros(len(wins))

    def loss(theta: Floats) -> float:
        gaps = theta[:, None] - theta[None, :]
        return float((wins * np.logaddexp(0, -gaps)).sum() + penalty * (theta**2).sum())

    def curvature(p: Floats) -> Floats:
        weights = games * p * (1 - p)
        hessian: Floats = np.diag(weights.sum(axis=1) + 2 * penalty) - weights
        return hessian

    for _ in range(100):  # Newton's method; it usually takes a few steps
        p = sigmoid(theta[:, None] - theta[None, :])
        gradient = (games * p - wins).sum(axis=1) + 2 * penalty * theta
        step = np.linalg.solve(curvature(p), gradient)
        while loss(theta - step) > loss(theta) and np.abs(step).max() > 1e-12:  # overshooting where the loss is flat
            step /= 2
        theta = theta - step
        if np.abs(step).max() < 1e-10:
            break
    covariance = np.asarray(np.linalg.inv(curvature(sigmoid(theta[:, None] - theta[None, :]))), dtype=np.float64)
    return Strengths(theta, covariance)


# The last digits of a sum of floats depend on their order; two candidates with the same logits must tie.
_DECIMALS_OF_SUMS = 9


def both_orders(logits: ArrayLike) -> Floats:
    """Combine both orders: ``[i, j]`` is (l(i,j) − l(j,i)) / 2, the matrix form of `Ranking.logit`.

    Args:
        logits: ``[N, N]`` ordered logits.

    Returns:
        ``[N, N]``, antisymmetric; the known order if only one is; NaN if none is; diagonal 0.
    """
    forward = _off_diagonal(logits)
    backward = -forward.T
    both = np.where(np.isnan(backward), forward, (forward + backward) / 2)
    both = np.where(np.isnan(forward), backward, both)
    np.fill_diagonal(both, 0)
    return both


def max_logits(logits: ArrayLike) -> Floats:
    """Score by the sum of all evidence for a candidate, the paper's default (arXiv 2306.02561, section 4.2).

    Args:
        logits: ``[N, N]`` ordered logits; missing ones add nothing.

    Returns:
        ``[N]``, (1/N) · Σ_j (l(i,j) − l(j,i)): divided by N, not N − 1, as in LLM-Blender 0.0.2.
    """
    known = np.nan_to_num(_off_diagonal(logits))
    sums: Floats = (known - known.T).sum(axis=1).round(_DECIMALS_OF_SUMS) + 0.0  # no -0.0
    return sums / len(known)


def max_wins(logits: ArrayLike) -> Floats:
    """Score by the number of comparisons won (arXiv 2306.02561, section 4.2); a logit of 0 counts for neither.

    Args:
        logits: ``[N, N]`` ordered logits.

    Returns:
        ``[N]``, #(l(i,·) > 0) + #(l(·,i) < 0); from 0 to 2(N − 1).
    """
    known = _off_diagonal(logits)
    return np.asarray((known > 0).sum(axis=1) + (known < 0).sum(axis=0), dtype=np.float64)


def bradley_terry(logits: ArrayLike, *, regularization: float = 0.01, soft: bool = False) -> Floats:
    """Score by the strengths of maximum likelihood, P(i beats j) being sigmoid(θ_i − θ_j).

    Source: Bradley and Terry, Rank analysis of incomplete block designs, Biometrika 39, 1952.

    Args:
        logits: ``[N, N]`` ordered logits; each is one game.
        regularization: weight λ above zero of the penalty λ·Σθ². It keeps the strength of a candidate that
            won every game, or played none, finite.
        soft: count sigmoid(logit) of a game as won; otherwise the sign of the logit decides, half each at 0.

    Returns:
        ``[N]`` strengths in logits, their mean 0.

    Raises:
        InputError: `regularization` is not above zero.
    """
    if not regularization > 0:
        raise InputError(f"The regularization must be above zero, not {regularization}.")
    known = _off_diagonal(logits)
    share = sigmoid(known) if soft else np.sign(known) / 2 + 0.5
    wins = np.nan_to_num(share) + np.nan_to_num(1 - share).T
    strengths: Floats = fit_strengths(wins, regularization).mean.round(_DECIMALS_OF_SUMS) + 0.0
    return strengths


Aggregation = Callable[[ArrayLike], Floats]
"""Function from ordered logits ``[N, N]`` to scores ``[N]``."""

AGGREGATIONS: dict[str, Aggregation] = {
    "max_logits": max_logits,
    "max_wins": max_wins,
    "bradley_terry": bradley_terry,
}
"""Aggregations by name."""


def find_aggregation(name: str) -> Aggregation:
    """Return an aggregation by name.

    Raises:
        InputError: the name is unknown; the message suggests the nearest known one.
    """
    if name not in AGGREGATIONS:
        raise unknown_name("aggregation", name, AGGREGATIONS)
    return AGGREGATIONS[name]


def ranks_from_scores(scores: ArrayLike) -> NDArray[np.int64]:
    """Return competition ranks "1, 1, 3": the highest score is 1, equal scores share the smaller rank.

    Args:
        scores: ``[N]``, higher is better.

    Returns:
        ``[N]`` ranks.

    Raises:
        InputError: a score is NaN.
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        raise InputError("A score is NaN: it has no rank.")
    return 1 + len(values) - np.searchsorted(np.sort(values), values, side="right")


def ranking_from_scores(strategy: str, scores: ArrayLike, logits: ArrayLike) -> Ranking:
    """Build a ranking by scores, the highest best; among equal scores the smaller index is first in `order`.

    Args:
        strategy: name for `Ranking.strategy`.
        scores: ``[N]``.
        logits: ``[N, N]`` ordered logits; all that are not NaN count as comparisons.
    """
    values = np.asarray(scores, dtype=np.float64)
    known = _off_diagonal(logits)
    order = np.argsort(-values, kind="stable").tolist()
    return Ranking(
        best=order[0],
        order=tuple(order),
        ranks=tuple(ranks_from_scores(values).tolist()),
        scores=tuple(values.tolist()),
        logits=known,
        strategy=strategy,
        comparisons=int(np.count_nonzero(~np.isnan(known))),
    )


def ranking_from_elimination(strategy: str, rounds: Sequence[Sequence[int]], logits: ArrayLike) -> Ranking:
    """Build a ranking by elimination: a later round is better, the same round ties.

    Args:
        strategy: name for `Ranking.strategy`.
        rounds: candidates eliminated in each round, first round first; the last holds the winner. A candidate
            in several rounds counts for the last. A score is the number of rounds survived.
        logits: ``[N, N]`` ordered logits.
    """
    scores = np.zeros(len(np.asarray(logits)))
    for outlasted, losers in enumerate(rounds):
        scores[list(losers)] = outlasted
    return ranking_from_scores(strategy, scores, logits)


def _off_diagonal(logits: ArrayLike) -> Floats:
    """Copy the logits, with NaN on the diagonal."""
    matrix = np.array(logits, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise InputError(f"Logits of N ≥ 1 candidates must have the shape [N, N], not {list(matrix.shape)}.")
    np.fill_diagonal(matrix, np.nan)
    return matrix


# Variance of a pair's evidence, for strengths of variance 1. With simulated rankers, from exact ones to noise above
# the spread of strengths, 0.1 to 0.5 gave about equal results (11 and 20 candidates).
_NOISE = 0.2


@dataclass(frozen=True)
class Posterior:
    """Gaussian posterior of the strengths θ after comparisons with evidence(i, j) = θ_i − θ_j + noise.

    With every pair compared its mean is half of MaxLogits, shrunk: the same order. Multiplying all logits
    by a constant multiplies `mean` by it and does not change the choice of pairs.

    Attributes:
        mean: ``[N]`` expected strengths.
        covariance: ``[N, N]`` of the strengths.
        compared: ``[N, N]``, true for pairs with evidence and on the diagonal.
    """

    mean: Floats
    covariance: Floats
    compared: NDArray[np.bool_]

    @classmethod
    def of(cls, logits: Floats) -> Self:
        """Compute the posterior from ordered logits ``[N, N]``, NaN where not compared."""
        observed = both_orders(logits)
        compared = ~np.isnan(observed)
        observed = np.nan_to_num(observed)
        pairs = compared.astype(np.float64)
        laplacian = np.diag(pairs.sum(axis=1)) - pairs
        covariance = np.linalg.inv(np.eye(len(pairs)) + laplacian / _NOISE)
        mean = covariance @ observed.sum(axis=1) / _NOISE
        # The difference of two strengths has twice the variance of one; if all evidence is 0, any unit fits.
        variance = (observed**2).sum() / max(2 * (pairs.sum() - len(pairs)), 1) or 1.0
        return cls(mean, covariance * variance, compared)

    def most_doubtful_pair(self) -> tuple[int, int]:
        """Return the pair, not compared yet, of least certain order among candidates that may be the best."""
        variances = np.diag(self.covariance)
        spread = np.sqrt(np.maximum(variances[:, None] + variances[None, :] - 2 * self.covariance, 0))
        leader = int(self.mean.argmax())
        behind = (self.mean[leader] - self.mean) / np.where(spread[leader] > 0, spread[leader], 1)
        promise = sigmoid(-1.7 * behind)  # the logistic curve closest to the normal distribution
        doubt = np.where(self.compared, -1, promise[:, None] * promise[None, :] * spread)
        i, j = divmod(int(doubt.argmax()), len(doubt))
        return i, j
