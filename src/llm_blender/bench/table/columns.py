"""Columns of the paper's table: metrics, GPT-Rank, top-k, and how often an answer is as good as the best LLMs'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from llm_blender.bench.cache import CachedMetrics
from llm_blender.bench.methods import Method, best_shares, rank_rows
from llm_blender.bench.resampling import Floats
from llm_blender.bench.table.pool import FUSED, TablePool
from llm_blender.errors import CheckpointError, MissingExtraError, NotFoundError, WorkError
from llm_blender.metrics import METRICS, ROUGE, TIES_AS_HALF, TIES_AS_WINS, Reading, selected_ranks, versus
from llm_blender.ranking import has_position_bias
from llm_blender.types import OnProgress, Ranker, Ranking

GPT_RANK = "gpt_rank"
_TITLES = {"bertscore": "BERTScore", "bartscore": "BARTScore", "bleurt": "BLEURT", "bleu": "BLEU"}
_FIRST = ("bertscore", "bartscore", "bleurt", *METRICS)  # the paper's three, in its order
_SHARES = ("bertscore", *ROUGE)
_READINGS: dict[str, tuple[Reading, str]] = {
    "ties_as_wins": (TIES_AS_WINS, ""),
    "ties_as_half": (TIES_AS_HALF, ", ties ½"),
}

Computed = Mapping[str, Mapping[tuple[int, str], float]]
"""Values by metric, then by row and LLM, `FUSED` for the fused answer."""


@dataclass(frozen=True, eq=False)
class Column:
    """One measure of n rows.

    Attributes:
        key: its name in JSON.
        title: heading of the column.
        kind: ``metric``; ``rank`` (GPT-Rank); ``top`` (among the first k); ``versus`` (at least as good as `base`).
        values: ``[n, c]`` of each LLM's candidate; NaN where it does not count.
        fused: ``[n]`` of the fused answer; NaN where there is none.
        percent: shown times 100.
        base: for ``versus``, the LLM.
    """

    key: str
    title: str
    kind: Literal["metric", "rank", "top", "versus"]
    values: Floats
    fused: Floats
    percent: bool
    base: str | None = None

    @property
    def better(self) -> Literal["higher", "lower"]:
        """Direction of better values."""
        return "lower" if self.kind == "rank" else "higher"

    def describe(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"key": self.key, "title": self.title, "kind": self.kind, "better": self.better, "base": self.base}


def measure_pool(
    pool: TablePool,
    metrics: Mapping[str, Mapping[str, Any]],
    cache: CachedMetrics,
    *,
    progress: OnProgress | None = None,
) -> tuple[Computed, dict[str, str]]:
    """Compute the missing metrics of all candidates and fused answers whose row has a reference.

    Returns:
        The values; and the metrics that could not be computed, with the reason.
    """
    found: dict[str, dict[tuple[int, str], float]] = {}
    unavailable: dict[str, str] = {}
    wanted = {metric: _missing(pool, metric) for metric in metrics}
    total = sum(map(len, wanted.values()))
    before = 0
    for metric, texts in wanted.items():

        def report(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        try:
            values = cache.measure(metric, metrics[metric], list(texts.values()), progress=report)
        except (NotFoundError, CheckpointError, MissingExtraError, WorkError) as error:
            unavailable[metric] = str(error)
        else:
            found[metric] = dict(zip(texts, values, strict=True))
        before += len(texts)
    return found, unavailable


def _missing(pool: TablePool, metric: str) -> dict[tuple[int, str], tuple[str, str]]:
    """Return texts without the metric and their references, by row and LLM."""
    texts: dict[tuple[int, str], tuple[str, str]] = {}
    for number, row in enumerate(pool.rows):
        reference = row.reference or ""
        if not reference.strip():
            continue
        for model, candidate in row.named.items():
            if metric not in candidate.scores:
                texts[number, model] = candidate.text, reference
        if row.fused is not None and metric not in row.fused.scores:
            texts[number, FUSED] = row.fused.text, reference
    return texts


def metric_columns(pool: TablePool, computed: Computed) -> tuple[list[Column], dict[str, int]]:
    """Return a column for each score of the candidates, and the number of rows that do not count for it, if any.

    A row counts for a metric if all its candidates have it, so that all methods rest on the same rows. Scores in the
    rows take precedence over `computed` ones.
    """
    stored = {name for row in pool.rows for candidate in row.candidates for name in candidate.scores}
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
    """Return GPT-Rank, how often an answer is at least as good as each base's, and how often its rank is at most k.

    There is a column for each k of 1, 2, 3.
    """
    candidates = [row.judged for row in pool.rows]
    fused = [row.fused.judged if row.fused and row.fused.judged else row.judged for row in pool.rows]
    ranks = _ranks(pool)
    fused_ranks = _fused(pool, ranks, selected_ranks(fused, FUSED))
    columns = [Column(GPT_RANK, "GPT-Rank", "rank", ranks, fused_ranks, percent=False)]
    for base in bases:
        for key, (reading, remark) in _READINGS.items():
            by_model = [versus(candidates, model, base).credits(reading) for model in pool.models]
            credits = np.stack(by_model, axis=1)
            own = _fused(pool, credits, versus(fused, FUSED, base).credits(reading))
            title = f"≥ {base}{remark}"
            columns.append(Column(f"at_least_{base}_{key}", title, "versus", credits, own, percent=True, base=base))
    for k in (1, 2, 3):
        values, own = (np.where(np.isnan(found), np.nan, found <= k) for found in (ranks, fused_ranks))
        columns.append(Column(f"top{k}", f"top-{k}", "top", values, own, percent=True))
    return columns


def best_models(pool: TablePool, count: int = 2) -> list[str]:
    """Return the LLMs of the best mean GPT-Rank in these rows, best first."""
    columns = zip(pool.models, _ranks(pool).T, strict=True)
    means = {model: float(np.nanmean(ranks)) for model, ranks in columns if not np.isnan(ranks).all()}
    return sorted(means, key=means.__getitem__)[:count]


def _ranks(pool: TablePool) -> Floats:
    return pool.grid.fill(row.judged.ranks for row in pool.rows)


def _metric(pool: TablePool, name: str, computed: Mapping[tuple[int, str], float]) -> tuple[Floats, Floats]:
    values, fused = [], np.full(len(pool.rows), np.nan)
    for number, row in enumerate(pool.rows):
        found = {model: c.scores.get(name, computed.get((number, model))) for model, c in row.named.items()}
        known = {model: value for model, value in found.items() if value is not None}
        whole = len(known) == len(found)
        values.append(list(known.values()) if whole else [np.nan] * len(found))
        if whole and row.fused is not None:
            own = row.fused.scores.get(name, computed.get((number, FUSED)))
            fused[number] = own if own is not None else known.get(row.fused.copy_of or "", np.nan)
    return pool.grid.fill(values), fused


def _is_share(name: str, values: Floats) -> bool:
    return name in _SHARES or (name not in METRICS and bool(np.nanmin(values) >= 0 and np.nanmax(values) <= 1))


def _fused(pool: TablePool, values: Floats, own: Floats) -> Floats:
    """Complete the fused answer's own values with those of the candidate that it copies."""
    for number, row in enumerate(pool.rows):
        if row.fused is not None and row.fused.judged is None and row.fused.copy_of is not None:
            own[number] = values[number, pool.models.index(row.fused.copy_of)]
    return own


