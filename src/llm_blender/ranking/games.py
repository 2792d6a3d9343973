"""Judgements of answers as games between the LLMs that wrote them.

A tie is no game: it says nothing about who is better. Where a judge only says good or bad, how often one of the two
is good and the other bad does not depend on how hard the instructions were (Rasch, 1960), but ties do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from llm_blender.errors import InputError
from llm_blender.ranking.confidence import probability_matrix
from llm_blender.types import LabelledPair, Ranking

__all__ = ["Game", "games_from_pairs", "games_from_ranking", "games_from_votes", "pairs_from_scores"]

Models = Sequence[str | None]
"""Who wrote each candidate; None where nobody knows."""


@dataclass(frozen=True)
class Game:
    """Two LLMs answered the same instruction, and one answer was found better.

    Attributes:
        a: an LLM.
        b: another one.
        share: how much of the game a won: 1 all of it, 0 nothing, in between where a ranker is in doubt.
        weight: how many independent games it counts as.
    """

    a: str
    b: str
    share: float
    weight: float = 1.0


def games_from_ranking(ranking: Ranking, models: Models) -> list[Game]:
    """What a ranker found: each pair that it compared, won in part, by its probability.

    Args:
        ranking: of one instruction; a pair with evidence 0 is a tie.
        models: one per candidate.

    Raises:
        InputError: there are more or fewer models than candidates.
    """
    check_models(models, len(ranking))
    shares = probability_matrix(ranking)
    pairs = combinations(range(len(models)), 2)
    return _games(models, [(i, j, float(shares[i, j])) for i, j in pairs if not np.isnan(shares[i, j])])


def games_from_pairs(pairs: Iterable[LabelledPair], models: Models) -> list[Game]:
    """What a judge found, in the labelled pairs of one row.

    Args:
        pairs: of candidates.
        models: one per candidate.
    """
    won = {"a": 1.0, "b": 0.0, "tie": 0.5}
    return _games(models, [(pair.a, pair.b, won[pair.label]) for pair in pairs])


def games_from_votes(votes: Iterable[tuple[str, str]]) -> list[Game]:
    """What people found, each vote about an instruction of its own.

    Args:
        votes: (the LLM whose answer was preferred, the other LLM); of one with itself, none.
    """
    return [Game(winner, loser, 1.0) for winner, loser in votes if winner != loser]


def pairs_from_scores(scores: ArrayLike) -> list[LabelledPair]:
    """All pairs of the candidates of one row that have a score, the higher one better, equal ones a tie.

    Only the order of the scores counts: those of one row have to be comparable, those of different rows need not be.

    Args:
        scores: ``[N]``, NaN where a candidate has none.
    """
    values = np.asarray(scores, dtype=np.float64)
    scored = np.flatnonzero(~np.isnan(values)).tolist()
    return [
        LabelledPair(i, j, "a" if values[i] > values[j] else "b" if values[i] < values[j] else "tie")
        for i, j in combinations(scored, 2)
    ]


def check_models(models: Models, candidates: int) -> None:
    """Refuse anything but one model per candidate."""
    if len(models) != candidates:
        raise InputError(f"A ranking of {candidates} candidates needs as many names of LLMs, not {len(models)}.")


def _games(models: Models, outcomes: Sequence[tuple[int, int, float]]) -> list[Game]:
    """The games of one row.

    N answers have N(N − 1)/2 pairs but only N − 1 independent differences; all pairs together count as that many.
    """
    decided = [
        (i, j, a, b, share)
        for i, j, share in outcomes
        if share != 0.5 and (a := models[i]) is not None and (b := models[j]) is not None and a != b
    ]
    answers = {index for i, j, *_ in decided for index in (i, j)}
    weight = min(1.0, (len(answers) - 1) / max(len(decided), 1))
    return [Game(a, b, share, weight) for _, _, a, b, share in decided]
