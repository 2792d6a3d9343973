"""Strengths of LLMs and their weight, fitted to rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from llm_blender.bench.methods import rank_rows
from llm_blender.bench.rows import BenchRow, check_names, group_ids
from llm_blender.errors import InputError
from llm_blender.ranking import (
    JudgedRanking,
    Priors,
    WeightFit,
    fit_priors,
    fit_weight,
    games_from_pairs,
    games_from_ranking,
    pairs_from_scores,
)
from llm_blender.types import Example, OnProgress, Ranker

__all__ = ["named_rows", "priors_from_judgements", "priors_from_ranker", "weigh_priors"]


def named_rows(rows: Iterable[Example], models: Sequence[str] = (), score: str | None = None) -> list[BenchRow]:
    """Select the rows in which at least two LLMs have a candidate, without the candidates of unknown LLMs.

    Args:
        rows: of one or several files.
        models: LLMs whose candidates are kept; empty keeps all whose LLM is known.
        score: score whose order gives the pairs; None takes the rows' own `pairs`.

    Raises:
        InputError: no row has the score or a model (the message gives the nearest name), or no row is left.
    """
    examples = list(rows)
    check_names(examples, models, score)
    found = [_named(example, models, score) for example in examples]
    kept = [row for row in found if len(set(row.models)) >= 2]
    if not kept:
        raise InputError("There is no row with candidates of two LLMs: candidates need a `model`.")
    return kept


def _named(example: Example, models: Sequence[str], score: str | None) -> BenchRow:
    kept = [i for i, c in enumerate(example.candidates) if c.model is not None and (not models or c.model in models)]
    candidates = tuple(example.candidates[i] for i in kept)
    if score is None:
        place = {old: new for new, old in enumerate(kept)}
        pairs = [replace(p, a=place[p.a], b=place[p.b]) for p in example.pairs if p.a in place and p.b in place]
    else:
        pairs = pairs_from_scores([candidate.scores.get(score, np.nan) for candidate in candidates])
    return BenchRow(example.prompt, candidates, pairs=tuple(pairs))


def priors_from_judgements(rows: Iterable[BenchRow], *, source: str = "judgements") -> Priors:
    """Fit strengths to the judged pairs of rows.

    Raises:
        InputError: no pair has a better answer.
    """
    return fit_priors((game for row in rows for game in games_from_pairs(row.pairs, row.models)), source=source)


def priors_from_ranker(
    rows: Sequence[BenchRow],
    ranker: Ranker,
    name: str,
    *,
    strategy: str = "full",
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Priors:
    """Fit strengths to the comparisons of a ranker, without a judge.

    Args:
        rows: at least one.
        ranker: any.
        name: for `Priors.ranker`.
        strategy: chooses the pairs to compare.
        seed: of the strategy.
        progress: called with comparisons done and expected.
    """
    rankings = rank_rows(rows, ranker, strategy=strategy, seed=seed, progress=progress)
    games = [
        game for row, ranking in zip(rows, rankings, strict=True) for game in games_from_ranking(ranking, row.models)
    ]
    return replace(fit_priors(games, source=f"ranker {name}"), ranker=name)


def weigh_priors(
    priors: Priors,
    rows: Sequence[BenchRow],
    ranker: Ranker,
    name: str,
    *,
    strategy: str = "full",
    seed: int = 0,
    progress: OnProgress | None = None,
) -> tuple[Priors, WeightFit]:
    """Fit the weight and the temperature of priors to a ranker.

    Args:
        priors: learned from other rows, or without a judge.
        rows: judged; those without a judged pair are not compared.
        ranker: whose logits the strengths are added to.
        name: for `Priors.ranker`.
        strategy: chooses the pairs to compare.
        seed: of strategy and bootstrap.
        progress: called with comparisons done and expected.

    Raises:
        InputError: no judged pair can teach a weight.
    """
    judged = [row for row in rows if any(pair.label != "tie" for pair in row.pairs)]
    rankings = rank_rows(judged, ranker, strategy=strategy, seed=seed, progress=progress) if judged else []
    groups = group_ids(row.prompt for row in judged)
    fit = fit_weight(
        priors,
        [
            JudgedRanking(ranking, row.models, row.pairs, group)
            for row, ranking, group in zip(judged, rankings, groups, strict=True)
        ],
        seed=seed,
    )
    return replace(priors, weight=fit.weight, weight_ci95=fit.ci95, ranker=name, temperature=fit.temperature), fit
