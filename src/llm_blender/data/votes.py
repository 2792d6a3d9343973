"""What people said of answers, for training: labelled rows, and preference records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

from llm_blender.data.preferences import PREFERENCE_FORMATS, Preference
from llm_blender.errors import unknown_name
from llm_blender.types import Candidate, Example, Message, to_messages

__all__ = ["VOTE_FORMATS", "VoteFormat", "vote_records"]

VoteFormat = Literal["rows", "conversational", "standard"]
"""Rows with labelled pairs, for ``blend train ranker --pairs labelled`` and ``blend bench pairs``; or preference
records, for DPO and reward models, as `make_preferences` makes them."""
VOTE_FORMATS: tuple[str, ...] = get_args(VoteFormat)


def vote_records(examples: Iterable[Example], format: VoteFormat = "rows") -> Iterator[dict[str, Any]]:
    """The records of a file of votes.

    Args:
        examples: with labelled pairs; others give nothing.
        format: ``rows`` gives one record an example, the others one a vote that is no tie. A vote has no margin: it
            is 0 there, and the probability null.

    Raises:
        InputError: the format is unknown.
    """
    if format not in VOTE_FORMATS:
        raise unknown_name("format", format, VOTE_FORMATS)
    for example in examples:
        if format in PREFERENCE_FORMATS:
            yield from (preference.to_dict() for preference in _preferences(example, format == "standard"))
        elif example.pairs:
            yield _row(example)


def _row(example: Example) -> dict[str, Any]:
    given = example.instruction
    return {
        "id": example.id,
        "instruction": given if isinstance(given, str) else list(given),
        "candidates": [{"text": candidate.text, "model": candidate.model} for candidate in example.candidates],
        "pairs": [pair.to_dict() for pair in example.pairs],
    }


def _preferences(example: Example, as_texts: bool) -> Iterator[Preference]:
    for pair in example.pairs:
        if pair.label == "tie":
            continue
        places = (pair.a, pair.b) if pair.label == "a" else (pair.b, pair.a)
        chosen, rejected = (example.candidates[place] for place in places)
        yield Preference(
            prompt=example.prompt if as_texts else to_messages(example.instruction),
            chosen=chosen.text if as_texts else _turn(chosen),
            rejected=rejected.text if as_texts else _turn(rejected),
            margin=0.0,
            probability=None,
            chosen_model=chosen.model,
            rejected_model=rejected.model,
            id=example.id,
        )


def _turn(candidate: Candidate) -> list[Message]:
    return [{"role": "assistant", "content": candidate.text}]
