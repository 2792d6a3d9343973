"""Find the keys of a request that a server refuses, and make requests without them.

No I/O: the error of the server and the body that it refused go in; what is different in later bodies comes out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from llm_blender.llms.api_errors import ApiError

TWINS = ("max_completion_tokens", "max_tokens")
"""The two names of the maximum number of tokens of an answer; the first one is the newer."""
_KEPT = frozenset({"model", "messages", "tools", "functions"})
# What a message or a call of a tool cannot do without.
_KEPT_IN_MESSAGES = frozenset({"role", "content", "tool_calls", "tool_call_id", "function_call", "function", "id"})
_KEPT_IN_MESSAGES |= {"type", "arguments", "custom"}
_CALLED = {"function": frozenset({"name", "arguments"}), "custom": frozenset({"name", "input"})}
_OURS = frozenset({"stream", "stream_options", "seed"})  # these are sent whether the user wants them or not
_QUIET = frozenset({"stream", "stream_options"})  # the answer is the same without
_STATUSES = frozenset({400, 404, 405, 415, 422, 500, 501})

# An error about the texts of a request, or about a value that the caller can fix, is no reason to leave a key out.
_OTHER_CODES = re.compile(
    r"content_?(filter|policy)|safety|moderation|context_length|billing|quota|model_not_found", re.I
)
_OTHER_WORDS = re.compile(
    r"content (management )?polic|content[ _]filter|usage polic|safety|moderation|context (length|size|window)"
    r"|too (large|long|small|many|high|low)|at (most|least)\b|(less|greater|more) than|between \S+ and|\brange\b|exceed"
    r"|\b(above|below|maximum|minimum)\b"
    r"|[\[(]-?[\d.]+, *-?[\d.]+[\])]|api[ _-]?key|authenticat|invalid schema|schema for|schema\W+keyword",
    re.I,
)
_CODES = re.compile(
    r"unsupported_?(parameter|value|param|field)|unknown_?(param|field)|unrecognized|extra_?(forbidden|field)"
    r"|unexpected_?(keyword|parameter|field)|parameter_?not_?supported|additional_?propert|not_?implemented",
    re.I,
)
_REFUSED = (
    r"(?:\b(?:not|no longer|never|without|nor)|n't) (?:\w+ ){0,3}?"
    r"(?:support|permit|allow|recogni|implement|accept|expect|availab|enabled|exist|configur"
    r"|valid (?:param|field|key|option|arg))"
    r"|unsupported|unrecogni[sz]ed|unavailable|disallowed|must be verified"
    r"|(?:cannot|can't|can not|(?:must|should|may) not) (?:both )?(?:be )?"
    r"(?:use|set|specif|stream|combin|provid|pass|includ|sen[dt]|present|in the|appear|contain|chang|modif)"
    r"|\bonly (?:be set|(?:the )?default|false|(?=non-?stream)|(?:supports?|allows?|accepts?) (?!stream)"
    r"|(?!stream)(?:\S+ ){0,2}?(?:is )?(?:allowed|supported|accepted|permitted|valid)\b)"
    r"|must be (?:false|omitted|null|unset|removed)|\b(?:is|are) (?:deprecated|disabled)"
)
_WORDS = re.compile(
    rf"{_REFUSED}|unknown|unexpected|\b(?:extra|extraneous) (?:inputs?|fields?|keys?|forbidden)|additional propert"
    r"|forbidden (?:param|field|key|option)|no such (?:param|field|option|key)|\b(?:remove|omit)\b"
    r"|supported (?:\w+ )?(?:values|types)(?: are|:)"
    r"|restricted to|(?:should|must) be (?:one of )?['\"`]",  # a value that other servers have
    re.I,
)
# What a server offers in place of a key, and on what conditions it takes it, is not what it refuses.
_BESIDE = re.compile(
    r"\b(?:expected (?:one of|[\"'`])|did you mean"
    r"|(?:supported|valid|allowed|known|permitted) (?:string )?\w+(?: are| is|:)|(?:when|if|unless|because) )"
    r"|[.,;] (?:please )?use ",
    re.I,
)
_OTHER_THINGS = re.compile(r"\b(?:role:?|model) ['\"`][^'\"`]*['\"`]", re.I)
_QUOTES = "'\"`"
_NOUN = r"(?:param(?:eter)?|field|option|argument|key|keyword|property|input)s?\b"
_BEFORE = (
    rf"(?:{_NOUN}[^:.]{{0,40}}:[^.]*?\b|(?:{_NOUN}|invalid|unsupported|unrecogni[sz]ed|unknown|unexpected|supports?|accepts?"
    r"|allows?|permits?|use|with|cannot|verified to|body\.|remove|omit)[\s:=\[]*(?:the )?)"
)
_AFTER = (
    rf"(?:\s+{_NOUN}"
    r"|\s+(?:is|are)(?:n't|\s+not)? (?:an? )?(?:un)?(?:support|recogni|implement|known|expect|accept|deprec|valid)"
    r"|\s+(?:must|should|can|may)(?: ?not| only) (?:exist|be (?:set|specif|use|provid|pass|includ|sent))"
    r"|:)"
)
_NEAR = r"(?:[^.;:]|\.\d){0,40}?"
_TERMS = frozenset({"stream", "temperature", "seed", "verbosity"})  # in an error, they can hardly be plain words
_EITHER = re.compile(r"\b(both|only one|either|together|at the same time)\b", re.I)
_OTHER_NAMES = {
    "stream": r"(?<=only )non-?stream(?:ing)?|(?<!non)(?<!non-)stream(?:ing|ed)?(?:=true)?(?!=false)",
    "stop": r"stop(?:[ _]?sequences?)?",
    "response_format": r"response[_ ]formats?|structured outputs?|json[_ ]?(?:mode|schema|object)",
    "parallel_tool_calls": r"parallel[_ ]?(?:tool|function)[_ ]?(?:calls?|calling|use)",
    "reasoning_effort": r"reasoning[_ .]?effort|(?<=support )(?:thinking|reasoning)|(?:think|reasoning) value",
    "presence_penalty": r"presence[_ ]?penalty|(?<!frequency )penalty",
    "frequency_penalty": r"frequency[_ ]?penalty|(?<!presence )penalty",
}


@dataclass(frozen=True)
class Changes:
    """Differences between the requests that are meant for a server and those that it accepts.

    Attributes:
        omitted: keys of the request that are left out.
        renamed: new names of keys.
        omitted_in_messages: keys of messages and of their calls of tools that are left out.
    """

    omitted: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)
    omitted_in_messages: frozenset[str] = frozenset()

    def apply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of a request with these changes."""
        changed = {self.renamed.get(key, key): value for key, value in body.items() if key not in self.omitted}
        if not changed.get("stream"):
            changed.pop("stream_options", None)
        if self.omitted_in_messages:
            changed["messages"] = [self._message(message) for message in changed["messages"]]
        return changed

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        changed = {key: value for key, value in message.items() if key not in self.omitted_in_messages}
        if isinstance(calls := changed.get("tool_calls"), list):
            changed["tool_calls"] = [self._call(call) for call in calls]
        return changed

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        changed = {key: value for key, value in call.items() if key not in self.omitted_in_messages}
        for kind in _CALLED.keys() & changed.keys():
            omitted = self.omitted_in_messages - _CALLED[kind]
            changed[kind] = {key: value for key, value in changed[kind].items() if key not in omitted}
        return changed

    def after(self, error: ApiError, sent: Mapping[str, Any]) -> Self | None:
        """Return the changes after an error; None if no key of the request is refused.

        Args:
            error: the error of the server.
            sent: the body of the request that it refused.
        """
        if error.status is not None and error.status not in _STATUSES:
            return None
        by_code = _CODES.search(error.code or "") is not None or not _OURS.isdisjoint(error.params)
        if _OTHER_CODES.search(error.code or "") or (_OTHER_WORDS.search(error.message) and not by_code):
            return None
        if not by_code and not _WORDS.search(error.message):
            return None
        if keys := _in_messages(error, sent):
            return replace(self, omitted_in_messages=self.omitted_in_messages | keys)
        changes = self
        named = _named(error, sent)
        for key in [each for each in named if each in _QUIET] or named:
            changes = changes._without(key, error)
        return None if changes == self else changes

    def _without(self, key: str, error: ApiError) -> Self:
        """Return the changes without a key: under its other name, if it has one that is not refused as well."""
        if key not in TWINS:
            return replace(self, omitted=self.omitted | {key})
        if re.search(r"unsupported_?value", error.code or "", re.I):
            return self
        other = TWINS[1 - TWINS.index(key)]
        if self.renamed.get(other) == key:  # both names are refused
            return replace(self, omitted=self.omitted | {other})
        return replace(self, renamed={**self.renamed, key: other})

    def added_to(self, earlier: Changes) -> list[tuple[str, bool]]:
        """Describe what `earlier` does not have: words for a log, and whether answers may differ."""
        found = [(f"{old} is sent as {new}", False) for old, new in self.renamed.items() if old not in earlier.renamed]
        found += [(f"{key} is left out", key not in _QUIET) for key in sorted(self.omitted - earlier.omitted)]
        more = sorted(self.omitted_in_messages - earlier.omitted_in_messages)
        return found + [(f"{key} of messages is left out", False) for key in more]


