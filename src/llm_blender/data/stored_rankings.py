"""The ranking that stands in a row already, as ``blend rank`` writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from llm_blender.ranking import ranking_from_scores
from llm_blender.types import Example, Ranking

__all__ = ["stored_ranking"]

_SURE = 1e-12  # from 0 and 1, whose logits are infinite


def stored_ranking(example: Example) -> Ranking:
    """The row's `ranking`: {best, ranks, scores, strategy, comparisons, lead}; of its logits only the lead is known.

    Raises:
        ValueError: there is none, or it does not fit the candidates or itself.
    """
    value = example.extra.get("ranking")
    if value is None:
        raise ValueError("`ranking` is missing: `blend rank` writes it")
    if not isinstance(value, Mapping):
        raise ValueError(f"`ranking` must be an object, not {type(value).__name__}")
    scores, count = value.get("scores"), len(example.candidates)
    if not isinstance(scores, list) or not all(_is_number(score) for score in scores):
        raise ValueError("the `scores` of `ranking` must be a list of numbers")
    if len(scores) != count:
        raise ValueError(f"`ranking` has {len(scores)} scores for {count} candidates: rank the row again")
    ranking = ranking_from_scores(str(value.get("strategy")), scores, np.full((count, count), np.nan))
    if value.get("ranks") != list(ranking.ranks) or value.get("best") != ranking.best:
        raise ValueError("the `ranks` and `best` of `ranking` do not follow from its scores: rank the row again")
    lead = value.get("lead")
    if isinstance(lead, int | float) and 0 <= lead <= 1 and count > 1:
        inside = min(max(lead, _SURE), 1 - _SURE)
        ranking.logits[ranking.order[:2]] = math.log(inside / (1 - inside))
    return ranking


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
