"""Texts in sentences and items of lists."""

from __future__ import annotations

import re

__all__ = ["LIST_MARK", "WORDS", "sentences"]

_MARK = r"(?:(\d+)[.)]|[-*•])[ \t]+"
_SENTENCE = re.compile(rf"[ \t]*(?:{_MARK})?[^\n]+?(?:[.!?…](?=\s)|[。！？]|\n|$)\s*")

LIST_MARK = re.compile(rf"^\s*{_MARK}")
"""What an item of a list begins with; the group is its number, if it has one."""

WORDS = re.compile(r"\w+")


def sentences(text: str) -> list[str]:
    """The text in pieces, each with the white space after it; a line ends a sentence, too."""
    return [found[0] for found in _SENTENCE.finditer(text)]
