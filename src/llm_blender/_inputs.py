"""What a caller gives to a ranker or a fuser, checked before anything is computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from llm_blender.errors import InputError
from llm_blender.types import Instruction

__all__ = ["check_inputs", "clean", "fence_code", "quote_texts"]


def check_inputs(instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]]) -> None:
    """Refuse what cannot be ranked or fused.

    Raises:
        InputError: the lists differ in length, an instruction has no candidates, or a text is no text; the message
            says which.
    """
    if isinstance(instructions, str):
        raise InputError("The instructions must be a list with one prompt or conversation for each list of candidates.")
    if len(instructions) != len(candidates):
        raise InputError(f"{len(instructions)} instructions need as many lists of candidates, not {len(candidates)}.")
    for i, (instruction, texts) in enumerate(zip(instructions, candidates, strict=True)):
        if not isinstance(instruction, str | Sequence):
            kind = type(instruction).__name__
            raise InputError(f"Instruction {i} must be a text or a list of messages, not {kind}.")
        if isinstance(texts, str | Mapping) or not isinstance(texts, Collection):
            raise InputError(f"The candidates of instruction {i} must be a list of texts, not {type(texts).__name__}.")
        for j, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"Candidate {j} of instruction {i} must be a text, not {type(text).__name__}.")
        if not len(texts):
            raise InputError(f"Instruction {i} has no candidates: give at least one.")


def clean(text: str) -> str:
    """The text without lone surrogates, which JSON can smuggle in and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def fence_code(*texts: str, digits: int = 16) -> str:
    """Hexadecimal digits that stand in none of the texts, always the same ones for the same texts.

    The same quotation is the same call, and is found in a store.

    Args:
        *texts: what is to be quoted.
        digits: how many; where every code of that length is taken, the next longer one.
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
