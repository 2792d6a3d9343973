"""The text of a causal LLM while it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["TextStream"]

_HALF = "\ufffd"  # a character of which some bytes are still to come


class TextStream:
    """Turns tokens into pieces of text that, put together, are the whole text without white space around it.

    Args:
        decode: from all tokens so far to their text, without white space around it.
        on_text: gets each piece.
    """

    def __init__(self, decode: Callable[[list[int]], str], on_text: Callable[[str], object]) -> None:
        self._decode, self._on_text = decode, on_text
        self._ids: list[int] = []
        self._said = ""
        self._begun = False

    def put(self, value: Any) -> None:
        """Called by ``model.generate`` with the prompt, and then with each token."""
        if not self._begun:
            self._begun = True
            return
        self._ids += value.flatten().tolist()
        text = self._decode(self._ids)
        if not text.endswith(_HALF):
            self.advance(text)

    def end(self) -> None:
        """Called by ``model.generate`` when nothing more comes."""

    def advance(self, text: str) -> None:
        """Hand on what of the text is new."""
        if len(text) > len(self._said) and text.startswith(self._said):
            self._on_text(text[len(self._said) :])
            self._said = text
