"""Preference data: a better and a worse answer to a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_blender.data.importing.draws import coin
from llm_blender.data.importing.prompts import PROMPT_KEYS, answered_prompt
from llm_blender.data.importing.records import SkipRecord
from llm_blender.data.importing.values import number, optional_text, short_values
from llm_blender.types import Candidate, Example, LabelledPair

__all__ = ["read_chosen_rejected"]

_SCORES = (
    ("score", "score_chosen", "score_rejected"),
    ("score", "chosen_score", "rejected_score"),
    ("rating", "chosen_rating", "rejected_rating"),
)
"""What a score is called in the row, and under which keys data sets keep it."""
_USED = {*PROMPT_KEYS, "input", "system", "chosen", "rejected", "chosen_model", "rejected_model"}
_USED.update(key for _, *keys in _SCORES for key in keys)


def read_chosen_rejected(record: Mapping[str, Any], *, judge: str = "", seed: int = 0) -> Example:
    """A row of ``{prompt, chosen, rejected}``, or of two whole conversations under `chosen` and `rejected`.

    Which of the two comes first is drawn: else the better one would always stand in the same place.

    Args:
        record: of the file.
        judge: who preferred the chosen one.
        seed: of the draw.

    Raises:
        ValueError: a key is missing or holds something else.
        SkipRecord: there is nothing to learn from it.
    """
    prompt, chosen, rejected = answered_prompt(record, "chosen", "rejected")
    if chosen.strip() == rejected.strip():
        raise SkipRecord("both answers read the same")
    scores: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for name, *keys in _SCORES:
        for of_answer, key in zip(scores, keys, strict=True):
            value = number(record.get(key))
            if value is not None:
                of_answer.setdefault(name, value)
    better = Candidate(chosen, optional_text(record, "chosen_model") or None, scores[0])
    worse = Candidate(rejected, optional_text(record, "rejected_model") or None, scores[1])
    swapped = coin(seed, "order", chosen, rejected)
    return Example(
        instruction=prompt.instruction,
        input=prompt.input,
        candidates=(worse, better) if swapped else (better, worse),
        pairs=(LabelledPair(0, 1, "b" if swapped else "a", judge),),
        extra={"meta": short_values(record, _USED)},
    )
