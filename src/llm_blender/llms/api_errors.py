"""Read the errors of OpenAI-compatible servers: any shape, in a status, in a body of a 200 or in an event of a stream.

No I/O: a body goes in; the provider's words, its codes and the reason of the failure come out.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_blender.errors import FailureReason
from llm_blender.llms.lenient_json import clean, decode, parse_json
from llm_blender.llms.pacing import duration, retry_after
from llm_blender.types import Usage

_LONGEST_MESSAGE = 2_000  # characters
_LONGEST_PAGE = 300  # characters of a web page; its first words name the problem
_DEEPEST = 8  # levels of nesting
_MOST = 10  # items of a list of errors
_MOST_READ = 65_536  # characters of a text that is no JSON


@dataclass(frozen=True)
class ApiError:
    """An error as a server reports it.

    Attributes:
        message: the provider's words on one line; the raw text where no shape is known; empty if there is nothing.
        status: the status of HTTP, or a status in the body; None without one.
        code: the word that names the kind of error, such as ``rate_limit_exceeded``, or a number of the provider's own.
        params: keys of the request that the error names, without those that only its words name.
        retry_after: seconds to wait, where the body names them.
    """

    message: str
    status: int | None = None
    code: str | None = None
    params: tuple[str, ...] = ()
    retry_after: float | None = None


class CallError(Exception):
    """A failed call; the LLM turns it into an `LLMError` with its name.

    Attributes:
        reason, retry_after, own, public: as in `LLMError`.
        error: what the server reports; None if it reports nothing.
        usage: tokens of an answer that was paid for and cannot be used; None if there are none.
    """

    usage: Usage | None = None

    def __init__(
        self,
        reason: FailureReason,
        message: str,
        retry_after: float | None = None,
        *,
        error: ApiError | None = None,
        own: bool = True,
        public: str | None = None,
    ) -> None:
        super().__init__(message)
        if retry_after is None and error is not None:
            retry_after = error.retry_after
        self.reason, self.retry_after, self.error, self.own, self.public = reason, retry_after, error, own, public


# Keys as `_plain` writes them.
_WORDS = (
    "error",
    "errors",
    "message",
    "msg",
    "detail",
    "errordescription",
    "errormessage",
    "errormsg",
    "statusmsg",
    "description",
    "title",
    "baseresp",
    "metadata",
    "raw",
    "details",
)
_CODES = ("code", "errorcode", "status", "statuscode", "httpstatus", "type", "errortype", "reason")
_PARAMS = ("param", "params", "parameter", "loc", "field", "property")
_NO_CODES = ("0", "200", "error", "none", "null")
_EMPTY = ("", "null", "{}", "[]", '""')
_NO_KEYS = ("body", "query", "request")


@dataclass
class _Found:
    """Findings of the levels of an error's body, outermost first."""

    statuses: list[int] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


def read_error(body: object, status: int | None = None) -> ApiError:
    """Read the error in the body of a response, or in an event of a stream.

    Args:
        body: bytes or text (JSON, a web page, plain words, or events), or parsed JSON.
        status: status of HTTP; None for an error inside a 200.
    """
    if isinstance(body, bytes | bytearray):
        body = decode(body)
    found = _Found([] if status is None else [status])
    words = _line(_read(body, found, 0))
    if not words:
        words = _line(body if isinstance(body, str) else json.dumps(clean(body), ensure_ascii=False, default=str))
    if words in _EMPTY:
        words = ""
    # A gateway's 5xx may pass on the 4xx of the provider behind it.
    statuses = [each for each in found.statuses if each < 500] or found.statuses
    codes = sorted(found.codes, key=lambda code: _kind(code)[1])
    wait = found.waits[0] if found.waits else _wait_in(words)
    return ApiError(
        words, statuses[0] if statuses else None, codes[0] if codes else None, tuple(dict.fromkeys(found.params)), wait
    )


def _read(value: Any, found: _Found, depth: int) -> str:
    """Return the words of a part of an error, and note its codes."""
    if depth > _DEEPEST:
        return ""
    if isinstance(value, str):
        return _read_text(value, found, depth)
    if isinstance(value, list | tuple):
        return "; ".join(_distinct(_read(each, found, depth + 1) for each in value[:_MOST]))
    return _read_object(value, found, depth) if isinstance(value, Mapping) else ""


def _read_text(text: str, found: _Found, depth: int) -> str:
    text = text.strip("\ufeff \t\r\n")
    if text[:1] not in ("{", "["):
        text = text[:_MOST_READ]
    if event := re.search(r"^(?:data|error): *(\{.*)", text, re.MULTILINE):
        return _read_text(event[1], found, depth + 1)
    if text[:1] in ("{", "[", '"'):
        try:
            return _read(parse_json(text), found, depth + 1) or text
        except ValueError:
            return text
    return _page_words(text) if re.match(r"<(!doctype|html|head|body|\?xml)", text, re.IGNORECASE) else text


