"""Who chooses: each LLM for itself, oracles, chance, length, and rankers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.table.columns import Column
from llm_blender.bench.table.pool import TablePool
from llm_blender.rankers.heuristics import Longest
from llm_blender.types import OnProgress, Ranker, Ranking

__all__ = ["Method", "Ranked", "model_methods", "oracle_methods", "plain_methods", "rank_pool", "ranker_method"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Method:
    """What one method chooses in n rows.

    Attributes:
        name: an LLM, ``oracle, METRIC``, ``random``, ``longest``, or a ranker.
        kind: which of these.
        shares: ``[n, c]``: 1 for the LLM whose candidate is chosen, equal parts where several are equally good to the
            method (what is expected of a draw among them); a row of zeros where it chooses nothing.
        comparisons: ordered pairs that went through a model, over all rows.
    """

    name: str
    kind: Literal["LLM", "oracle", "baseline", "ranker"]
    shares: _Floats
    comparisons: int = 0

    def chosen(self, values: _Floats) -> _Floats:
        """What is chosen, by a column's values: ``[n]``, NaN where nothing is chosen or something has no value."""
        unknown = (np.isnan(values) & (self.shares > 0)).any(axis=1) | ~self.shares.any(axis=1)
        return np.where(unknown, np.nan, (self.shares * np.nan_to_num(values)).sum(axis=1))


@dataclass(frozen=True, eq=False)
class Ranked:
    """A ranker's word on n rows.

    Attributes:
        name: of the ranker.
        rankings: over the candidates of each row, in its order.
        ranks: ``[n, c]``, 1 is best; NaN where an LLM has no candidate.
    """

    name: str
    rankings: tuple[Ranking, ...]
    ranks: _Floats

    @property
    def comparisons(self) -> int:
        """Ordered pairs that went through a model."""
        return sum(ranking.comparisons for ranking in self.rankings)


def model_methods(pool: TablePool) -> list[Method]:
    """Each LLM as the method that always chooses its own candidate."""
    present = _present(pool)
    one = np.eye(len(pool.models))
    return [Method(model, "LLM", present * one[place]) for place, model in enumerate(pool.models)]


def oracle_methods(columns: Sequence[Column]) -> list[Method]:
    """For each column, who knows it and chooses the best of each row."""
    return [Method(f"oracle, {column.title}", "oracle", _best_shares(column)) for column in columns]


def plain_methods(pool: TablePool) -> list[Method]:
    """``random``, which is what is expected of a draw, and ``longest`` by characters."""
    longest = rank_pool(pool, Longest(), Longest.name)
    firsts = longest.ranks == 1
    return [
        Method("random", "baseline", _parts(_present(pool))),
        Method(longest.name, "baseline", _parts(firsts.astype(np.float64))),
    ]


def rank_pool(
    pool: TablePool, ranker: Ranker, name: str, *, seed: int = 0, progress: OnProgress | None = None
) -> Ranked:
    """Rank all rows by the full matrix (``full``); a pointwise ranker by its scores.

    Args:
        pool: n rows.
        ranker: any.
        name: for `Ranked.name`.
        seed: of a ranker that draws.
        progress: called with comparisons done and expected.
    """
    rankings = ranker.rank_many(
        [row.prompt for row in pool.rows],
        [row.texts for row in pool.rows],
        strategy="full",
        seed=seed,
        progress=progress,
    )
    ranks = np.full((len(pool.rows), len(pool.models)), np.nan)
    for number, (row, ranking) in enumerate(zip(pool.rows, rankings, strict=True)):
        ranks[number, [pool.models.index(model) for model in row.candidates]] = ranking.ranks
    return Ranked(name, tuple(rankings), ranks)


def ranker_method(pool: TablePool, ranked: Ranked) -> Method:
    """What a ranker puts first; where some tie, the one that its ranking calls best."""
    shares = np.zeros((len(pool.rows), len(pool.models)))
    for number, (row, ranking) in enumerate(zip(pool.rows, ranked.rankings, strict=True)):
        shares[number, pool.models.index(list(row.candidates)[ranking.best])] = 1
    return Method(ranked.name, "ranker", shares, ranked.comparisons)


def _present(pool: TablePool) -> _Floats:
    """``[n, c]``: 1 where an LLM has a candidate."""
    return np.array([[float(model in row.candidates) for model in pool.models] for row in pool.rows])


def _best_shares(column: Column) -> _Floats:
    values = column.values if column.better == "higher" else -column.values
    highest = np.where(np.isnan(values), -np.inf, values).max(axis=1, keepdims=True)
    return _parts((values == highest).astype(np.float64))


def _parts(chosen: _Floats) -> _Floats:
    return np.asarray(chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1))
