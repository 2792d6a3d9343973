"""Normal form of final answers: answers that mean the same become equal texts.

Numbers lose separators, currency and unit, and fractions, decimals, LaTeX and closed expressions become one number;
words lose case, articles and final punctuation; JSON has sorted keys.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from fractions import Fraction
from typing import Any, cast


class _Regex:
    def __init__(self, pattern: str, flags: int) -> None:
        self._arguments = pattern, flags

    def __getattr__(self, name: str) -> Any:
        compiled = re.compile(*self._arguments)
        for method in ("search", "match", "fullmatch", "split", "findall", "finditer", "sub"):
            setattr(self, method, getattr(compiled, method))
        return getattr(compiled, name)


def regex(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """Return a regular expression that is compiled when it is first used.

    A text needs few of those in these modules, and compiling all of them takes half as long as importing numpy.
    """
    return cast("re.Pattern[str]", _Regex(pattern, flags))


_LONGEST = 200  # characters of a final answer
_LONGEST_JSON = 20_000
_LONGEST_PYTHON = 2_000
_LONGEST_LIST = 20  # numbers
_FEW_WORDS = 6  # a longer answer in words is an explanation
_DIGITS = 10  # significant digits of numbers that are no fractions
_LARGEST = 10**40
_MOST_STEPS = 6  # until a normal form is its own
_DEEPEST = 20  # nested parentheses

_ONES = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SCALES = {
    "dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "mio": 10**6, "mrd": 10**9, "bn": 10**9, "tausend": 10**3, "millionen": 10**6, "millions": 10**6, "millones": 10**6,
    "milioni": 10**6, "milhões": 10**6, "milliarden": 10**9, "milliards": 10**9,
}  # fmt: skip
_MYRIADS = {"万": 10**4, "萬": 10**4, "만": 10**4, "亿": 10**8, "億": 10**8, "억": 10**8}
_SPELLED = {word: value for value, word in enumerate(_ONES.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), 2)
}

_UNITS, _TEENS = "|".join(_ONES.split()[1:10]), "|".join(_ONES.split()[10:])
_BELOW_100 = rf"(?:(?:{'|'.join(_TENS.split())})(?:[- ](?:{_UNITS}))?|{_TEENS}|{_UNITS})"
_LARGE = "(?:dozen|hundred|thousand|million|billion|trillion)"
_COUNT = regex(  # "one" has other senses
    rf"(?<![\w-])(?!one\b(?! {_LARGE}))(?:{_BELOW_100})(?:(?: {_LARGE})+(?:,?(?: and)? {_BELOW_100})?)*\b(?!-)",
    re.IGNORECASE,
)
_SCALED = regex(rf"(.*\d)(?: ({'|'.join(_SCALES)})\b|(k)\b)(.*)")
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4} | {
    ordinal + plural: value for value, ordinal in enumerate(_ORDINALS[2:], 3) for plural in ("", "s")
}
_PART = rf"(?:{'|'.join(sorted(_PARTS, key=len, reverse=True))})"
_FEW = rf"(?:{'|'.join(list(_SPELLED)[1:13])})"
_SPELLED_FRACTION = regex(
    rf"\b(?:(?P<whole>{_FEW}|\d{{1,3}}) and (?:an? |(?=half)|(?P<of>{_FEW})[ -])|(?P<number>{_FEW})[ -])"
    rf"(?P<part>{_PART})\b",
    re.IGNORECASE,
)
_ONE_PART = regex(rf"^(?:an? )?(?P<part>half)$|^an? (?P<other>{_PART})(?= of |$)", re.IGNORECASE)

_SYMBOLS = {
    "−": "-", "–": "-", "⁄": "/", "÷": "/", "×": "*", "·": "*", "⋅": "*", "∙": "*", "º": "°",
    "\\cdot": "*", "\\times": "*", "\\div": "/", "\\pi": "π", "\\infty": "∞", "\\leq": "≤", "\\le": "≤", "\\geq": "≥",
    "\\ge": "≥", "\\neq": "≠", "\\ne": "≠", "\\pm": "±", "\\cup": "∪", "\\cap": "∩", "\\in": "∈", "\\approx": "≈",
    "\\circ": "°", "\\degree": "°", "\\sqrt": "√", "\\lbrace": "\\{", "\\rbrace": "\\}", "\\Rightarrow": "=",
    "\\implies": "=", "\\gt": ">", "\\lt": "<", ">=": "≥", "<=": "≤", "⩾": "≥", "⩽": "≤", "\\geqslant": "≥",
    "\\leqslant": "≤", "\\emptyset": "∅", "\\varnothing": "∅",
}  # fmt: skip
_SYMBOL = regex(
    "|".join(
        re.escape(symbol) + ("(?![A-Za-z])" if symbol[0] == "\\" else "")
        for symbol in sorted(_SYMBOLS, key=len, reverse=True)
    )
)
_RAISED = regex(r"[⁺⁻]?[⁰¹²³⁴-⁹]+")
_UNICODE_FRACTION = regex(r"[¼-¾⅐-⅞]")
_REPEATING = regex(r"(\d{0,9})\.(\d{0,9})\\overline\s*\{(\d{1,9})\}")
_SPACING = regex(r"\\(?:left|right|big|Big|displaystyle|quad|qquad|limits)(?![A-Za-z])|\\[,;:!> ()\[\]]|~")
_WORDS_IN_LATEX = regex(r"\\(?:text\w{0,3}|mathrm|mathbf|mathbb|mbox|operatorname|emph)\s*\{([^{}]*)\}")
_FRACTION = regex(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\w))\s*(?:\{([^{}]*)\}|(\w))")
_ROOT = regex(r"√\s*(?:\[(\d)\])?\s*(?:\{([^{}]*)\}|(\d+|\w))")
_SCRIPT = regex(r"([\^_])\((\w+)\)")
_DEGREES = regex(r" ?\bdeg(?:\.|rees?)? ?(?=[cf]\b)", re.IGNORECASE)
_INFINITY = regex(r"(?:(?<=[(\[,; -])|^)\+?(?:∞|inf(?:inity)?\b)(?=\s*(?:[)\]\[,;]|$))")
_UNION = regex(r"(?<=[)\]\[]) ?[u∪] ?(?=[(\[\]])")
_OPEN_INTERVAL = regex(r"(?:(?<=^)|(?<=∪))\](-?[\w.√/∞]+), ?(-?[\w.√/∞]+)\[(?=∪|$)")
_DEGREE = regex(r"\^\s*(?:\(\s*°\s*\)|\{\s*°\s*\}|°)")

_GROUPED = regex(
    r"(?<![\d.,])(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d{1,3}(?:\.\d{3}){2,4}(?![\d.,])"
    r"|\d{1,3}(?:[ '’\u00a0\u202f]\d{3})+(?!\d)"
    r"|\d{1,2}(?=(?:,\d\d)*,0\d)(?:,\d\d)+,\d{3}(?![\d,]))"  # 1,00,000
)
_COMMA_DECIMAL = regex(
    r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+|\d{1,3}(?: \d{3})+),(\d{1,2})(?![\d,])"
    r"|(?<![\d.,])(\d+),(\d{1,2})(?=\s*(?:[%€$£°]|[^\W\d]))|(?<![\d.,(\[])(0),(\d{1,9})(?![\d,])"
)
_IN_MYRIADS = regex(r"(?<![\w.])(\d{1,9}(?:\.\d{1,9})?) ?([万萬만亿億억])(?![\d千百十万萬亿億만억])")
_TOKEN = regex(r"\s*(\d+(?:\.\d+)?(?:e[+-]?\d{1,2}(?![\w.]))?|\.\d+|\^|[-+*/()√π]|sqrt|pi)")
_LABEL = regex(r"^(?:[a-z]\w?(?:_\w+)?(?:\([\w,]+\))?|[^\W\d_]{3,}(?: [^\W\d_]+){0,5})$")
_WORD = regex(r"[^\W\d_]{3,}")
_REMARK = regex(r"(?<=\S) \([^()]*[^\W\d_]{2}[^()]*\)$")
_FEW_LETTERS = "cm|mm|km|kg|mg|ml|lbs?|oz|ft|mi|hrs?|mins?|secs?|mph|kmh|am|pm|st|nd|rd|th|usd|eur"
_QUOTIENT = regex(r" ?\(+ ?([ck]?m|mi|[km]?g|mol|m?l) ?\)/\( ?(h|min|s|m?l|k?g|m|mol) ?(\^[23])?\)+$")
_UNIT = regex(
    rf"^([-+]?)\s*(?:(?:us|ca|au?|hk)?[$€£¥₹]|usd|eur|gbp|jpy|inr|cny|rmb|chf|cad|aud|rs\.?)?\s*([-+(]?[\d.][^a-z%°€£¥₹$]*?(?:(?<=\d)e[+-]?\d{{1,2}})?)\s*[$€£¥₹¢]?"
    rf"(?:°\s*[cf]?|({_FEW_LETTERS})\b|(?<=\d)[mgshl]\b|(?<=[\s)])\s*((?:[/-]?\s*\(?[^\W\d_]{{2,}}\)?[.,]?\s*){{1,5}}|[mgshlcf])"
    rf"|(?![千百十万萬億亿兆천백십만억조])[\u3040-\u9fff\uac00-\ud7af]{{1,6}})?"
    r"(?:\^\s?[23])?(?:[ *]?[mhs] ?\^\(?-[123]\)?)?(?:\s*(?:/|per)\s*[^\W\d_]+(?:\^[23])?)?$"
)
_CLAIM = regex(r"\b(?:is|are|was|were|be|has|have|had|equals?|gives?|makes?|needs?|costs?|it|there|total)\b|[=$€£]")
IMAGINARY = regex(r"(?:[1-9]|\d\d) ?i\b(?! \w)")
"""An imaginary part, whose real part is not the number of a text."""
_DENIAL = regex(r"\b(?:not|cannot)\b|n['’]t\b")
_NUMBER = regex(
    r"(?<![^\W\u3040-\u30ff\u4e00-\u9fff])(?<!\.)(-?(?:\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,2})?|\.\d{1,30}))(?:/(\d{1,30}(?:\.\d{1,30})?))?"
    r"(?!\^|\.\d|[千百十万萬亿億]|[^\W\u3040-\u30ff\u4e00-\u9fff])"
)
_LEAD = regex(
    r"^(?:(?:the|an?|approximately|about|around|exactly|roughly|only|just|option|choice|letter|circa|ca\.)\s+(?=[\w$(])|(?:=>|[≈~+=→⇒∴])\s*)+"
)
_FORMULA = regex(r"[\^=+*/(){}\[\]√π∞∪∅|<>≤≥±]|\d[a-z]|\w_\w")
_LABELLED = regex(r"^[a-z]\w?(?:\([a-z]\))?=(?=[^=]+$)")
_TIMES = regex(r"(?<=\d)\*(?=[a-z(√π])")
_NEEDLESS = regex(
    r"(?<![\w^)])\((\w+(?:\^\w+)?)\)(?![\w^(])|(?:(?<=^)|(?<=[+=]))\((\w[\w^*/]*)\)(?=[-+=]|$)"
    r"|^\(((?:[^(),]|\([^(),]*\))*)\)$"
)
_PHRASE = regex(r"(?=.*[^\W_])[\w\s'’.,&/:;$€£¥₹%°+-]+")
_FUNCTIONS = "sin cos tan cot sec csc log ln exp arcsin arccos arctan theta alpha beta gamma omega lambda"
_NAMES = frozenset(_FUNCTIONS.split())
_TIME = regex(r"(\d{1,2})[:h](\d\d)(?::00)?(?: ?(?:([ap])\.?m\.?|uhr|h))?|(\d{1,2})\.(\d\d) uhr")
_MONTHS = (
    "jan january januar januari janvier enero gennaio janeiro",
    "feb february februar februari février febrero febbraio fevereiro",
    "mar march märz maart mars marzo março",
    "apr april avril abril aprile",
    "may mai mei mayo maggio maio",
    "jun june juni juin junio giugno junho",
    "jul july juli juillet julio luglio julho",
    "aug august augustus août agosto",
    "sep sept september septembre septiembre settembre setembro",
    "oct october oktober octobre octubre ottobre outubro",
    "nov november novembre noviembre novembro",
    "dec december dezember décembre diciembre dicembre dezembro",
)
_MONTH_NUMBERS = {name: number for number, names in enumerate(_MONTHS, 1) for name in names.split()}
_YEAR = regex(r"\d{4}")
_NAMES_OF_MONTHS = f"(?:{'|'.join(sorted(_MONTH_NUMBERS, key=len, reverse=True))})"
_OF_MONTH = r"\d{1,2}(?:st|nd|rd|th|er|º|\.)?"
_MONTH = f"(?P<month>{_NAMES_OF_MONTHS})"
_DAY, _IN_YEAR = r"(?P<day>\d{1,2})(?:st|nd|rd|th|er|º|\.)?", r"(?P<year>\d{4})"
_WEEKDAY = r"(?:on )?(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,? )?"
_DATES = (
    regex(rf"{_WEEKDAY}{_MONTH}\.? (?:the )?{_DAY},? {_IN_YEAR}"),
    regex(rf"{_WEEKDAY}(?:(?:the|am|le|el|il) )?{_DAY} (?:(?:of|de) )?{_MONTH}\.?,? (?:de )?{_IN_YEAR}"),
    regex(rf"{_IN_YEAR}-(?P<month>0[1-9]|1[0-2])-{_DAY}"),
    regex(rf"{_IN_YEAR}(?P<mark>[/.])(?P<month>0?[1-9]|1[0-2])(?P=mark)(?P<day>\d{{1,2}})"),
    regex(rf"{_IN_YEAR} ?[年년] ?(?P<month>0?[1-9]|1[0-2]) ?[月월] ?(?P<day>\d{{1,2}}) ?[日일号]"),
    regex(rf"(?P<day>\d{{1,2}})\. ?(?P<month>0?[1-9]|1[0-2])\. ?{_IN_YEAR}"),
    regex(rf"(?P<month>0?[1-9]|1[0-2])(?P<mark>[-/])(?P<day>1[3-9]|2\d|3[01])(?P=mark){_IN_YEAR}"),
    regex(rf"(?P<day>1[3-9]|2\d|3[01])(?P<mark>[-/])(?P<month>0?[1-9]|1[0-2])(?P=mark){_IN_YEAR}"),
)
_ANY_DATE = regex(
    rf"(?<!\w)(?:{_NAMES_OF_MONTHS}\.? (?:the )?{_OF_MONTH},? \d{{4}}"
    rf"|{_OF_MONTH} (?:(?:of|de) )?{_NAMES_OF_MONTHS}\.?,? (?:de )?\d{{4}}"
    r"|(?:19|20)\d\d-(?:0[1-9]|1[0-2])-[0-3]\d(?!\w))|\d{4} ?[年년] ?\d{1,2} ?[月월] ?\d{1,2} ?[日일号]",
    re.IGNORECASE,
)
_AMBIGUOUS_DATE = regex(r"\d{1,2}/\d{1,2}/(?:19|20)\d\d")
_RANGE = regex(r"(\d{1,4}(?:\.\d+)?)-(\d{1,4}(?:\.\d+)?)(?:\s*(?:%|[^\W\d]).*)?")
_CHOICES = regex(r"[(\[]?[a-j][)\]]?(?:(?:\s?[,;、](?: and)?|\s?&| and| und| et| y)\s?[(\[]?[a-j][)\]]?)+")
_AND, _SHORT_AND = "and|or|und|oder|et|ou|или", r"(?:[yoeи]) (?=-?[\d√]|[a-z]\d? ?=)"
_BETWEEN = regex(rf",\s*(?:(?:{_AND}) )?| (?:{_AND}) | {_SHORT_AND}|[;、]|\s?(?:或者?|和|と)\s?")
_TWO_LABELS = regex(rf"\b(?:and|or)\b|\d (?:(?:{_AND}) |{_SHORT_AND})|\d ?[或和、と;]")
_FUNCTION = regex(r"\b(sin|cos|tan|ln|log) ?(\d+|[a-zπ])(?![\w(.])")
_MIRRORED = str.maketrans("<>≤≥", "><≥≤")
_FLIPPED = regex(r"(-?[\d./√π]+) ?([<>≤≥]) ?([a-z])")
_COUNTED = regex(r"(\d+(?:\.\d+)?) ([^\W\d_]{3,})")
_KIND = r"\d+(?:\.\d+)?(?: (?!and\b|or\b|to\b|of\b|was\b)[^\W\d_]{3,}){1,4}"
_KINDS = regex(rf"{_KIND}(?:(?:,? and |, ?| ){_KIND})+")
_COINS = regex(r"(\d+) (?:dollars?|euros?|pounds?)(?:,? and)? (\d{1,2}) (?:cents?|pence)")
_SPELLED_COINS = regex(r"([a-z -]{3,40}) (?:dollars?|euros?|pounds?)(?:,? and)? ([a-z-]{3,20}) (?:cents?|pence)")
_HOURS, _MINUTES, _SECONDS = (
    rf"(\d+) ?(?:{name})" for name in ("h|hrs?|hours?", "m|mins?|minutes?", "s|secs?|seconds?")
)
_DURATION = regex(rf"(?:{_HOURS})?(?:,? and |, ?| ?)(?:{_MINUTES})?(?:(?:,? and |, ?| ?){_SECONDS})?")
_NOTHING = frozenset({"null", "n/a", "nan", "unknown"})
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_ENDS = ".,;:!?*_`\"'“”„‘’«»「」『』 \n\t"


def normal_form(answer: str, *, share: bool = False) -> str | None:
    """Write an answer such that equal answers are equal texts; the normal form is its own normal form.

    Args:
        answer: an answer without its explanation; LaTeX and Markdown may be in it.
        share: whether 50 % is 0.5, because a probability is wanted; it is 50 otherwise.

    Returns:
        The normal form; None if the answer is empty, or too long to be one.
    """
    for _ in range(_MOST_STEPS):
        form = _form(answer, share)
        if form is None or form == answer:
            return form
        answer = form
    return None


def _form(answer: str, share: bool) -> str | None:
    if (value := json_value(answer)) is not None:
        return canonical(value)
    text = _plain(answer)
    if not text or text in _NOTHING:
        return None
    if (moment := _moment(text)) is not None:
        return moment
    if (number := _quantity(text, share)) is not None:
        return number
    if choice := re.fullmatch(r"[(\[]?([a-j])[)\]]?", text):
        return choice[1].upper()
    if _CHOICES.fullmatch(text):
        return ", ".join(sorted(set(re.findall(r"\b[a-j]\b", text)))).upper()
    if (listed := _list(text, share)) is not None:
        return listed
    if _FORMULA.search(text) and not (set(_WORD.findall(text)) - _NAMES):
        return _formula(text)
    if len(text.split()) > _FEW_WORDS:
        return None
    if (
        _CLAIM.search(text)
        and not (_DENIAL.search(text) or IMAGINARY.search(text))
        and len(numbers := set(numbers_in(text))) == 1
    ):
        return numbers.pop()
    if _RANGE.fullmatch(text):
        text = text.replace("-", " to ", 1)
    text = re.sub(r"^(-?[\d.]+) ([a-z])$", r"\1\2", re.sub(r"(?<=\d) ?: ?(?=\d)", ":", text))
    return text if _PHRASE.fullmatch(text) else None


def _moment(text: str) -> str | None:
    """Return the date of a text as 1969-07-20, or its time of day as 1:30 pm; None if it is neither."""
    if time := _TIME.fullmatch(text):
        hour, minute, half = int(time[1] or time[4]), time[2] or time[5], time[3] or ""
        if minute == "00" or hour > 23 or minute > "59":
            return None
        if hour > 12:
            hour, half = hour - 12, "p"
        return f"{hour}:{minute}" + (f" {half}m" if half else "")
    for pattern in _DATES if _YEAR.search(text) else ():
        if date := pattern.fullmatch(text):
            month = date["month"]
            number = int(month) if month.isdigit() else _MONTH_NUMBERS[month]
            return f"{date['year']}-{number:02}-{int(date['day']):02}"
    return text if _AMBIGUOUS_DATE.fullmatch(text) else None


def dates_in(text: str) -> set[str]:
    """Return the dates in a text in normal form."""
    return {str(_moment(found[0].casefold().strip())) for found in _ANY_DATE.finditer(text)}


def canonical(value: Any) -> str:
    """Write a value of `json_value` with sorted keys."""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def json_value(text: str) -> Any:
    """Return the object or list that a text is, as JSON or as Python writes it; None if it is none.

    Whole numbers are integers, and texts have no spaces around them.
    """
    text = text.strip().strip("`").strip()
    if not (text[:1] + text[-1:] in ("{}", "[]") and 2 < len(text) <= _LONGEST_JSON) or text.startswith(("{\\", "[\\")):
        return None
    for written in (text, _python_as_json(text) if len(text) <= _LONGEST_PYTHON else ""):
        try:
            value = _whole(json.loads(written, parse_constant=_refuse))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) or any(type(item) not in (int, float) for item in value) or len(value) > 2:
            return value
        return None  # [1, 2] can be an interval
    return None


def numbers_in(text: str) -> list[str]:
    """List the numbers in a text in normal form, in their order."""
    text = _SPELLED_FRACTION.sub(_fraction, _plain_fractions(_ungrouped(text)))
    text = _COUNT.sub(lambda found: str(_spelled(found[0].lower().replace(",", ""))), text)
    numbers = [(Fraction(above), Fraction(below or 1)) for above, below in _NUMBER.findall(text)]
    return [_written(above / below) for above, below in numbers if below]


def _plain_fractions(text: str) -> str:
    """Write the characters for fractions as two numbers and a slash."""
    return _UNICODE_FRACTION.sub(lambda found: f" {unicodedata.normalize('NFKC', found[0])}", text).replace("⁄", "/")


def _fraction(found: re.Match[str]) -> str:
    """Write a fraction in English words as two numbers and a slash."""
    whole, of, number, part = (found[name].lower() if found[name] else "" for name in ("whole", "of", "number", "part"))
    above = _SPELLED[number or of or "one"]
    if whole:
        above += _PARTS[part] * (_SPELLED[whole] if whole in _SPELLED else int(whole))
    return f"{above}/{_PARTS[part]}"


def _repeating(found: re.Match[str]) -> str:
    """Write a repeating decimal as a fraction."""
    whole, before, period = found[1] or "0", found[2], found[3]
    value = Fraction(int(whole + before + period) - int(whole + before), 10 ** len(before) * (10 ** len(period) - 1))
    return str(value)


def _raised(found: re.Match[str]) -> str:
    return "^" + unicodedata.normalize("NFKC", found[0]).replace("−", "-")


def _python_as_json(text: str) -> str:
    text = re.sub(r"\b(?:True|False|None)\b", lambda found: _CONSTANTS[found[0]], text)
    text = re.sub(r",(?=\s*[}\]])", "", text)  # a comma after the last item
    return text if '"' in text else text.replace("'", '"')


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.strip(): _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, str):
        return value.strip()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain(answer: str) -> str:
    """Write LaTeX and Markdown as plain mathematics or words; empty if the answer is too long."""
    text = answer.strip()
    if not text or len(text) > _LONGEST:
        return ""
    text = text.replace("$$", "").strip("*_` \n")
    if text.count("$") > 1:
        text = text.replace("\\$", "\0").replace("$", "").replace("\0", "$")
    text = re.sub(r"(?<![A-Za-z]{2})(?<=[A-Za-z\d)])\*\*(?=[\d(])", "^", text).replace("**", "").replace("`", "")
    if "—" in text or "_" in text:
        text = re.sub(r"(?:^|(?<=\d))—(?=\d)", "-", re.sub(r"(?<=\d)_(?=\d{3})", "", text))
    text = re.sub(r"^\\\w?box(?:ed)?\s*\{(.*)\}$", r"\1", text)
    text = text.replace("{,}", ",").replace("\\\\", "\\").replace("\\%", "%").replace("\\$", "$").replace("\\!", "")
    text = re.sub(r"^[A-Za-z] ?∈ ?(?=[{(\[\\])", "", _SYMBOL.sub(lambda found: _SYMBOLS[found[0]], text))
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _plain_fractions(_RAISED.sub(_raised, text)))
    text = re.sub(r"(?<=\d)\s?x\s?(?=10\s?\^)", "*", _REPEATING.sub(_repeating, text))
    text = _SPACING.sub(" ", _WORDS_IN_LATEX.sub(r" \1 ", text)).replace("\\{", "\1").replace("\\}", "\2")
    for _ in range(_DEEPEST):
        before = text
        text = _ROOT.sub(lambda m: f"(({m[2] or m[3]})^(1/{m[1]}))" if m[1] else f"√({m[2] or m[3]})", text)
        text = _FRACTION.sub(lambda m: f"(({m[1] or m[2]})/({m[3] or m[4]}))", text)
        text = re.sub(r"(?<![\w√^_\]}])\{([^{}]*)\}", r"\1", text) if before == text else text
        text = re.sub(r"([\^_]|\w)\s*\{([^{}]*)\}", r"\1(\2)", text) if before == text else text
        if before == text:
            break
    text = re.sub(r"^\W*(?:negative|minus) (?=\d)", "-", text, flags=re.IGNORECASE)
    text = (
        _DEGREE.sub("°", _DEGREES.sub("°", text) if "deg" in text else text)
        .replace("\1", "{")
        .replace("\2", "}")
        .replace("\\", "")
    )
    text = _SCRIPT.sub(r"\1\2", re.sub(r"\s+", " ", text).strip().casefold())
    text = re.sub(r"(?<=[a-z])_(?=\d)", "", text)
    if "∞" in text or "inf" in text or "[" in text:
        text = _OPEN_INTERVAL.sub(r"(\1, \2)", _UNION.sub("∪", _INFINITY.sub("∞", text)))
    text = _ONE_PART.sub(lambda m: f"1/{_PARTS[m['part'] or m['other']]}", _SPELLED_FRACTION.sub(_fraction, text))
    if text.endswith(" i") and text[-3:-2].isdigit():
        text = f"{text[:-2]}i"
    if "ln" in text or "log" in text or "sin" in text or "cos" in text or "tan" in text:
        text = _FUNCTION.sub(r"\1(\2)", text)
    if _CHOICES.fullmatch(choices := text.rstrip(_ENDS)):
        return choices
    if text[-1:].isalpha() and not text[:1].isalpha() and (flipped := _FLIPPED.fullmatch(text)):
        return f"{flipped[3]}{flipped[2].translate(_MIRRORED)}{flipped[1]}"
    for _ in range(3):
        text = _LEAD.sub("", text.lstrip(_ENDS.strip(".")).rstrip(_ENDS))
    return text


def _formula(text: str) -> str | None:
    """Write an open expression without spaces, label and needless parentheses; None if some are not closed."""
    text = _LABELLED.sub("", re.sub(r"\s+", "", text))
    text = re.sub(r"(?<=[(\[])([^;,]+);([^;,]+)(?=[)\]])", r"\1,\2", text) if ";" in text else text
    if sum(map(text.count, "([{")) != sum(map(text.count, ")]}")):
        return None
    for _ in range(_DEEPEST):
        before, text = text, _NEEDLESS.sub(r"\1\2\3", _TIMES.sub("", text))
        if text == before:
            break
    return text


def _quantity(text: str, share: bool = False) -> str | None:
    """Return the number that a text is, with or without a unit."""
    text = _ungrouped(_REMARK.sub("", text))
    text = re.sub(r"^(\d{1,2}):00(?= ?(?:[ap]\.?m\.?)?$)", r"\1", text)
    text = re.sub(r"(?<=\d) ?([ap])\.m\.?$", r" \1m", text)
    if "≈" in text:
        text = text.split("≈")[0].strip() or text.strip("≈ ")
    if "=" in text:
        label, _, text = text.rpartition("=")
        label = re.sub(r"(?<=\d)\s?x\s?(?=\d)", "*", label.strip())
        if "=" in label and _TWO_LABELS.search(label):
            return None
        if not (
            _LABEL.match(label)
            or _WORD.search(label)
            or all(_value(part.rstrip("! ")) is not None for part in re.sub(r"^[a-z]\s*=", "", label).split("="))
        ):
            return None
        text = text.strip()
    if (spelled := _spelled(text.replace("per cent", "percent"))) is not None:
        return str(spelled)
    if text.endswith(")"):
        text = _QUOTIENT.sub(r" \1/\2\3", text)
    text = _COINS.sub(lambda found: f"{found[1]}.{found[2]:0>2}", text)
    if (
        text.endswith(("s", "cent", "pence"))
        and (coins := _SPELLED_COINS.fullmatch(text))
        and None not in (parts := [_spelled(part) for part in coins.groups()])
    ):
        text = f"{parts[0]}.{parts[1]:02}"
    text = re.sub(r"^([$€£]\d[\d.,]*) ?([mb])$", lambda m: f"{m[1]} {'mio' if m[2] == 'm' else 'mrd'}", text)
    if _RANGE.fullmatch(text):
        return None
    if share:
        text = re.sub(r"^(\S+) (?:in|out of) (?:an? |every )?(\S+)$", _odds, text)
    factor = Fraction(1)
    if percentage := re.fullmatch(r"(.*\d)\s*(?:%|percent|per cent|prozent|pour cent|por ciento|per cento)", text):
        text, factor = percentage[1], Fraction(1, 100 if share else 1)
    elif scale := _SCALED.fullmatch(text):
        text, factor = scale[1] + scale[4], Fraction(_SCALES[scale[2] or "thousand"])
    value = _value(text)
    if value is None and (unit := _UNIT.match(text)) and not _NAMES.intersection((unit[4] or "").split()):
        value = _value(unit[1] + unit[2])
    return None if value is None else _written(value * factor)


def _odds(found: re.Match[str]) -> str:
    """Write *one in six* as a fraction."""
    above, below = (str(_SPELLED.get(word, word)) for word in found.groups())
    return f"{above}/{below}" if above.isdigit() and below.isdigit() else found[0]


def _spelled(text: str) -> int | None:
    """Return the value of a number in English words, with or without one word for a unit."""
    if (positive := re.sub(r"^(?:minus|negative) ", "", text)) != text:
        value = _spelled(positive)
        return None if value is None else -value
    if text in _ORDINALS:
        return _ORDINALS.index(text) + 1
    if text.startswith("dozen"):
        text = f"one {text}"
    words = [word for word in re.split(r"[\s-]+", text) if word != "and"]
    if len(words) > 1 and words[-1] not in _SPELLED and words[-1] not in _SCALES:
        words.pop()
    if not words or words[0] not in _SPELLED:
        return None
    total = part = 0
    for word in words:
        if word in _SPELLED:
            part += _SPELLED[word]
        elif word in ("hundred", "dozen"):
            part *= _SCALES[word]
        elif word in _SCALES:
            total, part = total + part * _SCALES[word], 0
        else:
            return None
    return total + part


def _ungrouped(text: str) -> str:
    """Remove the separators of thousands, and write decimals with a point."""
    if not text.isascii():
        text = _IN_MYRIADS.sub(_myriads, text)
    if "," in text:
        text = _COMMA_DECIMAL.sub(
            lambda m: f"{re.sub('[. ]', '', m[1])}.{m[2]}" if m[1] else f"{m[3] or m[5]}.{m[4] or m[6]}",
            text,
        )
    return _GROUPED.sub(lambda found: re.sub(r"\D", "", found[0]), text)


def _myriads(found: re.Match[str]) -> str:
    """Write a number of ten thousands or of hundred millions, as in Chinese, with digits alone."""
    return _written(Fraction(found[1]) * _MYRIADS[found[2]])


def _written(value: Fraction | float) -> str:
    """Write a number as a decimal if that is exact, otherwise as a fraction."""
    exact = value if isinstance(value, Fraction) else Fraction(f"{value:.{_DIGITS}g}")
    rest = exact.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest > 1:
        return str(exact)
    places = next(places for places in range(1000) if 10**places % exact.denominator == 0)
    digits = str(abs(exact.numerator) * 10**places // exact.denominator).rjust(places + 1, "0")
    sign = "-" if exact < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else sign + digits


def _list(text: str, share: bool) -> str | None:
    """Write a list of numbers: in its order if it is a pair, an interval or the like, otherwise sorted."""
    if len(text) > 1 and text[0] == "±" and (number := _quantity(text[1:], share)) is not None:
        return _list(f"{number}, -{number}", share)
    ordered = bool(re.fullmatch(r"[(\[].*[)\]]", text))
    inner = text[1:-1] if ordered or re.fullmatch(r"\{.*\}", text) else text
    if (duration := _DURATION.fullmatch(inner)) and sum(part is not None for part in duration.groups()) > 1:
        units = zip(duration.groups(), ("hour", "minute", "second"), strict=True)
        inner = " ".join(f"{number} {unit}{'' if number == '1' else 's'}" for number, unit in units if number)
    counted = _COUNTED.findall(inner) if _KINDS.fullmatch(inner) else []
    if len({unit for _, unit in counted}) == len(counted) > 1:  # 2 hours and 5 minutes
        return ", ".join(sorted(f"{_written(Fraction(number))} {unit}" for number, unit in counted))
    parts = [part.strip() for part in _BETWEEN.split(inner)]
    if not 2 <= len(parts) <= _LONGEST_LIST or not all(parts):
        return None
    numbers = [_quantity(part, share) for part in parts]
    if any(number is None for number in numbers):
        return None
    written = [str(number) for number in numbers]
    names = [re.sub(r"(?<=^[a-z])\d$", "", part.partition("=")[0].strip()) for part in parts if "=" in part]
    if len(set(names)) > 1 and len(names) < len(parts):
        return None
    if len(set(names)) > 1:
        return ", ".join(sorted(f"{name} = {number}" for name, number in zip(names, written, strict=True)))
    if ordered:
        return f"{text[0]}{', '.join(written)}{text[-1]}"
    return ", ".join(sorted(set(written), key=lambda number: (Fraction(number), number)))


def _value(text: str) -> Fraction | float | None:
    """Return the value of a closed expression: exact if it is a fraction; None if it is no such expression."""
    mixed = re.fullmatch(r"(-?\d+) \(*(\d+)\)*/\(*(\d+)\)*", text)
    if mixed or (mixed := re.fullmatch(r"(-?\d+)\s*\(\((\d+)\)/\((\d+)\)\)", text)):
        text = f"{mixed[1]}{'-' if mixed[1][0] == '-' else '+'}{mixed[2]}/{mixed[3]}"
    tokens, place = [], 0
    text = text.strip()
    while place < len(text):
        if not (found := _TOKEN.match(text, place)):
            return None
        tokens.append(found[1])
        place = found.end()
    if not tokens or tokens.count("(") > _DEEPEST:
        return None
    try:
        return _Expression(tokens).value()
    except (ValueError, ArithmeticError, TypeError):
        return None


class _Expression:
    """A closed expression, read by recursive descent; a factor without a sign is a product."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens[::-1]

    def value(self) -> Fraction | float:
        value: Fraction | float = self._sum()
        if (
            self._tokens
            or not abs(float(value)) < _LARGEST
            or (isinstance(value, Fraction) and value.denominator > _LARGEST)
        ):
            raise ValueError
        return value

    def _next(self) -> str:
        return self._tokens[-1] if self._tokens else ""

    def _sum(self) -> Any:
        value = self._product()
        while self._next() in ("+", "-"):
            value = value + self._product() if self._tokens.pop() == "+" else value - self._product()
        return value

    def _product(self) -> Any:
        value = self._signed()
        while (sign := self._next()) and sign not in "+-)":
            if sign in "*/":
                self._tokens.pop()
            elif sign[0].isdigit() or sign[0] == ".":
                raise ValueError  # two numbers side by side
            value = value / self._signed() if sign == "/" else value * self._signed()
        return value

    def _signed(self) -> Any:
        if self._next() in ("+", "-"):
            return self._signed() if self._tokens.pop() == "+" else -self._signed()
        base = self._atom()
        if self._next() != "^":
            return base
        self._tokens.pop()
        power = self._signed()
        if abs(power) > 200 or abs(base) > 10**6:
            raise ValueError
        if isinstance(power, Fraction) and power.denominator == 1:
            return base ** int(power)
        if base < 0:
            raise ValueError
        return float(base) ** float(power)

    def _atom(self) -> Any:
        token = self._tokens.pop() if self._tokens else ")"
        if token == "(":
            value = self._sum()
            if not self._tokens or self._tokens.pop() != ")":
                raise ValueError
            return value
        if token in ("√", "sqrt"):
            value = self._atom()
            root = Fraction(math.isqrt(int(value))) if value >= 0 and value == int(value) else None
            return root if root is not None and root * root == value else math.sqrt(value)
        if token in ("π", "pi"):
            return math.pi
        return Fraction(token)
