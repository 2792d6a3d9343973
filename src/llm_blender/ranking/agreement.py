"""Agreement on final answers: where candidates end in an answer, the one that most of them give is rarely wrong.

This is self-consistency (Wang et al. 2022, arXiv 2203.11171) over the answers of several LLMs, or over the samples of
one. Texts that say the same in other words have little in common; the normal forms of their final answers are equal.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import InputError
from llm_blender.ranking.answers import canonical, json_value, normal_form, numbers_in

_LEAST = 2  # candidates with a final answer from which on they can agree
_LEAST_SHARE = 0.5  # of the candidates that must have one
_POLAR_SHARE = 0.8  # the same where *yes* or *no* is likely to be implied by the others
_LEAST_NUMBERS = 2  # of an instruction from which on the number of a last sentence follows from them
_PHRASES = 10  # *answer is* at the end of a text that are read
_MOST_PHRASES = 2  # different answers among them; a text with more answers several questions
_READ = 8_000  # characters at the end of a text that are read
_TAIL = 1_000  # characters at the end where an answer in words can be
_LONGEST_ANSWER = 300
_LONGEST_QUESTION = 4_000  # characters at the end of an instruction that are read
_SHORT_QUESTION = 200
_SHORT = 100  # characters of a text that is an answer as a whole

_FENCE = re.compile(r"```([\w+-]*)[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_NO_CODE = frozenset({"json", "text", "txt", "markdown", "md", "latex", "tex"})
_FIELD = re.compile(r'"(?:final|correct)?[ _]?answer"\s{0,20}:\s{0,20}', re.IGNORECASE)
_FIELD_NAME = re.compile(r"(?:final|correct)?[ _]?(?:answer|result)", re.IGNORECASE)
_STRING = re.compile(r'"((?:[^"\\\n]|\\.){0,400})"')
_LATEX_COMMAND = re.compile(r"(?<!\\)\\(?=[a-zA-Z]{2}|[()\[\]{},;:!% ])(?!n[A-Z\\ ])")
_BOXED = re.compile(r"\\f?box(?:ed)?\s?\{")
_HASHES = re.compile(r"^#### (?=.*\d)(.{1,60})$", re.MULTILINE)
_PHRASE = re.compile(
    r"(?:\b(?:answer|antwort|réponse|respuesta|risposta|resposta)\b[^\S\n]?(?:(?:(?:is|are|was|would be|will be|equals|"
    r"lautet|ist|est|es|è|é)\b|:|=)\s*)+"
    r"|\b(?:result|output|choice|option|ergebnis|lösung|résultat|resultado)\b[^\S\n]?"
    r"(?:is|are|was|would be|will be|equals|lautet|ist|est|es)\b\s*"
    r"|(?:答案|答え|正确选项|ответ)\s?[是为為は:：—-]+\s*)\s*:?\s*(?=\S)",
    re.IGNORECASE,
)
_MATH = re.compile(r"\s*(?:\$\$?([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\])", re.DOTALL)
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)[.!?](?=\s|$)|[。！？\n]"
    r"|, not |,? (?:because|since|as|which|so|but|where)\b"
)
_NO_ANSWER = re.compile(
    r"(?:that|to|not|because|if|how|what|(?:in)?correct|wrong|right|given|provided|based|shown|below|above|"
    r"as follows)\b",
    re.IGNORECASE,
)
_MARKS = re.compile(r"\*\*|__|(?<!\S)[*_](?=\S)|(?<=\S)[*_](?!\S)|`")
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s+)?[(\[]?([a-j])(?:[\])]|[.:](?=\s|$)|$|(?=\s[-–—]\s)|(?=[.,]))", re.IGNORECASE
)
_MARKED_CHOICE = re.compile(r"(?:(?:option|choice)\s+)?(?:[(\[]([A-Ja-j])[\])]|([A-J])[):])\s+(?=\S)")
_BARE = re.compile(r"\W*(?:[(\[]?[A-J][)\]]?|yes|no|true|false|[$€£]?-?\d[\d.,/ ]*(?:\s?%|\s\w+)?)\W*", re.IGNORECASE)
_DENIAL = re.compile(r"\b(?:not|cannot|no)\b|n['’]t\b", re.IGNORECASE)
_ENUMERATOR = re.compile(r"^\(?\d{1,2}[.)]+\s+(?=[A-Za-z])")
_YES_NO = re.compile(r"(yes|no|true|false)\b(?![ -]*(?:one|matter|doubt|longer))", re.IGNORECASE)
_COPULA = re.compile(r"(?:=|\b(?:is|are|was|were|be))\s*(?:about |approximately )?[$€£]?(-?[\d.,]*\d(?:/\d+)?)")


def final_answer(text: str, instruction: str = "") -> str | None:
    r"""Find what a candidate finally answers, in the normal form of `normal_form`.

    The first of these that the text has: calls of tools at its end; the field ``answer`` of a JSON object, or the whole
    object or list; the last ``\boxed{}``; the number after ``####``; what follows the last *answer is* or *answer:*.
    As far as the instruction wants such an answer, also: a choice letter, or *yes* or *no*, at the beginning; a short
    text as a whole; the name that the first sentence gives; the number that the last sentence ends in.

    Args:
        text: the candidate.
        instruction: the instruction; without it, only what the text itself marks as its answer counts.

    Returns:
        The answer in normal form; None if there is none.
    """
    return _answer(text, _Question.of(instruction))


def final_answers(texts: Sequence[str], instruction: str = "") -> tuple[str | None, ...]:
    """Find what the candidates finally answer, where the instruction wants a final answer.

    Args:
        texts: N candidates.
        instruction: the instruction that they answer.

    Returns:
        For each candidate what `final_answer` finds; all None unless two candidates, and half of those that are not
        empty, have a final answer. Names and words count only where two are equal, and *yes* or *no* to a question that
        does not name them only where four of five begin with it.
    """
    question = _Question.of(instruction)
    answers = tuple(_answer(text, question) for text in texts)
    found = sum(answer is not None for answer in answers)
    if question.fact and len(set(answers) - {None}) == found:
        return (None,) * len(answers)
    share = _POLAR_SHARE if question.open_polar and set(answers) & {"yes", "no"} else _LEAST_SHARE
    if found < max(_LEAST, share * sum(bool(text.strip()) for text in texts)):
        return (None,) * len(answers)
    return answers


def agreement(answers: Sequence[str | None], weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return for each candidate the share of the others that give its answer.

    For candidate i this is the sum of w_j over the others with the same answer, divided by that over the others with
    any answer.

    Args:
        answers: N final answers, in normal form; None for a candidate without one.
        weights: ``[N]``, w, how much each candidate's voice counts; None means equally.

    Returns:
        ``[N]`` from 0 to 1; 0 for a candidate without an answer; all NaN if no candidate has one.

    Raises:
        InputError: the weights are not N finite numbers of 0 or more.
    """
    count = len(answers)
    voices = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if voices.shape != (count,) or not np.isfinite(voices).all() or (voices < 0).any():
        raise InputError(f"The weights of {count} answers must be {count} finite numbers of 0 or more.")
    if all(answer is None for answer in answers):
        return np.full(count, np.nan)
    given = np.array([answer or "" for answer in answers], object)
    others = ~np.eye(count, dtype=bool) & (given != "")
    total = others @ voices
    agreeing = (others & (given[:, None] == given)) @ voices
    return np.asarray(np.minimum(agreeing / np.where(total > 0, total, 1), 1))


