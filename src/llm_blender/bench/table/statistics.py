"""The judge's own word on the LLMs: who is best how often, who beats whom, and how often the longer answer wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.table.methods import GPT_RANK, Column, Ranked
from llm_blender.bench.table.pool import TablePool
from llm_blender.metrics import CORRELATIONS
from llm_blender.ranking import Interval, evidence, ranks_from_scores

__all__ = [
    "BestShare",
    "Correlation",
    "Estimate",
    "LengthBias",
    "PairRate",
    "Resampling",
    "best_shares",
    "correlate",
    "length_biases",
    "metric_ranks",
    "pair_rates",
]

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


JUDGE = "judge"


@dataclass(frozen=True)
class BestShare:
    """How often an LLM's answer is the best one of its row (figure 1 of arXiv 2306.02561).

    Attributes:
        model: the LLM.
        share: of the judged rows; several that are best together share the row, so that all shares add up to 1.
        ci95: interval of that, resampled by instruction.
        top: share of the rows in which it is best, alone or with others.
    """

    model: str
    share: float
    ci95: Interval | None
    top: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class PairRate:
    """How often the judge prefers one LLM's answer to another's.

    Attributes:
        model: the one.
        other: the other.
        rate: share of the rows in which they were compared; a tie is half a win.
        ci95: interval of that, resampled by instruction.
        rows: in which they were compared.
    """

    model: str
    other: str
    rate: float
    ci95: Interval | None
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class LengthBias:
    """How often the longer one of two answers is preferred, by characters, where the judge prefers one.

    Attributes:
        method: ``judge``, a ranker, or a metric.
        rate: share of the pairs; a half where two are equally long, or the method prefers none.
        ci95: interval of that, resampled by instruction.
        pairs: how many.
    """

    method: str
    rate: float
    ci95: Interval | None
    pairs: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def best_shares(pool: TablePool, columns: Sequence[Column], resampling: Resampling) -> list[BestShare]:
    """One per LLM, best first."""
    ranks = _ranks(columns)
    first = (ranks == 1).astype(np.float64)
    sizes = first.sum(axis=1)
    judged = sizes > 0
    parts = np.where(judged[:, None], first / np.maximum(sizes, 1)[:, None], np.nan)
    found = [
        BestShare(model, float(np.nanmean(parts[:, place])), ci95, float(first[judged, place].mean()))
        for place, (model, ci95) in enumerate(zip(pool.models, resampling.means(parts), strict=True))
    ]
    return sorted(found, key=lambda best: -best.share)


def pair_rates(pool: TablePool, resampling: Resampling) -> list[PairRate]:
    """Both directions of every two LLMs that were compared in any row."""
    pairs = list(combinations(range(len(pool.models)), 2))
    place = {model: column for column, model in enumerate(pool.models)}
    wins = np.full((len(pool.rows), len(place), len(place)), np.nan)
    for number, row in enumerate(pool.rows):
        columns = [place[model] for model in row.judged.models]
        wins[number][np.ix_(columns, columns)] = (np.sign(row.judged.matrix - row.judged.matrix.T) + 1) / 2
    values = np.stack([wins[:, one, other] for one, other in pairs], axis=1)
    found = []
    for (one, other), column, ci95 in zip(pairs, values.T, resampling.means(values), strict=True):
        if ci95 is None:
            continue
        rate, rows = float(np.nanmean(column)), int((~np.isnan(column)).sum())
        a, b = pool.models[one], pool.models[other]
        found += [
            PairRate(a, b, rate, ci95, rows),
            PairRate(b, a, 1 - rate, Interval(1 - ci95.high, 1 - ci95.low), rows),
        ]
    return found


def length_biases(
    pool: TablePool, columns: Sequence[Column], rankers: Sequence[Ranked], *, seed: int
) -> list[LengthBias]:
    """The judge first, then rankers and metrics, all on the pairs of which the judge prefers one."""
    groups: list[int] = []
    longer: list[float] = []
    metrics = [column for column in columns if column.kind == "metric"]
    names = [JUDGE, *(ranked.name for ranked in rankers), *(column.title for column in metrics)]
    signs: dict[str, list[float]] = {name: [] for name in names}
    for number, (row, group) in enumerate(zip(pool.rows, pool.groups, strict=True)):
        verdict = row.judged.matrix - row.judged.matrix.T
        lengths, places = [len(text) for text in row.texts], [pool.models.index(model) for model in row.candidates]
        logits = {ranked.name: evidence(ranked.rankings[number].logits) for ranked in rankers}
        for a, b in combinations(range(len(lengths)), 2):
            if np.isnan(verdict[a, b]) or not verdict[a, b]:
                continue
            groups.append(group)
            longer.append(float(np.sign(lengths[a] - lengths[b])))
            signs[JUDGE].append(verdict[a, b])
            for name, matrix in logits.items():
                signs[name].append(matrix[a, b])
            for column in metrics:
                signs[column.title].append(column.values[number, places[a]] - column.values[number, places[b]])
    if not groups:
        return []
    rates = (1 + np.array(longer)[:, None] * np.sign(np.array(list(signs.values())).T)) / 2
    found = zip(signs, rates.T, Resampling(groups, seed=seed).means(rates), strict=True)
    return [
        LengthBias(method, float(np.nanmean(column)), ci95, int((~np.isnan(column)).sum()))
        for method, column, ci95 in found
        if ci95 is not None
    ]


def _ranks(columns: Sequence[Column]) -> _Floats:
    return next(column.values for column in columns if column.key == GPT_RANK)


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
