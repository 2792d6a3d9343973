"""Strengths of LLMs and their weight, fitted to rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np

from llm_blender.bench.methods import rank_rows
from llm_blender.bench.rows import BenchRow, check_names, group_ids
from llm_blender.errors import InputError
from llm_blender.history import KeptAnswer
from llm_blender.ranking import Priors, RankerOptions, WeightFit
from llm_blender.ranking import priors as fitting
from llm_blender.types import Example, Ranker


def named_rows(rows: Iterable[Example], models: Sequence[str] = (), score: str | None = None) -> list[BenchRow]:
    """Select the rows in which at least two LLMs have a candidate, without the candidates of unknown LLMs.

    With `models`, only the candidates of these LLMs are kept. The pairs are those that `score` implies; without one,
    the rows' own.

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


def voted_rows(answers: Iterable[KeptAnswer], models: Sequence[str] = ()) -> list[BenchRow]:
    """Select the answers of the playground with votes on two LLMs, as `named_rows`; a fused text is of no LLM.

    Raises:
        InputError: there is none, or no answer has one of the models.
    """
    examples = []
    for answer in answers:
        example, own = answer.example, len(answer.report["candidates"])
        candidates = tuple(replace(c, model=c.model if i < own else None) for i, c in enumerate(example.candidates))
        examples.append(replace(example, candidates=candidates))
    if not examples:
        raise InputError("The history holds no vote that counts: the playground of `blend serve` takes them.")
    return named_rows(examples, models)


def _named(example: Example, models: Sequence[str], score: str | None) -> BenchRow:
    kept = [i for i, c in enumerate(example.candidates) if c.model is not None and (not models or c.model in models)]
    candidates = tuple(example.candidates[i] for i in kept)
    if score is None:
        place = {old: new for new, old in enumerate(kept)}
        pairs = [replace(p, a=place[p.a], b=place[p.b]) for p in example.pairs if p.a in place and p.b in place]
    else:
        pairs = fitting.pairs_from_scores([candidate.scores.get(score, np.nan) for candidate in candidates])
    return BenchRow(example.prompt, candidates, pairs=tuple(pairs))


def priors_from_judgements(rows: Iterable[BenchRow], *, source: str = "judgements") -> Priors:
    """Fit strengths to the judged pairs of rows.

    Raises:
        InputError: no pair has a better answer.
    """
    return fitting.fit_priors(
        (game for row in rows for game in fitting.games_from_pairs(row.pairs, row.models)), source=source
    )


def priors_from_ranker(
    rows: Sequence[BenchRow],
    ranker: Ranker,
    name: str,
    **options: Unpack[RankerOptions],
) -> Priors:
    """Fit strengths to the comparisons of a ranker, without a judge; `options` are those of `rank_rows`."""
    rankings = rank_rows(rows, ranker, **options)
    games = [
        game
        for row, ranking in zip(rows, rankings, strict=True)
        for game in fitting.games_from_ranking(ranking, row.models)
    ]
    return replace(fitting.fit_priors(games, source=f"ranker {name}"), ranker=name)


def weigh_priors(
    priors: Priors,
    rows: Sequence[BenchRow],
    ranker: Ranker,
    name: str,
    **options: Unpack[RankerOptions],
) -> tuple[Priors, WeightFit]:
    """Fit the weight and the temperature of priors to a ranker, whose logits the strengths are added to.

    The priors are learned from other rows, or without a judge. Rows without a judged pair are not compared. `options`
    are those of `rank_rows`; the seed is that of the bootstrap too.

    Raises:
        InputError: no judged pair can teach a weight.
    """
    judged = [row for row in rows if any(pair.label != "tie" for pair in row.pairs)]
    rankings = rank_rows(judged, ranker, **options) if judged else []
    groups = group_ids(row.prompt for row in judged)
    evidence = [
        fitting.JudgedRanking(ranking, row.models, row.pairs, group)
        for row, ranking, group in zip(judged, rankings, groups, strict=True)
    ]
    fit = fitting.fit_weight(priors, evidence, seed=options.get("seed", 0))
    return replace(priors, weight=fit.weight, weight_ci95=fit.ci95, ranker=name, temperature=fit.temperature), fit
