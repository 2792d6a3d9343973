"""Requirements on the form of an answer that a program reads in an instruction and checks with certainty.

A rule finds its requirement by the wording of the instruction, and a check reads a candidate. Where a wording may mean
something else, the rule finds nothing; where a candidate may be read in several ways, one of them is enough.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from pydantic_core import from_json

from llm_blender.ranking.agreement import final_answer
from llm_blender.ranking.answers import regex
from llm_blender.ranking.questions import Question

_ENDS = 700  # characters at either end of a long instruction; what lies between them is material
_LONGEST = 20_000  # characters of a candidate that a check reads
_TURN = regex(r"(?:\A|\n)(User|Human|Assistant|System): ?")
_QUOTED = regex(r"```.*?(?:```|\Z)|\"[^\"\n]{0,300}\"|“[^”\n]{0,300}”|`[^`\n]{1,300}`", re.DOTALL)
_WORD = regex(r"\w+")
_ROUNDING = Fraction(1, 100)  # of a result that is no whole number
_BLANK_LINES = regex(r"\n\s*\n")

_NUMBERS: Mapping[str, int] = {
    "a single": 1, "single": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty-five": 25, "twenty": 20, "thirty": 30, "forty": 40,
    "fifty": 50, "hundred": 100,
}  # fmt: skip
_NUMBER = rf"(?:\d{{1,2}},\d{{3}}|\d{{1,5}}|{'|'.join(_NUMBERS)})"

# An instruction to write code, or another instruction: the wording is about what that does.
_WRITES_CODE = regex(
    r"\b(?:write|create|generate|make|build|develop|implement|design|need|want|fix|optimi[sz]e|refactor|modify|add|"
    r"come up with|give me|show me)\b[^.!?\n]{0,60}\b(?:code|scripts?|functions?|programs?|class|methods?|prompts?|api|"
    r"endpoint|command|regex|quer(?:y|ies)|apps?|passwords?|usernames?)\b"
)
# A refusal has another fault than its form, or none.
_REFUSAL = regex(
    r"\W*(?:(?:i['’]m|i am) (?:(?:very |so )?sorry|unable|not (?:able|comfortable))|sorry|as an ai|unfortunately|"
    r"i (?:can(?:['’]?t|not)|won['’]?t|will not|do not|don['’]t|apologi[sz]e))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Requirement:
    """A requirement on the form of an answer.

    Attributes:
        flaw: name of the flaw of a candidate that does not satisfy it.
        check: returns whether a text satisfies it.
    """

    flaw: str
    check: Callable[[str], bool]


def requirements(instruction: str) -> list[Requirement]:
    """Read the requirements in an instruction: the turn of the system, and the last one of the user.

    Args:
        instruction: as one text; a conversation as `llm_blender.conversations.instruction_text` renders it.
    """
    words = _request(instruction)
    return [found for rule in _RULES for found in rule(words)] + _calculation(instruction)


def _request(instruction: str) -> str:
    """Return the text that may hold requirements, without quotations, in lower case."""
    parts = _TURN.split(instruction)
    roles, turns = parts[1::2], parts[2::2]
    if "Assistant" in roles or "System" in roles:
        system = [turn for role, turn in zip(roles, turns, strict=True) if role == "System"][:1]
        last = [turn for role, turn in zip(roles, turns, strict=True) if role in ("User", "Human")][-1:]
        instruction = "\n".join(system + last)
    if len(instruction) > 2 * _ENDS:
        instruction = f"{instruction[:_ENDS]}\n\n{instruction[-_ENDS:]}"
    words = _QUOTED.sub('""', instruction).lower().replace("’", "'")
    return re.sub(r"(?: ?\n)+ ?", "\n", re.sub(r"[^\S\n]+", " ", words)).strip()


def _calculation(instruction: str) -> list[Requirement]:
    """Require the result of a sum, if the instruction is nothing else."""
    result = Question.of(instruction).result
    if result is None:
        return []
    return [Requirement("miscalculated", lambda text: _has_result(final_answer(text, instruction), Fraction(result)))]


def _has_result(answer: str | None, result: Fraction) -> bool:
    """Check whether an answer is a result, rounded if it is no whole number; one that is no number is not checked."""
    try:
        difference = abs(Fraction(answer or "") - result)
    except (ValueError, ZeroDivisionError):
        return True
    return difference == 0 or (result.denominator != 1 and difference <= _ROUNDING * abs(result))


def _number(word: str) -> int:
    return _NUMBERS.get(word) or int(word.replace(",", ""))


_NAMED_JSON = (
    r"(?:(?:a|an|the|this|one|in|with|as|return|output|valid|raw|plain|pure|single|strict|minified)\s+){0,4}json\b"
)
_ONLY_JSON = regex(
    rf"\b(?:only|just|nothing but|solely|exclusively|nothing else than|nothing other than)\s+{_NAMED_JSON}"
    r"|\bjson(?: (?:object|array|string|format|output|response|data))?,? (?:only\b|alone\b|(?:and )?nothing else"
    r"|(?:with no|with nothing|without|without any) (?:any |other |additional |further |extra )*"
    r"(?:explanations?|comments?|text|prose|words|commentary))"
    r"|\bjson(?: (?:object|array|format))?[.,;:] (?:and )?(?:nothing else|no (?:other |additional |extra |further )?"
    r"(?:explanations?|prose|text|comments?|words)|(?:do not|don't) (?:add|include|write|explain))"
)
_AS_JSON = regex(
    r"(?:\A|[.!?:;,\n]\s*|\b(?:please|then|and|must|should)\s+)(?:be )?(?:answer|respond|reply|return|output|formatted|"
    r"format|give|express|present|print|convert|encode|represent)\s(?:[^.!?\n]{0,60}\s)?(?:in|as|into|to|with|using)\s+"
    r"(?:a |an |valid |the )*json\b(?! (?:file|files|database|schema|parser|web|api))"
)
_BLOCK = regex(r"^[ \t]*(?:```|~~~)[^\n`{\[]*\n?(.*?)(?:^[ \t]*(?:```|~~~)|\Z)", re.DOTALL | re.MULTILINE)


def _json(words: str) -> list[Requirement]:
    if "json" not in words or _WRITES_CODE.search(words):
        return []
    if _ONLY_JSON.search(words):
        return [Requirement("not_json", _is_json)]
    return [Requirement("not_json", _has_json)] if _AS_JSON.search(words) else []


def _reads(text: str) -> bool:
    try:
        return isinstance(from_json(text), dict | list)
    except (ValueError, TypeError):  # a lone surrogate is a TypeError
        return False


def _is_json(text: str) -> bool:
    """Tell whether a text is JSON, or one block with JSON, and nothing else."""
    text = text.strip("\ufeff \t\r\n")
    if text.startswith(("```", "~~~")):
        text = re.sub(r"\A(?:```|~~~)\w*\s*|\s*(?:```|~~~)\Z", "", text)
    return _reads(text)


def _has_json(text: str) -> bool:
    """Tell whether a text has JSON: as a whole, in a block, or from its first bracket to its last."""
    if _is_json(text) or any(_reads(block.strip()) for block in _BLOCK.findall(text)):
        return True
    pairs = [(text.find(start), text.rfind(end)) for start, end in ("{}", "[]")]
    return any(0 <= start < end and _reads(text[start : end + 1]) for start, end in pairs)


_YES_NO = regex(
    r"(?:\b(?:answer|respond|reply|output|say|state|indicate|return|write|answers)\b[^.!?\n]{0,40}?[\s:,(]"
    r"|[.?!,;\n(]\s*|(?:please|just|only|simply|strictly)[,:]?\s+)"
    r"[\"']?yes[\"']?(?:\s*/\s*|,? or )[\"']?no[\"']?(?=\s*(?:[.?!:)\n]|\Z|only\b|respectively))"
)
_ONLY_YES_NO = regex(
    r"\b(?:only|just|strictly|nothing else|nothing but|one word|single word|one-word|no explanation|"
    r"without explanation|(?:answer|respond|reply|output)(?: with| in)?(?: a)?(?: simple)? [\"']?yes)\b"
)
_REASONS = regex(r"\b(?:explain|why|reasons?|reasoning|justify|justification|elaborate|because|details?|confidence)\b")
_BEGINS_YES_NO = regex(r"\W*(?:(?:the )?(?:final )?answer(?: is)?\W+)?(?:yes|no)\b", re.IGNORECASE)
_ENDS_YES_NO = regex(r"\b(?:yes|no)\W*\Z", re.IGNORECASE)


def _yes_or_no(words: str) -> list[Requirement]:
    if not _YES_NO.search(words):
        return []
    found = [Requirement("not_yes_or_no", _says_yes_or_no)]
    if _ONLY_YES_NO.search(words) and not _REASONS.search(words):
        found.append(Requirement("too_long", lambda text: len(text.split()) <= 3))
    return found


def _says_yes_or_no(text: str) -> bool:
    return bool(_BEGINS_YES_NO.match(text) or _ENDS_YES_NO.search(text[-40:]))


_UNIT_WORDS = (
    r"words?|sentences?|paragraphs?|pages?|lines?|characters?|letters?|syllables?|stanzas?|verses?|minutes?|hours?|"
    r"days?|weeks?|months?|years?|seconds?|percent|dollars?|digits?|bits?|bytes?|tokens?|times|chapters?|acts?"
)
_ITEMS = regex(
    r"(?:\A|[.!?:;\n]\s*|\b(?:please|you|then)\s+)"
    r"(?:(?:make|create|generate|write|give|provide|compile|prepare|produce)(?: me| us)? a "
    r"(?:numbered |bulleted |short )?list of|list(?: out)?|name|give(?: me| us)?|provide(?: me| us)?(?: with)?|"
    r"generate|suggest|tell me|come up with|brainstorm|recommend|propose|identify|think of|state|mention|"
    r"write(?: down)?|create|what are|show me|offer)\s+"
    r"(?:(?:exactly|just|only|the|top|a list of|your|me|my|a set of)\s+){0,3}"
    rf"(?P<n>{_NUMBER})\s+(?:(?:other|different|more|new)\s+)?(?!(?:{_UNIT_WORDS}|hundred|thousand|million)\b)"
    r"(?!(?:or|to|and|of|more|x)\b|[-–])(?=[a-z])"
)
_MATERIAL = regex(r"\b(?:following|questions?|sentences?|text|passage|article)\b[^\n]*\n")
_ALSO_ITEMS = regex(rf"[^.!?\n]*\b(?:each|every|per|respectively|(?:and|or|to|by|with) {_NUMBER})\b")
_SEQUENCE = regex(r"(?:^|(?<=[\s|(*#]))(\d{1,3})[.):](?=[\s*_]|$)", re.MULTILINE)
_ROW = regex(r"^\s*\|.*\|\s*$")
_MARKED = regex(r"[\s>(]*(?:[-*•+–#_|]+|\d{1,3}[.):])")
_BULLET = regex(r"([ \t]*)([-*•+–]|#{1,6}|\*\*)[ \t]*(?=\S)")


def _items(words: str) -> list[Requirement]:
    found = list(_ITEMS.finditer(words))
    if len(found) != 1 or _ALSO_ITEMS.match(words, found[0].end()) or len(_SEQUENCE.findall(words)) > 1:
        return []
    if _MATERIAL.search(words, 0, found[0].start()) or not 2 <= (number := _number(found[0]["n"])) <= 100:
        return []
    return [Requirement("items", partial(_has_items, number=number))]


def _has_items(text: str, number: int) -> bool:
    """Tell whether a text may be read as that many items; False only if it clearly shows another number."""
    if len(text) > _LONGEST or _REFUSAL.match(text):
        return True
    lines = [line for line in text.splitlines() if line.strip()]
    numbers = [int(found) for found in _SEQUENCE.findall(text)]
    # Each list begins at 1, and goes on by 1.
    lists = [0]
    for value in numbers:
        if value == lists[-1] + 1:
            lists[-1] = value
        elif value == 1:
            lists.append(1)
    bullets = Counter((len(found[1].expandtabs(4)), found[2]) for line in lines if (found := _BULLET.match(line)))
    rows = sum(bool(_ROW.match(line)) for line in lines)
    shown = {count for count in (*lists, *bullets.values()) if count >= 2}
    if not shown and not rows:
        return len(lines) > 2 or len(text.split()) > 30 or _fewest(text) <= number <= _most(text)
    readings = shown | {len(lists), sum(lists), max(numbers, default=0), bullets.total(), rows - 2, rows - 1}
    paragraphs = _BLANK_LINES.split(text.strip())
    # A list without marks has a line or a paragraph for each item, perhaps with words before and after it.
    for parts in (lines, paragraphs):
        unmarked = sum(not _MARKED.match(part) for part in parts)
        readings |= {unmarked, unmarked - 1, unmarked - 2}
    readings |= {len(part.splitlines()) for part in paragraphs if not _MARKED.match(part)}
    return number in readings


_SEPARATOR = regex(r"[,;/|&+:\n、，；・]|\b(?:and|or|und|et|y|e|o|ou|oder|with|then|while)\b|[.!?](?=\s)| [-–—] ")


def _most(text: str) -> int:
    """Return the largest number of items in a short text."""
    text = text.strip()
    # One word each, as in “red blue”, if there is no sentence.
    return max(len(_SEPARATOR.findall(text)) + 1, len(text.split()) if len(text.split()) <= 5 else 0)


def _fewest(text: str) -> int:
    """Return the smallest number of items in a short text: those of an enumeration of short parts."""
    named = re.split(r"\b(?:are|is|includes?|including|as|of)\s|:", text.strip(" \n.!"))[-1]
    parts = [part.split() for part in re.split(r",\s+", named)]
    return len(parts) if len(parts) > 2 and all(len(part) <= 3 for part in parts[1:]) else 1


_UNIT = r"(?P<unit>word|sentence|paragraph|character)(?P<plural>s?)"
_LENGTHS = regex(
    r"(?P<least>at least|(?:a )?minimum(?: of)?|min\.?|no fewer than|no less than|not less than|more than|over)?"
    r"(?P<most>no more than|not more than|at most|fewer than|less than|under|up to|(?:a )?maximum(?: of)?|max\.?|"
    r"no longer than|not longer than|(?:not |to )?exceed(?:ing)?|within)?"
    r"(?P<exactly>exactly|precisely)?(?P<about>about|around|approximately|roughly|approx\.?)?\s*"
    rf"\b(?P<n>{_NUMBER})(?:\s*(?:-|–|to|or)\s*(?P<m>{_NUMBER}))?[- ]{_UNIT}\b"
    r"(?P<or_less>,? (?:or less|or fewer|or under|max(?:imum)?|at most|tops|limit))?"
    r"(?P<or_more>,? (?:or more|minimum|at least))?"
)
# What the length is of: “in”, “write”, or “a 100-word” before it, a kind of text after it.
_IN = regex(
    r"\b(?:in|into|within|to|using|with|is|be|are|has|have|of|contain(?:s|ing)?|it)\s+(?:a |an |the |just |only )*\Z"
)
_IN_BOUNDS = regex(
    r"\b(?:in|within|into)\s+(?:just |only |exactly )?(?:(?:at most|no more than|under|less than|up to) )?[\w-]+[ -]"
    r"(?:words?|sentences?)\Z"
)
_WRITE = regex(
    r"\b(?:write|compose|generate|create|construct|give|provide|produce|make|use)(?: me| us)?\s+"
    r"(?:a |an |just |only )*\Z"
)
_KIND = regex(
    r"(?:\s+(?:short|long|brief|concise|creative|funny|detailed|persuasive|formal|informative|descriptive|simple))*\s+"
    r"(?:summary|summery|story|description|paragraph|response|answer|explanation|narrative|essay|article|poem|review|"
    r"report|letter|email|speech|definition|overview|introduction|biography|bio|dialogue|dialog|blog|post|tweet|pitch|"
    r"reply|abstract|analysis|synopsis|passage|text|note|message|statement|argument|opinion|haiku|plot|monologue)\b"
)
_IMPERATIVE = regex(
    r"(?:\A|[.,:(]\s*|\b(?:please|should|must)\s+)(?:write|compose|generate|create|summari[sz]e|describe|explain|give|"
    r"provide|be|have|answer|respond|reply|use|keep|limit|tell|make|rewrite|paraphrase|translate|define|express|"
    r"condense|shorten|state|name|craft|draft)\b"
)
# Words before or after a length that is not the answer's.
_OF_ANOTHER = regex(
    r"\b(?:each|every|per|titles?|headings?|both|these|those|following|given|original|first|last|there (?:is|are)|"
    r"the (?:two|three|four)|combine|merge|join|questions?|options?|between|list of)\b"
)
_TO_ANOTHER = regex(
    r"\s*(?::|that\b|(?:phrase|sentence|title|name|word|line|caption|slogan|headline)s?\b)|[^.!?\n]{0,60}\b(?:each|every|per)\b"
)
_ABOUT_A_TASK = regex(
    r"\b(?:in this task|definition of a task|you(?:'re| are| will be) given|example (?:in|out)put|structure|ooc)\b"
)
_SLACK = 1.1  # for words and characters: how they are counted differs, by hyphens, numbers and mark-up
_LOOSE = 1.5  # for “about”, and for words without a bound, as in “in 200 words”
_FEW_WORDS = 5  # that can be counted without slack


def _lengths(words: str) -> list[Requirement]:
    found = list(_LENGTHS.finditer(words))
    if len({one["unit"] for one in found}) != len(found) or len(words) > _ENDS:
        return []
    if _WRITES_CODE.search(words) or _ABOUT_A_TASK.search(words) or _ITEMS.search(words):
        return []
    return [requirement for one in found if _is_of_the_answer(words, one) for requirement in _length(one)]


def _is_of_the_answer(words: str, found: re.Match[str]) -> bool:
    """Tell whether a length is that of the whole answer."""
    before = words[: found.start()].rsplit("\n", 1)[-1].rstrip() + " "
    after = words[found.end() :]
    clause = re.split(r"[.!?;]", before)[-1]
    colon = after.lstrip().startswith(":") and _IN_BOUNDS.search(before + found[0]) and _IMPERATIVE.search(clause)
    if _OF_ANOTHER.search(clause) or (_TO_ANOTHER.match(after) and not colon):
        return False
    kind = bool(_KIND.match(after))
    if not (found["plural"] or kind or _number(found["n"]) == 1):
        return False
    bounded = any(found[name] for name in ("least", "most", "exactly", "or_less", "or_more"))
    return bool(kind or _IN.search(before) or _WRITE.search(before) or (bounded and _IMPERATIVE.search(clause)))


def _length(found: re.Match[str]) -> list[Requirement]:
    unit, low = found["unit"], _number(found["n"])
    high = _number(found["m"] or found["n"])
    least, most = found["least"] or found["or_more"], found["most"] or found["or_less"]
    if found["about"]:
        slack = _LOOSE
    elif unit in ("sentence", "paragraph") or (unit == "word" and high <= _FEW_WORDS):
        slack = 1.0
    else:
        slack = _SLACK if least or most or found["exactly"] or found["m"] else _LOOSE
    count, required = _COUNTS[unit], []
    if not least:
        required.append(Requirement("too_long", lambda text: count(text)[0] <= high * slack))
    if not most and unit != "character":
        required.append(
            Requirement("too_short", lambda text: count(text)[1] >= low / slack or bool(_REFUSAL.match(text)))
        )
    return required


_PREFACE = regex(r"\A[^\n]{1,200}:\s*\n")
_JOINED = regex(r"(?<=\w)['’.,-](?=\w)")
_FULL_STOP = regex(r"(?<![A-Z.])(?<=[^\W\d_]{3})[)\"”’]*[.!?][)\"”’*]*\s+(?=[\"“‘(*]*[A-ZÀ-Þ])|[。！？]")
_STOPS = ".!?…。！？;:\n"  # that may end a sentence
_ITEM = regex(r"\s*(?:\d+[.)]|[-*•])[ \t]")


def _word_counts(text: str) -> tuple[int, int]:
    start = text[:_LONGEST]
    body = _PREFACE.sub("", start.strip()) or start
    counts = [(len(_WORD.findall(_JOINED.sub("", part))), len(part.split())) for part in (body, start)]
    return min(counts[0]), max(*counts[1], len(text.split()))


def _sentence_counts(text: str) -> tuple[int, int]:
    paragraphs = [part.strip() for part in _PREFACE.sub("", text[:_LONGEST].strip()).split("\n\n")]
    return sum(len(_FULL_STOP.findall(part)) + bool(part) for part in paragraphs), sum(map(text.count, _STOPS)) + 1


def _paragraph_counts(text: str) -> tuple[int, int]:
    # A short block may be a heading, a greeting or a preface.
    blocks = _BLANK_LINES.split(text[:_LONGEST].strip())
    full = sum(len(block.split()) > 12 and not _ITEM.match(block) for block in blocks)
    return max(full - 1, 1), sum(bool(line.strip()) for line in text.splitlines())


_COUNTS: Mapping[str, Callable[[str], tuple[int, int]]] = {
    "word": _word_counts,
    "sentence": _sentence_counts,
    "paragraph": _paragraph_counts,
    "character": lambda text: (len(text.strip()), len(text)),
}
"""The least and the most that a text may be read as having, by unit."""

_SCRIPTS: Mapping[str, str] = {
    "chinese": r"[\u3400-\u9fff]", "mandarin": r"[\u3400-\u9fff]", "japanese": r"[\u3040-\u30ff]",
    "korean": r"[\uac00-\ud7af\u1100-\u11ff]", "russian": r"[\u0400-\u04ff]", "ukrainian": r"[\u0400-\u04ff]",
    "bulgarian": r"[\u0400-\u04ff]", "greek": r"[\u0370-\u03ff\u1f00-\u1fff]", "hebrew": r"[\u0590-\u05ff]",
    "arabic": r"[\u0600-\u06ff]", "persian": r"[\u0600-\u06ff]", "farsi": r"[\u0600-\u06ff]",
    "urdu": r"[\u0600-\u06ff]", "hindi": r"[\u0900-\u097f]", "marathi": r"[\u0900-\u097f]",
    "nepali": r"[\u0900-\u097f]", "bengali": r"[\u0980-\u09ff]", "punjabi": r"[\u0a00-\u0a7f\u0600-\u06ff]",
    "gujarati": r"[\u0a80-\u0aff]", "tamil": r"[\u0b80-\u0bff]", "telugu": r"[\u0c00-\u0c7f]",
    "kannada": r"[\u0c80-\u0cff]", "malayalam": r"[\u0d00-\u0d7f]",
    "thai": r"[\u0e00-\u0e7f]", "georgian": r"[\u10a0-\u10ff]", "armenian": r"[\u0530-\u058f]",
}  # fmt: skip
_STOP_WORDS: Mapping[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "english": "the of and to is that it for was with you this are be have not but from they which",
        "german": "der das und ist nicht ein eine ich zu mit sich auf für den dem des von sie wir es im auch wie bei",
        "french": "le les et est une des pour que dans je vous il du qui pas sur au avec ce nous la un en ne",
        "spanish": "el los que de y en es una por con para se las del la lo su un como más mi no al muy está",
        "italian": "il che di è per una non sono con della la le un del gli si in da ma ho mi come",
        "portuguese": "o os que de não uma para com é do da em um e por se as no na mais eu",
        "dutch": "het een en van niet ik dat op te zijn voor met de er aan je hij",
    }.items()
}
_OTHERS = "vietnamese turkish polish swedish norwegian danish finnish czech romanian hungarian indonesian latin tagalog"
_LANGUAGE = rf"(?P<language>{'|'.join([*_SCRIPTS, *_STOP_WORDS, *_OTHERS.split()])})"
_IN_LANGUAGE = regex(
    r"(?:\A|[.!?:;,\n]\s*|\b(?:please|you|then|and|must|should)\s+)(?:always |only )*"
    r"(?:translate\b[^.!?:\n]{0,100}?\s(?:in|to|into)|(?:answer|respond|reply|speak)\b[^.!?\n]{0,40}?\sin"
    r"|(?:write|compose)\s+(?!\"|it\b|this\b|down\b)[^.!?\n\"]{3,60}?\sin)\s+"
    rf"(?:only |the |simple |plain |fluent |modern |simplified |traditional |brazilian |formal )*{_LANGUAGE}\b"
    r"(?!\s*(?:cuisine|cooking|culture|class|history|literature|food|war|mythology|font|restaurant|parliament|characters|"
    r"and|or|[,/&]))"
)
_OTHER_SCRIPT = regex(r"\b(?:romani[sz]\w+|transliterat\w+|pinyin|romaji|latin (?:letters|alphabet|script)|font)\b")
_LETTER = regex(r"[^\W\d_]")
_LATIN_LETTER = regex(r"[A-Za-zÀ-ɏḀ-ỿ]")
_QUOTES = regex(r"[\"“”«»„*=`]")


def _language(words: str) -> list[Requirement]:
    found = {match["language"] for match in _IN_LANGUAGE.finditer(words)}
    if len(found) != 1 or _OTHER_SCRIPT.search(words) or _ABOUT_A_TASK.search(words) or _WRITES_CODE.search(words):
        return []
    (language,) = found
    return [Requirement("language", partial(_is_in, language=language))]


def _is_in(text: str, language: str) -> bool:
    """Tell whether a text may be in a language; False only if it surely is in another one."""
    if _REFUSAL.match(text):
        return True
    text = text[:_LONGEST]
    letters = len(_LETTER.findall(text))
    if script := _SCRIPTS.get(language):
        return letters < 3 or len(re.findall(script, text)) >= 2
    if letters and 10 * len(_LATIN_LETTER.findall(text)) < letters:
        return False
    words = Counter(_WORD.findall(text.lower()))
    counts = {name: sum(words[word] for word in stop) for name, stop in _STOP_WORDS.items()}
    if language == "english":
        return 3 * counts["english"] >= max(counts.values()) or max(counts.values()) < 4
    # An explanation in English may hold a short text in the language.
    own = counts.get(language, 0 if text.isascii() else words.total())
    return counts["english"] < 4 or 20 * own >= words.total() or bool(_QUOTES.search(text))


_WRITE_HAIKU = regex(
    r"\b(?:write|compose|create|generate|craft|make|give me|come up with)\b(?![^.!?\n]*\b(?:one|single)[- ]line)"
    r"[^.!?\n]{0,50}\bhaiku\b"
)


def _haiku(words: str) -> list[Requirement]:
    return [Requirement("not_haiku", _has_three_lines)] if _WRITE_HAIKU.search(words) else []


def _has_three_lines(text: str) -> bool:
    """Check whether a part of a text, or all of it, is three lines; a slash divides lines, too."""
    parts = [part for part in _BLANK_LINES.split(text[:_LONGEST].strip()) if part]
    return any(len([line for line in re.split(r"\n|/", part) if line.strip()]) == 3 for part in parts)


_RULES: Sequence[Callable[[str], list[Requirement]]] = (_json, _yes_or_no, _items, _lengths, _language, _haiku)
