"""Who chooses: each LLM for itself, oracles, chance, length, and rankers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.table.pool import FUSED, TablePool, TableRow
from llm_blender.metrics import METRICS, ROUGE, TIES_AS_HALF, TIES_AS_WINS, GPTRanking, Reading, selected_ranks, versus
from llm_blender.rankers.heuristics import Longest
from llm_blender.types import OnProgress, Ranker, Ranking

__all__ = [
    "GPT_RANK",
    "Column",
    "Method",
    "Ranked",
    "best_models",
    "judge_columns",
    "metric_columns",
    "model_methods",
    "oracle_methods",
    "plain_methods",
    "rank_pool",
    "ranker_method",
]

_Floats = NDArray[np.float64]

GPT_RANK = "gpt_rank"
_TITLES = {"bertscore": "BERTScore", "bartscore": "BARTScore", "bleurt": "BLEURT", "bleu": "BLEU"}
_FIRST = ("bertscore", "bartscore", "bleurt", *METRICS)  # the paper's three, in its order
_SHARES = ("bertscore", *ROUGE)
_READINGS: dict[str, tuple[Reading, str]] = {
    "ties_as_wins": (TIES_AS_WINS, ""),
    "ties_as_half": (TIES_AS_HALF, ", ties ½"),
}


@dataclass(frozen=True, eq=False)
class Column:
    """One measure of n rows.

    Attributes:
        key: its name in JSON.
        title: at the head of the column.
        kind: ``metric``; ``rank`` (GPT-Rank); ``top`` (among the first k); ``versus`` (at least as good as `base`).
        values: ``[n, c]`` of each LLM's candidate; NaN where it does not count.
        fused: ``[n]`` of the fused answer; NaN where there is none.
        percent: shown times 100.
        base: for ``versus``, the LLM.
    """

    key: str
    title: str
    kind: Literal["metric", "rank", "top", "versus"]
    values: _Floats
    fused: _Floats
    percent: bool
    base: str | None = None

    @property
    def better(self) -> Literal["higher", "lower"]:
        """Which end of the scale is the good one."""
        return "lower" if self.kind == "rank" else "higher"

    def describe(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"key": self.key, "title": self.title, "kind": self.kind, "better": self.better, "base": self.base}


def metric_columns(
    pool: TablePool, computed: Mapping[str, Mapping[tuple[int, str], float]]
) -> tuple[list[Column], dict[str, int]]:
    """A column for every score of the candidates; and how many rows do not count for it, where there are any.

    A row counts for a metric where all its candidates have it, so that all methods rest on the same rows.

    Args:
        pool: n rows.
        computed: further values by metric, row and LLM (or `FUSED`); what is stored goes first.
    """
    stored = {name for row in pool.rows for candidate in row.candidates.values() for name in candidate.scores}
    names = sorted(stored | set(computed), key=lambda name: (name not in _FIRST, (*_FIRST, name).index(name), name))
    columns, missing = [], {}
    for name in names:
        values, fused = _metric(pool, name, computed.get(name, {}))
        counted = ~np.isnan(values).all(axis=1)
        if not counted.all():
            missing[name] = int((~counted).sum())
        if counted.any():
            columns.append(Column(name, _TITLES.get(name, name), "metric", values, fused, _is_share(name, values)))
    return columns, missing


def judge_columns(pool: TablePool, bases: Sequence[str]) -> list[Column]:
    """GPT-Rank, how often it is 1, up to 2, up to 3, and how often an answer is at least as good as each base's."""
    candidates, fused = [row.judged for row in pool.rows], [_fused_judged(row) for row in pool.rows]
    ranks = _by_model(pool, lambda model: selected_ranks(candidates, model))
    fused_ranks = _fused(pool, ranks, selected_ranks(fused, FUSED))
    columns = [Column(GPT_RANK, "GPT-Rank", "rank", ranks, fused_ranks, percent=False)]
    for base in bases:
        for key, (reading, remark) in _READINGS.items():
            credits = _by_model(pool, lambda model: versus(candidates, model, base).credits(reading))  # noqa: B023
            own = _fused(pool, credits, versus(fused, FUSED, base).credits(reading))
            title = f"≥ {base}{remark}"
            columns.append(Column(f"at_least_{base}_{key}", title, "versus", credits, own, percent=True, base=base))
    for k in (1, 2, 3):
        values, own = (np.where(np.isnan(found), np.nan, found <= k) for found in (ranks, fused_ranks))
        columns.append(Column(f"top{k}", f"top-{k}", "top", values, own, percent=True))
    return columns


def best_models(pool: TablePool, count: int = 2) -> list[str]:
    """The LLMs of the best mean GPT-Rank in these rows, best first."""
    judged = [row.judged for row in pool.rows]
    means = {model: float(np.nanmean(ranks)) for model in pool.models if _any(ranks := selected_ranks(judged, model))}
    return sorted(means, key=lambda model: means[model])[:count]


def _metric(pool: TablePool, name: str, computed: Mapping[tuple[int, str], float]) -> tuple[_Floats, _Floats]:
    values, fused = np.full((len(pool.rows), len(pool.models)), np.nan), np.full(len(pool.rows), np.nan)
    place = {model: column for column, model in enumerate(pool.models)}
    for number, row in enumerate(pool.rows):
        found = {model: c.scores.get(name, computed.get((number, model))) for model, c in row.candidates.items()}
        known = {model: value for model, value in found.items() if value is not None}
        if len(known) < len(found):
            continue
        for model, value in known.items():
            values[number, place[model]] = value
        if row.fused is not None:
            own = row.fused.scores.get(name, computed.get((number, FUSED)))
            fused[number] = own if own is not None else known.get(row.fused.copy_of or "", np.nan)
    return values, fused


def _is_share(name: str, values: _Floats) -> bool:
    return name in _SHARES or (name not in METRICS and bool(np.nanmin(values) >= 0 and np.nanmax(values) <= 1))


def _by_model(pool: TablePool, measure: Callable[[str], _Floats]) -> _Floats:
    return np.stack([measure(model) for model in pool.models], axis=1)


def _fused_judged(row: TableRow) -> GPTRanking:
    return row.judged if row.fused is None or row.fused.judged is None else row.fused.judged


def _fused(pool: TablePool, values: _Floats, own: _Floats) -> _Floats:
    """What the judge says of the fused answer, or of the candidate whose text it is."""
    for number, row in enumerate(pool.rows):
        if row.fused is not None and row.fused.judged is None and row.fused.copy_of is not None:
            own[number] = values[number, pool.models.index(row.fused.copy_of)]
    return own


def _any(values: _Floats) -> bool:
    return not np.isnan(values).all()


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