@dataclass(frozen=True)
class Majority:
    """The answer that most candidates give.

    Attributes:
        answer: in normal form; of those that are given equally often, the one given first.
        count: number of candidates that give it.
        total: number of candidates with an answer.
    """

    answer: str
    count: int
    total: int


def majority(answers: Sequence[str | None]) -> Majority | None:
    """Return the most frequent of final answers; None if no candidate has one."""
    found = Counter(answer for answer in answers if answer is not None)
    if not found:
        return None
    ((answer, count),) = found.most_common(1)
    return Majority(answer, count, found.total())


_TURN = re.compile(r"(?:^|\n\s{0,9})(?:User|Human) ?: ?")
_NEXT_TURN = re.compile(r"\n\s{0,9}Assistant ?:")
_SENTENCE = re.compile(r"(?<=[.?!])\s+|\n+")
_OPTION = re.compile(
    r"(?:(?<![A-Z])([A-J])([.)])\s*|(?:^|(?<=[\s(]))([A-Ja-j])([.):])\)?\s+|^([A-J])\s+)(?=\S)", re.MULTILINE
)
_CHOOSING = re.compile(
    r"_{3}|\.{3}|…"
    r"|\b(?:which|choose|select|options?|choices?|correct|multiple[- ]choice|pick|best (?:answer|describes))\b",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(r"\byes\b\W+(?:or\W+)?no\b", re.IGNORECASE)
_TRUE_OR_FALSE = re.compile(r"\btrue\b\W+(?:or\W+)?false\b", re.IGNORECASE)
_POLAR = re.compile(
    r"(?:is|are|was|were|does|do|did|has|have|had|can|could|will|would|should|must|may)\s"
    r"(?!(?:you|we|there (?:an?|any|some|ways?))\b)",
    re.IGNORECASE,
)
_QUANTITY = re.compile(
    r"\bhow (?:many|much|old|far|long|tall|fast|high|heavy|often)\b|\b(?:calculate|compute|evaluate)\b|"
    r"\b(?:what|find|determine)\b[^.?!\n]{0,30}\b(?:value|sum|numbers?|probability|chance|percent(?:age)?|total|average|"
    r"mean|median|area|volume|perimeter|least|smallest|largest|greatest|remainder|product|cost|price|length|distance|"
    r"difference|ratio)\b",
    re.IGNORECASE,
)
_SHARE = re.compile(r"\b(?:probability|chance|likelihood|fraction|ratio|decimal)s?\b", re.IGNORECASE)
_CODE = re.compile(
    r"```|[{};]\s*$|\b(?:code|script|program|function|regex|python|javascript|java|sql|html|class|api)\b",
    re.IGNORECASE | re.MULTILINE,
)
_FACT = re.compile(
    r"(?:(?:in|on|at|to|from|for|of|by|after) )?(?:who|whom|whose|which|where|when|what (?:is|was|were|are) the|"
    r"what (?!is|was|are|were|do|does|did|can|could|should|would|will|to|if|about|kind|kinds|type|types)\w+)\b",
    re.IGNORECASE,
)
_OPINION = re.compile(
    r"\b(?:you|your|i|my|me|good|best|better|should|could|can|suggest|recommend|ideas?|some|examples?|ways?|steps?|tips?|"
    r"differences?|reasons?|benefits?|advantages?|list|names?|two|three|four|five|ten|meaning|purpose)\b",
    re.IGNORECASE,
)
_BRIEF = re.compile(
    r"\b(?:(?:one|single|1) word|(?:only|just) (?:with )?(?:the|a|an|its|one) (?:\w+ )?(?:answer|name|word|number|"
    r"letter|label|category|value|result)|answer only|only answer|what (?:is|will be|would be|does)\b[^.?!\n]{0,60}"
    r"\b(?:output|print|return|evaluate))\b",
    re.IGNORECASE,
)
_FUNCTION_WORDS = """
a an the is are was were be been it its this that there they he she in on at by of to from for as and did do does has
have had called i i'm known located named we written you sorry unfortunately apologize
"""
_STEM = 5  # letters of a word by which it is known in another form
_FEW_WORDS = 4  # of a sentence that are not in the question


@dataclass(frozen=True)
class _Question:
    """A kind of answer that an instruction wants.

    Attributes:
        options: the choices by letter, in normal form.
        polar: the two answers to a yes-or-no question.
        open_polar: whether it is a yes-or-no question that does not name these answers.
        number: whether it wants one number.
        numbers: the numbers in it, in normal form, if it wants one.
        fact: whether it wants one fact, or a word.
        words: the first letters of its words, which an answer in a sentence repeats.
        share: whether it wants a probability or the like, and no percentage.
    """

    options: dict[str, str]
    polar: tuple[str, str] | None
    open_polar: bool
    number: bool
    numbers: frozenset[str]
    fact: bool
    words: frozenset[str]
    share: bool

    @classmethod
    def of(cls, instruction: str) -> _Question:
        text = _NEXT_TURN.split(_TURN.split(instruction[-_LONGEST_QUESTION:])[-1])[0].strip()
        sentences = [part.strip() for part in _SENTENCE.split(text) if part.strip()]
        questions = [part for part in sentences if part.endswith("?")]
        is_one, is_short = len(questions) <= 1, len(text) <= _SHORT_QUESTION
        open_polar = is_one and is_short and any(_POLAR.match(part) for part in questions)
        polar = None
        if _TRUE_OR_FALSE.search(text):
            polar = ("true", "false")
        elif open_polar or _YES_OR_NO.search(text):
            polar = ("yes", "no")
        is_fact = (
            is_one
            and is_short
            and any(_FACT.match(part) for part in questions or sentences[:1])
            and not _OPINION.search(text)
        )
        words = {word[:_STEM] for word in re.findall(r"\w+", text.casefold())} if is_fact else set()
        number = is_one and bool(_QUANTITY.search(text)) and not _CODE.search(text)
        return cls(
            options=_options(text),
            polar=polar,
            open_polar=open_polar and not _YES_OR_NO.search(text) and polar == ("yes", "no"),
            number=number,
            numbers=frozenset(numbers_in(text) if number else ()),
            fact=is_fact or bool(_BRIEF.search(text)),
            words=frozenset(words) if "or" not in words else frozenset(),
            share=bool(_SHARE.search(text)) and "percent" not in text.casefold(),
        )

    def wants(self, line: str) -> bool:
        """Check whether it wants an answer as short as a line."""
        return self.fact or bool(self.options) or (self.number and bool(numbers_in(line)))


def _options(text: str) -> dict[str, str]:
    """Return the choices of an instruction by letter; empty if it has none."""
    marks = [(mark, (mark[1] or mark[3] or mark[5]).upper()) for mark in _OPTION.finditer(text)]
    starts = [place for place, (_, letter) in enumerate(marks) if letter == "A"]
    if not starts:
        return {}
    run = [marks[starts[-1]]]
    for mark, letter in marks[starts[-1] + 1 :]:
        if ord(letter) == ord(run[-1][1]) + 1 and (mark[2] or mark[4]) == (run[0][0][2] or run[0][0][4]):
            run.append((mark, letter))
    rest = text[: run[0][0].start()] + text[run[-1][0].end() :]
    if len(run) < 2 or not (_CHOOSING.search(rest) or ("?" in rest and run[0][0][0].strip("( \n")[0] == "A")):
        return {}
    ends = [mark.start() for mark, _ in run[1:]] + [len(text)]
    lines = [text[mark.end() : end].strip().split("\n")[0] for (mark, _), end in zip(run, ends, strict=True)]
    if any(line.endswith("?") for line in lines):
        return {}
    return {letter: normal_form(line.rstrip("( ")) or "" for (_, letter), line in zip(run, lines, strict=True)}


def _answer(text: str, question: _Question) -> str | None:
    text = text.strip()
    for found in _places(text, question):
        if normal := _in_question(found, question):
            return normal
    return None


def _in_question(found: str, question: _Question) -> str | None:
    """Write an answer in normal form, as the kind of answer that the instruction wants."""
    if json_value(found) is not None:
        return normal_form(found)
    found = _ENUMERATOR.sub("", found)
    plain = _MARKS.sub("", found).strip()
    if (choice := _CHOICE.match(plain)) and choice[1].upper() in question.options:
        return choice[1].upper()
    if choice := _MARKED_CHOICE.match(plain):
        return (choice[1] or choice[2]).upper()
    if question.polar and (word := _YES_NO.match(plain)):
        return question.polar[word[1].lower() in ("no", "false")]
    normal = normal_form(found, share=question.share)
    if chosen := [letter for letter, option in question.options.items() if option and option == normal]:
        return chosen[0]
    if question.number and (normal is None or not normal[-1:].isdigit()):
        return _only_number(plain, question) or normal
    if question.words and not _BARE.fullmatch(plain):
        return _new_words(plain, question) or normal
    return normal


def _new_words(sentence: str, question: _Question) -> str | None:
    """Return the names and numbers of a sentence that are not in the question; None if it has other new words."""
    known = _FUNCTION_WORDS.split()
    words = [word.rstrip(".-'’") for word in re.findall(r"[^\W_][\w'’.-]*", sentence)]
    new = [word for word in words if word.casefold() not in known and word.casefold()[:_STEM] not in question.words]
    if not 0 < len(new) <= _FEW_WORDS or any(word[0].islower() for word in new):
        return None
    return normal_form(" ".join(new))


def _only_number(sentence: str, question: _Question) -> str | None:
    """Return the one number that a sentence has, or has besides those of the instruction; None if it denies it."""
    if _DENIAL.search(sentence):
        return None
    numbers = set(numbers_in(_MARKS.sub("", sentence.replace("$", ""))))
    for candidates in (numbers, numbers - question.numbers):
        if len(candidates) == 1:
            return candidates.pop()
    return None


def _places(text: str, question: _Question) -> Iterator[str]:
    """Yield what may be the final answer, the surest first."""
    if (structured := _structured(text)) is not None:
        yield structured
        return
    text = text[-_READ:]
    if fields := list(_FIELD.finditer(text)):
        yield _field(text, fields[-1].end())
    if (boxed := _boxed(text)) is not None:
        yield boxed
    if hashes := _HASHES.findall(text[-_TAIL:]):
        yield hashes[-1]
    prose = _MARKS.sub("", _FENCE.sub(_without_code, text)[-_TAIL:])
    phrases = [_ending(prose[phrase.end() :]) for phrase in list(_PHRASE.finditer(prose))[-_PHRASES:]]
    if phrases and len(set(phrases)) <= _MOST_PHRASES:
        yield phrases[-1]
    start = _MARKS.sub("", text[:_SHORT]).strip()
    if (choice := _CHOICE.match(start)) and choice[1].upper() in question.options:
        yield choice[1]
    if question.polar and (word := _YES_NO.match(start)):
        yield word[1]
    line = prose.strip()
    if len(line) <= _SHORT and "\n" not in line and question.wants(line):
        yield line
    elif _BARE.fullmatch(text[:_SHORT]) and len(text) <= _SHORT:
        yield text
    if question.words and (words := _new_words(re.split(r"[.!?](?=\s|$)|\n", start)[0], question)):
        yield words
    if question.number and len(question.numbers) >= _LEAST_NUMBERS:
        sentences = [part for part in _SENTENCE.split(prose) if part.strip()]
        yield from _concluded(sentences[-1][-_LONGEST_ANSWER:] if sentences else "", question)


def _without_code(fence: re.Match[str]) -> str:
    """Unwrap what is no code, and a line of code; leave out more of it, where *answer* is a name."""
    body = fence[2].strip()
    return body if fence[1].casefold() in _NO_CODE or "\n" not in body else "\n"


def _concluded(sentence: str, question: _Question) -> Iterator[str]:
    """Yield the number that a last sentence ends in, if it is in words."""
    if "\\" in sentence.replace("\\$", ""):
        return
    if equal := _COPULA.findall(sentence):
        yield equal[-1]
    elif number := _only_number(sentence, question):
        yield number


def _structured(text: str) -> str | None:
    """Return the calls of tools at the end of a text, or the answer of a text that is JSON as a whole or fenced."""
    last = text.rpartition("\n")[2]
    if last.startswith('[{"name": ') and isinstance(calls := json_value(last), list):
        return f"[{', '.join(sorted(canonical(call) for call in calls))}]"
    fence = _FENCE.fullmatch(text[:_READ]) if text.startswith("```") else None
    value = json_value(fence[2] if fence else text)
    if value is None:
        return None
    if isinstance(value, dict):
        for key in sorted(value, key=len, reverse=True):
            if _FIELD_NAME.fullmatch(key) and value[key] not in (None, ""):
                return _latex(value[key]) if isinstance(value[key], str) else canonical(value[key])
    return canonical(value)


def _field(text: str, start: int) -> str:
    """Return the value of a JSON field that begins at a place of a text that is no JSON as a whole."""
    if string := _STRING.match(text, start):
        return _unescaped(string[1])
    return text[start : start + _LONGEST_ANSWER].split("\n")[0].strip().rstrip(",}` ")


def _unescaped(string: str) -> str:
    """Decode the escapes of a JSON string, in which LaTeX may have single backslashes."""
    try:
        return str(json.loads('"' + _LATEX_COMMAND.sub(r"\\\\", string) + '"', strict=False))
    except ValueError:
        return string


def _latex(text: str) -> str:
    """Restore LaTeX commands that were decoded as escapes of JSON, such as a form feed for the f of frac."""
    for control, letter in (("\f", "f"), ("\b", "b"), ("\t", "t"), ("\r", "r")):
        text = re.sub(f"{control}(?=[a-z])", rf"\\{letter}", text)
    return text


def _boxed(text: str) -> str | None:
    r"""Return what the last ``\boxed{}`` of a text holds."""
    places = list(_BOXED.finditer(text))
    if not places:
        return None
    start, depth = places[-1].end(), 1
    for place in range(start, min(len(text), start + _LONGEST_ANSWER)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start:place]
    return None


def _ending(rest: str) -> str:
    """Return the answer in what follows *answer is*: the first formula, or the rest of the sentence if it names one."""
    if math := _MATH.match(rest):
        return math[1] or math[2] or math[3]
    sentence = _SENTENCE_END.split(rest[:_LONGEST_ANSWER], maxsplit=1)[0].strip()
    return "" if _NO_ANSWER.match(sentence) else sentence