@dataclass(frozen=True, eq=False)
class Ranked:
    """A ranker's rankings of n rows.

    Attributes:
        name: of the ranker.
        rankings: one of each row.
        ranks: ``[n, c]``, 1 is best; NaN where an LLM has no candidate.
        position_bias: whether a comparison is an ordered pair, see `PairwiseRanker`.
    """

    name: str
    rankings: tuple[Ranking, ...]
    ranks: Floats
    position_bias: bool = True

    @property
    def comparisons(self) -> int:
        """Pairs that went through a model."""
        return sum(ranking.comparisons for ranking in self.rankings)


def model_methods(pool: TablePool) -> list[Method]:
    """Return each LLM as the method that always selects its own candidate."""
    one = np.eye(len(pool.models))
    return [Method(model, "LLM", pool.grid.present * one[place]) for place, model in enumerate(pool.models)]


def oracle_methods(columns: Sequence[Column]) -> list[Method]:
    """Return for each column the method that selects the best candidates of each row by it."""
    upwards = [column.values if column.better == "higher" else -column.values for column in columns]
    return [
        Method(f"oracle, {column.title}", "oracle", best_shares(values))
        for column, values in zip(columns, upwards, strict=True)
    ]


def rank_pool(
    pool: TablePool, ranker: Ranker, name: str, *, seed: int = 0, progress: OnProgress | None = None
) -> Ranked:
    """Rank all rows by the full matrix (``full``); a pointwise ranker by its scores."""
    rankings = rank_rows(pool.rows, ranker, seed=seed, progress=progress)
    ranks = pool.grid.fill(ranking.ranks for ranking in rankings)
    return Ranked(name, tuple(rankings), ranks, has_position_bias(ranker))
