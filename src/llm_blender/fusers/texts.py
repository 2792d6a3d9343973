"""Texts of fusers: find flaws (empty, a loop, an echo of the prompt), split sentences, shorten to a budget."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from llm_blender.ranking.form import cut_off as breaks_off
from llm_blender.ranking.form import loops
from llm_blender.types import FusionFlaw

_MARK = r"(?:(\d+)[.)]|[-*•])[ \t]+"
_SENTENCE = re.compile(rf"[ \t]*(?:{_MARK})?[^\n]+?(?:[.!?…](?=\s)|[。！？]|\n|$)\s*")

LIST_MARK = re.compile(rf"^\s*{_MARK}")
"""The mark of a list item; its group is the number, if there is one."""

WORDS = re.compile(r"\w+")

INTRODUCTION = re.compile(r"[:：][*_)\"'”»]*\s*$")
"""The end of a sentence that introduces what follows it."""


def sentences(text: str) -> list[str]:
    """Split a text into sentences, each with the white space after it; a line break ends a sentence, too."""
    return [found[0] for found in _SENTENCE.finditer(text)]


def without_torn_end(text: str) -> str:
    """Return a text without its last sentence, if it breaks off in that; unchanged if it has no other."""
    if not breaks_off(text):
        return text
    return "".join(sentences(text)[:-1]).rstrip() or text


_SENTENCE_WORDS = 8  # least words of a sentence that counts as repeated
_MOST_REPEATED = 0.1  # share of the words in repeated sentences
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
        cut_off: whether the fuser stopped in the middle, at its maximum number of tokens; otherwise the text shows it.
    """
    if not text.strip():
        return "empty"
    if _echoes(text, instruction, candidates, marks):
        return "echo"
    if _repeats(text) and not any(map(_repeats, candidates)):
        return "repeats"
    return "cut_off" if cut_off or (breaks_off(text) and not any(map(breaks_off, candidates))) else None


def _echoes(text: str, instruction: str, candidates: Sequence[str], marks: Sequence[str]) -> bool:
    given = [instruction, *candidates]
    if any(mark in text and not any(mark in other for other in given) for mark in marks):
        return True
    prompt, answer = _plain(instruction), _plain(text)
    # The whole prompt, or more than its first half.
    echo = answer == prompt or (prompt.startswith(answer) and 2 * len(answer) > len(prompt))
    return echo and answer not in map(_plain, candidates)


def _repeats(text: str) -> bool:
    """Detect a loop, or many sentences that occur twice."""
    return _repeated_share(text) > _MOST_REPEATED or loops(text)


def _repeated_share(text: str) -> float:
    """Compute the share of words in sentences that occurred before, with or without a heading; code does not count."""
    parts = [part for unit in sentences(_CODE.sub("", text)) for part in _parts(unit)]
    times = Counter(part for part in parts if len(part) >= _SENTENCE_WORDS)
    repeated = sum(len(part) * (count - 1) for part, count in times.items())
    return repeated / max(sum(map(len, parts)), 1)


def _parts(sentence: str) -> list[tuple[str, ...]]:
    """Split a sentence at colons, to separate its heading, and return the words of each part."""
    return [tuple(WORDS.findall(part.casefold())) for part in LIST_MARK.sub("", sentence).split(":")]


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def even_cap(lengths: Sequence[int], budget: int) -> int:
    """Compute the greatest length to which all texts can be cut so that together they take at most `budget`.

    It is the length of the longest text if all fit uncut, and may be 0.

    Args:
        lengths: of the texts, in any unit.
        budget: for all texts, in the same unit.

    Examples:
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
