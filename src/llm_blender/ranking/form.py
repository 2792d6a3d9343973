"""Form of candidates: what their texts and the instruction show without a model.

A flaw is a fact about one candidate: it is empty, repeats itself, breaks off, or lacks the form that the instruction
requires (`llm_blender.ranking.requirements`). What is not certain is no flaw.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from llm_blender.ranking.answers import regex
from llm_blender.ranking.requirements import Requirement, requirements

FLAWS: Mapping[str, str] = {
    "empty": "has no content",
    "no_answer": "says only that it does not know",
    "loop": "repeats itself",
    "cut_off": "breaks off in the middle",
    "not_json": "is not the JSON required",
    "not_yes_or_no": "answers neither yes nor no",
    "items": "has not the number of items required",
    "too_long": "is longer than required",
    "too_short": "is shorter than required",
    "language": "is not in the language required",
    "miscalculated": "calculates wrongly",
    "not_haiku": "has not the three lines of a haiku",
}
"""Words for each flaw that `flaws` may find, to follow the name of a candidate."""


def flaws(text: str, instruction: str = "") -> tuple[str, ...]:
    """Find the flaws of one candidate; see `form`."""
    return form([text], instruction)[0]


def form(texts: Sequence[str], instruction: str = "") -> tuple[tuple[str, ...], ...]:
    """Find the flaws of all candidates of one instruction.

    Args:
        texts: N candidates.
        instruction: as one text, a conversation as `llm_blender.conversations.instruction_text` renders it.

    Returns:
        ``[N]``: for each candidate the names of its flaws, in the order of `FLAWS`. An empty one has no other flaw.
    """
    required = requirements(instruction)
    may_repeat = _REPETITION.search(instruction) is not None
    may_not_know = _IGNORANCE_WORDS.search(instruction) is not None
    return tuple(_flaws(text, required, may_not_know, may_repeat) for text in texts)


def _flaws(text: str, required: Sequence[Requirement], may_not_know: bool, may_repeat: bool) -> tuple[str, ...]:
    if is_empty(text):
        return ("empty",)
    found = {requirement.flaw for requirement in required if not requirement.check(text)}
    if not may_not_know and is_ignorance(text):
        found.add("no_answer")
    if not may_repeat and loops(text):
        found.add("loop")
    if cut_off(text):
        found.add("cut_off")
    return tuple(name for name in FLAWS if name in found)


_CONTENT = regex(r"[^\s.…,;:!?'\"*_#`|\\~\u00ad\u200b-\u200f\u2060\ufeff-]")


def is_empty(text: str) -> bool:
    """Tell whether a text has nothing but white space, punctuation and mark-up."""
    return _CONTENT.search(text) is None


_IGNORANCE = regex(
    r"""^\W*
    (?:(?:well|hmm?|uh|um|oh|but|sorry|unfortunately|honestly|i(?:'m|\ am)\ (?:so\ |very\ )?sorry|i\ apologi[sz]e)\W+)*
    (?:i\ (?:really\ |honestly\ |just\ )?(?:do\ not|don't)\ (?:really\ )?know
        (?:\ (?:the\ answer|how|why|(?:about\ )?that|this|it))?
    |i(?:'m|\ am)\ (?:really\ |honestly\ )?(?:not\ (?:really\ |quite\ |entirely\ |too\ )?(?:sure|certain)|unsure)
        (?:\ about\ (?:that|this|it))?
    |(?:i\ have\ )?no\ (?:idea|clue)
    |(?:das\ )?weiß\ ich\ (?:leider\ )?nicht|ich\ weiß\ (?:es\ |das\ )?(?:leider\ )?nicht|(?:ich\ habe\ )?keine\ ahnung
    |je\ ne\ (?:le\ )?sais\ pas|(?:yo\ )?no\ (?:lo\ )?sé|(?:eu\ )?não\ sei|(?:io\ )?non\ (?:lo\ )?so|idk
    |ik\ weet\ het\ niet|nie\ wiem|bilmiyorum|(?:я\ )?не\ знаю|我也?不知道
    |(?:分か|わか|知)りません|모르겠(?:습니다|어요)|لا\ أعرف
    )(?:\W+(?:sorry|to\ (?:that|this)(?:\ question)?))?\W*$""",
    re.IGNORECASE | re.VERBOSE,
)
_IGNORANCE_WORDS = regex(
    r"(?:not|n[’']t) (?:know|sure|certain)|unsure|uncertain|no idea|weißt? (?:es )?nicht|sai[st] pas|no (?:lo )?sabes"
    r"|não sei|non (?:lo )?so\b|weet (?:het )?niet|не знаю|不知道|りません|모르",
    re.IGNORECASE,
)
_REPETITION = regex(
    r"\b(?:repeat|over and over|again and again|(?:write|say|print|type|output|copy|list)\b[^.?!\n]{0,200}\b"
    r"(?:\d+|ten|twenty|fifty|hundred|thousand|many|several) times)\b",
    re.IGNORECASE,
)
_LONGEST_IGNORANCE = 100  # characters


def is_ignorance(text: str) -> bool:
    """Tell whether a text says only that its writer does not know, in one of fourteen languages."""
    return len(text) <= _LONGEST_IGNORANCE and _IGNORANCE.match(text.replace("’", "'")) is not None


def is_degenerate(text: str) -> bool:
    """Tell whether a text is empty, a loop or no answer, so that what it has in common with others is no evidence."""
    return is_empty(text) or is_ignorance(text) or loops(text)


_COPIES = 4
_LOOP = 60  # least characters of all copies of a loop
_LONGEST_PERIOD = 400
_LONGEST_TEXT = 10_000  # characters searched at the end of a text: a loop continues to the end
_LINE = 15  # least characters of a line that counts as repeated
_NUMBERED = regex(r"^\W*(?:\d+\W+)?")
_GRAM, _STRIDE = 24, 16  # every run of _GRAM + _STRIDE - 1 characters has a gram that begins at a multiple of _STRIDE
_FACTORS = np.array([pow(0x9E3779B97F4A7C15, i, 2**64) for i in range(_GRAM)], np.uint64)


def loops(text: str) -> bool:
    """Detect characters or lines that a text repeats in a loop."""
    return _loops(text[-_LONGEST_TEXT:])


@lru_cache(maxsize=256)  # consensus, flaws and the guard read the same candidates
def _loops(text: str) -> bool:
    lines = Counter(
        line for line in (_NUMBERED.sub("", line).strip() for line in text.splitlines()) if len(line) >= _LINE
    )
    if lines and (most := lines.most_common(1)[0][1]) >= _COPIES and 2 * most > lines.total():
        return True
    visible = "".join(text.split())
    # Rulers, tables and indentation may repeat, unless they are most of the text.
    return _has_loop("".join(filter(str.isalnum, visible)), _LOOP) or _has_loop(visible, len(visible) // 2 + 1)


def _has_loop(text: str, length: int) -> bool:
    """Tell whether a stretch of at least so many characters, and of at least `_LOOP`, repeats one text."""
    values = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return any(
        _longest_run(values[period:] == values[:-period]) + period >= max(_COPIES * period, _LOOP, length)
        for period in _periods(values)
    )


def _periods(values: NDArray[np.uint32]) -> list[int]:
    """Return the periods with which a loop may repeat: those at which a hash of a gram comes again."""
    most = min(_LONGEST_PERIOD, len(values) // _COPIES)
    if len(values) < _LOOP:
        return []
    hashes = np.zeros(len(values) - _GRAM + 1, np.uint64)
    for place, factor in enumerate(_FACTORS):
        hashes += values[place : len(hashes) + place] * factor
    ahead = np.concatenate([hashes, np.zeros(most, np.uint64)])
    starts = np.arange(0, len(hashes), _STRIDE)
    equal = np.lib.stride_tricks.sliding_window_view(ahead, most + 1)[starts, 1:] == hashes[starts, None]
    return [int(period) for period in np.flatnonzero(equal.any(axis=0)) + 1]


def _longest_run(equal: NDArray[np.bool_]) -> int:
    """Return the length of the longest run of true values."""
    ends = np.flatnonzero(np.diff(np.concatenate(([False], equal, [False])).astype(np.int8)))
    return int((ends[1::2] - ends[::2]).max(initial=0))


_TAIL = 20_000  # characters at the end of a text that show whether it breaks off
_FENCE = regex(r"^[ \t]*(?:[-*•>]|\d+[.)])?[ \t]*(```|~~~)", re.MULTILINE)
_ENDED = regex(r"""(?:[.!?…。．！？؟۔।॥։።]|[:：])[\]"'”’»›」』)）}*_`~ \t]*$""")
_CODE = regex(r"^[ \t]*```[^`]*^[ \t]*```[ \t]*$", re.MULTILINE)
_OPEN_WORDS = """
a an the of to and or but nor with from by for in on at as into than that which whose is are was were be been has have
had will would can could should may might must their its your his her our my this these those if because while when
where who such very more most
der die das und oder mit von zu ein eine einen einer einem dem den des ist sind im auf für nicht sich wird
wenn weil dass
le les un une et ou de du dans pour avec est sont que qui au aux par sur
el los las una unos y o en del con por para es son se lo al
il gli di che è sono per non nel della
uma dos das nas para com não são seu sua pela pelo
een het voor naar omdat
и но или что с на для как если
"""
"""Words that end no sentence, in English, German, French, Spanish, Italian, Portuguese, Dutch and Russian."""
_OPEN = frozenset(_OPEN_WORDS.split())
_MAY_END = frozenset(
    ["that", "this", "these", "her", "more", "most", "such", "in", "on"]
)  # a question or a request without its mark
_ITEM = regex(r"^(?:[-*•+–>]|\(?(?:\d{1,3}|[a-zA-Z])[.)])(?:\s+|$)")
_INNER_END = regex(r"[^\W\d_]{3}[)\"”’]?[.!?][)\"”’]?\s+[\"“‘(*]{0,2}[A-ZÀ-ÞА-Я]")
_NO_PROSE = ("#", "|", "$", "\\")  # a line that begins so
_NO_WORD = ("#", "@", "http", "www.", "doi", "$", "\\")  # a last word that begins so
_QUOTES = '"”’»`'
_LEAST_WORDS = 5  # of a line that shows how such lines end
_LEAST_CHARACTERS = 8  # of a line in Chinese or Japanese, likewise
_LIKE = 0.8  # share of such lines that must end as sentences do


def cut_off(text: str) -> bool:
    """Tell whether a text breaks off in the middle: in a sentence, a block of code, or a JSON value.

    A last line without a full stop breaks off if it holds another sentence, ends in a word such as “the”, or if the
    lines of its kind before it (list items, or prose) end as sentences do.
    """
    text = text.rstrip()
    if ("```" in text or "~~~" in text) and len(_FENCE.findall(text)) % 2:
        return True
    if text.startswith(("{", "[")) and _is_json_start(text):
        return True
    prose = _CODE.sub("\n", text[-_TAIL:])
    lines = [line.strip() for line in prose.splitlines() if line.strip()]
    return bool(lines) and not text.endswith(("```", "~~~")) and _breaks_off(lines[-1], lines[:-1])


def _is_json_start(text: str) -> bool:
    """Tell whether a text is the beginning of a JSON value, and not the whole one."""
    try:
        from_json(text)
    except ValueError as error:
        return str(error).startswith("EOF")
    except TypeError:  # a lone surrogate
        pass
    return False


def _breaks_off(last: str, before: Sequence[str]) -> bool:
    """Tell whether the last line of a text breaks off, compared with the lines before it."""
    item = bool(_ITEM.match(last))
    if before and _ITEM.fullmatch(last):
        return last[:-1].isdigit() and int(last[:-1]) > 1
    if last.startswith("|") and before and before[-1].startswith("|"):
        return before[-1].endswith("|") and not last.endswith("|")
    if _ENDED.search(last) or last.startswith(_NO_PROSE):
        return False
    words = last.split()
    word = words[-1]
    end = word.rstrip(_QUOTES)
    if (word.endswith(",") and len(words) > _LEAST_WORDS) or (word[-1] in "，、" and len(last) > _LEAST_CHARACTERS):
        return True
    if not end[-1:].isalnum() or end.startswith(_NO_WORD) or "://" in end or "=" in last:
        return False
    if word == end and (last.count("**") % 2 or (last.count("(") > last.count(")") and len(words) >= 4)):
        return True
    open_word = word.lower() in _OPEN and not (len(end) > 1 and end.isupper())
    if open_word and len(words) >= 4 and word.islower() and (before or word not in _MAY_END or _INNER_END.search(last)):
        return True
    like = [line for line in before if bool(_ITEM.match(line)) == item and len(line.split()) >= _LEAST_WORDS]
    ended = sum(bool(_ENDED.search(line)) for line in like)
    if _INNER_END.search(last):
        return len(like) <= 2 or 2 * ended >= len(like)
    if len(words) >= 8 and word.islower() and 2 * ended >= len(like) > 0:
        return True
    if not like or ended < _LIKE * len(like):
        return False
    if ended == len(like) > 2 and word.islower():
        return True
    # A short line may be a signature, a title or a result.
    enough = 8 if len(like) == 1 or end[-1:].isdigit() or end != word or end[0].isupper() else 4
    return open_word or len(words) >= enough
