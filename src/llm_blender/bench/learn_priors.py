"""Strengths of LLMs, and their weight, learned from rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llm_blender.bench.rows import group_ids
from llm_blender.errors import InputError, unknown_name
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
from llm_blender.types import Example, LabelledPair, OnProgress, Ranker

__all__ = ["NamedRow", "named_rows", "priors_from_judgements", "priors_from_ranker", "weigh_priors"]


@dataclass(frozen=True)
class NamedRow:
    """The candidates of one instruction whose LLM is known, and what was judged of them.

    Attributes:
        prompt: instruction and input as one text.
        texts: of the candidates.
        models: who wrote them.
        pairs: of these candidates.
    """

    prompt: str
    texts: tuple[str, ...]
    models: tuple[str, ...]
    pairs: tuple[LabelledPair, ...]


def named_rows(rows: Iterable[Example], models: Sequence[str] = (), score: str | None = None) -> list[NamedRow]:
    """The rows in which at least two LLMs have a candidate.

    Args:
        rows: of one or several files.
        models: only these LLMs' candidates; none named: all whose LLM is known.
        score: what the judge says, by the order of this score; None: what the rows' own `pairs` say.

    Raises:
        InputError: the score or a model stands in no row (the nearest name is given), or no row is left.
    """
    examples = list(rows)
    candidates = [candidate for example in examples for candidate in example.candidates]
    known = {candidate.model for candidate in candidates if candidate.model is not None}
    for model in models:
        if model not in known:
            raise unknown_name("model", model, sorted(known))
    scores = {name for candidate in candidates for name in candidate.scores}
    if score is not None and score not in scores:
        raise unknown_name("score", score, sorted(scores))
    found = [_named(example, models or known, score) for example in examples]
    kept = [row for row in found if len(set(row.models)) >= 2]
    if not kept:
        raise InputError("There is no row with candidates of two LLMs: candidates need a `model`.")
    return kept


def _named(example: Example, models: Iterable[str], score: str | None) -> NamedRow:
    kept = [(i, c, c.model) for i, c in enumerate(example.candidates) if c.model is not None and c.model in models]
    if score is None:
        place = {old: new for new, (old, *_) in enumerate(kept)}
        moved = [replace(p, a=place[p.a], b=place[p.b]) for p in example.pairs if p.a in place and p.b in place]
    else:
        moved = pairs_from_scores([candidate.scores.get(score, np.nan) for _, candidate, _ in kept])
    texts, names = tuple(candidate.text for _, candidate, _ in kept), tuple(model for *_, model in kept)
    return NamedRow(example.prompt, texts, names, tuple(moved))


def priors_from_judgements(rows: Iterable[NamedRow], *, source: str = "judgements") -> Priors:
    """Strengths by what judges said.

    Raises:
        InputError: they preferred nobody.
    """
    return fit_priors((game for row in rows for game in games_from_pairs(row.pairs, row.models)), source=source)


def priors_from_ranker(
    rows: Sequence[NamedRow],
    ranker: Ranker,
    name: str,
    *,
    strategy: str = "full",
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Priors:
    """Strengths by what a ranker itself finds; needs no judge.

    Args:
        rows: at least one.
        ranker: any.
        name: for `Priors.ranker`.
        strategy: which pairs it compares.
        seed: of the strategy.
        progress: called with comparisons done and expected.
    """
    prompts, texts = [row.prompt for row in rows], [row.texts for row in rows]
    rankings = ranker.rank_many(prompts, texts, strategy=strategy, seed=seed, progress=progress)
    games = [
        game for row, ranking in zip(rows, rankings, strict=True) for game in games_from_ranking(ranking, row.models)
    ]
    return replace(fit_priors(games, source=f"ranker {name}"), ranker=name)


def weigh_priors(
    priors: Priors,
    rows: Sequence[NamedRow],
    ranker: Ranker,
    name: str,
    *,
    strategy: str = "full",
    seed: int = 0,
    progress: OnProgress | None = None,
) -> tuple[Priors, WeightFit]:
    """The priors with the weight and the temperature that suit a ranker, and how they were found.

    Args:
        priors: learned from other rows, or without a judge.
        rows: judged; of those without a judged pair nothing is compared.
        ranker: beside which they are to count.
        name: for `Priors.ranker`.
        strategy: which pairs it compares.
        seed: of strategy and bootstrap.
        progress: called with comparisons done and expected.

    Raises:
        InputError: nothing was judged that could teach a weight.
    """
    judged = [row for row in rows if any(pair.label != "tie" for pair in row.pairs)]
    prompts, texts = [row.prompt for row in judged], [row.texts for row in judged]
    rankings = ranker.rank_many(prompts, texts, strategy=strategy, seed=seed, progress=progress) if judged else []
    fit = fit_weight(
        priors,
        [
            JudgedRanking(ranking, row.models, row.pairs, group)
            for row, ranking, group in zip(judged, rankings, group_ids(prompts), strict=True)
        ],
        seed=seed,
    )
    return replace(priors, weight=fit.weight, weight_ci95=fit.ci95, ranker=name, temperature=fit.temperature), fit
