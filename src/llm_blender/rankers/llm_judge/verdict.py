"""From what a judge replied to its verdict."""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["Verdict", "read_verdict"]

Verdict = Literal["A", "B", "tie"]

_WORDS: dict[str, Verdict] = {
    "a": "A", "b": "B", "tie": "tie", "tied": "tie", "draw": "tie", "equal": "tie", "neither": "tie", "both": "tie",
}  # fmt: skip
_NAME = r"(?:(?:answer|candidate|response|option|assistant)\s*[:=]?\s+)?"
_SAID = (
    r"(?:(?:my|the)\s+)?(?:final\s+)?(?:verdict|winner|choice|(?:final|better|best)\s+(?:answer|response|candidate))"
)
_LINE = re.compile(
    rf"(?:{_SAID}\s*(?:is|:|=)*\s*|it(?:\s+is|\W?s)\s+an?\s+)?{_NAME}({'|'.join(_WORDS)})\W*", re.IGNORECASE
)
_REASONED = re.compile(r"(A|B|[Tt]ie|TIE)\s*(?:[.:;)]|[-–—]|,?\s+(?:because|since|as)\b)")
# Capital letters only: "a" is an article.
_SENTENCES = (
    re.compile(rf"(?i:{_SAID})\s*(?i:is|:|=|would\s+be)+\s*(?i:{_NAME})(A|B|[Tt]ie|TIE)\b"),
    re.compile(
        r"\b(A|B)\s+(?i:is|was)\s+(?i:the\s+|clearly\s+|slightly\s+|much\s+|overall\s+|significantly\s+)*"
        r"(?i:better|best|superior|winner|preferable|preferred)\b"
    ),
    re.compile(rf"(?i:I\s+(?:choose|prefer|pick|select))\s+(?i:{_NAME})(A|B)\b"),
)
_MARKS = re.compile(r"[*_`#\"'“”‘’<>\[\](){}|]+")


def read_verdict(reply: str) -> Verdict | None:
    """The verdict in a reply; None where it holds none, or more than one.

    A reply should be one word, but LLMs add reasons, and put their verdict into bold type, into brackets, or at the
    end. What is not understood is no verdict: nothing is guessed.
    """
    lines = [line for line in (_MARKS.sub(" ", line).strip() for line in reply.splitlines()) if line]
    if not lines:
        return None
    found = {_WORDS[match[1].lower()] for line in (lines[0], lines[-1]) if (match := _LINE.fullmatch(line))}
    if not found and (match := _REASONED.match(lines[0])):
        found = {_WORDS[match[1].lower()]}
    if not found:
        text = " ".join(lines)
        found = {_WORDS[word.lower()] for pattern in _SENTENCES for word in pattern.findall(text)}
    return found.pop() if len(found) == 1 else None
