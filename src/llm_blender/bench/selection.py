"""Quality of the answer that each method selects, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from llm_blender.bench.methods import CandidateGrid, Method, best_shares, order_models, rank_rows
from llm_blender.bench.report import Result, Table, format_interval, format_number
from llm_blender.bench.resampling import Resampling
from llm_blender.bench.rows import BenchRow, group_ids
from llm_blender.errors import InputError
from llm_blender.rankers.heuristics import Consensus, First, Longest
from llm_blender.ranking import (
    Interval,
    JudgedRanking,
    Priors,
    fit_priors,
    fit_weight,
    games_from_pairs,
    games_from_ranking,
    pairs_from_scores,
)
from llm_blender.types import OnProgress, Ranker, Ranking


@dataclass(frozen=True)
class Selection(Result):
    """Quality of the answers that one method selects.

    Attributes:
        method: a ranker's name with its strategy, or a baseline.
        quality: mean score of the answers selected, on the score's own scale.
        vs_random_ci95: interval of the difference to ``random`` on the same rows; None for ``random`` itself.
        comparisons: ordered pairs that went through the model, over all rows.
        vs_single: difference to the best single LLM, chosen on other rows; None for itself, or if there is none.
        vs_single_ci95: interval of this difference.
    """

    method: str
    rows: int
    quality: float
    ci95: Interval
    vs_random_ci95: Interval | None
    comparisons: int = 0
    vs_single: float | None = None
    vs_single_ci95: Interval | None = None


def ranker_selections(
    rows: Sequence[BenchRow],
    ranker: Ranker,
    name: str,
    *,
    strategy: str = "auto",
    seed: int = 0,
    priors: Priors | None = None,
    train: Sequence[BenchRow] | None = None,
    progress: OnProgress | None = None,
) -> list[Selection]:
    """Measure the answers that a ranker puts first; among ties, the one that its ranking calls best.

    Args:
        rows: rows with scores.
        ranker: ranks their candidates.
        name: of the ranker, in the results.
        strategy: one of `llm_blender.ranking.STRATEGIES`.
        seed: of the strategy and of the intervals.
        priors: strengths of LLMs, learned from other rows; with them, also what the same comparisons and the strengths
            select is measured.
        train: other rows, on which the LLM of the comparison `vs_single` did best; None compares with none.
        progress: called with (done, total), as in `rank_rows`.
    """
    k = 1 if priors is None else None  # priors can lift any candidate
    rankings = rank_rows(rows, ranker, k=k, strategy=strategy, seed=seed, progress=progress)
    grid = CandidateGrid(rows)
    methods = [grid.ranker(f"{name}, {strategy}", rankings)]
    if priors is not None:
        informed = [priors.apply(ranking, row.models) for row, ranking in zip(rows, rankings, strict=True)]
        methods.append(grid.ranker(f"{name} with priors, {strategy}", informed))
    single = None if train is None else grid.model("", order_models(rows, train)[0])
    return _measure(grid, methods, seed, single)


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
    single = None
    if train is not None:
        best, *_ = order_models(rows, train)
        single = grid.model(f"best single: {best}", best)
        methods.append(single)
    if any(model for row in rows for model in row.models):
        best, *_ = order_models(rows, rows)
        methods.append(grid.model(f"best in hindsight: {best}", best))
    oracle = Method("oracle", "oracle", best_shares(grid.qualities()))
    return _measure(grid, [*methods, oracle], seed, single)


def folded_selections(
    rows: Sequence[BenchRow], rankings: Mapping[str, Sequence[Ranking]], *, folds: int = 5, seed: int = 0
) -> list[Selection]:
    """Measure picks against the best single LLM, with all that is learned learned on other folds (cross-validation).

    The instructions are divided into folds by the seed. For each fold, the best single LLM is the one that did best in
    the other folds; the priors are learned there too: from the scores, with their weight fitted, and without labels,
    from the rankings, with the weight 1. Where the other folds tell no LLM from another, there are no priors.

    Args:
        rows: with scores, and with the LLM of each candidate.
        rankings: by the ranker's name, one for each row, without priors.
        folds: number of folds.
        seed: of the folds and of the bootstrap.

    Raises:
        InputError: there are fewer instructions than folds, or no fold has two LLMs.
    """
    groups = np.array(group_ids(row.prompt for row in rows))
    instructions = int(groups.max()) + 1
    if instructions < 2:
        raise InputError("Folds need at least two instructions: give more rows.")
    if not 2 <= folds <= instructions:
        raise InputError(f"{instructions} instructions cannot be divided into {folds} folds: give 2 to {instructions}.")
    fold_of = (np.random.default_rng(seed).permutation(instructions) % folds)[groups]
    grid = CandidateGrid(rows)
    single = Method("best single LLM", "LLM", np.zeros(grid.shape))
    best = {f"{name}{how}": [0] * len(rows) for name in rankings for how in _LEARNED}
    for fold in range(folds):
        here, others = np.flatnonzero(fold_of == fold).tolist(), np.flatnonzero(fold_of != fold).tolist()
        model, *_ = order_models([rows[i] for i in here], [rows[i] for i in others])
        single.shares[here] = grid.model("", model).shares[here]
        for name, ranked in rankings.items():
            learned = _learn([rows[i] for i in others], [ranked[i] for i in others], groups[others].tolist(), seed)
            for how in _LEARNED:
                strengths = learned.get(how)
                for i in here:
                    ranking = ranked[i] if strengths is None else strengths.apply(ranked[i], rows[i].models)
                    best[f"{name}{how}"][i] = ranking.best
    comparisons = {name: sum(ranking.comparisons for ranking in ranked) for name, ranked in rankings.items()}
    methods = [
        Method(f"{name}{how}", "ranker", grid.one_hot(best[f"{name}{how}"]), comparisons[name])
        for name in rankings
        for how in _LEARNED
    ]
    baselines = [grid.random(), *(grid.heuristic(heuristic) for heuristic in (Longest(), Consensus()))]
    oracle = Method("oracle", "oracle", best_shares(grid.qualities()))
    return _measure(grid, [*methods, single, *baselines, oracle], seed, single)


_SCORES, _UNLABELLED = " with priors from scores", " with priors without labels"
_LEARNED = ("", _SCORES, _UNLABELLED)


def _learn(
    rows: Sequence[BenchRow], rankings: Sequence[Ranking], groups: Sequence[int], seed: int
) -> dict[str, Priors]:
    """Learn the strengths of LLMs from the scores of rows, and from their rankings without the scores."""
    judged = [pairs_from_scores(row.qualities) for row in rows]
    of_rows = zip(rows, rankings, judged, groups, strict=True)
    weighed = [JudgedRanking(ranking, row.models, pairs, int(group)) for row, ranking, pairs, group in of_rows]
    learned: dict[str, Priors] = {}
    with suppress(InputError):  # the scores tell no LLM from another
        from_scores = fit_priors(
            game for row, pairs in zip(rows, judged, strict=True) for game in games_from_pairs(pairs, row.models)
        )
        fit = fit_weight(from_scores, weighed, seed=seed)
        learned[_SCORES] = replace(from_scores, weight=fit.weight, temperature=fit.temperature)
    games = [game for row, found in zip(rows, rankings, strict=True) for game in games_from_ranking(found, row.models)]
    return learned if not games else {**learned, _UNLABELLED: fit_priors(games)}


def _measure(
    grid: CandidateGrid, methods: Sequence[Method], seed: int, single: Method | None = None
) -> list[Selection]:
    """Measure methods, each against ``random`` and against the best single LLM."""
    resampling = Resampling(group_ids(row.prompt for row in grid.rows), seed=seed)
    qualities = grid.qualities()
    random = grid.random().expect(qualities)
    of_single = None if single is None else single.expect(qualities)
    found = []
    for method in methods:
        values = method.expect(qualities)
        versus = None if method.name == "random" else resampling.interval(values - random)
        known = of_single is not None and method is not single
        gain = values - of_single if of_single is not None and known else None
        found.append(
            Selection(
                method.name,
                len(values),
                float(values.mean()),
                resampling.interval(values),
                versus,
                method.comparisons,
                None if gain is None else float(gain.mean()),
                None if gain is None else resampling.interval(gain),
            )
        )
    return found


def selection_table(results: Sequence[Selection], *, percent: bool) -> Table:
    """Return the results as a table; `percent` multiplies by 100, for scores from 0 to 1."""
    scale, digits = (100, ".1f") if percent else (1, ".3f")
    columns = ["method", "rows", "quality", "95 %", "against random, 95 %", "comparisons"]
    against_single = any(result.vs_single is not None for result in results)
    if against_single:
        columns += ["against best single", "95 %"]
    rows = []
    for result in results:
        row = [
            result.method,
            f"{result.rows:,}",
            format_number(result.quality, digits, scale),
            format_interval(result.ci95, digits, scale),
            format_interval(result.vs_random_ci95, f"+{digits}", scale),
            f"{result.comparisons:,}",
        ]
        if against_single:
            row.append(format_number(result.vs_single, f"+{digits}", scale))
            row.append(format_interval(result.vs_single_ci95, f"+{digits}", scale))
        rows.append(tuple(row))
    return Table(tuple(columns), tuple(rows), names=1)