def _named(error: ApiError, sent: Mapping[str, Any]) -> list[str]:
    """List the keys of a request that an error names, by its fields or else by its words."""
    keys = [key for key in sent if key not in _KEPT]
    if named := [key for key in keys if key in error.params]:
        return named
    return [] if _KEPT & set(error.params) else _named_in(error.message, keys)


def _named_in(message: str, keys: Sequence[str]) -> list[str]:
    words = _OTHER_THINGS.sub("", message)
    for part in (_BESIDE.split(words)[0], words):
        if named := [key for key in keys if _is_named(key, part)]:
            return named[-1:] if _EITHER.search(message) else named
    return []


def _is_named(key: str, words: str) -> bool:
    """Return whether an error names a key; a plain word such as "user" counts only where it is meant as a key."""
    if re.search(rf"[{_QUOTES}]{re.escape(key)}[{_QUOTES}.\[]", words):
        return True
    name = _OTHER_NAMES.get(key) or re.escape(key).replace("_", "[_ .]?")
    if "_" in key:
        return re.search(rf"(?<![\w.])(?:{name})\b", words, re.I) is not None
    name = f"(?:{name})"
    pattern = (
        rf"(?:\b|_){_BEFORE}{name}(?![\w-])|(?:^|[.;:] *|because )(?:the )?{name}{_AFTER}|\b{name}\s+extra (?:inp|f)"
    )
    if key in _TERMS:
        pattern += rf"|\b{name}\b{_NEAR}(?:{_REFUSED})|(?:{_REFUSED}){_NEAR}\b{name}\b"
    return re.search(pattern, words, re.I) is not None


def _in_messages(error: ApiError, sent: Mapping[str, Any]) -> frozenset[str]:
    """List the keys of messages that an error names, such as ``messages[1].reasoning_content``."""
    known = _message_keys(sent["messages"])
    found: Iterable[str] = (
        name
        for path in re.findall(r"messages((?:[.\[][\w\]-]+)+)", error.message)
        for name in re.findall(r"[A-Za-z_]\w*", path)[-1:]
    )
    if "messages" in error.params or not _named_in(error.message, [key for key in sent if key not in _KEPT]):
        found = [*found, *re.findall(rf"[{_QUOTES}]([A-Za-z_]\w*)[{_QUOTES}]|\b([a-z]+_\w+)", error.message)]
    return frozenset("".join(name) for name in found) & known


def _message_keys(messages: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    keys: set[str] = set()
    for message in messages:
        keys.update(message)
        for call in message.get("tool_calls") or ():
            keys.update(call)
            for kind in _CALLED.keys() & call.keys():
                keys.update(call[kind].keys() - _CALLED[kind])
    return frozenset(keys - _KEPT_IN_MESSAGES)
