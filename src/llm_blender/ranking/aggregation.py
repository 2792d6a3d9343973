"""Comparisons → scores → ranks.

Everything here takes a matrix of ordered logits ``[N, N]``: ``[i, j]`` is l(i, j), above zero where candidate
i, read first, is better than j; NaN where the pair was not compared. The diagonal is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import InputError, unknown_name
from llm_blender.ranking._bradley_terry import fit_strengths
from llm_blender.ranking._math import Floats, sigmoid
from llm_blender.types import Ranking

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "bradley_terry",
    "evidence",
    "find_aggregation",
    "max_logits",
    "max_wins",
    "ranking_from_elimination",
    "ranking_from_scores",
    "ranks_from_scores",
]

# A sum of floats depends on their order in its last digits; two candidates with the same logits must tie.
_DECIMALS_OF_SUMS = 9


def evidence(logits: ArrayLike) -> Floats:
    """What both orders say together: ``[i, j]`` is (l(i,j) − l(j,i)) / 2, the matrix form of `Ranking.logit`.

    Args:
        logits: ``[N, N]`` ordered logits.

    Returns:
        ``[N, N]``, antisymmetric; where only one order is known, that one; NaN where none is; diagonal 0.
    """
    forward = _off_diagonal(logits)
    backward = -forward.T
    both = np.where(np.isnan(backward), forward, (forward + backward) / 2)
    both = np.where(np.isnan(forward), backward, both)
    np.fill_diagonal(both, 0)
    return both


def max_logits(logits: ArrayLike) -> Floats:
    """Scores by the sum of all evidence for a candidate, the paper's default (arXiv 2306.02561, section 4.2).

    Args:
        logits: ``[N, N]`` ordered logits; missing ones add nothing.

    Returns:
        ``[N]``, (1/N) · Σ_j (l(i,j) − l(j,i)): divided by N, not N − 1, as LLM-Blender has always done.
    """
    known = np.nan_to_num(_off_diagonal(logits))
    sums: Floats = (known - known.T).sum(axis=1).round(_DECIMALS_OF_SUMS) + 0.0  # no -0.0
    return sums / len(known)


def max_wins(logits: ArrayLike) -> Floats:
    """Scores by the number of comparisons won (arXiv 2306.02561, section 4.2); a logit of 0 is nobody's.

    Args:
        logits: ``[N, N]`` ordered logits.

    Returns:
        ``[N]``, #(l(i,·) > 0) + #(l(·,i) < 0); from 0 to 2(N − 1).
    """
    known = _off_diagonal(logits)
    return np.asarray((known > 0).sum(axis=1) + (known < 0).sum(axis=0), dtype=np.float64)


def bradley_terry(logits: ArrayLike, *, regularization: float = 0.01, soft: bool = False) -> Floats:
    """Strengths that explain the outcomes best, P(i beats j) being sigmoid(θ_i − θ_j).

    Source: Bradley and Terry, Rank analysis of incomplete block designs, Biometrika 39, 1952.

    Args:
        logits: ``[N, N]`` ordered logits; every one is one game.
        regularization: weight λ of the penalty λ·Σθ². Above zero, the strength of a candidate that won
            every game, or played none, is finite.
        soft: a game is won in part, by sigmoid(logit); otherwise by the sign of the logit, a half each at 0.

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
"""From ordered logits ``[N, N]`` to scores ``[N]``."""

AGGREGATIONS: dict[str, Aggregation] = {
    "max_logits": max_logits,
    "max_wins": max_wins,
    "bradley_terry": bradley_terry,
}
"""The aggregations by name."""


def find_aggregation(name: str) -> Aggregation:
    """The aggregation of that name.

    Raises:
        InputError: there is none; the nearest known name is given.
    """
    if name not in AGGREGATIONS:
        raise unknown_name("aggregation", name, AGGREGATIONS)
    return AGGREGATIONS[name]


def ranks_from_scores(scores: ArrayLike) -> NDArray[np.int64]:
    """Competition ranks "1, 1, 3": the highest score is 1, equal scores share the smaller rank.

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
    """The ranking in which the highest score is best; among equals the smaller index stands first in `order`.

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
    """The ranking of a contest: out later is better, out in the same round ties.

    Args:
        strategy: name for `Ranking.strategy`.
        rounds: who went out in each round, first round first; the last holds the winner. Who stands in
            several counts by the last. A score is the number of rounds that were outlasted.
        logits: ``[N, N]`` ordered logits.
    """
    scores = np.zeros(len(np.asarray(logits)))
    for outlasted, losers in enumerate(rounds):
        scores[list(losers)] = outlasted
    return ranking_from_scores(strategy, scores, logits)


def _off_diagonal(logits: ArrayLike) -> Floats:
    """A copy of the logits, NaN on the diagonal."""
    matrix = np.array(logits, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise InputError(f"Logits of N ≥ 1 candidates have the shape [N, N], not {list(matrix.shape)}.")
    np.fill_diagonal(matrix, np.nan)
    return matrix
