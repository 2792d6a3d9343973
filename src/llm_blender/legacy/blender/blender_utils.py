"""Helper functions for code around `Blender`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_blender.errors import InputError
from llm_blender.types import Message, text_messages

from ._ranking import texts_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["get_pair_from_conv", "get_topk_candidates_from_ranks", "tokenize_conv_pair", "tokenize_pair"]

Conversation = Sequence[Message]

# The published rankers were trained with the spelling "coversation".
_PROMPT = "Finish the following coversation in each i-th turn by filling in <Response i> with your response."


def get_pair_from_conv(
    convAs: Sequence[Conversation],  # noqa: N803 (0.0.2's name)
    convBs: Sequence[Conversation],  # noqa: N803
) -> tuple[list[str], list[str], list[str]]:
    """Render conversations as the texts that PairRM compares.

    Args:
        convAs: conversations of alternating user and assistant turns; roles in any usual spelling.
        convBs: conversations with the same user turns.

    Returns:
        Sources, with ``<Response i>`` in place of the assistant's i-th turn, and the responses of A and of B.

    Raises:
        InputError: the lists are empty or differ in length, the turns do not alternate, or the user turns of A and B
            differ.
    """
    if not len(convAs) or len(convAs) != len(convBs):
        raise InputError(f"{len(convAs)} conversations A need as many B, at least one, not {len(convBs)}.")
    sources, left, right = [], [], []
    for number, (a, b) in enumerate(zip(convAs, convBs, strict=True)):
        (prompts, responses_a), (prompts_b, responses_b) = _turns(a, f"A[{number}]"), _turns(b, f"B[{number}]")
        if prompts != prompts_b:
            raise InputError(f"The user says different things in conversations A[{number}] and B[{number}].")
        turns = (f"USER: {text}\nAssistant: <Response {i}>" for i, text in enumerate(prompts, 1))
        sources.append(_PROMPT + "\n".join(turns))
        left.append(_numbered(responses_a))
        right.append(_numbered(responses_b))
    return sources, left, right


def _turns(conversation: Conversation, name: str) -> tuple[list[str], list[str]]:
    """Split a conversation into the user turns and the assistant turns."""
    if isinstance(conversation, str) or not len(conversation):
        raise InputError(f"Conversation {name} must be a list of messages, user and assistant in turn.")
    try:
        messages = text_messages(conversation)
    except InputError as error:
        raise InputError(f"Conversation {name}: {error}") from None
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise InputError(f"Conversation {name} must be user and assistant in turn, not {', '.join(roles)}.")
    contents = [message["content"] for message in messages]
    return contents[::2], contents[1::2]


def _numbered(responses: list[str]) -> str:
    return "\n".join(f"<Response {i}>: {text}" for i, text in enumerate(responses, 1))


def get_topk_candidates_from_ranks(
    ranks: Sequence[Sequence[int]], candidates: Sequence[Sequence[str]], top_k: int | None
) -> Any:
    """Select the best candidates of each input, best first.

    Args:
        ranks: result of `Blender.rank`.
        candidates: texts, of the same shape.
        top_k: number of candidates; None takes all.

    Returns:
        An array of texts ``[n, k]``; a list of arrays if the lists of candidates differ in length.

    Raises:
        InputError: the numbers of ranks and candidates differ.
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
    """Tokenise pairs for `DebertaV2PairRM`.

    Args:
        tokenizer: tokenizer of llm-blender/PairRM-hf; with transformers 5, ``PreTrainedTokenizerFast.from_pretrained``
            keeps its normaliser and ``AutoTokenizer`` does not.
        sources: instruction and input of each pair.
        candidate1s: first candidate of each pair.
        candidate2s: second candidate of each pair.
        source_max_length: maximum number of tokens of a source; the candidates share the rest of
            ``source_max_length + 2 * candidate_max_length``.
        candidate_max_length: maximum number of tokens of each candidate next to the longest source.

    Returns:
        ``input_ids`` and ``attention_mask``, both ``[n, source_max_length + 2 * candidate_max_length]``.

    Raises:
        InputError: lists are empty or differ in length, or a text is not a string.
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
        length = (total - len(start)) // 2
        rows.append(start + ids("<|candidate1|>" + one, length) + ids("<|candidate2|>" + other, length))
    padded: dict[str, Tensor] = tokenizer.pad(
        {"input_ids": rows}, return_tensors="pt", padding="max_length", max_length=total
    )
    return padded


def tokenize_conv_pair(
    tokenizer: Any,
    convAs: Sequence[Conversation],  # noqa: N803 (0.0.2's name)
    convBs: Sequence[Conversation],  # noqa: N803
) -> dict[str, Tensor]:
    """Tokenise pairs of conversations; see `tokenize_pair` and `get_pair_from_conv`."""
    return tokenize_pair(tokenizer, *get_pair_from_conv(convAs, convBs))
