"""Requirements on the form of an answer that a program reads in an instruction and checks with certainty.

Each requirement is a rule: a pattern that finds it in the instruction, and a check of a candidate. Where a wording may
mean something else, the pattern finds nothing; where a candidate may be read in several ways, one that satisfies the
requirement is enough.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pydantic_core import from_json

_WORD = re.compile(r"\w+")
_ITEM = re.compile(r"\s*(?:\d+[.)]|[-*•])[ \t]")
_ENDS = 700  # characters at either end of a long instruction: the text between them is material, not a requirement
_TURN = re.compile(r"(?:\A|\n)(User|Human|Assistant|System): ?")
_QUOTED = re.compile(r"```.*?(?:```|\Z)|\"[^\"\n]{0,300}\"|“[^”\n]{0,300}”|`[^`\n]{1,300}`", re.DOTALL)
_NUMBERS = {
    word: number
    for number, word in enumerate(
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty".split(),
        1,
    )
}
_NUMBERS |= {"a single": 1, "single": 1, "thirty": 30, "fifty": 50, "hundred": 100, "a": 1}
_NUMBER = rf"(?:\d{{1,2}},\d{{3}}|\d{{1,5}}|{'|'.join(sorted(_NUMBERS, key=len, reverse=True)[:-1])})"


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
    """Read the requirements in an instruction: its last turn of the user, and its turn of the system.

    Args:
        instruction: as one text; a conversation as `llm_blender.conversations.instruction_text` renders it.
    """
    words = _request(instruction)
    return [found for rule in _RULES for found in rule(words)]


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
    return re.sub(r"[ \t]+", " ", _QUOTED.sub('""', instruction).lower().replace("’", "'"))


def _number(word: str) -> int:
    return _NUMBERS.get(word) or int(word.replace(",", ""))


# An instruction to write code, or another instruction, has the requirement in what is to be written.
_WRITES_CODE = re.compile(
    r"\b(?:code|script|function|program|class|method|python|javascript|typescript|java|c#|c\+\+|php|ruby|golang|rust|"
    r"prompts?|api|endpoint|command|regex|query|app|passwords?|usernames?|list of)\b"
)

_NAMED_JSON = (
    r"(?:(?:a|an|the|this|one|in|with|as|return|output|valid|raw|plain|pure|single|strict|minified)\s+){0,4}json\b"
)
_ONLY_JSON = re.compile(
    rf"\b(?:only|just|nothing but|solely|exclusively|nothing else than|nothing other than)\s+{_NAMED_JSON}"
    r"|\bjson(?: (?:object|array|string|format|output|response|data))?,? (?:only\b|alone\b|and nothing else"
    r"|(?:with no|with nothing|without|without any) (?:any |other |additional |further |extra )*"
    r"(?:explanations?|comments?|text|prose|words|commentary))"
    r"|\bjson(?: (?:object|array|format))?[.,;:] (?:and )?(?:nothing else|no (?:other |additional |extra |further )?"
    r"(?:explanations?|prose|text|comments?|words)|(?:do not|don't) (?:add|include|write|explain))"
)
_AS_JSON = re.compile(
    r"(?:\A|[.!?:;,\n]\s*|\b(?:please|then|and|must|should)\s+)(?:be )?(?:answer|respond|reply|return|output|formatted|"
    r"format|give|express|present|print|convert|encode|represent)\s(?:[^.!?\n]{0,60}\s)?(?:in|as|into|to|with|using)\s+"
    r"(?:a |an |valid |the )*json\b(?! (?:file|files|database|schema|parser|web|api))"
)
_BLOCK = re.compile(r"^[ \t]*(?:```|~~~)[^\n`{\[]*\n?(.*?)(?:^[ \t]*(?:```|~~~)|\Z)", re.DOTALL | re.MULTILINE)


def _json(words: str) -> list[Requirement]:
    if "json" not in words or _WRITES_CODE.search(words):
        return []
    if _ONLY_JSON.search(words):
        return [Requirement("not_json", _is_json)]
    return [Requirement("not_json", _has_json)] if _AS_JSON.search(words) else []


def _reads(text: str) -> bool:
    try:
        return isinstance(from_json(text), dict | list)
    except ValueError:
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


_YES_NO = re.compile(
    r"(?:\b(?:answer|respond|reply|output|say|state|indicate|return|write|answers)\b[^.!?\n]{0,40}?[\s:,(]"
    r"|[.?!,;\n(]\s*|(?:please|just|only|simply|strictly)[,:]?\s+)"
    r"[\"']?yes[\"']?(?:\s*/\s*|,? or )[\"']?no[\"']?(?=\s*(?:[.?!)\n]|\Z|only\b|respectively))"
)
_ONLY_YES_NO = re.compile(
    r"\b(?:only|just|strictly|nothing else|nothing but|one word|single word|one-word|no explanation|without explanation|"
    r"(?:answer|respond|reply|output)(?: with| in)?(?: a)?(?: simple)? [\"']?yes)\b"
)
_REASONS = re.compile(
    r"\b(?:explain|why|reasons?|reasoning|justify|justification|elaborate|because|details?|confidence)\b"
)
_BEGINS_YES_NO = re.compile(r"\W*(?:(?:the )?(?:final )?answer(?: is)?\W+)?(?:yes|no)\b", re.IGNORECASE)
_ENDS_YES_NO = re.compile(r"\b(?:yes|no)\W*\Z", re.IGNORECASE)


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
_ITEMS = re.compile(
    r"(?:\A|[.!?:;\n]\s*|\b(?:please|you|then)\s+)"
    r"(?:(?:make|create|generate|write|give|provide|compile|prepare|produce)(?: me| us)? a (?:numbered |bulleted |short )?"
    r"list of|list(?: out)?|name|give(?: me| us)?|provide(?: me| us)?(?: with)?|generate|suggest|tell me|come up with|"
    r"brainstorm|recommend|propose|identify|think of|state|mention|write(?: down)?|create|what are|show me|offer)\s+"
    r"(?:(?:exactly|just|only|the|top|a list of|your|me|my|a set of)\s+){0,3}"
    rf"(?P<n>{_NUMBER})\s+(?:(?:other|different|more|new)\s+)?(?!(?:{_UNIT_WORDS}|hundred|thousand|million)\b)"
    r"(?!(?:or|to|and|of|more|x)\b|[-–])(?=[a-z])"
)
_MATERIAL = re.compile(r"\b(?:following|questions?|sentences?|text|passage|article)\b[^\n]*\n")
_ALSO_ITEMS = re.compile(rf"[^.!?\n]*\b(?:each|every|per|respectively|(?:and|or|to|by|with) {_NUMBER})\b")
_REFUSAL = re.compile(
    r"\W*(?:(?:i['’]m|i am) (?:(?:very |so )?sorry|unable|not (?:able|comfortable))|sorry|i (?:can(?:['’]?t|not)|won['’]?t|"
    r"will not|do not|don['’]t|apologi[sz]e)|as an ai|unfortunately)\b",
    re.IGNORECASE,
)
_SEQUENCE = re.compile(r"(?:^|(?<=[\s|(*#]))(\d{1,3})[.):](?=[\s*_]|$)", re.MULTILINE)
_ROW = re.compile(r"^\s*\|.*\|\s*$")
_BULLET = re.compile(r"([ \t]*)([-*•+–]|#{1,6}|\*\*)[ \t]*(?=\S)")


def _items(words: str) -> list[Requirement]:
    found = list(_ITEMS.finditer(words))
    if len(found) != 1 or _ALSO_ITEMS.match(words, found[0].end()) or len(_SEQUENCE.findall(words)) > 1:
        return []
    if _MATERIAL.search(words, 0, found[0].start()) or not 2 <= (number := _number(found[0]["n"])) <= 100:
        return []
    return [Requirement("items", partial(_has_items, number=number))]


def _has_items(text: str, number: int) -> bool:
    """Tell whether a text may be read as that many items; False only if it clearly shows another number."""
    if _REFUSAL.match(text):
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
    paragraphs = re.split(r"\n\s*\n", text.strip())
    readings = shown | {len(lists), sum(lists), max(numbers, default=0), bullets.total(), rows - 2, rows - 1}
    readings |= {count - extra for count in (len(lines), len(paragraphs)) for extra in range(3)}
    readings |= {len(paragraph.splitlines()) for paragraph in paragraphs}
    return number in readings


_SEPARATOR = re.compile(r"[,;/|&+:\n、，；・]|\b(?:and|or|und|et|y|e|o|ou|oder|with|then|while)\b|[.!?](?=\s)| [-–—] ")


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


_FORMS = (
    r"(?:\s+(?:short|long|brief|concise|creative|funny|detailed|persuasive|formal|informative|descriptive|simple))*\s+"
    r"(?:summary|summery|story|description|paragraph|response|answer|explanation|narrative|essay|article|poem|review|"
    r"report|letter|email|speech|definition|overview|introduction|biography|bio|dialogue|dialog|blog|post|tweet|pitch|"
    r"reply|abstract|analysis|synopsis|passage|text|note|message|statement|argument|opinion|haiku|plot|monologue)"
)
_UNIT = r"(?P<unit>word|sentence|paragraph|character)(?P<unit_end>s?)"
_VERB = r"(?:write|compose|generate|create|construct|give|provide|produce|make|use)(?: me| us)?"
_LENGTHS = re.compile(
    r"(?P<least>at least|(?:a )?minimum(?: of)?|min\.?|no fewer than|no less than|not less than|more than|over)?"
    r"(?P<most>no more than|not more than|at most|fewer than|less than|under|up to|(?:a )?maximum(?: of)?|max\.?|"
    r"no longer than|not longer than|(?:not |to )?exceed(?:ing)?|within)?"
    r"(?P<exactly>exactly|precisely)?(?P<about>about|around|approximately|roughly|approx\.?)?\s*"
    rf"\b(?P<n>{_NUMBER})(?:\s*(?:-|–|to|or)\s*(?P<m>{_NUMBER}))?(?P<hyphen>[- ]){_UNIT}\b"
    r"(?P<or_less>,? (?:or less|or fewer|or under|max(?:imum)?|at most|tops|limit))?(?P<or_more>,? (?:or more|minimum|at least))?"
)
_IN = re.compile(
    r"\b(?:in|into|within|to|using|with|is|be|are|has|have|of|contain(?:s|ing)?|keep it|it)\s+(?:a |an |the |just |only )*\Z"
)
_WRITE = re.compile(rf"\b{_VERB}\s+(?:a |an |just |only )*\Z")
_NOT_THE_ANSWER = re.compile(
    r"\b(?:each|every|per|titles?|headings?|both|these|those|following|given|original|first|last|there (?:is|are)|"
    r"the (?:two|three|four)|combine|merge|join|questions?|options?|between)\b"
)
_SLACK = 1.1  # how words are counted differs: by hyphens, numbers, mark-up


def _lengths(words: str) -> list[Requirement]:
    found = list(_LENGTHS.finditer(words))
    if len({one["unit"] for one in found}) != len(found):
        return []
    return [one for match in found for one in _length(words, match)]


def _length(words: str, found: re.Match[str]) -> list[Requirement]:
    before = words[: found.start()].rsplit("\n", 1)[-1].rstrip() + " "
    clause = re.split(r"[.!?;]", before)[-1]
    after = words[found.end() :]
    unit, low = found["unit"], _number(found["n"])
    high = _number(found["m"]) if found["m"] else low
    form = bool(re.match(_FORMS + r"\b", after))
    bounded = any(found[name] for name in ("least", "most", "exactly", "or_less", "or_more"))
    if _NOT_THE_ANSWER.search(clause) or _WRITES_CODE.search(words):
        return []
    if not (_IN.search(before) or _WRITE.search(before) or form or (bounded and _IMPERATIVE.search(clause))):
        return []
    if _OTHER_THING.match(after) or (low > 1 and not form and found["unit_end"] == ""):
        return []
    if len(words) > _ENDS or _ABOUT_EACH.match(after) or _ABOUT_A_TASK.search(words) or _ITEMS.search(words):
        return []
    least = bool(found["least"] or found["or_more"])
    most = bool(found["most"] or found["or_less"])
    loose = 1.5 if found["about"] or not (bounded or found["m"]) else _SLACK
    if unit in ("sentence", "paragraph"):
        loose = 1.5 if found["about"] else 1.0
    elif unit == "word" and high <= 5:
        loose = 1.0
    count = _COUNTS[unit]
    rules = []
    if not least:
        rules.append(Requirement("too_long", lambda text: count(text)[0] <= high * loose))
    if not most and unit != "character":
        rules.append(Requirement("too_short", lambda text: not text.strip() or count(text)[1] >= low / loose))
    return rules


_OTHER_THING = re.compile(r"\s*(?::|that\b|(?:phrase|sentence|title|name|word|line|caption|slogan|headline)s?\b)")
_ABOUT_EACH = re.compile(r"[^.!?\n]{0,60}\b(?:each|every|per)\b")
_ABOUT_A_TASK = re.compile(
    r"\b(?:in this task|definition of a task|you(?:'re| are| will be) given|example (?:in|out)put|structure|ooc)\b"
)
_IMPERATIVE = re.compile(
    r"(?:\A|[.,:(]\s*|\bplease\s+|\bshould\s+|\bmust\s+)(?:write|compose|generate|create|summari[sz]e|describe|explain|give|provide|be|have|answer|"
    r"respond|reply|use|keep|limit|tell|make|rewrite|paraphrase|translate|define|express|condense|shorten|state|name|craft|draft)\b"
)


def _word_counts(text: str) -> tuple[int, int]:
    body = _PREFACE.sub("", text.strip()) or text
    return _words(body)[0], _words(text)[1]


def _words(text: str) -> tuple[int, int]:
    count = len(_WORD.findall(re.sub(r"(?<=\w)['’.,-](?=\w)", "", text)))
    return min(count, len(text.split())), max(count, len(text.split()))


_PREFACE = re.compile(r"\A[^\n]{1,200}:\s*\n")
_FULL_STOP = re.compile(r"(?<![A-Z.])(?<=[^\W\d_]{3})[)\"”’]*[.!?][)\"”’*]*\s+(?=[\"“‘(*]*[A-ZÀ-Þ])|[。！？]")
_ANY_STOP = re.compile(r"[.!?…。！？;:]|\n\s*\S")


def _sentence_counts(text: str) -> tuple[int, int]:
    text = _PREFACE.sub("", text.strip())
    fewest = sum(len(_FULL_STOP.findall(line.strip())) + bool(line.strip()) for line in text.split("\n\n"))
    return fewest, len(_ANY_STOP.findall(text)) + 1


def _paragraph_counts(text: str) -> tuple[int, int]:
    lines = text.strip().splitlines()
    blocks = re.split(r"\n\s*\n", text.strip())
    full = [block for block in blocks if len(block.split()) > 12 and not _ITEM.match(block)]
    return len(full) - bool(len(full) > 1), sum(bool(line.strip()) for line in lines)


_COUNTS: Mapping[str, Callable[[str], tuple[int, int]]] = {
    "word": _word_counts,
    "sentence": _sentence_counts,
    "paragraph": _paragraph_counts,
    "character": lambda text: (len(text.strip()), len(text)),
}
"""The least and the most that a text may be read as having, by unit."""

# Share of the letters of each script in texts of its languages.
_SCRIPTS: Mapping[str, str] = {
    "chinese": r"[\u3400-\u9fff]", "mandarin": r"[\u3400-\u9fff]", "japanese": r"[\u3040-\u30ff]",
    "korean": r"[\uac00-\ud7af\u1100-\u11ff]", "russian": r"[\u0400-\u04ff]", "ukrainian": r"[\u0400-\u04ff]",
    "bulgarian": r"[\u0400-\u04ff]", "greek": r"[\u0370-\u03ff\u1f00-\u1fff]", "hebrew": r"[\u0590-\u05ff]",
    "arabic": r"[\u0600-\u06ff]", "persian": r"[\u0600-\u06ff]", "farsi": r"[\u0600-\u06ff]", "urdu": r"[\u0600-\u06ff]",
    "hindi": r"[\u0900-\u097f]", "marathi": r"[\u0900-\u097f]", "nepali": r"[\u0900-\u097f]",
    "bengali": r"[\u0980-\u09ff]", "punjabi": r"[\u0a00-\u0a7f\u0600-\u06ff]", "gujarati": r"[\u0a80-\u0aff]", "tamil": r"[\u0b80-\u0bff]",
    "telugu": r"[\u0c00-\u0c7f]", "kannada": r"[\u0c80-\u0cff]", "malayalam": r"[\u0d00-\u0d7f]",
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
_LATIN = (
    "vietnamese|turkish|polish|swedish|norwegian|danish|finnish|czech|romanian|hungarian|indonesian|latin|tagalog|malay"
)
_LANGUAGE = rf"(?P<language>{'|'.join([*_SCRIPTS, *_STOP_WORDS, *_LATIN.split('|')])})"
_IN_LANGUAGE = re.compile(
    r"(?:\A|[.!?:;,\n]\s*|\b(?:please|you|then|and|must|should)\s+)(?:always |only )*"
    r"(?:translate\b[^.!?:\n]{0,100}?\s(?:in|to|into)|(?:answer|respond|reply|speak)\b[^.!?\n]{0,40}?\sin"
    r"|(?:write|compose)\s+(?!\"|it\b|this\b|down\b)[^.!?\n\"]{3,60}?\sin)\s+"
    rf"(?:only |the |simple |plain |fluent |modern |simplified |traditional |brazilian |formal )*{_LANGUAGE}\b"
    r"(?!\s*(?:cuisine|culture|class|history|literature|food|war|mythology|font|restaurant|parliament|characters|and|or|[,/&]))"
)
_OTHER_SCRIPT = re.compile(
    r"\b(?:romani[sz]\w+|transliterat\w+|pinyin|romaji|latin (?:letters|alphabet|script)|font)\b"
)
_LETTER = re.compile(r"[^\W\d_]")


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


_LATIN_LETTER = re.compile(r"[A-Za-zÀ-ɏḀ-ỿ]")
_QUOTES = re.compile(r"[\"“”«»„*=`]")
_LONGEST = 20_000

_CASES = re.compile(
    r"\b(?:(?P<lower>(?:in|use|using) (?:all |only )*lower ?-?case(?: letters)?|no capital letters)"
    r"|(?P<upper>in (?:all |only )*(?:caps|capitals|capital letters|upper ?-?case(?: letters)?)))\b"
)
_WHOLE_ANSWER = re.compile(r"\b(?:your|whole|entire|full|answer|respond|reply|response|everything)\b")
_NO_COMMAS = re.compile(
    r"\b(?:no commas|without (?:using )?(?:any )?commas|(?:do not|don't|avoid|refrain from) (?:use|using|include|including) (?:any )?commas|not contain (?:any )?commas)\b"
)


def _letters(words: str) -> list[Requirement]:
    rules = []
    if _NO_COMMAS.search(words) and not _WRITES_CODE.search(words):
        rules.append(Requirement("commas", lambda text: "," not in text and "，" not in text))
    found = _CASES.search(words)
    clause = re.split(r"[.!?\n]", words[: found.start()])[-1] if found else ""
    if found and _WHOLE_ANSWER.search(clause) and not _WRITES_CODE.search(words):
        lower = bool(found["lower"])
        rules.append(Requirement("letter_case", lambda text: text == (text.lower() if lower else text.upper())))
    return rules


_RULES: Sequence[Callable[[str], list[Requirement]]] = (_json, _yes_or_no, _items, _lengths, _language, _letters)