def _read_object(value: Mapping[Any, Any], found: _Found, depth: int) -> str:
    plain = {_plain(str(key)): each for key, each in value.items()}
    for key in _CODES:
        _note_code(plain.get(key), found)
    places = [plain.get(key) for key in _PARAMS]
    if isinstance(plain.get("path"), list):  # else it is that of the URL
        places.append(plain["path"])
    params = [name for place in places for name in _request_keys(place)]
    found.params += params
    found.waits += _waits(plain)
    words = _distinct(_read(plain.get(key), found, depth + 1) or _by_key(plain.get(key)) for key in _WORDS)
    place = plain.get("loc")
    if isinstance(place, list | tuple) and words:
        words.insert(0, ".".join(map(str, place)))
    return ": ".join(words)


def _by_key(value: Any) -> str:
    """Return words that stand under the keys of the request that they are about."""
    if not isinstance(value, Mapping):
        return ""
    lists = {key: each for key, each in value.items() if isinstance(each, list)}
    return "; ".join(f"{key}: {each[0]}" for key, each in lists.items() if each and isinstance(each[0], str))


def _note_code(code: Any, found: _Found) -> None:
    if isinstance(code, bool) or not isinstance(code, int | float | str):
        return
    code = str(code).strip()
    if re.fullmatch(r"[45]\d\d(\.0)?", code):
        found.statuses.append(int(code[:3]))
    elif code.lower() not in _NO_CODES and re.fullmatch(r"[\w.#/-]{1,80}", code):
        found.codes.append(code)


def _request_keys(value: Any) -> list[str]:
    """List the keys of the request's body in a path such as ``messages[0].content`` or ``["body", "seed"]``."""
    path = value if isinstance(value, list | tuple) else [value]
    names = [name for each in path if isinstance(each, str) for name in re.findall(r"[A-Za-z_]\w*", each)]
    return [name for name in names if name not in _NO_KEYS][:1]


def _waits(plain: Mapping[str, Any]) -> list[float]:
    found = []
    for key, factor in (("retryafter", 1.0), ("retrydelay", 1.0), ("retryafterseconds", 1.0), ("retryafterms", 0.001)):
        number = re.fullmatch(r"(\d+(?:\.\d+)?)s?", str(plain.get(key)).strip())
        if number:
            found.append(float(number[1]) * factor)
    headers = plain.get("headers")  # of the provider behind a gateway
    if isinstance(headers, Mapping):
        wait = retry_after({str(key).lower(): str(value) for key, value in headers.items()})
        found += [] if wait is None else [wait]
    return [wait for wait in found if math.isfinite(wait)]


_WAIT = re.compile(
    r"\b(?:try again|retry|wait|resets?)(?: (?:in|after|for|about|at least|another))*"
    r" ((?:\d+(?:\.\d+)? ?(?:ms|h|m|s)[a-z]*(?:,? and)? ?){1,3})",
    re.IGNORECASE,
)


def _wait_in(words: str) -> float | None:
    """Return the seconds in words such as "Please try again in 6m0.5s"; None without them."""
    named = _WAIT.search(words)
    return None if named is None else duration(named[1])


def _distinct(texts: Iterable[str]) -> list[str]:
    """List texts that say something new, in order."""
    kept: list[str] = []
    for text in texts:
        if text and not any(text in other for other in kept):
            kept = [other for other in kept if other not in text] + [text]
    return kept


def _page_words(page: str) -> str:
    """Return the title of a web page, else its text, in time linear in its length."""
    title = re.search(r"<title[^<>]*>([^<]*)", page, re.IGNORECASE)
    if title is not None and title[1].strip():
        return html.unescape(title[1])[:_LONGEST_PAGE]
    body = re.sub(r"<(script|style)\b.*?(?:</\1>|\Z)", " ", page, flags=re.IGNORECASE | re.DOTALL)
    return _line(html.unescape(re.sub(r"<[^>]*(?:>|\Z)", " ", body)))[:_LONGEST_PAGE]


def _line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST_MESSAGE else words[:_LONGEST_MESSAGE] + "…"


def _plain(name: str) -> str:
    """Return a key or a code in lower case, without separators."""
    return re.sub(r"[^a-z]", "", name.lower())


# Words of codes, as `_plain` writes them, by how much they say: the first two kinds hold with any status, the next
# three with one that says little, the last two without one.
_KINDS: tuple[tuple[FailureReason, int, str], ...] = (
    # An account without money fails until its owner acts, as a wrong key does.
    (
        "auth",
        0,
        r"insufficient(quota|balance|credit|fund)|billing|payment|exceededcurrentquota|arrear|nocredit|budgetexceeded",
    ),
    ("rate_limit", 0, r"ratelimit|toomanyrequests|throttl|resourceexhausted|concurrencylimit"),
    (
        "bad_request",
        1,
        r"context(length|size|window)|toolong|toolarge|unsupported|extraforbidden|content(filter|polic)",
    ),
    ("auth", 1, r"apikey|unauthorized|unauthenticated|authentication|invalidauth|permission|accessdenied|forbidden"),
    ("not_found", 1, r"notfound|nosuchmodel|unknownmodel|modelnot"),
    ("bad_request", 2, r"invalid(request|argument|value|prompt|param|type|input)|badrequest|unprocess|validation"),
    ("server", 2, r"server|overload|unavailable|internal|timeout|apierror|gateway|capacity"),
)
_UNKNOWN_CODE = 3
_UNPAID = ("auth", 0)


