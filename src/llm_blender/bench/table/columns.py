"""What a table measures of every candidate: metrics, and the judge's ranks and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.table.judging import FUSED
from llm_blender.bench.table.pool import TablePool, TableRow
from llm_blender.metrics import METRICS, ROUGE, TIES_AS_HALF, TIES_AS_WINS, GPTRanking, Reading, selected_ranks, versus

__all__ = ["GPT_RANK", "Column", "best_models", "judge_columns", "metric_columns"]

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
