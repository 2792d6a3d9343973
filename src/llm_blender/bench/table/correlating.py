"""How alike the orders of rankers and metrics are to the judge's, with intervals over instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.table.columns import GPT_RANK, Column
from llm_blender.bench.table.resampling import Resampling, intervals
from llm_blender.metrics import CORRELATIONS
from llm_blender.ranking import Interval, ranks_from_scores

__all__ = ["Correlation", "Estimate", "correlate", "metric_ranks"]

_Floats = NDArray[np.float64]
_PER_ROW = ("spearman_footrule", "set_based")


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval, resampled by instruction; None where nothing varies, so that there is none."""

    value: float | None
    ci95: Interval | None


@dataclass(frozen=True)
class Correlation:
    """One order of the candidates beside the judge's (GPT-Rank).

    Attributes:
        method: a ranker, a baseline or a metric.
        rows: that count: every LLM has a candidate, and both orders are known.
        measures: by the names of `llm_blender.metrics.CORRELATIONS`. Of the footrule less is better.
    """

    method: str
    rows: int
    measures: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def metric_ranks(column: Column) -> _Floats:
    """``[n, c]`` competition ranks by a metric, 1 is best; NaN where it has no value."""
    ranks = np.full(column.values.shape, np.nan)
    for number, values in enumerate(column.values):
        known = ~np.isnan(values)
        ranks[number, known] = ranks_from_scores(values[known])
    return ranks


def correlate(
    orders: Mapping[str, _Floats], columns: Sequence[Column], groups: Sequence[int], seed: int
) -> list[Correlation]:
    """Ranks beside the judge's, in the rows in which every LLM has both.

    Args:
        orders: ``[n, c]`` ranks by method.
        columns: with GPT-Rank among them.
        groups: ``[n]`` the instruction of each row.
        seed: of the bootstrap.

    Returns:
        One per method that shares a row with the judge.
    """
    judge = next(column.values for column in columns if column.key == GPT_RANK)
    found = []
    for method, ranks in orders.items():
        rows = np.flatnonzero(~np.isnan(ranks + judge).any(axis=1))
        if len(rows):
            resampling = Resampling(np.asarray(groups)[rows].tolist(), seed=seed)
            found.append(Correlation(method, len(rows), _measures(ranks[rows], judge[rows], resampling)))
    return found


def _measures(ranks: _Floats, judge: _Floats, resampling: Resampling) -> dict[str, Estimate]:
    spread = resampled_correlations(ranks, judge, resampling.weights)
    estimates = {}
    for name, measure in CORRELATIONS.items():
        if name in _PER_ROW:  # a mean over rows
            own = np.array([measure(one[None], other[None]) for one, other in zip(ranks, judge, strict=True)])
            (interval,) = resampling.means(own[:, None])
        else:
            (interval,) = intervals(spread[name][:, None])
        value = measure(ranks, judge)
        estimates[name] = Estimate(None if np.isnan(value) else value, interval)
    return estimates


def resampled_correlations(one: _Floats, other: _Floats, weights: _Floats) -> dict[str, _Floats]:
    """``[resamples]`` each: Pearson's and Spearman's correlation of every draw, averaged over the columns.

    A draw of a column is the table of how often each pair of ranks was drawn, from which both follow: Pearson's of the
    ranks as they are, Spearman's of their mean ranks within the draw.

    Args:
        one: ``[n, c]`` ranks.
        other: ``[n, c]`` others.
        weights: ``[resamples, n]`` how often each row is drawn.
    """
    by_column: dict[str, list[_Floats]] = {"pearson": [], "spearman": []}
    counts = weights.astype(np.float32)  # holds counts of rows exactly, at half the cost
    for a, b in zip(one.T, other.T, strict=True):
        levels_a, place_a = np.unique(a, return_inverse=True)
        levels_b, place_b = np.unique(b, return_inverse=True)
        cells = np.eye(len(levels_a) * len(levels_b), dtype=np.float32)[place_a * len(levels_b) + place_b]
        table = (counts @ cells).astype(np.float64).reshape(len(counts), len(levels_a), len(levels_b))
        by_column["pearson"].append(_correlation(table, levels_a[None], levels_b[None]))
        by_column["spearman"].append(
            _correlation(table, _mean_ranks(table.sum(axis=2)), _mean_ranks(table.sum(axis=1)))
        )
    return {name: _mean_of_known(np.stack(columns)) for name, columns in by_column.items()}


def _mean_ranks(counts: _Floats) -> _Floats:
    """``[resamples, levels]``: the mean rank of all that share a level."""
    return np.asarray(np.cumsum(counts, axis=1) - (counts - 1) / 2)


def _correlation(table: _Floats, a: _Floats, b: _Floats) -> _Floats:
    """Pearson's correlation of the levels `a` and `b`, each pair of them as often as the table says."""
    total = table.sum(axis=(1, 2))
    of_a, of_b = table.sum(axis=2), table.sum(axis=1)
    a = a - ((of_a * a).sum(axis=1) / total)[:, None]
    b = b - ((of_b * b).sum(axis=1) / total)[:, None]
    shared = np.einsum("rij,ri,rj->r", table, a, b)
    lengths = (of_a * a**2).sum(axis=1) * (of_b * b**2).sum(axis=1)
    return np.asarray(np.where(lengths > 0, shared / np.sqrt(np.where(lengths > 0, lengths, 1)), np.nan))


def _mean_of_known(columns: _Floats) -> _Floats:
    """``[resamples]`` of ``[c, resamples]``: NaN where no column varies."""
    known = ~np.isnan(columns)
    return np.asarray(
        np.where(known.any(axis=0), np.nansum(columns, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)
    )
