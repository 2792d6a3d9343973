"""Texts that are no answers: nothing, a loop, the prompt again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from llm_blender.types import FusionFlaw

__all__ = ["LIST_MARK", "WORDS", "even_cap", "find_flaw", "sentences"]

_MARK = r"(?:(\d+)[.)]|[-*•])[ \t]+"
_SENTENCE = re.compile(rf"[ \t]*(?:{_MARK})?[^\n]+?(?:[.!?…](?=\s)|[。！？]|\n|$)\s*")

LIST_MARK = re.compile(rf"^\s*{_MARK}")
"""What an item of a list begins with; the group is its number, if it has one."""

WORDS = re.compile(r"\w+")


def sentences(text: str) -> list[str]:
    """The text in pieces, each with the white space after it; a line ends a sentence, too."""
    return [found[0] for found in _SENTENCE.finditer(text)]


_COPIES = 4
_LOOP = 60  # characters that the copies of a loop take at least
_LONGEST_PERIOD = 400
_LONGEST_TEXT = 20_000  # what is looked at of a text: a loop goes on to its end
_LINE = 15  # characters of a line that counts as said again
_SENTENCE_WORDS = 8  # words of a sentence that does
_AGAIN = 0.1  # of the words may stand in sentences that were said before
_LIST_MARK = re.compile(r"^\W*(?:\d+\W+)?")
_CODE = re.compile(r"```.*?(?:```|$)", re.DOTALL)


def find_flaw(text: str, instruction: str, candidates: Sequence[str], marks: Sequence[str] = ()) -> FusionFlaw | None:
    """What makes a fused text no answer; None where nothing does.

    What a candidate does as well is no flaw: the instruction may ask for a song with a refrain, or for a text to be
    repeated.

    Args:
        text: what the fuser wrote.
        instruction: as one text.
        candidates: what it was given.
        marks: what stands in the fuser's prompt around the texts, and belongs into no answer.
    """
    if not text.strip():
        return "empty"
    if _echoes(text, instruction, candidates, marks):
        return "echo"
    if _repeats(text) and not any(map(_repeats, candidates)):
        return "repeats"
    return None


def _echoes(text: str, instruction: str, candidates: Sequence[str], marks: Sequence[str]) -> bool:
    given = [instruction, *candidates]
    if any(mark in text and not any(mark in other for other in given) for mark in marks):
        return True
    asked, said = _plain(instruction), _plain(text)
    # The prompt as far as it got, or all of it.
    echo = said == asked or (asked.startswith(said) and 2 * len(said) > len(asked))
    return echo and said not in map(_plain, candidates)


def _repeats(text: str) -> bool:
    """Whether the same characters, or the same line, come again and again, or many sentences a second time."""
    if _said_again(text) > _AGAIN:
        return True
    lines = Counter(
        line for line in (_LIST_MARK.sub("", line).strip() for line in text.splitlines()) if len(line) >= _LINE
    )
    if lines and (most := lines.most_common(1)[0][1]) >= _COPIES and 2 * most > lines.total():
        return True
    visible = "".join(text.split())
    # Rulers, tables and indentation repeat themselves by right, unless they are all there is.
    return _longest_loop("".join(filter(str.isalnum, text))) > 0 or 2 * _longest_loop(visible) > len(visible)


def _said_again(text: str) -> float:
    """Share of the words that stand in sentences which came before, word for word, after a heading or not; no code."""
    said = [part for unit in sentences(_CODE.sub("", text)) for part in _parts(unit)]
    times = Counter(sentence for sentence in said if len(sentence) >= _SENTENCE_WORDS)
    again = sum(len(sentence) * (count - 1) for sentence, count in times.items())
    return again / max(sum(map(len, said)), 1)


def _parts(sentence: str) -> list[tuple[str, ...]]:
    """The words of a sentence, those of its heading apart."""
    return [tuple(WORDS.findall(part.casefold())) for part in LIST_MARK.sub("", sentence).split(":")]


def _longest_loop(text: str) -> int:
    """Characters of the longest stretch that is one text again and again; 0 where there is none to speak of."""
    values = np.fromiter(map(ord, text[-_LONGEST_TEXT:]), np.int32)
    longest = 0
    for period in range(1, min(_LONGEST_PERIOD, len(values) // _COPIES) + 1):
        stretch = _longest_run(values[period:] == values[:-period]) + period
        if stretch >= max(_COPIES * period, _LOOP):
            longest = max(longest, stretch)
    return longest


def _longest_run(equal: np.ndarray) -> int:
    """The most values in a row that are true."""
    ends = np.flatnonzero(np.diff(np.concatenate(([False], equal, [False])).astype(np.int8)))
    return int((ends[1::2] - ends[::2]).max(initial=0))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def even_cap(lengths: Sequence[int], room: int) -> int:
    """The greatest length to which all can be cut so that together they take at most `room`.

    It is the longest of them where all fit as they are, and may be 0.

    Args:
        lengths: of the texts, in whatever unit.
        room: in the same unit.

    Example:
        >>> even_cap([10, 200, 40], 120)  # 10 + 70 + 40
        70
    """
    left = max(room, 0)
    ordered = sorted(lengths)
    for place, length in enumerate(ordered):
        share = left // (len(ordered) - place)
        if length > share:
            return share
        left -= length
    return ordered[-1] if ordered else 0
