"""Bootstrap over instructions: one set of draws for all figures of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llm_blender.ranking import Interval

__all__ = ["Resampling"]

_Floats = NDArray[np.float64]

_LEVELS = (0.025, 0.975)
_CELLS = 4_000_000  # of one block of draws: 32 MB


class Resampling:
    """Percentile intervals as `llm_blender.ranking.bootstrap_interval`'s, of many means at once.

    Args:
        groups: ``[n]`` the instruction of each row; rows of one instruction are drawn together.
        seed: of the draws.
        resamples: number of draws.
    """

    def __init__(self, groups: Sequence[int], *, seed: int = 0, resamples: int = 2000) -> None:
        self._group_of = np.unique(np.asarray(groups), return_inverse=True)[1]
        size = int(self._group_of.max()) + 1
        rng = np.random.default_rng(seed)
        block = max(1, _CELLS // size)
        drawn = [_drawn(rng, min(block, resamples - start), size) for start in range(0, resamples, block)]
        self._counts: _Floats = np.concatenate(drawn)

    @property
    def weights(self) -> _Floats:
        """``[resamples, n]``: how often each draw holds a row."""
        return np.asarray(self._counts[:, self._group_of])

    def means(self, values: _Floats) -> list[Interval | None]:
        """An interval for the mean of each column.

        Args:
            values: ``[n, k]``; NaN does not count.

        Returns:
            k of them; None where nothing counts.
        """
        known = ~np.isnan(values)
        totals, sizes = self._counts @ self._by_group(np.nan_to_num(values)), self._counts @ self._by_group(known * 1.0)
        return intervals(np.where(sizes > 0, totals / np.maximum(sizes, 1), np.nan))

    def _by_group(self, values: _Floats) -> _Floats:
        sums = np.zeros((self._counts.shape[1], values.shape[1]))
        np.add.at(sums, self._group_of, values)
        return sums


def intervals(resampled: _Floats) -> list[Interval | None]:
    """The middle 95 % of each column of ``[resamples, k]``; None for a column that is NaN throughout."""
    found: list[Interval | None] = []
    for column in resampled.T:
        known = column[~np.isnan(column)]
        found.append(Interval(*np.quantile(known, _LEVELS).tolist()) if len(known) else None)
    return found


def _drawn(rng: np.random.Generator, draws: int, size: int) -> _Floats:
    """``[draws, size]``: how often each group is drawn."""
    places = rng.integers(size, size=(draws, size)) + np.arange(draws)[:, None] * size
    return np.asarray(np.bincount(places.ravel(), minlength=draws * size).reshape(draws, size), np.float64)
