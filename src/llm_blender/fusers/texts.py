"""Texts of fusers: find flaws (empty, a loop, an echo of the prompt), split sentences, shorten to a budget."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from llm_blender.types import FusionFlaw

_MARK = r"(?:(\d+)[.)]|[-*•])[ \t]+"
_SENTENCE = re.compile(rf"[ \t]*(?:{_MARK})?[^\n]+?(?:[.!?…](?=\s)|[。！？]|\n|$)\s*")

LIST_MARK = re.compile(rf"^\s*{_MARK}")
"""The mark of a list item; its group is the number, if there is one."""

WORDS = re.compile(r"\w+")


def sentences(text: str) -> list[str]:
    """Split a text into sentences, each with the white space after it; a line break ends a sentence, too."""
    return [found[0] for found in _SENTENCE.finditer(text)]


_COPIES = 4
_LOOP = 60  # least characters of all copies of a loop
_LONGEST_PERIOD = 400
_LONGEST_TEXT = 20_000  # characters searched at the end of a text: a loop continues to the end
_LINE = 15  # least characters of a line that counts as repeated
_SENTENCE_WORDS = 8  # least words of a sentence that counts as repeated
_MOST_REPEATED = 0.1  # share of the words in repeated sentences
_LIST_MARK = re.compile(r"^\W*(?:\d+\W+)?")
_CODE = re.compile(r"```.*?(?:```|$)", re.DOTALL)


def find_flaw(
    text: str, instruction: str, candidates: Sequence[str], marks: Sequence[str] = (), *, cut_off: bool = False
) -> FusionFlaw | None:
    """Find the flaw that makes a fused text useless as an answer; return None if there is none.

    A repetition or an echo that a candidate has, too, is no flaw: the instruction may request a song with a refrain, or
    the repetition of a text.

    Args:
        text: of the fuser.
        instruction: as one text.
        candidates: input of the fuser.
        marks: delimiters of the fuser's prompt that no answer may contain.
        cut_off: whether the fuser stopped in the middle, at its maximum number of tokens.
    """
    if not text.strip():
        return "empty"
    if _echoes(text, instruction, candidates, marks):
        return "echo"
    if _repeats(text) and not any(map(_repeats, candidates)):
        return "repeats"
    return "cut_off" if cut_off else None


def _echoes(text: str, instruction: str, candidates: Sequence[str], marks: Sequence[str]) -> bool:
    given = [instruction, *candidates]
    if any(mark in text and not any(mark in other for other in given) for mark in marks):
        return True
    prompt, answer = _plain(instruction), _plain(text)
    # The whole prompt, or more than its first half.
    echo = answer == prompt or (prompt.startswith(answer) and 2 * len(answer) > len(prompt))
    return echo and answer not in map(_plain, candidates)


def _repeats(text: str) -> bool:
    """Detect characters or lines repeated in a loop, or many sentences that occur twice."""
    if _repeated_share(text) > _MOST_REPEATED:
        return True
    lines = Counter(
        line for line in (_LIST_MARK.sub("", line).strip() for line in text.splitlines()) if len(line) >= _LINE
    )
    if lines and (most := lines.most_common(1)[0][1]) >= _COPIES and 2 * most > lines.total():
        return True
    visible = "".join(text.split())
    # Rulers, tables and indentation may repeat, unless they are most of the text.
    return _longest_loop("".join(filter(str.isalnum, text))) > 0 or 2 * _longest_loop(visible) > len(visible)


def _repeated_share(text: str) -> float:
    """Compute the share of words in sentences that occurred before, with or without a heading; code does not count."""
    parts = [part for unit in sentences(_CODE.sub("", text)) for part in _parts(unit)]
    times = Counter(part for part in parts if len(part) >= _SENTENCE_WORDS)
    repeated = sum(len(part) * (count - 1) for part, count in times.items())
    return repeated / max(sum(map(len, parts)), 1)


def _parts(sentence: str) -> list[tuple[str, ...]]:
    """Split a sentence at colons, to separate its heading, and return the words of each part."""
    return [tuple(WORDS.findall(part.casefold())) for part in LIST_MARK.sub("", sentence).split(":")]


def _longest_loop(text: str) -> int:
    """Return the characters of the longest stretch that repeats one text; 0 if it is too short to be a loop."""
    values = np.fromiter(map(ord, text[-_LONGEST_TEXT:]), np.int32)
    longest = 0
    for period in range(1, min(_LONGEST_PERIOD, len(values) // _COPIES) + 1):
        stretch = _longest_run(values[period:] == values[:-period]) + period
        if stretch >= max(_COPIES * period, _LOOP):
            longest = max(longest, stretch)
    return longest


def _longest_run(equal: np.ndarray) -> int:
    """Return the length of the longest run of true values."""
    ends = np.flatnonzero(np.diff(np.concatenate(([False], equal, [False])).astype(np.int8)))
    return int((ends[1::2] - ends[::2]).max(initial=0))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def even_cap(lengths: Sequence[int], budget: int) -> int:
    """Compute the greatest length to which all texts can be cut so that together they take at most `budget`.

    It is the length of the longest text if all fit uncut, and may be 0.

    Args:
        lengths: of the texts, in any unit.
        budget: for all texts, in the same unit.

    Example:
        >>> even_cap([10, 200, 40], 120)  # 10 + 70 + 40
        70
    """
    left = max(budget, 0)
    ordered = sorted(lengths)
    for place, length in enumerate(ordered):
        share = left // (len(ordered) - place)
        if length > share:
            return share
        left -= length
    return ordered[-1] if ordered else 0
