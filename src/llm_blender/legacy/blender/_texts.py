"""What `Blender` is given, checked: one source and a list of candidates for each input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_blender.errors import InputError

__all__ = ["Texts", "list_of", "read_texts", "texts_of"]


@dataclass(frozen=True)
class Texts:
    """Lists of candidates may differ in length.

    Attributes:
        sources: instruction and input of each, joined without a separator, as the published rankers were trained.
        candidates: of each source.
    """

    sources: list[str]
    candidates: list[list[str]]

    @property
    def sizes(self) -> list[int]:
        """How many candidates each source has."""
        return [len(texts) for texts in self.candidates]


def read_texts(inputs: Sequence[str], candidates: Sequence[Sequence[str]], instructions: Sequence[str] | None) -> Texts:
    """Check and join.

    Raises:
        InputError: lists are empty or differ in length, or a text is no text.
    """
    read = texts_of(inputs, "inputs")
    before = [""] * len(read) if instructions is None else texts_of(instructions, "instructions", len(read))
    listed = list_of(candidates, "candidates", len(read))
    lists = [texts_of(texts, f"candidates[{i}]") for i, texts in enumerate(listed)]
    return Texts([instruction + text for instruction, text in zip(before, read, strict=True)], lists)


def texts_of(values: Any, name: str, count: int | None = None) -> list[str]:
    """A list of texts.

    Args:
        values: what should be one.
        name: of the argument, for the error.
        count: how many there must be; None takes any number above zero.

    Raises:
        InputError: it is empty, of another length, or holds what is no text.
    """
    items = list_of(values, name, count)
    for i, text in enumerate(items):
        if not isinstance(text, str):
            raise InputError(f"{name}[{i}] must be a text, not {type(text).__name__}: {text!r:.60}.")
    return [str(text) for text in items]  # numpy's texts as Python's


def list_of(values: Any, name: str, count: int | None = None) -> list[Any]:
    """A list, array or column as a list; arguments and errors as for `texts_of`, but for what it holds."""
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list, not {type(values).__name__}.")
    items = list(values)
    if not items:
        raise InputError(f"{name} is empty: give at least one.")
    if count is not None and len(items) != count:
        raise InputError(f"{count} inputs need as many {name}, not {len(items)}.")
    return items
