"""Ranks from scores, from comparisons, and from the judgements of a chat model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import InputError, unknown_name
from llm_blender.metrics import gpt_ranking, read_cmp_results
from llm_blender.ranking import ranks_from_scores

__all__ = [
    "get_ranks_from_chatgpt_cmps",
    "get_ranks_from_cmps",
    "get_ranks_from_scores",
    "get_scores_from_cmps",
    "is_evaluated",
]

Ranks = NDArray[np.int32]

POLICIES = ("max_logits", "max_wins")


def get_ranks_from_scores(scores: ArrayLike) -> Ranks:
    """Compute competition ranks "1, 1, 3": the highest score gets 1, equal scores share the smaller rank.

    Args:
        scores: ``[n, c]`` or ``[c]``, higher is better.

    Returns:
        Ranks of the same shape.

    Raises:
        InputError: there are more dimensions, or a score is NaN.
    """
    values = np.asarray(scores)
    if values.ndim not in (1, 2):
        raise InputError(f"Scores have the shape [n, c] or [c], not {list(values.shape)}.")
    rows = [ranks_from_scores(row) for row in np.atleast_2d(values)]
    return np.array(rows, dtype=np.int32).reshape(values.shape)


def get_scores_from_cmps(cmp_results: ArrayLike, policy: str = "max_logits") -> NDArray[np.float32]:
    """Compute scores from matrices of comparisons.

    Args:
        cmp_results: ``[n, c, c]`` or ``[c, c]``; ``[…, i, j]`` is above zero if i, read first, is better than j.
        policy: ``max_logits`` is (1/c) · Σ_j (M[i,j] − M[j,i]); ``max_wins`` is #(M[i,·] > 0) + #(M[·,i] < 0) / c,
            the sum of a count and a mean, as in 0.0.2. `get_ranks_from_cmps` weighs both counts equally.

    Returns:
        ``[n, c]`` (or ``[c]``) scores, higher is better.

    Raises:
        InputError: the shape is wrong or the policy is unknown.
    """
    matrices = _matrices(cmp_results, policy)
    if policy == "max_logits":
        return _evidence(matrices) / np.float32(matrices.shape[-1])
    won, lost = _wins(matrices)
    return np.asarray(won + lost / np.float32(matrices.shape[-1]), np.float32)


def get_ranks_from_cmps(cmp_results: ArrayLike, policy: str = "max_logits") -> Ranks:
    """Compute ranks from matrices of comparisons; arguments as for `get_scores_from_cmps`.

    Returns:
        ``[n, c]`` (or ``[c]``) ranks, 1 is best.

    Raises:
        InputError: the shape is wrong or the policy is unknown.
    """
    matrices = _matrices(cmp_results, policy)
    return get_ranks_from_scores(_evidence(matrices) if policy == "max_logits" else sum(_wins(matrices)))


def get_ranks_from_chatgpt_cmps(ds_data: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Ranks], NDArray[np.float64]]:
    """Compute the GPT-Rank of each LLM in each row of MixInstruct (arXiv 2306.02561).

    Args:
        ds_data: rows with ``candidates`` (each with its ``model``) and ``cmp_results``; all rows have the same LLMs,
            in any order.

    Returns:
        Ranks ``[n]`` by LLM, and the comparisons ``[n, c, c]``, LLMs in the order of the first row. A pair
        without a judgement counts as zero; `is_evaluated` finds the rows with judgements.

    Raises:
        InputError: there are no rows, the LLMs differ, or a judgement is invalid.
    """
    if not len(ds_data):
        raise InputError("There are no rows to rank.")
    models = _models(ds_data[0])
    for number, row in enumerate(ds_data):
        if sorted(_models(row)) != sorted(models):
            raise InputError(f"Row {number} has candidates of {_models(row)}, the first row of {models}.")
    matrices = np.stack([np.nan_to_num(gpt_ranking(row.get("cmp_results"), models).matrix) for row in ds_data])
    ranks = get_ranks_from_cmps(matrices)
    return {model: ranks[:, place] for place, model in enumerate(models)}, matrices


def is_evaluated(item: Mapping[str, Any]) -> bool:
    """Tell whether a row of MixInstruct has judgements."""
    return bool(read_cmp_results(item.get("cmp_results")))


def _models(row: Mapping[str, Any]) -> list[str]:
    try:
        return [candidate["model"] for candidate in row["candidates"]]
    except (KeyError, TypeError):
        raise InputError("A row needs `candidates`, and each of them the `model` that wrote it.") from None


def _matrices(cmp_results: ArrayLike, policy: str) -> NDArray[np.float32]:
    if policy not in POLICIES:
        raise unknown_name("policy", policy, POLICIES)
    matrices = np.asarray(cmp_results, np.float32)
    if matrices.ndim not in (2, 3) or matrices.shape[-1] != matrices.shape[-2] or not matrices.size:
        raise InputError(f"Comparisons have the shape [n, c, c] or [c, c], not {list(matrices.shape)}.")
    return matrices


def _evidence(matrices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute Σ_j (M[i,j] − M[j,i]), bit for bit the same for two candidates with the same comparisons."""
    return np.asarray((matrices - matrices.swapaxes(-1, -2)).sum(axis=-1), np.float32)


def _wins(matrices: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Count the comparisons won as the first and as the second candidate."""
    won, lost = (matrices > 0).sum(axis=-1), (matrices < 0).sum(axis=-2)
    return won.astype(np.float32), lost.astype(np.float32)
