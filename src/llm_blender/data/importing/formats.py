"""Which format a file is in, told by the keys of its first record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llm_blender.data.importing.labelled_pairs import ANSWER_KEYS, LABEL_KEYS, is_vote
from llm_blender.data.importing.records import Records
from llm_blender.data.importing.scored_responses import ANSWERS, SCORES
from llm_blender.errors import InputError, RowError, unknown_name

__all__ = ["FORMATS", "Format", "find_format"]


@dataclass(frozen=True)
class Format:
    """A way in which other projects write preferences.

    Attributes:
        name: what ``--format`` knows it by.
        keys: of its records, in words.
        fits: whether a record with these keys is in it.
    """

    name: str
    keys: str
    fits: Callable[[frozenset[str]], bool]


def _is_alpaca_eval(keys: frozenset[str]) -> bool:
    judged = {"output_1", "output_2", "preference"} <= keys and keys & {"generator", "generator_1", "generator_2"}
    return bool(judged) or {"instruction", "output", "generator"} <= keys


def _is_labelled_pair(keys: frozenset[str]) -> bool:
    labelled = any(key in LABEL_KEYS or is_vote(key) for key in keys)
    return labelled and any(set(pair) <= keys for pair in ANSWER_KEYS)


def _is_scored(keys: frozenset[str]) -> bool:
    return "completions" in keys or (bool(keys.intersection(ANSWERS)) and bool(keys.intersection(SCORES)))


FORMATS = {
    found.name: found
    for found in (
        Format(
            "alpaca_eval",
            "output_1, output_2, generator_1, preference; or instruction, output, generator",
            _is_alpaca_eval,
        ),
        Format("chosen_rejected", "chosen, rejected", lambda keys: {"chosen", "rejected"} <= keys),
        Format("labelled_pairs", "response1, response2 (or the like), label or annotator1, …", _is_labelled_pair),
        Format("scored_responses", "completions; or generations, ratings (or the like)", _is_scored),
    )
}
"""By name."""


def find_format(path: Path, wanted: str | None = None) -> Format:
    """The format of a file.

    Args:
        path: of the file.
        wanted: the name of a format, where one was asked for.

    Raises:
        NotFoundError: there is no such file.
        InputError: the name is unknown; or the file is empty, or in no known format.
        RowError: its first record cannot be read.
    """
    if wanted is not None:
        if wanted not in FORMATS:
            raise unknown_name("format", wanted, FORMATS)
        return FORMATS[wanted]
    _, first = next(iter(Records(path)), (0, None))
    if first is None:
        raise InputError(f"{path} is empty: a file of records is wanted.")
    if isinstance(first, RowError):
        raise first
    for known in FORMATS.values():
        if known.fits(frozenset(first)):
            return known
    described = "; ".join(f"{known.name} ({known.keys})" for known in FORMATS.values())
    raise InputError(f"{path} is in no known format. Its keys: {', '.join(first)}. Known: {described}.")
