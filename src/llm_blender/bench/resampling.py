"""Paired bootstrap over instructions, of many means at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_blender.ranking import Interval, wilson_interval
from llm_blender.ranking.confidence import bootstrap_draws, percentile_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval, resampled by instruction; both None where nothing varies."""

    value: float | None
    ci95: Interval | None


@dataclass(frozen=True)
class RowMean(Estimate):
    """Mean over the `rows` that have a value."""

    value: float
    ci95: Interval
    rows: int


@dataclass(frozen=True)
class Difference:
    """By how much the mean of one method is higher than that of `method`, both resampled together by instruction."""

    method: str
    mean: float
    ci95: Interval


class Resampling:
    """Draws of instructions with replacement, shared by all that is measured on the same rows.

    The draws are those of `llm_blender.ranking.bootstrap_interval` with the same seed. They are kept as counts, in
    blocks of draws, one byte for each instruction and draw.

    Args:
        groups: ``[n]`` the instruction of each row; rows of one instruction are drawn together.
        seed: of the draws.
        resamples: number of draws.
    """

    def __init__(self, groups: Sequence[int] | NDArray[np.intp], *, seed: int = 0, resamples: int = 2000) -> None:
        self._group_of = np.unique(np.asarray(groups), return_inverse=True)[1]
        self._groups = int(self._group_of.max()) + 1
        self._counts = [_counts(drawn) for drawn in bootstrap_draws(self._groups, seed=seed, resamples=resamples)]

    @property
    def weights(self) -> NDArray[np.float32]:
        """``[resamples, n]``: how often each draw holds a row."""
        return np.concatenate(self._counts)[:, self._group_of].astype(np.float32)

    def resample(self, values: Floats) -> Floats:
        """Return ``[resamples, k]`` means of each column of ``[n, k]``; NaN does not count."""
        known = ~np.isnan(values)
        sums = np.zeros((self._groups, 2 * values.shape[1]))
        np.add.at(sums, self._group_of, np.hstack([np.nan_to_num(values), known]))
        drawn = [counts.astype(np.float64) @ sums for counts in self._counts]
        totals, sizes = np.hsplit(np.concatenate(drawn), 2)
        return np.where(sizes > 0, totals / np.maximum(sizes, 1), np.nan)

    def means(self, values: Floats) -> list[RowMean | None]:
        """Return the mean of each column of ``[n, k]``; NaN does not count, and a column of NaN gives None."""
        return [
            None if ci95 is None else RowMean(float(np.nanmean(column)), ci95, int((~np.isnan(column)).sum()))
            for column, ci95 in zip(values.T, intervals(self.resample(values)), strict=True)
        ]

    def interval(self, values: Floats) -> Interval:
        """Return the interval of the mean of ``[n]`` values; NaN does not count."""
        resampled = self.resample(values[:, None])[:, 0]
        return percentile_interval(resampled[~np.isnan(resampled)])

    def share(self, hits: Floats) -> Interval:
        """Return the interval of the share of ``[n]`` hits, each from 0 to 1.

        Where all are 0 or all are 1, draws do not differ, and Wilson's interval counts the instructions.
        """
        share = float(hits.mean())
        return wilson_interval(share, self._groups) if share in (0, 1) else self.interval(hits)

    def difference(self, method: str, values: Floats, others: Floats) -> Difference:
        """Compare ``[n]`` values with those of another method; a difference of 1 everywhere is a share of 1."""
        gains = values - others
        mean = float(gains.mean())
        if abs(mean) == 1 and (np.abs(gains) == 1).all():
            low, high = self.share(np.ones(len(gains)))
            return Difference(method, mean, Interval(low, high) if mean > 0 else Interval(-high, -low))
        return Difference(method, mean, self.interval(gains))


def intervals(resampled: Floats) -> list[Interval | None]:
    """Return the middle 95 % of each column of ``[resamples, k]``; None for a column of NaN."""
    columns = (column[~np.isnan(column)] for column in resampled.T)
    return [percentile_interval(known) if len(known) else None for known in columns]


def _counts(drawn: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return ``[draws, groups]``: how often each group is drawn, which 255 draws of one never reach."""
    draws, groups = drawn.shape
    places = drawn + np.arange(draws)[:, None] * groups
    return np.bincount(places.ravel(), minlength=draws * groups).reshape(draws, groups).astype(np.uint8)
