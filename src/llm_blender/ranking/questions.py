"""Kinds of final answer that an instruction wants."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llm_blender.ranking.answers import normal_form, numbers_in, regex

_LONGEST_QUESTION = 4_000  # characters at the end of an instruction that are read
_SHORT_QUESTION = 200
STEM = 5
"""Number of letters of a word by which it is known in another form."""

_TURN = regex(r"(?:^|\n\s{0,9})(?:User|Human) ?: ?")
_NEXT_TURN = regex(r"\n\s{0,9}Assistant ?:")
_SENTENCE = regex(r"(?<=[.?!])\s+|\n+")
_OPTION = regex(
    r"(?:(?<![A-Z])([A-J])([.)])\s*|(?:^|(?<=[\s(]))([A-Ja-j])([.):])\)?\s+|^([A-J])\s+)(?=\S)", re.MULTILINE
)
_CHOOSING = regex(
    r"_{3}|\.{3}|…"
    r"|\b(?:which|choose|select|options?|choices?|correct|multiple[- ]choice|pick|best (?:answer|describes))\b",
    re.IGNORECASE,
)
_YES_OR_NO = regex(
    r"\b(?:yes\W+(?:or\W+)?no|ja\W+(?:oder\W+|of\W+)?ne(?:in|e)|oui\W+(?:ou\W+)?non|s[íìi]\W+(?:o\W+)?no|sim\W+(?:ou\W+)?não)\b",
    re.IGNORECASE,
)
_TRUE_OR_FALSE = regex(r"\btrue\b\W+(?:or\W+)?false\b", re.IGNORECASE)
_POLAR = regex(
    r"(?:is|are|was|were|does|do|did|has|have|had|can|could|will|would|should|must|may)\s"
    r"(?!(?:you|we|there (?:an?|any|some|ways?))\b)",
    re.IGNORECASE,
)
_QUANTITY = regex(
    r"\bhow (?:many|much|old|far|long|tall|fast|high|heavy|often)\b|\b(?:calculate|compute|evaluate)\b|"
    r"\bwie ?viele?\b|\bwie (?:alt|lang|weit|hoch|schwer)\b|\bcombien\b|\bcuánt[oa]s?\b|\bquant[eio]\b|"
    r"\bconvert \d|\bsolve\b[^.?!\n]{0,60}=|\bwhat is -?\d[^.?!\n]{0,30} in [a-z]+\?|"
    r"\b(?:what|find|determine)\b[^.?!\n]{0,30}\b(?:value|sum|numbers?|probability|chance|percent(?:age)?|total|average|"
    r"mean|median|area|volume|perimeter|remainder|product|cost|price|length|distance|"
    r"difference|ratio|root|speed|perimeter|angle)\b|"
    r"\b(?:what(?:'s| is| are)|how much (?:is|are)|calculate|compute|find) (?:the |a |one |two |three )?"
    r"(?:(?:half|thirds?|quarters?|fifths?|tenths?|\d/\d+|square|cube) of \$?\d|(?:twice|double|triple) \$?\d|"
    r"\d+ ?(?:!|factorial\b|mod(?:ulo)?\b))|"
    r"\b(?:lcm|gcd|gcf|hcf|(?:least|lowest|greatest|highest) common (?:multiple|factor|divisor|denominator))\b|"
    r"\bround (?:off )?-?\$?\d[\d.,]* to\b|\d[^.?!\n]{0,20} in (?:decimal|binary|hex(?:adecimal)?|base \d+)\b|"
    r"\b(?:find|solve for) [a-z]\b[^.?!\n]{0,60}=|\b(?:if|when) [a-z] ?= ?-?\d[^.?!\n]{0,60}\bwhat (?:is|are)\b|"
    r"\b(?:comes next|next (?:number|term))\b[^.?!\n]{0,40}\d, ?-?\d|\d, ?-?\d+[^\n]{0,20}\bwhat comes next|"
    r"\bnext (?:prime|even|odd|integer|multiple)\b[^.?!\n]{0,40}\d",
    re.IGNORECASE,
)
_EXTREME = regex(r"\b(?:what|find|determine)\b[^.?!\n]{0,30}\b(?:least|smallest|largest|greatest)\b", re.IGNORECASE)
_OPEN = regex(r"\b(?:i|my|me|you|your|should|explain|describe|why|formula)\b", re.IGNORECASE)
_REWRITING = regex(r"(?:please )?(?:translate|paraphrase|rewrite|rephrase|summari[sz]e|proofread)\b", re.IGNORECASE)
_SHARE = regex(r"\b(?:probability|chance|likelihood|fraction|ratio|decimal)s?\b", re.IGNORECASE)
_CODE = regex(
    r"```|[{};]\s*$|\b(?:code|script|regex|python|javascript|java|sql|html|api)\b"
    r"|\b(?:write|create|implement|define)\b[^.?!\n]{0,40}\b(?:function|program|class)\b",
    re.IGNORECASE | re.MULTILINE,
)
_FACT = regex(
    r"(?:(?:in|on|at|to|from|for|of|by|after) )?(?:who|whom|whose|which|where|when|what(?: is| was| were| are|'s) the|"
    r"what (?!is|was|are|were|do|does|did|can|could|should|would|will|to|if|about|kind|kinds|type|types)\w+"
    r"|(?:in )?welche[mnrs]?|wer|wen|wo|wann|was (?:ist|war) (?:der|die|das)|wie heißt"
    r"|(?:dans |en )?quel(?:le)?s?|qui|où|quand|(?:en )?qu[eé] año|quién|dónde|cuándo|cuál (?:es|fue)|chi|dove|quando|"
    r"qual è)\b",
    re.IGNORECASE,
)
_NAMED_FACT = regex(
    r"(?:(?:the|current|largest|first|official) )*"
    r"(?:capital|currency|author|inventor|founder|president|director|composer|language|population|symbol)(?: city)? "
    r"(?:of|for) [\w' -]{2,40}\W*",
    re.IGNORECASE,
)
_LEAD_IN = regex(
    r"^[¿¡\W]*(?:if [^?,]{3,80}, (?=(?:what|which|who|when|where)\b)|"
    r"(?:(?:please|(?:can|could|would) you(?: please)? (?:tell|give) me|tell me|do you know|name(?= the ))[, ]+)*)",
    re.IGNORECASE,
)
_ARITHMETIC = regex(
    r"(?:(?:what(?:'s| is| are| does)|how much (?:is|are)|calculate|compute|evaluate|simplify|work out|solve|find|"
    r"was (?:ist|sind|ergibt)|wie ?viel (?:ist|sind)|berechne|combien font|calcule|cuánto es|quanto fa)\b:?)?"
    r"(?: the (?:result|value|answer) of)?",
    re.IGNORECASE,
)
_OPERATORS = {
    "plus": "+", "minus": "-", "moins": "-", "menos": "-", "times": "*", "multiplied by": "*", "mal": "*", "fois": "*",
    "divided by": "/", "geteilt durch": "/", "over": "/", "percent of": "/100*", "% of": "/100*", "% von": "/100*",
    "to the power of": "^", "squared": "^2", "cubed": "^3",
}  # fmt: skip
_PARTS = {
    "half of": "1/2*", "half": "1/2*", "a third of": "1/3*", "one third of": "1/3*", "two thirds of": "2/3*",
    "a quarter of": "1/4*", "one quarter of": "1/4*", "three quarters of": "3/4*", "a fifth of": "1/5*",
    "a tenth of": "1/10*", "twice": "2*", "double": "2*", "triple": "3*",
}  # fmt: skip
_PART = regex("|".join(rf"\b{name} (?=\$?\d)" for name in _PARTS), re.IGNORECASE)
_TIMES = regex(r"(?<=[\d\s)])x(?=\s*[\d(])|(?:(?<=\d/\d)|(?<=\d/\d\d)) of (?=\$?\d)", re.IGNORECASE)
_OPERATOR = regex("|".join(rf"(?<=[\d\s)]){name}(?![a-z])" for name in _OPERATORS), re.IGNORECASE)
_IDIOM = regex(r"what(?:'s| is| does)\D*\d+(?:[/-]\d+)+\W*(?:mean\W*)?", re.IGNORECASE)  # 9/11, 24/7, 7-11, dates
_MAKER = regex(r"(?:by )?(?:who|wer|qui|quién|chi)\b", re.IGNORECASE)
_DATED = regex(
    r"(?:in )?(?:when|wann|quand|cuándo|quando|(?:what|which) (?:year|time|date)|at what time|welchem jahr)\b",
    re.IGNORECASE,
)
_LABELS = regex(
    r"(?:\b(?:classify|categori[sz]e|label|sentiment)\b[^.?!\n]{0,80}?|^(?:is|are|was|were)\s[^.?!\n]{0,80}?)\s"
    r"(?:as |an? )?((?:[a-z]+, ){0,6}[a-z]+),? or (?:an? )?([a-z]+)\s?(?=[?.:)]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_ALTERNATIVES = regex(
    r"^(?:which|who|what)\b[^?]*?[,:] (?:an? |the )?([^,?]{1,40}?),? or (?:an? |the )?([^,?]{1,40})\?$", re.IGNORECASE
)

_COMMA_LANGUAGE = regex(
    r"\b(?:wie ?viele?|wie (?:hoch|lang|weit|schwer)|berechne|was ist|sind|combien|calcule[rz]?|est|sont|cuánt[oa]s?|"
    r"cuál|quant[eio]|calcola|hoeveel|сколько)\b",
    re.IGNORECASE,
)
_DECIMAL_COMMA = regex(r"(?<![\d.,(\[])(\d{1,30}),(\d{1,2})(?![\d,])")

_OPINION = regex(
    r"\b(?:you|your|i|my|me|good|best|better|should|could|can|suggest|recommend|ideas?|some|examples?|ways?|steps?|tips?|"
    r"differences?|reasons?|benefits?|advantages?|list|names?|two|three|four|five|ten|meaning|purpose|ich|du|mein\w*|"
    r"dein\w*|beste\w*|gute\w*|sollte\w*|unterschied\w*|je|mon|tu|votre|meilleur\w*|mejor\w*|debo|tú)\b",
    re.IGNORECASE,
)
_BRIEF = regex(
    r"\b(?:(?:one|single|1) word|(?:only|just) (?:with )?(?:the|a|an|its|one) (?:\w+ )?(?:answer|name|word|number|"
    r"letter|label|category|value|result)|answer only|only answer|what (?:is|will be|would be|does)\b[^.?!\n]{0,60}"
    r"\b(?:output|print|return|evaluate))\b",
    re.IGNORECASE,
)


def sentences(text: str) -> list[str]:
    """Split a text into sentences and lines, without the empty ones."""
    return [part.strip() for part in _SENTENCE.split(text) if part.strip()]


@dataclass(frozen=True)
class Question:
    """A kind of answer that an instruction wants.

    Attributes:
        options: the choices in normal form, by letter, or by their own name if they are labels.
        polar: the two answers to a yes-or-no question.
        open_polar: whether it is a yes-or-no question that does not name these answers.
        number: whether it wants one number.
        numbers: the numbers in it, in normal form, if it wants one.
        fact: whether it wants one fact, or a word.
        rewriting: whether it wants a given text in other words, whatever that text answers.
        maker: whether this fact is who did something.
        dated: whether this fact is a date or a year.
        words: the first letters of its words, which an answer in a sentence repeats.
        share: whether it wants a probability or the like, and no percentage.
        dollars: whether it counts money in dollars, so that 5 cents are 0.05.
        comma: whether its language writes decimals with a comma.
        result: the result of a sum, in normal form, if the question is nothing but this sum.
    """

    options: dict[str, str]
    polar: tuple[str, str] | None
    open_polar: bool
    number: bool
    numbers: frozenset[str]
    fact: bool
    rewriting: bool
    maker: bool
    dated: bool
    words: frozenset[str]
    share: bool
    dollars: bool
    comma: bool
    result: str | None

    @classmethod
    def of(cls, instruction: str) -> Question:
        """Read the last turn of the user in an instruction."""
        text = _NEXT_TURN.split(_TURN.split(instruction[-_LONGEST_QUESTION:])[-1])[0].replace("’", "'").strip()
        parts = [_LEAD_IN.sub("", part) for part in sentences(text)]
        questions = [part for part in parts if part.endswith("?")]
        is_one, is_short = len(questions) <= 1, len(text) <= _SHORT_QUESTION
        labels = _labels(text) if is_one else {}
        open_polar = is_one and is_short and not labels and any(_POLAR.match(part) for part in questions)
        polar = None
        if _TRUE_OR_FALSE.search(text):
            polar = ("true", "false")
        elif open_polar or _YES_OR_NO.search(text):
            polar = ("yes", "no")
        clauses = questions or parts[:1]
        is_fact = (
            is_one
            and is_short
            and any(_FACT.match(part) or _NAMED_FACT.fullmatch(part) for part in clauses)
            and not any(_OPINION.search(part) for part in parts)
        )
        if is_fact and (alternatives := _ALTERNATIVES.match(clauses[0])):
            names = [normal_form(alternative) for alternative in alternatives.groups()]
            labels = labels or {name: name for name in names if name}
        if _COMMA_LANGUAGE.search(text):
            text = _DECIMAL_COMMA.sub(r"\1.\2", text)
        words = {word[:STEM] for word in re.findall(r"\w+", text.casefold())} if is_fact else set()
        numbers = frozenset(numbers_in(text))
        number = (
            is_one
            and bool(
                _QUANTITY.search(text) or (numbers and _EXTREME.search(text)) or (is_short and any(map(_result, parts)))
            )
            and bool(numbers or not _OPEN.search(text))
            and not _CODE.search(text)
        )
        return cls(
            options=_options(text) or labels,
            polar=polar,
            open_polar=open_polar and not _YES_OR_NO.search(text) and polar == ("yes", "no"),
            number=number,
            numbers=numbers if number else frozenset(),
            fact=is_fact or bool(_BRIEF.search(text)),
            rewriting=not number and any(map(_REWRITING.match, parts)),
            maker=is_fact and any(_MAKER.match(part) for part in clauses),
            dated=is_fact and any(_DATED.match(part) for part in clauses),
            words=frozenset(words) if "or" not in words else frozenset(),
            share=bool(_SHARE.search(text)) and "percent" not in text.casefold(),
            dollars=("$" in text or "dollar" in text) and "cent" not in text.casefold(),
            comma=bool(number and _COMMA_LANGUAGE.search(text)),
            result=_result(parts[0]) if len(parts) == 1 and not _IDIOM.fullmatch(parts[0]) else None,
        )

    def wants(self, line: str) -> bool:
        """Check whether it wants an answer as short as a line."""
        return self.fact or bool(self.options) or (self.number and bool(numbers_in(line) or normal_form(line)))


def _result(sentence: str) -> str | None:
    """Return the result of a sentence that is a sum to calculate, and nothing else; None if it is something else."""
    rest = sentence[_found_end(_ARITHMETIC, sentence) :].rstrip("=?!. ").removesuffix("equal").removesuffix("equals")
    rest = _TIMES.sub("*", _PART.sub(lambda found: _PARTS[found[0].lower().strip()], rest))
    plain = _OPERATOR.sub(lambda found: _OPERATORS[found[0].lower()], rest).strip()
    is_sum = plain and not re.search(r"[^\d\s.,+*/×÷·−^()$€%-]", plain)
    number = normal_form(plain.replace("-", " - ")) if is_sum else None
    if number and re.fullmatch(r"-?\d+(?:[./]\d+)?", number) and len(re.findall(r"\d+(?:[.,]\d+)*", plain)) > 1:
        return number
    return None


def _found_end(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.match(text)
    return found.end() if found else 0


def _labels(text: str) -> dict[str, str]:
    """Return the words that an instruction offers for a classification; empty if it has none."""
    found = _LABELS.search(text)
    if not found or (_POLAR.match(found[0]) and _OPINION.search(found[0])):
        return {}
    return {label: label for label in [*found[1].casefold().split(", "), found[2].casefold()] if label != "not"}


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
