"""What a few comparisons say about the strengths of all candidates, and how surely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from llm_blender.ranking._math import Floats, sigmoid
from llm_blender.ranking.aggregation import evidence

# Variance of a pair's evidence, the strengths having variance 1. With simulated rankers, from
# exact to noisier than the strengths differ, 0.1 to 0.5 did about equally well (11 and 20 candidates).
_NOISE = 0.2


@dataclass(frozen=True)
class Posterior:
    """Strengths θ after comparisons with evidence(i, j) = θ_i − θ_j + noise, all of them Gaussian.

    With every pair compared its mean is half of MaxLogits, shrunk: the same order. Multiplying all logits
    by a constant multiplies `mean` by it and leaves the choice of pairs alone.

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
        """From ordered logits ``[N, N]``, NaN where not compared."""
        observed = evidence(logits)
        compared = ~np.isnan(observed)
        observed = np.nan_to_num(observed)
        pairs = compared.astype(np.float64)
        laplacian = np.diag(pairs.sum(axis=1)) - pairs
        covariance = np.linalg.inv(np.eye(len(pairs)) + laplacian / _NOISE)
        mean = covariance @ observed.sum(axis=1) / _NOISE
        # Two strengths differ by twice the variance of one; all evidence 0 leaves the unit free.
        variance = (observed**2).sum() / max(2 * (pairs.sum() - len(pairs)), 1) or 1.0
        return cls(mean, covariance * variance, compared)

    def most_doubtful_pair(self) -> tuple[int, int]:
        """The pair not compared yet whose order is least known, among those that may be the best."""
        variances = np.diag(self.covariance)
        spread = np.sqrt(np.maximum(variances[:, None] + variances[None, :] - 2 * self.covariance, 0))
        leader = int(self.mean.argmax())
        behind = (self.mean[leader] - self.mean) / np.where(spread[leader] > 0, spread[leader], 1)
        promise = sigmoid(-1.7 * behind)  # the logistic curve nearest to the normal one
        doubt = np.where(self.compared, -1, promise[:, None] * promise[None, :] * spread)
        i, j = divmod(int(doubt.argmax()), len(doubt))
        return i, j
