"""Quality of the answer that each method selects, on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_blender.bench.methods import CandidateGrid, Method, best_shares, order_models, rank_rows
from llm_blender.bench.report import Result, Table, format_interval, format_number
from llm_blender.bench.resampling import Resampling
from llm_blender.bench.rows import BenchRow, group_ids
from llm_blender.rankers.heuristics import Consensus, First, Longest
from llm_blender.ranking import Interval, Priors
from llm_blender.types import OnProgress, Ranker


@dataclass(frozen=True)
class Selection(Result):
    """Quality of the answers that one method selects.

    Attributes:
        method: a ranker's name with its strategy, or a baseline.
        quality: mean score of the answers selected, on the score's own scale.
        vs_random_ci95: interval of the difference to ``random`` on the same rows; None for ``random`` itself.
        comparisons: ordered pairs that went through the model, over all rows.
    """

    method: str
    rows: int
    quality: float
    ci95: Interval
    vs_random_ci95: Interval | None
    comparisons: int = 0


def ranker_selections(
    rows: Sequence[BenchRow],
    ranker: Ranker,
    name: str,
    *,
    strategy: str = "auto",
    seed: int = 0,
    priors: Priors | None = None,
    progress: OnProgress | None = None,
) -> list[Selection]:
    """Measure the answers that a ranker puts first; among ties, the one that its ranking calls best.

    With `priors`, learned from other rows, measure also what the same comparisons and the LLMs' strengths select.
    """
    rankings = rank_rows(rows, ranker, strategy=strategy, seed=seed, progress=progress)
    grid = CandidateGrid(rows)
    methods = [grid.ranker(f"{name}, {strategy}", rankings)]
    if priors is not None:
        informed = [priors.apply(ranking, row.models) for row, ranking in zip(rows, rankings, strict=True)]
        methods.append(grid.ranker(f"{name} with priors, {strategy}", informed))
    return _measure(grid, methods, seed)


def baseline_selections(
    rows: Sequence[BenchRow], train: Sequence[BenchRow] | None = None, *, seed: int = 0
) -> list[Selection]:
    """Measure the methods that need no ranker.

    ``random`` is the expectation of a draw; ``longest`` and ``first`` go by characters and by place in the row;
    ``consensus`` prefers the answer closest to the others; ``best single`` always takes the LLM that did best on
    `train`; ``best in hindsight`` the one that did best on `rows`, which is only known afterwards; ``oracle`` takes the
    best answer of each row.

    Raises:
        InputError: `train` has none of the LLMs of these rows.
    """
    grid = CandidateGrid(rows)
    methods = [grid.random(), *(grid.heuristic(heuristic) for heuristic in (Longest(), Consensus(), First()))]
    if train is not None:
        best, *_ = order_models(rows, train)
        methods.append(grid.model(f"best single: {best}", best))
    if any(model for row in rows for model in row.models):
        best, *_ = order_models(rows, rows)
        methods.append(grid.model(f"best in hindsight: {best}", best))
    oracle = Method("oracle", "oracle", best_shares(grid.qualities()))
    first, *others = _measure(grid, [*methods, oracle], seed)
    return [replace(first, vs_random_ci95=None), *others]


def _measure(grid: CandidateGrid, methods: Sequence[Method], seed: int) -> list[Selection]:
    """Measure methods, each against ``random``."""
    resampling = Resampling(group_ids(row.prompt for row in grid.rows), seed=seed)
    qualities = grid.qualities()
    random = grid.random().expect(qualities)
    found = []
    for method in methods:
        values = method.expect(qualities)
        ci95, versus = resampling.interval(values), resampling.interval(values - random)
        found.append(Selection(method.name, len(values), float(values.mean()), ci95, versus, method.comparisons))
    return found


def selection_table(results: Sequence[Selection], *, percent: bool) -> Table:
    """Return the results as a table; `percent` multiplies by 100, for scores from 0 to 1."""
    scale, digits = (100, ".1f") if percent else (1, ".3g")
    return Table(
        ("method", "rows", "quality", "95 %", "against random, 95 %", "comparisons"),
        tuple(
            (
                result.method,
                f"{result.rows:,}",
                format_number(result.quality, digits, scale),
                format_interval(result.ci95, digits, scale),
                format_interval(result.vs_random_ci95, f"+{digits}", scale),
                f"{result.comparisons:,}",
            )
            for result in results
        ),
        names=1,
    )
