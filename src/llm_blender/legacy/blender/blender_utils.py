"""The functions that code around `Blender` imports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_blender.errors import InputError

from ._conversations import Conversation, get_pair_from_conv
from ._texts import texts_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["get_pair_from_conv", "get_topk_candidates_from_ranks", "tokenize_conv_pair", "tokenize_pair"]


def get_topk_candidates_from_ranks(
    ranks: Sequence[Sequence[int]], candidates: Sequence[Sequence[str]], top_k: int | None
) -> Any:
    """The best candidates of each input, best first.

    Args:
        ranks: as `Blender.rank` returns them.
        candidates: of the same shape.
        top_k: how many; None takes all.

    Returns:
        An array of texts ``[n, k]``; a list of arrays where the lists of candidates differ in length.

    Raises:
        InputError: there are more or fewer ranks than candidates.
    """
    if len(ranks) != len(candidates):
        raise InputError(f"{len(ranks)} rows of ranks need as many of candidates, not {len(candidates)}.")
    best = []
    for i, (row, given) in enumerate(zip(ranks, candidates, strict=True)):
        texts = texts_of(given, f"candidates[{i}]")
        if len(row) != len(texts):
            raise InputError(f"candidates[{i}] has {len(texts)} texts and {len(row)} ranks.")
        best.append(np.array([texts[place] for place in np.argsort(np.asarray(row), kind="stable")[:top_k]]))
    return np.array(best) if len({len(texts) for texts in best}) == 1 else best


def tokenize_pair(
    tokenizer: Any,
    sources: Sequence[str],
    candidate1s: Sequence[str],
    candidate2s: Sequence[str],
    source_max_length: int = 1224,
    candidate_max_length: int = 412,
) -> dict[str, Tensor]:
    """Token ids for `DebertaV2PairRM`.

    Args:
        tokenizer: of llm-blender/PairRM-hf; with transformers 5, ``PreTrainedTokenizerFast.from_pretrained`` keeps
            its normaliser and ``AutoTokenizer`` does not.
        sources: instruction and input of each pair.
        candidate1s: the left candidates.
        candidate2s: the right candidates.
        source_max_length: tokens of a source; what it leaves of ``source_max_length + 2 * candidate_max_length``
            is shared by the candidates.
        candidate_max_length: of each candidate beside the longest source.

    Returns:
        ``input_ids`` and ``attention_mask``, both ``[n, source_max_length + 2 * candidate_max_length]``.

    Raises:
        InputError: lists are empty or differ in length, or a text is no text.
    """
    total = source_max_length + 2 * candidate_max_length

    def ids(text: str, length: int) -> list[int]:
        found: list[int] = tokenizer.encode(text, max_length=length, truncation=True)
        return found

    rows = []
    read = texts_of(sources, "sources")
    left = texts_of(candidate1s, "candidate1s", len(read))
    right = texts_of(candidate2s, "candidate2s", len(read))
    for source, one, other in zip(read, left, right, strict=True):
        start = ids("<|source|>" + source, source_max_length)
        room = (total - len(start)) // 2
        rows.append(start + ids("<|candidate1|>" + one, room) + ids("<|candidate2|>" + other, room))
    padded: dict[str, Tensor] = tokenizer.pad(
        {"input_ids": rows}, return_tensors="pt", padding="max_length", max_length=total
    )
    return padded


def tokenize_conv_pair(
    tokenizer: Any,
    convAs: Sequence[Conversation],  # noqa: N803 (0.0.2's name)
    convBs: Sequence[Conversation],  # noqa: N803
) -> dict[str, Tensor]:
    """`tokenize_pair` of conversations; see `get_pair_from_conv`."""
    return tokenize_pair(tokenizer, *get_pair_from_conv(convAs, convBs))
