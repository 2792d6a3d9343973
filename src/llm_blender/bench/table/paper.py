"""Table 2 of arXiv 2306.02561 for any file of judged rows: LLMs, oracles, rankers and fused answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llm_blender.bench.methods import Method
from llm_blender.bench.report import Result
from llm_blender.bench.resampling import Resampling, RowMean
from llm_blender.bench.table.columns import (
    GPT_RANK,
    Column,
    Computed,
    Ranked,
    best_models,
    judge_columns,
    metric_columns,
    model_methods,
    oracle_methods,
    rank_pool,
)
from llm_blender.bench.table.pool import Coverage, TablePool
from llm_blender.bench.table.statistics import (
    BestShare,
    Correlation,
    LengthBias,
    PairRate,
    correlate,
    first_places,
    length_biases,
    metric_ranks,
    win_rates,
)
from llm_blender.bench.table.tradeoff import TradeoffPoint, tradeoff
from llm_blender.rankers.heuristics import Longest, Random
from llm_blender.types import OnProgress


@dataclass(frozen=True)
class Line(Result):
    """One method.

    Attributes:
        method: its name.
        kind: ``LLM``, ``oracle``, ``baseline``, ``ranker`` or ``fusion``.
        comparisons: ordered pairs that went through a model, over all rows.
        cells: by key of the column; None without a value, as for an LLM against itself.
    """

    method: str
    kind: str
    comparisons: int
    cells: Mapping[str, RowMean | None]


@dataclass(frozen=True, eq=False)
class PaperTable:
    """The paper's table, and the data of its plots.

    Attributes:
        caption: the judge, and how to read the table.
        lines: LLMs by GPT-Rank, then oracles, baselines, rankers, fused answers.
        bases: the two LLMs of the best mean GPT-Rank.
        quality: the column that the trade-off measures by.
        coverage: rows of the file that count; ``census`` in JSON.
        tradeoff: filled by `with_tradeoff`.
    """

    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    bases: tuple[str, ...]
    correlations: tuple[Correlation, ...]
    best: tuple[BestShare, ...]
    pairs: tuple[PairRate, ...]
    lengths: tuple[LengthBias, ...]
    quality: Column
    coverage: Coverage
    tradeoff: tuple[TradeoffPoint, ...] = ()

    def cell(self, method: str, column: str) -> RowMean | None:
        """Return one cell, by name of method and key of column; None if there is none."""
        return next((line.cells.get(column) for line in self.lines if line.method == method), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        parts = ("lines", "correlations", "best", "pairs", "lengths", "tradeoff")
        return {
            "caption": self.caption,
            "bases": list(self.bases),
            "columns": [column.describe() for column in self.columns],
            **{name: [part.to_dict() for part in getattr(self, name)] for name in parts},
            "quality": self.quality.key,
            "census": self.coverage.to_dict(),
        }


def paper_table(
    pool: TablePool,
    rankers: Sequence[Ranked],
    *,
    computed: Computed | None = None,
    unavailable: Mapping[str, str] | None = None,
    seed: int = 0,
) -> PaperTable:
    """Measure every method by every column, with all intervals from the same draws of instructions.

    `rankers` are those of `rank_pool`, `computed` and `unavailable` what `measure_pool` returns. The seed is that of
    the bootstrap, and of the ranker ``random`` among the correlations.
    """
    metrics, missing = metric_columns(pool, computed or {})
    bases = best_models(pool)
    judged = judge_columns(pool, bases)
    columns = [*metrics, *judged]
    resampling = Resampling(pool.groups, seed=seed)
    known = [column for column in metrics if column.key != pool.score]  # its oracle is GPT-Rank's
    models = sorted(_lines(model_methods(pool), columns, resampling), key=_by_rank)
    named = {ranked.name for ranked in rankers}
    baselines = [method for method in (pool.grid.random(), pool.grid.heuristic(Longest())) if method.name not in named]
    of_rankers = [pool.grid.ranker(ranked.name, ranked.rankings) for ranked in rankers]
    others = [*oracle_methods([*known, judged[0]]), *baselines, *of_rankers]
    lines = [*models, *_lines(others, columns, resampling), *_fused_line(pool, columns, resampling)]
    orders = [rank_pool(pool, Random(), "random", seed=seed), rank_pool(pool, Longest(), "longest")]
    return PaperTable(
        caption=_caption(pool, bases, columns),
        columns=tuple(columns),
        lines=tuple(lines),
        bases=tuple(bases),
        correlations=tuple(
            correlate(
                {ranked.name: ranked.ranks for ranked in orders if ranked.name not in named}
                | {column.title: metric_ranks(column) for column in known}
                | {ranked.name: ranked.ranks for ranked in rankers},
                judged[0].values,
                pool.groups,
                seed,
            )
        ),
        best=tuple(first_places(pool, judged[0].values, resampling)),
        pairs=tuple(win_rates(pool, resampling)),
        lengths=tuple(length_biases(pool, known, rankers, seed=seed)),
        quality=next((column for column in columns if column.key == pool.score), judged[0]),
        coverage=replace(pool.coverage, missing_scores=missing, unavailable=unavailable or {}),
    )


def with_tradeoff(
    table: PaperTable,
    pool: TablePool,
    rankers: Sequence[Ranked],
    *,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> PaperTable:
    """Add to the table, for each ranker that compares pairs, every strategy on its full matrix."""
    resampling = Resampling(pool.groups, seed=seed)
    points = [
        point
        for ranked in rankers
        if ranked.comparisons
        for point in tradeoff(pool, table.quality, ranked, resampling, seed=seed, progress=progress)
    ]
    return replace(table, tradeoff=tuple(points))


def _lines(methods: Sequence[Method], columns: Sequence[Column], resampling: Resampling) -> list[Line]:
    values = [method.expect(column.values) for method in methods for column in columns]
    cells = iter(resampling.means(np.stack(values, axis=1)))
    lines = []
    for method in methods:
        of_method = {column.key: next(cells) for column in columns}
        if method.kind == "LLM":
            of_method |= {column.key: None for column in columns if column.base == method.name}
        lines.append(Line(method.name, method.kind, method.comparisons, of_method))
    return lines


def _fused_line(pool: TablePool, columns: Sequence[Column], resampling: Resampling) -> list[Line]:
    answers = [row.fused for row in pool.rows if row.fused is not None]
    if not answers:
        return []
    used = {answer.used for answer in answers if answer.used}
    fusers = {answer.fuser for answer in answers if answer.fuser}
    parts = [f"top-{max(used)}"] if used else []
    name = f"LLM-Blender ({', '.join([*parts, *sorted(fusers)])})" if parts or fusers else "LLM-Blender"
    cells = resampling.means(np.stack([column.fused for column in columns], axis=1))
    return [Line(name, "fusion", 0, {column.key: cell for column, cell in zip(columns, cells, strict=True)})]


def _by_rank(line: Line) -> float:
    cell = line.cells[GPT_RANK]
    return np.inf if cell is None else cell.value


def _caption(pool: TablePool, bases: Sequence[str], columns: Sequence[Column]) -> str:
    judged = sum(row.is_judged for row in pool.rows)
    judge = (
        "the judge's pairwise outcomes (`cmp_results`)"
        if pool.score is None
        else f"the pairs that the score `{pool.score}` implies, not from judged pairs (the higher score wins, equal "
        "ones tie)"
    )
    has_fused = any(not np.isnan(column.fused).all() for column in columns if column.key == GPT_RANK)
    fused = " The fused answer is ranked among itself and all candidates." if has_fused else ""
    return (
        f"{len(pool.rows):,} instructions, {len(pool.models)} LLMs. GPT-Rank (1 is best, lower is better), top-k "
        f"and ≥ follow from {judge}, in {judged:,} instructions. Top-k is how often GPT-Rank is at most "
        f"k, ties sharing the smaller rank. {' and '.join(bases)} have the best GPT-Rank here; ≥ is how often an "
        "answer is at least as good as theirs; a tie or their own answer counts as a win, or half of one (ties ½). "
        "Random is the expectation of a draw, an oracle knows its measure. ± is half the width of the 95 % interval, "
        f"bootstrapped over instructions.{fused}"
    )
