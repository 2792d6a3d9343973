"""Checks of the inputs of rankers and fusers, before any computation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from llm_blender.errors import InputError
from llm_blender.types import Instruction, to_messages


def check_inputs(instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]]) -> None:
    """Refuse inputs that cannot be ranked or fused.

    Raises:
        InputError: the lists differ in length, an instruction has no candidates, a conversation cannot be read, or a
            text is not a string; the message names the item.
    """
    if isinstance(instructions, str):
        raise InputError("The instructions must be a list with one prompt or conversation for each list of candidates.")
    if len(instructions) != len(candidates):
        raise InputError(f"{len(instructions)} instructions need as many lists of candidates, not {len(candidates)}.")
    for i, (instruction, texts) in enumerate(zip(instructions, candidates, strict=True)):
        if not isinstance(instruction, str | Sequence):
            kind = type(instruction).__name__
            raise InputError(f"Instruction {i} must be a text or a list of messages, not {kind}.")
        if not isinstance(instruction, str):
            try:
                to_messages(instruction)
            except InputError as error:
                raise InputError(f"Instruction {i}: {error}") from None
        if isinstance(texts, str | Mapping) or not isinstance(texts, Collection):
            raise InputError(f"The candidates of instruction {i} must be a list of texts, not {type(texts).__name__}.")
        for j, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"Candidate {j} of instruction {i} must be a text, not {type(text).__name__}.")
        if not len(texts):
            raise InputError(f"Instruction {i} has no candidates: give at least one.")


def clean(text: str) -> str:
    """Replace lone surrogates, which JSON can contain and no tokenizer accepts."""
    return text.encode("utf-8", "replace").decode("utf-8")


def split_special(text: str, special: Sequence[str]) -> str:
    """Put a space into each special token, so that a tokenizer reads it as plain text.

    Args:
        text: any text.
        special: the special tokens, longest first.
    """
    for token in special:
        if token in text:
            text = text.replace(token, f"{token[:1]} {token[1:]}")
    return text


def fence_code(*texts: str, digits: int = 16) -> str:
    """Draw hexadecimal digits that occur in none of the texts, from a hash of the texts.

    Equal texts get equal codes, so that a quotation does not change the key of a call in the store.

    Args:
        *texts: the texts to quote.
        digits: minimum number of digits; more if every code of that length occurs.
    """
    attempt = 0
    while True:
        code = hashlib.sha256(json.dumps([attempt, *texts]).encode("ascii")).hexdigest()[: digits + attempt // 64]
        if not any(code in text.lower() for text in texts):
            return code
        attempt += 1


def quote_texts(texts: Iterable[tuple[str, str]], code: str) -> list[str]:
    """Enclose texts, given as (name, text), between lines with a code from `fence_code`, for a prompt."""
    return [f"=== {code} begin {name} ===\n{text}\n=== {code} end {name} ===" for name, text in texts]