def _kind(code: str) -> tuple[FailureReason, int]:
    """Return the reason that a code names, and its rank in `_KINDS`."""
    plain = _plain(code)
    for reason, rank, pattern in _KINDS:
        if re.search(pattern, plain):
            return reason, rank
    return "server", _UNKNOWN_CODE


# A server that is in order, and cannot do what this request asks for.
_CANNOT = re.compile(
    r"endpoints found that (can|support)|requires --jinja|roles must alternate|role not supported"
    r"|(not|n't) support (\w+ ){0,2}?(tool|function|image|system|json|response|structured|param|stream)"
    r"|(prompt|input|request|context)( \w+){0,3} (too (long|large)|exceed|overflow)"
    r"|exceed\w*( \w+){0,3} context (length|size|window)|maximum context|context the overflows",
    re.IGNORECASE,
)
# A request that alone is above the limit of a minute; waiting does not help.
_TOO_LARGE = re.compile(r"request too large\b", re.IGNORECASE)
_NO_CREDIT = re.compile(
    r"insufficient (account )?(balance|credit|fund)|balance is too low|余额不足|欠费"
    r"|\baccount\b[^.;]{0,80} is suspended",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(
    r"(invalid|unknown|no such) model\b|not a valid model|\bmodel\b[^.;]{0,80}\b(not exist|not found)|模型不存在"
    r"|no models? (is |are )?loaded|unexpected endpoint",
    re.IGNORECASE,
)
# What some servers answer with a 400, as if it were the request's fault.
_NO_KEY = re.compile(r"(incorrect|invalid) api[ _-]?key", re.IGNORECASE)
_NO_PROCESS = re.compile(r"\bmodel (has )?(crashed|unloaded)|\bcuda error|out of memory", re.IGNORECASE)
# A filter before the LLM, whose 403 is about the texts and not about the key.
_FLAGGED = re.compile(
    r"\b(input|prompt|request|content|message)s?\b[^.;]{0,40} flagged|violat\w+ (\w+ ){0,3}(guideline|polic)",
    re.IGNORECASE,
)
_IN_400: tuple[tuple[FailureReason, re.Pattern[str]], ...] = (
    ("not_found", _NOT_FOUND),
    ("auth", _NO_KEY),
    ("server", _NO_PROCESS),
)
# What a message says where neither a status nor a code says it.
_MESSAGES: tuple[tuple[FailureReason, re.Pattern[str]], ...] = (
    ("rate_limit", re.compile(r"\b(rate|request|requests|quota) limit|too many requests", re.IGNORECASE)),
    (
        "auth",
        re.compile(r"\bapi[ _-]?(secret )?key|access token|(not |un)(authenticated|authori[sz]ed)", re.IGNORECASE),
    ),
    ("not_found", _NOT_FOUND),
)


def classify(error: ApiError) -> FailureReason:
    """Return the reason of a failure; the same for a status of HTTP and for a code in a body or an event."""
    status, words = error.status, error.message
    by_code, rank = _kind(error.code or "")
    if _NO_CREDIT.search(words):
        return "auth"
    if _TOO_LARGE.search(words):
        return "bad_request"
    if rank == 0 or (rank == 1 and (status is None or status in (400, 422) or status >= 500)):
        return by_code
    if status in (None, 404, 500, 501) and _CANNOT.search(words):
        return "bad_request"
    if status in (400, 422):
        for reason, pattern in _IN_400:
            if pattern.search(words):
                return reason
    if status in (None, 403) and _FLAGGED.search(words):
        return "bad_request"
    match status:
        case None if rank < _UNKNOWN_CODE:
            return by_code
        case None:
            return next((reason for reason, pattern in _MESSAGES if pattern.search(words)), by_code)
        case 401 | 402 | 403 | 407:
            return "auth"
        case 404 | 410:
            return "not_found"
        case 429:
            return "rate_limit"
        case 408 | 409 | 424 | 425 | 498 | 499:  # transient in OpenAI's SDKs, too; 424 is TGI's, 498 Groq's
            return "server"
        case _:
            return "bad_request" if 400 <= status < 500 else "server"


def is_unpaid(error: ApiError) -> bool:
    """Tell whether the account has no money left."""
    return error.status == 402 or _kind(error.code or "") == _UNPAID or _NO_CREDIT.search(error.message) is not None
