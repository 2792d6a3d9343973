"""Statistics of the judge's outcomes: first places, win rates, length bias, and correlations with GPT-Rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.methods import best_shares
from llm_blender.bench.report import Result
from llm_blender.bench.resampling import Estimate, Floats, Resampling, intervals
from llm_blender.bench.table.columns import Column, Ranked
from llm_blender.bench.table.pool import TablePool
from llm_blender.metrics import CORRELATIONS
from llm_blender.ranking import Interval, both_orders, ranks_from_scores

JUDGE = "judge"


@dataclass(frozen=True)
class BestShare(Result):
    """The rate at which an LLM's answer is the best of its row (figure 1 of arXiv 2306.02561).

    In `share`, ties share the row, so that all shares add up to 1; in `top`, the row counts for each of them.
    """

    model: str
    share: float
    ci95: Interval | None
    top: float


@dataclass(frozen=True)
class PairRate(Result):
    """The rate at which the judge prefers one LLM's answer to another's, in the rows in which both were compared.

    A tie is half a win.
    """

    model: str
    other: str
    rate: float
    ci95: Interval | None
    rows: int


@dataclass(frozen=True)
class LengthBias(Result):
    """The rate at which the longer answer (in characters) is preferred, among pairs without a tie by the judge.

    A pair counts one half where both are equally long, or the method (`JUDGE`, a ranker or a metric) prefers neither.
    """

    method: str
    rate: float
    ci95: Interval | None
    pairs: int


def first_places(pool: TablePool, ranks: Floats, resampling: Resampling) -> list[BestShare]:
    """Return how often each LLM is best by ``[n, c]`` ranks, best first."""
    judged = np.asarray(~np.isnan(ranks).all(axis=1))
    parts = np.where(judged[:, None], best_shares(-ranks), np.nan)
    found = [
        BestShare(model, share.value, share.ci95, float((shares[judged] > 0).mean()))
        for model, shares, share in zip(pool.models, parts.T, resampling.means(parts), strict=True)
        if share
    ]
    return sorted(found, key=lambda best: -best.share)


def win_rates(pool: TablePool, resampling: Resampling) -> list[PairRate]:
    """Return the win rates of every two LLMs that were compared in any row, in both directions."""
    pairs = list(combinations(range(len(pool.models)), 2))
    wins = np.full((*pool.grid.shape, len(pool.models)), np.nan)
    for number, (row, columns) in enumerate(zip(pool.rows, pool.grid.places, strict=True)):
        wins[number][np.ix_(columns, columns)] = (np.sign(row.judged.matrix - row.judged.matrix.T) + 1) / 2
    values = np.stack([wins[:, one, other] for one, other in pairs], axis=1)
    found = []
    for (one, other), rate in zip(pairs, resampling.means(values), strict=True):
        if rate is not None:
            a, b, ci95 = pool.models[one], pool.models[other], rate.ci95
            found.append(PairRate(a, b, rate.value, ci95, rate.rows))
            found.append(PairRate(b, a, 1 - rate.value, Interval(1 - ci95.high, 1 - ci95.low), rate.rows))
    return found


def length_biases(
    pool: TablePool, columns: Sequence[Column], rankers: Sequence[Ranked], *, seed: int
) -> list[LengthBias]:
    """Return the length bias of the judge, then of rankers and metrics, on the pairs without a tie by the judge."""
    groups: list[int] = []
    longer: list[float] = []
    names = [JUDGE, *(ranked.name for ranked in rankers), *(column.title for column in columns)]
    signs: list[list[float]] = []  # of each pair, in the order of `names`, which may repeat
    for number, (row, group, places) in enumerate(zip(pool.rows, pool.groups, pool.grid.places, strict=True)):
        verdict = row.judged.matrix - row.judged.matrix.T
        lengths = [len(text) for text in row.texts]
        logits = [both_orders(ranked.rankings[number].logits) for ranked in rankers]
        for a, b in combinations(range(len(lengths)), 2):
            if np.isnan(verdict[a, b]) or not verdict[a, b]:
                continue
            groups.append(group)
            longer.append(float(np.sign(lengths[a] - lengths[b])))
            differences = (column.values[number, places[a]] - column.values[number, places[b]] for column in columns)
            signs.append([verdict[a, b], *(matrix[a, b] for matrix in logits), *differences])
    if not groups:
        return []
    rates = (1 + np.array(longer)[:, None] * np.sign(np.array(signs))) / 2
    found = zip(names, Resampling(groups, seed=seed).means(rates), strict=True)
    return [LengthBias(method, rate.value, rate.ci95, rate.rows) for method, rate in found if rate]


_PER_ROW = ("spearman_footrule", "set_based")


@dataclass(frozen=True)
class Correlation(Result):
    """Correlation of one order of the candidates with the judge's (GPT-Rank).

    Attributes:
        method: a ranker, a baseline or a metric.
        rows: number of rows in which every LLM has a candidate and both orders are known.
        measures: by the names of `llm_blender.metrics.CORRELATIONS`; for the footrule, less is better.
    """

    method: str
    rows: int
    measures: Mapping[str, Estimate]


def metric_ranks(column: Column) -> Floats:
    """Return ``[n, c]`` competition ranks by a metric, 1 is best; NaN where it has no value."""
    ranks = np.full(column.values.shape, np.nan)
    for number, values in enumerate(column.values):
        known = ~np.isnan(values)
        ranks[number, known] = ranks_from_scores(values[known])
    return ranks


def correlate(orders: Mapping[str, Floats], judge: Floats, groups: Sequence[int], seed: int) -> list[Correlation]:
    """Correlate ``[n, c]`` ranks by method with the judge's, in the rows in which every LLM has both.

    A method that shares no row with the judge is left out.
    """
    found = []
    for method, ranks in orders.items():
        rows = np.flatnonzero(~np.isnan(ranks + judge).any(axis=1))
        if len(rows):
            resampling = Resampling(np.asarray(groups)[rows].tolist(), seed=seed)
            found.append(Correlation(method, len(rows), _measures(ranks[rows], judge[rows], resampling)))
    return found


def _measures(ranks: Floats, judge: Floats, resampling: Resampling) -> dict[str, Estimate]:
    spread = resampled_correlations(ranks, judge, resampling.weights)
    estimates = {}
    for name, measure in CORRELATIONS.items():
        if name in _PER_ROW:  # a mean over rows
            own = np.array([measure(one[None], other[None]) for one, other in zip(ranks, judge, strict=True)])
            resampled = resampling.resample(own[:, None])
        else:
            resampled = spread[name][:, None]
        value, (interval,) = measure(ranks, judge), intervals(resampled)
        estimates[name] = Estimate(None if np.isnan(value) else value, interval)
    return estimates


def resampled_correlations(one: Floats, other: Floats, weights: NDArray[np.floating]) -> dict[str, Floats]:
    """Return ``[resamples]`` of Pearson's and of Spearman's correlation of each draw, averaged over the columns.

    A draw of a column is a table of how often each pair of ranks was drawn, and gives both: Pearson's of the ranks as
    they are, Spearman's of their mean ranks within the draw. Ranks are ``[n, c]``; weights are ``[resamples, n]``, how
    often each draw holds a row.
    """
    by_column: dict[str, list[Floats]] = {"pearson": [], "spearman": []}
    counts = weights.astype(np.float32)  # exact for counts, at half the cost
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


def _mean_ranks(counts: Floats) -> Floats:
    """Return ``[resamples, levels]``: the mean rank of the rows that share a level."""
    return np.asarray(np.cumsum(counts, axis=1) - (counts - 1) / 2)


def _correlation(table: Floats, a: Floats, b: Floats) -> Floats:
    """Return Pearson's correlation of the levels `a` and `b`, with the table as weights of their pairs."""
    total = table.sum(axis=(1, 2))
    of_a, of_b = table.sum(axis=2), table.sum(axis=1)
    a = a - ((of_a * a).sum(axis=1) / total)[:, None]
    b = b - ((of_b * b).sum(axis=1) / total)[:, None]
    shared = np.einsum("rij,ri,rj->r", table, a, b)
    lengths = (of_a * a**2).sum(axis=1) * (of_b * b**2).sum(axis=1)
    return np.asarray(np.where(lengths > 0, shared / np.sqrt(np.where(lengths > 0, lengths, 1)), np.nan))


def _mean_of_known(columns: Floats) -> Floats:
    """Average ``[c, resamples]`` over the columns that vary; NaN where none does."""
    known = ~np.isnan(columns)
    return np.asarray(
        np.where(known.any(axis=0), np.nansum(columns, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)
    )
