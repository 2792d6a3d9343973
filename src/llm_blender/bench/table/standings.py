"""The judge's own word on the LLMs: who is best how often, who beats whom, and how often the longer answer wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.table.columns import GPT_RANK, Column
from llm_blender.bench.table.methods import Ranked
from llm_blender.bench.table.pool import TablePool
from llm_blender.bench.table.resampling import Resampling
from llm_blender.ranking import Interval, evidence

__all__ = ["BestShare", "LengthBias", "PairRate", "best_shares", "length_biases", "pair_rates"]

_Floats = NDArray[np.float64]

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
