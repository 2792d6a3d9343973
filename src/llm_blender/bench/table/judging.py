"""The judge's word on the candidates of one row: pairwise outcomes, or the pairs that a score implies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llm_blender._cmp_results import resolve_pair
from llm_blender.errors import InputError
from llm_blender.metrics import GPTRanking, gpt_ranking, read_cmp_results

__all__ = ["FUSED", "outcomes_of", "ranking_by_outcomes", "ranking_by_score"]

FUSED = "fusion"
"""Name of the fused answer among the candidates, in the outcomes that stand in a row's ``fusion``."""


def outcomes_of(holder: Mapping[str, Any]) -> dict[str, str]:
    """The ``cmp_results`` of a row or of its ``fusion``; without those that are null, as Parquet fills them in."""
    return {
        pair: outcome for pair, outcome in read_cmp_results(holder.get("cmp_results")).items() if outcome is not None
    }


def ranking_by_outcomes(outcomes: Mapping[str, str], models: Sequence[str]) -> tuple[GPTRanking, int]:
    """GPT-Rank of one row, and how many outcomes were left out, since they do not name two of its LLMs.

    Raises:
        InputError: an outcome is unknown.
    """
    known = {pair: outcome for pair, outcome in outcomes.items() if _names_two(pair, models)}
    return gpt_ranking(known, models), len(outcomes) - len(known)


def ranking_by_score(scores: Sequence[float | None], models: Sequence[str]) -> GPTRanking:
    """GPT-Rank by the pairs that a score implies: the higher one wins, equal ones tie, one without it is not judged.

    Args:
        scores: per candidate.
        models: their LLMs, all different.
    """
    values = np.array([np.nan if score is None else score for score in scores])
    matrix = np.sign(np.subtract.outer(values, values))
    np.fill_diagonal(matrix, 0)
    return GPTRanking(tuple(models), matrix)


def _names_two(pair: str, models: Sequence[str]) -> bool:
    try:
        resolve_pair(pair, models)
    except InputError:
        return False
    return True
