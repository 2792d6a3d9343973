"""Strengths by the model of Bradley and Terry, with a penalty on their size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llm_blender.ranking._math import Floats, sigmoid


class Strengths(NamedTuple):
    """What the games say.

    Attributes:
        mean: ``[N]`` strengths in logits, their sum 0.
        covariance: ``[N, N]``, where the penalty is read as a Gaussian: the inverse curvature at `mean`.
    """

    mean: Floats
    covariance: Floats


def fit_strengths(wins: Floats, penalty: float) -> Strengths:
    """The strengths θ that make the games likeliest, P(i beats j) being sigmoid(θ_i − θ_j).

    Args:
        wins: ``[N, N]``, how often i beat j, in parts or weighted.
        penalty: λ above zero of λ·Σθ²; read as a Gaussian, its variance is 1 / 2λ.
    """
    games, theta = wins + wins.T, np.zeros(len(wins))

    def loss(theta: Floats) -> float:
        gaps = theta[:, None] - theta[None, :]
        return float((wins * np.logaddexp(0, -gaps)).sum() + penalty * (theta**2).sum())

    def curvature(p: Floats) -> Floats:
        weights = games * p * (1 - p)
        hessian: Floats = np.diag(weights.sum(axis=1) + 2 * penalty) - weights
        return hessian

    for _ in range(100):  # Newton's steps; a handful is the rule
        p = sigmoid(theta[:, None] - theta[None, :])
        gradient = (games * p - wins).sum(axis=1) + 2 * penalty * theta
        step = np.linalg.solve(curvature(p), gradient)
        while loss(theta - step) > loss(theta) and np.abs(step).max() > 1e-12:  # too far on a flat slope
            step /= 2
        theta = theta - step
        if np.abs(step).max() < 1e-10:
            break
    covariance = np.asarray(np.linalg.inv(curvature(sigmoid(theta[:, None] - theta[None, :]))), dtype=np.float64)
    return Strengths(theta, covariance)
