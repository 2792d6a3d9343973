"""Quality by number of comparisons (the trade-off figure of arXiv 2306.02561), from one full matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llm_blender.bench.report import Result
from llm_blender.bench.resampling import Floats, Resampling
from llm_blender.bench.table.columns import Column, Ranked
from llm_blender.bench.table.pool import TablePool
from llm_blender.ranking import Advance, Interval, Pool, comparison_count, rank_with
from llm_blender.types import OnProgress, Ranking

_SEEDS = 3
_BUDGETS = (0.15, 0.25, 0.4, 0.6, 0.8)  # of the full matrix, for `active`
_AGGREGATIONS = ("max_logits", "max_wins")  # of `single` and `full`; the others have the first


@dataclass(frozen=True)
class TradeoffPoint(Result):
    """Quality of a ranker's selection for a number of comparisons.

    Attributes:
        strategy: one of `llm_blender.ranking.STRATEGIES`; ``random`` compares nothing.
        aggregation: that of ``full`` and ``single``; None for the others.
        comparisons: mean number in a row.
        quality: mean value of the column for the candidates selected, over rows and three seeds.
    """

    ranker: str
    strategy: str
    aggregation: str | None
    comparisons: float
    quality: float
    ci95: Interval | None


def tradeoff(
    pool: TablePool,
    column: Column,
    ranked: Ranked,
    resampling: Resampling,
    *,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> list[TradeoffPoint]:
    """Run every strategy on the comparisons of a full matrix, with three seeds; nothing is compared again.

    Args:
        pool: rows and their candidates.
        column: measure of quality.
        ranked: full matrices of a ranker on these rows.
        resampling: draws of the rows, for the intervals.
        seed: first of the three seeds.
        progress: called with (done, total) in strategies.
    """

    def point(strategy: str, aggregation: str | None, made: float, values: Floats) -> TradeoffPoint:
        ci95 = resampling.interval(values)
        return TradeoffPoint(ranked.name, strategy, aggregation, made, float(np.nanmean(values)), ci95)

    found = [point("random", None, 0.0, pool.grid.random().expect(column.values))]
    plans = list(_plans(max(len(row.candidates) for row in pool.rows), ranked.position_bias))
    for done, (strategy, aggregation, budget) in enumerate(plans, 1):
        runs = [
            _replayed(pool, ranked, strategy, aggregation, budget, seed + more)
            for more in range(1 if strategy == "full" else _SEEDS)
        ]
        values = np.mean([pool.grid.ranker("", rankings).expect(column.values) for rankings in runs], axis=0)
        made = float(np.mean([ranking.comparisons for rankings in runs for ranking in rankings]))
        label = aggregation if strategy in ("full", "single") else None
        found.append(point(strategy, label, made, values))
        if progress is not None:
            progress(done, len(plans))
    return found


def _plans(most: int, position_bias: bool) -> Iterator[tuple[str, str, int]]:
    whole = comparison_count("full", most, position_bias=position_bias)
    for strategy in ("knockout", "bubble", "top_k"):
        yield strategy, _AGGREGATIONS[0], whole
    for strategy in ("single", "full"):
        for aggregation in _AGGREGATIONS:
            yield strategy, aggregation, whole
    least = max(2, comparison_count("knockout", most, position_bias=position_bias))  # below, some are not compared
    for budget in sorted({max(least, round(part * whole)) for part in _BUDGETS}):
        yield "active", _AGGREGATIONS[0], budget


def _replayed(
    pool: TablePool, ranked: Ranked, strategy: str, aggregation: str, budget: int, seed: int
) -> list[Ranking]:
    def compare(pairs: Pool, advance: Advance) -> list[float]:
        return [float(ranked.rankings[row].logits[left, right]) for row, left, right in pairs]

    texts = [row.texts for row in pool.rows]
    return rank_with(
        texts,
        compare,
        strategy=strategy,
        aggregation=aggregation,
        budget=budget,
        seed=seed,
        position_bias=ranked.position_bias,
    )
