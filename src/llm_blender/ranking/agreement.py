"""Agreement on final answers: where candidates end in an answer, the one that most of them give is rarely wrong.

This is self-consistency (Wang et al. 2022, arXiv 2203.11171) over the answers of several LLMs, or over the samples of
one. Texts that say the same in other words have little in common; the normal forms of their final answers are equal.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import InputError
from llm_blender.ranking.answers import IMAGINARY, canonical, dates_in, json_value, normal_form, numbers_in, regex
from llm_blender.ranking.questions import STEM, Question, sentences

_LEAST = 2  # candidates with a final answer from which on they can agree
_LEAST_SHARE = 0.5  # of the candidates that must have one
_POLAR_SHARE = 0.8  # the same where *yes* or *no* is likely to be implied by the others
_LEAST_NUMBERS = 2  # of an instruction from which on the number of a last sentence follows from them
_PHRASES = 10  # *answer is* at the end of a text that are read
_MOST_PHRASES = 2  # different answers among them; a text with more answers several questions
_READ = 8_000  # characters at the end of a text that are read
_TAIL = 1_000  # characters at the end where an answer in words can be
_LONGEST_ANSWER = 300
_COURTESIES = 300  # characters at the end of a text that can be polite and nothing else
_SHORT = 100  # characters of a text that is an answer as a whole

_FENCE = regex(r"```([\w+-]*)[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_NO_CODE = frozenset({"json", "text", "txt", "markdown", "md", "latex", "tex"})
_FIELD = regex(r'"(?:final|correct)?[ _]?answer"\s{0,20}:\s{0,20}', re.IGNORECASE)
_FIELD_NAME = regex(r"(?:final|correct)?[ _]?(?:answer|result)", re.IGNORECASE)
_LONE_FIELD_NAME = regex(r"choice|option|label|class|category|sentiment|prediction", re.IGNORECASE)
_STRING = regex(r'"((?:[^"\\\n]|\\.){0,400})"')
_LATEX_COMMAND = regex(r"(?<!\\)\\(?=[a-zA-Z]{2}|[()\[\]{},;:!% ])(?!n[A-Z\\ ])")
_BOXED = regex(r"\\f?box(?:ed)?\s?\{")
_HASHES = regex(r"^#### (?=.*\d)(.{1,60})$", re.MULTILINE)
_TAGGED = regex(r"<(final_|final-)?answer>(.{1,300}?)</(?:final_|final-)?answer>", re.IGNORECASE | re.DOTALL)
_PHRASE = regex(
    r"(?=[#acefolrstz答正о정选選回])(?:^(?:#{1,6} )?(?:the )?(?:final |correct )?answer[^\S\n]?(?:[-–—](?=\s)|\n)\s*"
    r"|\bans ?[:.]\s*"
    r"|\b(?:answer|antwort|réponse|respuesta|risposta|resposta)\b"
    r"(?: (?:correcta|correcte|corretta|correta|final|finale|exacte))?[^\S\n]?"
    r"(?:(?:(?:is|are|was|would be|will be|equals|lautet|ist|est|es|è|é)\b|:|=)\s*)+"
    r"|\b(?:result|output|choice|option|ergebnis|lösung|résultat|resultado)\b[^\S\n]?"
    r"(?:is|are|was|would be|will be|equals|lautet|ist|est|es)\b\s*"
    r"|\b(?:solutions?|roots?|zeros|lösungen|soluciones|soluzioni)(?: are| is| sind| sont| son| sono)\b"
    r"[^\S\n]*:?[^\S\n]*(?=[^\w\n]*(?:\w\w?\b|[\d{]))"
    r"|(?:答案|答え|正解|正确选项|ответ|정답|답|回答)\s?[应應]?[该該]?[选選是为為は은:：—-]+\s*"
    r"|(?:选择|選擇|选项|選項|选|選)\s?(?=[A-J](?![A-Za-z])))\s*:?\s*(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
_MATH = regex(r"\s*(?:\$\$?([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\])", re.DOTALL)
_SENTENCE_END = regex(
    r"(?<!\b[A-Z])(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)[.!?](?=\s|$)|[。！？\n]"
    r"|, not |,? (?:because|since|as|which|so|but|where)\b"
)
_NO_ANSWER = regex(
    r"(?:that|to|not|because|if|how|what|(?:in)?correct|wrong|right|given|provided|based|shown|below|above|"
    r"as follows)\b",
    re.IGNORECASE,
)
_MARKS = regex(r"(?<![A-Za-z\d)])\*\*|\*\*(?![\d(])|__|(?<!\S)[*_](?=\S)|(?<=\S)[*_](?!\S)|`")
_CHOICE = regex(
    r"(?:(?:option|choice|answer|letra|lettre|lettera|opción|opção|la|a)\s+)?"
    r"[(\[]?([a-j])(?:[\])]|[.:](?=\s|$)|$|(?=\s[-–—]\s)|(?=[.,\n。、，\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]))",
    re.IGNORECASE,
)
_MARKED_CHOICE = regex(r"(?:(?:option|choice)\s+)?(?:[(\[]([A-Ja-j])[\])]|([A-J])[):])\s+(?=\S)")
_BARE = regex(r"\W*(?:[(\[]?[A-J][)\]]?|yes|no|true|false|[$€£]?-?\d[\d.,/ ]*(?:\s?%|\s\w+)?)\W*", re.IGNORECASE)
_DENIAL = regex(r"\b(?:not|cannot|no)\b|n['’]t\b", re.IGNORECASE)
_SHORT_LABEL = regex(r"^\W*(?:a|ans|q|r|답|答)\s?[:：]\s*(?=\S)", re.IGNORECASE)
_ENUMERATOR = regex(r"^(?:\(?\d{1,2}[.)]+|[-•*])\s+(?=[A-Za-z])(?!\w+ \d{4}\b)")
_YES_NO = regex(
    r"(?:(?:well|actually|hmm?|um|oh|in fact|okay|ok)\W+)*"
    r"(?:(?:that|it|this)(?:['’]s| is) (?=true\b|false\b|(?:in)?correct\b))?"
    r"(yes|yep|yeah|yup|no|nope|nah|true|false|ja|nein|nee|oui|non|s[íì]|sim|não|да|нет|evet|hayır|نعم|لا"
    r"|(?:(?:in)?correct|vrai|faux|wahr|falsch|verdadero|falso|是的?|不是|否|不?对|不?正确|错误|はい|いいえ|네|예|아니[요오])"
    r"(?=\W*$|[.!,。，！])|(?:absolutely|certainly|definitely|of course)(?: not)?(?=\W*$|[.!,])|not at all)\b"
    r"(?![ -]*(?:one|matter|doubt|longer|(?:and|or) (?:yes|no|false|true))\b)",
    re.IGNORECASE,
)
_NEGATIVE = regex(
    r"no(?:pe)?|nah|false|nein|nee|non|não|нет|hayır|لا|incorrect|faux|falsch|falso|不.*|否|错误|いいえ|아니[요오]"
    r"|not at all|.* not",
    re.IGNORECASE,
)
_ENDS_YES_NO = regex(
    r"(?:\b(?:answer|statement|claim|sentence|that|it|this) (?:is |: ?)|\bso,? |(?:[.!:]\s|\n)\W*)"
    r"(yes|no|true|false)\W*$",
    re.IGNORECASE,
)
_OPTION_LETTER = regex(
    r"(?:\(([A-J])\)|\b([A-J])\)|\b(?:is|[Ii]t's|choose|pick|select|option|answer) ([A-J])(?=[\s.,]|$)"
    r"|\b(?:letter|with|[Ss]o,?) ([A-J])(?=[.,]|$))"
)
_RIGHT_LETTER = regex(r"\b([A-J])\)? (?:is|was) (?:the )?(?:correct|right|best|answer)\b")
_OTHER_OPTION = regex(r"(?:^|[.!?\n]\s*)\W{0,3}(?:[Oo]ption )?[(\[]?([A-J])[)\].:](?=\s)")
_NOT_BUT = regex(
    r"\bnot (?!only|just|merely|that\b)[^.,;:!?\n]{1,40}(?:,? but (?:rather )?|[,;] (?:it is|it's|rather) )"
)
_CORRECTION = regex(
    r"(?:(?:\bno,? )?\bwait\b|\bcorrection:|\bscratch that\b|\boops\b|\bi made an? (?:mistake|error)\b)"
    r"(?:\W+(?:no|actually|sorry|that is wrong|that's (?:wrong|not right))\b(?=\W+\w))*\W*",
    re.IGNORECASE,
)
_CORRECTING = ("wait", "correction:", "scratch that", "oops", "i made a")
"""One of them is in each text that `_CORRECTION` matches."""
_THOUGHT = "</think>"
_DECIMAL_COMMA = regex(r"(?<![\d.,(\[])(\d{1,30}),(\d{1,2})(?![\d,])")
_APPROXIMATION = regex(
    r"(?<=\S)\s*(?:,? or (?:about|approximately|roughly|around)\b|≈|\((?:≈|~|or |about|approx|roughly|[\d.]+ ?%))"
)
_REASON = regex(r",? \(?(?:because|since|as)\b")
_RESULT = regex(r"\b(?:so|therefore|thus|hence|which means|leaving)\b", re.IGNORECASE)
_LEADING = regex(r"([$€£]?-?\d[\d.,]*\d|[$€£]?-?\d)(?:%|[^\S\n][^\W\d]+)?(?: [-–—] |, | \(|[^\S\n]*\n\s*)(?=[^\W\d])")
_COURTESY = regex(
    r"(?:please |and |but )?(?:(?:do )?let (?:me|us) know|feel free|don['’]t hesitate|do not hesitate|"
    r"(?:i )?(?:really )?hope (?:this|that|it|you)|i(?:['’]m| am) (?:happy|glad|here)|happy to|glad to|"
    r"if you(?: have|['’]d| would| need| want)|(?:is there )?anything (?:else|more)|would you like|"
    r"do you (?:have|need|want|understand)|"
    r"does (?:this|that) (?:help|make sense|answer)|any (?:other |more |further )?questions|thank(?:s| you)|"
    r"you['’]?re welcome|good luck|have a (?:great|good|nice)|(?:ich )?hoffe|lass(?:en sie)? (?:es )?mich wissen|"
    r"wenn du|wenn sie|n['’]hésite[zr]?|j['’]espère|si (?:vous|tu) |espero|avísame|no dudes|si tienes)\b"
    r"|希望|如果您?[还有需想]|请随时",
    re.IGNORECASE,
)
_OPENING = regex(r"[.:!](?=\s|$)|\n")
_SAYS_NOTHING = regex(r"[^\w\x00-\x7f]+|[-*_ ]{3,}")  # an emoji, a rule
_WORDY = regex(r"[^\W\d_]{2}")
_YIELDS = regex(r"\b(?:outputs?|prints?|returns?|displays?|evaluates to):?\s+(.+)$")
_CLAIMS = regex(r"\b(?:is|are|has|have|there|ist|hat|haben|gibt|a|y|hay|tiene)\b", re.IGNORECASE)
_NO_KNOWLEDGE = regex(
    r"(?:(?:sorry|unfortunately)\W+)?(?:as an ai\b|i(?:'m|’m| am) (?:sorry|unable|not able)|"
    r"i (?:cannot|can['’]?t|can not|do not|don['’]?t) (?:answer|help|know|determine|solve|assist))\b",
    re.IGNORECASE,
)
_COUNTED = regex(r"[\d.]+ [^\W\d_]{3,}, \d")
_SOLVED = regex(r"(?:\d([a-z])=[^,=]+,\1|^[^,;=]+=[^,;=]+|^\d+!)=(-?\d+(?:[./]\d+)?)$")
_CHOICES = regex(r"[A-J](?:, [A-J])+")
_DENIAL_OF_NUMBER = regex(r"\bnot\b.*\d|n['’]t\b.*\d", re.IGNORECASE)
_CENTS = regex(r"(?<![$.\d])\d{1,3} ?(?:¢|cents?\b)", re.IGNORECASE)
_INTERJECTION = regex(
    r"^(?:sure|certainly|of course|great question|okay|ok|hello|hi)\b[^.!:,\n]{0,40}[.!:,]\s+", re.IGNORECASE
)
_TIME = regex(r"\b\d{1,2}[:：]\d{2}(?: ?[ap]\.?m\b\.?)?|\b\d{1,2} ?[ap]\.?m\b\.?", re.IGNORECASE)
_MOMENT = regex(r"\d{1,2}:\d\d(?: [ap]m)?")
_ASIDE = regex(r" \([^()\d]*[^\W\d_]{2}[^()\d]*\)|, (?:because|located|situated|known)\b.*")
_IN_YEAR = regex(r" (?:in|on|around) (?:\w+ (?:\d\d?, )?)?(?:1\d|20)\d\d\b")
_WILL_BE = regex(r" (?:will|would) be ")
_CITIES = frozenset({"capit", "city"})
_REGION = regex(r"(?<=\w), [^\W\da-z][\w ]+$")  # after a city
_DAYS = frozenset({"date", "day", "datum", "tag", "fecha", "día", "data", "jour"})
_YEAR = regex(r"\b(?:1\d|20)\d{2}\b")
_NAME = r"[^\W\d_a-zß-ÿ][\w'’.-]*"
_NAMES = rf"({_NAME}(?: (?:(?:d[aeiou]|von|van|of|the|de la) )?{_NAME}){{0,4}})"
_SUBJECT = regex(
    rf"{_NAMES} (?:is|was|are|were|wrote|painted|invented|discovered|founded|became|composed|directed|ist|war|est|es)\b"
)
_AGENT = regex(rf"\b(?:is|was|were|are|by|ist|war|von|est|par|es|por) (?:by )?{_NAMES}")
_COMPLEMENT = regex(rf"\b(?:is|was|were|are|be|ist|war|est|es) (?:the city of )?{_NAMES}")
_STATED = regex(r"\b(?:is|was|are|were|be|ist|est|es) (?:an? |the )?([^\W\d_]+)\W*$")
_COPULA = regex(
    r"(?:=|\b(?:is|are|was|were|be))\s*(?:about |approximately )?[$€£]?(-?[\d.,]*\d(?:/\d+)?)(?! ?[-+] ?\d* ?i\b)"
)


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
    return _answer(text, Question.of(instruction))


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
    question = Question.of(instruction)
    if question.rewriting:
        return (None,) * len(texts)
    answers = tuple(_answer(text, question) for text in texts)
    found = sum(answer is not None for answer in answers)
    if (question.fact or (question.number and not question.numbers)) and len(set(answers) - {None}) == found:
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
        weights: ``[N]``, w, how much each candidate's answer counts; None means equally.

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


_FUNCTION_WORDS = """
a an the is are was were be been would it its this that there they he she in on at by of to from for as and did do
does has have had called i i'm it's that's c'est believe think known located named we written you sorry
unfortunately apologize form word term der die das ist war von la le les est de du el es fue en
"""
_FEW_WORDS = 4  # of a sentence that are not in the question


def _answer(text: str, question: Question) -> str | None:
    text = text.rpartition(_THOUGHT)[2].strip()
    if question.comma and json_value(text) is None:
        text = _DECIMAL_COMMA.sub(r"\1.\2", text)
    corrected = _corrected(text[-_TAIL:])
    for part in (corrected, text) if corrected else (text,):
        for found in _places(part, question):
            if normal := _in_question(found, question):
                return normal
    return None


def _corrected(text: str) -> str:
    """Return what follows the last correction in a text; empty without one."""
    lower = text.lower()
    if not any(word in lower for word in _CORRECTING):  # most texts have none, and the pattern is slow
        return ""
    *before, corrected = _CORRECTION.split(text)
    return corrected.strip() if before else ""


def _in_question(found: str, question: Question) -> str | None:
    """Write an answer in normal form, as the kind of answer that the instruction wants."""
    if json_value(found) is not None:
        return normal_form(found)
    found = _ENUMERATOR.sub("", _without_denied(found))
    if question.number:
        found = _SHORT_LABEL.sub("", found)
    plain = _MARKS.sub("", found).strip()
    if _NO_KNOWLEDGE.match(plain):
        return None
    normal = normal_form(found, share=question.share)
    if question.options and normal and _CHOICES.fullmatch(normal):
        return normal
    if (choice := _CHOICE.match(plain)) and choice[1].upper() in question.options:
        return choice[1].upper()
    if not question.number and (choice := _MARKED_CHOICE.match(plain)):
        return (choice[1] or choice[2]).upper()
    if question.polar and (word := _YES_NO.match(plain) or _ENDS_YES_NO.search(plain)):
        return question.polar[_NEGATIVE.fullmatch(word[1]) is not None]
    if question.options:
        return _chosen(plain, normal, question.options) or normal
    if question.number:
        return _stated_number(plain, normal, question)
    if question.dated and normal and _MOMENT.fullmatch(normal):
        return normal
    if question.words and not _BARE.fullmatch(plain):
        return _new_words(plain, question) or normal
    return normal


def _chosen(plain: str, normal: str | None, options: Mapping[str, str]) -> str | None:
    """Return the one option that a short text names, by its letter or in its words."""
    if equal := [name for name, option in options.items() if option and option == normal]:
        return equal[0]
    if len(set(right := _RIGHT_LETTER.findall(plain))) == 1 and right[0] in options:
        return str(right[0])
    plain = re.split(r",? (?:and )?not | than ", plain)[0]
    if len(plain) > _SHORT or _DENIAL.search(plain):
        return None
    marked = {letter for found in _OPTION_LETTER.findall(plain) for letter in found if letter in options}
    text = plain.casefold()
    named = {
        name for name, option in options.items() if option and re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text)
    }
    found = marked or named
    return found.pop() if len(found) == 1 else None


def _stated_number(plain: str, normal: str | None, question: Question) -> str | None:
    """Return the number of a short text, without its reason; the text in normal form if it is not clear."""
    result = _REASON.split(plain)[0]
    exact = _APPROXIMATION.split(result)[0]
    if exact != result and numbers_in(exact):
        result, normal = exact, normal_form(exact, share=question.share)
    number = normal
    if leading := _LEADING.match(plain):
        number = normal_form(leading[1], share=question.share)
    elif result != plain and numbers_in(result):
        number = normal_form(result, share=question.share)
    if number and _COUNTED.match(number):
        return number
    if number and (solved := _SOLVED.search(number)):
        return solved[2]
    if number is None or not number[-1:].isdigit() or _WORDY.search(number):
        last = _RESULT.split(result)[-1]
        number = (_only_number(last, question) if last != result else None) or _only_number(result, question) or normal
        if number and (_DENIAL_OF_NUMBER.search(number) or (_WORDY.search(number) and len(numbers_in(number)) > 2)):
            return None
    if number and question.dollars and number.isdigit() and _CENTS.search(plain) and "$" not in plain:
        return normal_form(f"{number}/100")
    return number


def _new_words(text: str, question: Question) -> str | None:
    """Return the names and numbers of a first sentence that are not in the question; None if they are not clear."""
    sentence = re.split(r"(?<!\b[A-Z])[.!?](?=\s|$)|\n", _INTERJECTION.sub("", text))[0]
    sentence = _WILL_BE.sub(" is ", _ASIDE.sub("", sentence)).strip() or sentence
    if question.words & _CITIES:
        sentence = _REGION.sub("", sentence)
    if question.words & _DAYS and len(dates := dates_in(text)) == 1:
        return dates.pop()
    if question.dated and len(times := {normal_form(found) for found in _TIME.findall(sentence)}) == 1:
        return times.pop()
    if question.dated and len(years := set(_YEAR.findall(sentence))) == 1:
        return str(years.pop())
    new = _unknown(sentence if question.dated else _IN_YEAR.sub("", sentence), question)
    if 0 < len(new) <= _FEW_WORDS and not any(word[0].islower() for word in new):
        return normal_form(" ".join(new))
    if question.dated:
        return None
    complement = _AGENT if question.maker else _COMPLEMENT
    for pattern in (_SUBJECT.match(sentence), complement.search(sentence)):
        if pattern and (names := _unknown(pattern[1], question)):
            return normal_form(" ".join(names))
    stated = _STATED.search(sentence)
    return normal_form(stated[1]) if stated and new == [stated[1]] else None


def _unknown(sentence: str, question: Question) -> list[str]:
    """List the words of a sentence that are neither in the question nor function words."""
    known = _FUNCTION_WORDS.split()
    words = [
        word.rstrip(".-'").removesuffix("'s") for word in re.findall(r"[^\W_][\w'.-]*", sentence.replace("’", "'"))
    ]
    return [word for word in words if word.casefold() not in known and word.casefold()[:STEM] not in question.words]


def _only_number(sentence: str, question: Question) -> str | None:
    """Return the one number that a sentence has, or has besides those of the instruction; None if it denies it."""
    if _DENIAL.search(sentence) or IMAGINARY.search(sentence):
        return None
    numbers = set(numbers_in(_MARKS.sub("", sentence.replace("$", ""))))
    for candidates in (numbers, numbers - question.numbers):
        if len(candidates) == 1:
            return candidates.pop()
    return None


def _places(text: str, question: Question) -> Iterator[str]:
    """Yield what may be the final answer, the surest first."""
    if (structured := _structured(text)) is not None:
        yield structured
        return
    text = _without_denied(text[-_READ:])
    if fields := list(_FIELD.finditer(text)):
        yield _field(text, fields[-1].end())
    if (boxed := _boxed(text)) is not None:
        yield boxed
    if "</" in text and (tagged := _TAGGED.findall(text)):
        yield tagged[-1][1].strip()
    if hashes := _HASHES.findall(text[-_TAIL:]):
        yield hashes[-1]
    prose = _without_courtesy(_MARKS.sub("", _FENCE.sub(_without_code, text)[-_TAIL:]))
    phrases = [_ending(prose[phrase.end() :]) for phrase in list(_PHRASE.finditer(prose))[-_PHRASES:]]
    if phrases and len(set(phrases)) <= _MOST_PHRASES:
        yield phrases[-1]
    start = _MARKS.sub("", text[:_SHORT]).strip()
    if question.options and _CHOICES.fullmatch(normal_form(start.split("\n")[0]) or ""):
        yield start.split("\n")[0]
    if (choice := _CHOICE.match(start)) and choice[1].upper() in question.options:
        others = {*question.options} - {choice[1].upper()}
        if others.isdisjoint(_OTHER_OPTION.findall(text, choice.end())):
            yield choice[1]
    opening = _OPENING.split(start, maxsplit=1)[0]
    if question.options and normal_form(opening) in {*question.options.values()} - {""}:
        yield opening
    last = (sentences(prose) or [""])[-1] if question.options or question.number else ""
    if question.options and last != prose.strip() and (chosen := _chosen(last, None, question.options)):
        yield chosen
    if question.polar and (word := _YES_NO.match(start) or _ENDS_YES_NO.search(prose)):
        yield word[1]
    if question.number and _LEADING.match(start):
        yield start
    line = prose.strip()
    if len(line) <= _SHORT and "\n" not in line and question.wants(line):
        yield line
    elif _BARE.fullmatch(text[:_SHORT]) and len(text) <= _SHORT:
        yield text
    if (
        question.words
        and not question.number
        and (words := _new_words(_MARKS.sub("", text[: 2 * _SHORT]).strip(), question))
    ):
        yield words
    if question.fact and (yielded := _YIELDS.search(line[:_SHORT])):
        yield yielded[1]
    if question.number:
        before = re.split(r", which (?!means|leaves|gives|makes)", last)[0]
        last = before if _only_number(before, question) else last
        if len(question.numbers) >= _LEAST_NUMBERS or _RESULT.match(last):
            yield from _concluded(last[-_LONGEST_ANSWER:], question)
        first = _OPENING.split(_INTERJECTION.sub("", start), maxsplit=1)[0]
        if not question.numbers and _CLAIMS.search(first) and (number := _only_number(first, question)):
            yield number


def _without_courtesy(prose: str) -> str:
    """Leave out what follows an answer only to be polite: an offer of help, a wish, an emoji."""
    prose = prose.rstrip()
    for sentence in sentences(prose[-_COURTESIES:])[:0:-1]:
        polite = _COURTESY.match(sentence) and not any(character.isdigit() for character in sentence)
        if not (polite or _SAYS_NOTHING.fullmatch(sentence)):
            break
        prose = prose.removesuffix(sentence).rstrip()
    return prose


def _without_denied(text: str) -> str:
    """Leave out A of *not A but B*."""
    return _NOT_BUT.sub("", text) if "not " in text else text


def _without_code(fence: re.Match[str]) -> str:
    """Unwrap what is no code, and a line of code; leave out more of it, where *answer* is a name."""
    body = fence[2].strip()
    return body if fence[1].casefold() in _NO_CODE or "\n" not in body else "\n"


def _concluded(sentence: str, question: Question) -> Iterator[str]:
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
            is_answer = _FIELD_NAME.fullmatch(key) or (len(value) == 1 and _LONE_FIELD_NAME.fullmatch(key))
            if is_answer and value[key] not in (None, ""):
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
