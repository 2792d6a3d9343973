"""Parse the body of an OpenAI-compatible response, streamed or not, into one answer.

No I/O: bytes go in, text comes out. A response that is not streamed is read as one chunk of a stream, so servers that
ignore ``stream`` work, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from llm_blender.conversations import tool_calls_text
from llm_blender.llms.api_errors import ApiError, CallError, classify, read_error
from llm_blender.llms.event_stream import BodyReader, Event
from llm_blender.llms.lenient_json import clean, count, joined, merge, parse_first, parse_json, size, whole
from llm_blender.llms.tool_calls import ToolCalls
from llm_blender.types import Usage

_DEEPEST = 5  # levels of nesting in a field
_TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",  # Gemini, EXAONE
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",  # Kimi
    "<|START_THINKING|>": "<|END_THINKING|>",  # Command A
    "<|channel|>analysis<|message|>": "<|channel|>final<|message|>",  # gpt-oss, where no server parses it
}
# Some chat templates write the opening tag themselves, so that the answer has only the closing one. It counts only
# on a line of its own: an answer may mention the tag.
_UNOPENED = re.compile(r"\A(.*?)^</think(?:ing)?>\s*$", re.DOTALL | re.MULTILINE)
_GPT_OSS_TURN = "<|end|><|start|>assistant"


class ReasoningSplitter:
    """A parser that takes an answer in pieces and separates its thoughts from its text.

    Thoughts are recognised only at the beginning of the answer, because a later tag may be its topic. The results of
    `feed` and `close` concatenate to `text`, except where thoughts end with a closing tag and began without an opening
    one: these are recognised only at the end.
    """

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._space: list[str] = []  # after the text; it may turn out to be the last
        self._held = ""  # text or thought, not known yet
        self._closing: str | None = None  # the tag that ends the current thought
        self._begun = False

    @property
    def text(self) -> str:
        """The answer so far, without white space around it."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str | None:
        """The thoughts so far; None if there are none."""
        return "".join(self._thoughts).removesuffix(_GPT_OSS_TURN).strip() or None

    def think(self, piece: str) -> None:
        """Take a piece that the API marks as a thought."""
        self._thoughts.append(piece)

    def feed(self, piece: str) -> str:
        """Take the next piece; return the new text, which may be empty."""
        if self._begun:
            return self._release(piece)
        self._held += piece
        while True:
            if self._closing is not None:
                thought, tag, rest = self._held.partition(self._closing)
                if not tag:
                    # The end may hold the first half of the closing tag.
                    keep = len(self._closing) - 1
                    self._thoughts.append(self._held[:-keep])
                    self._held = self._held[-keep:]
                    return ""
                self._thoughts.append(thought)
                self._held, self._closing = rest, None
            self._held = self._held.lstrip()
            opened = next((tag for tag in _TAGS if self._held.startswith(tag)), None)
            if opened is not None:
                self._held, self._closing = self._held.removeprefix(opened), _TAGS[opened]
            elif any(tag.startswith(self._held) for tag in _TAGS):
                return ""
            else:
                self._begun = True
                return self._release(self._held)

    def close(self) -> str:
        """End the answer; return the text that was held back."""
        if self._closing is not None:
            self._thoughts.append(self._held)
        rest = "" if self._begun or self._closing is not None else self._release(self._held)
        self._held, self._space = "", []
        if "</think" in (text := self.text) and (unopened := _UNOPENED.match(text)):
            self._thoughts.append(unopened[1])
            self._text = [text[unopened.end() :].strip()]
        return rest

    def _release(self, piece: str) -> str:
        """Add a piece to the text, apart from the white space at its end."""
        if not piece or piece.isspace():
            self._space.append(piece)
            return ""
        text = piece.rstrip()
        new = "".join([*self._space, text])
        self._space = [piece[len(text) :]]
        self._text.append(new)
        return new


def split_reasoning(text: str) -> tuple[str, str | None]:
    """Split an answer into its text and the thoughts before it (None without thoughts).

    The text is empty if the thoughts do not end.
    """
    splitter = ReasoningSplitter()
    splitter.feed(text)
    splitter.close()
    return splitter.text, splitter.reasoning


MAX_TEXT = 1_000_000
"""Maximum characters of one answer: text, thoughts, calls of tools and further keys."""
_MOST_CHOICES = 128

# Ends of an answer in OpenAI's words and in those of other servers, as `_finish_of` writes them. Any other reason is an
# interruption.
_ENDS = {
    "stop": """stop eos eos_token eos_token_id eos_found end end_id end_turn end_of_text end_of_sequence end_of_turn
        stop_sequence stop_sequence_reached stop_token stop_str stop_string stop_string_found stop_word stop_words
        complete completed finish finished done normal im_end eot_id endoftext""",
    "length": """length max_length max_tokens maximum_tokens max_output max_output_tokens max_completion_tokens
        max_new_tokens max_predicted_tokens_reached token_limit length_limit model_length context context_length
        context_length_reached context_length_exceeded model_context_window_exceeded repetition""",
    "tool_calls": "tool_calls tool_call tool_use function_call function_calls function_calling",
    "content_filter": """content_filter content_filtered contentfilter safety image_safety recitation prohibited_content
        blocklist spii sensitive refusal moderation guardrail_intervened error_toxic""",
}
_FINISHES = {word: finish for finish, words in _ENDS.items() for word in words.split()}
_NO_FINISH = ("", "null", "none", "undefined", "unspecified", "not_finished", "unfinished")
# Keys of a message that have a place of their own in the answer.
_KNOWN = frozenset(
    ["role", "content", "refusal", "tool_calls", "function_call", "reasoning_content", "reasoning", "index", "error"]
)
# Keys with an error's words, in an object without choices; in lower case, without underscores.
_WORDS = frozenset(["error", "errors", "message", "detail", "msg", "errormsg", "errormessage", "baseresp"])
_ENVELOPE = frozenset(["id", "object", "created", "model", "system_fingerprint", "service_tier", "choices", "usage"])
_BETWEEN = re.compile(r"[\s,]*")


class _Choice:
    """The parts of one choice.

    Attributes:
        answer: its text and its thoughts.
        refusal: pieces of a refusal.
        extra: further keys of its message, as `merge` writes them.
        names_reasoning: whether its thoughts come under the name ``reasoning``, not ``reasoning_content``.
        finish: its end, as `_finish_of` writes it; None before it.
        why: the provider's own word for its end; empty without one.
        in_pieces: whether it comes in deltas.
    """

    def __init__(self) -> None:
        self.answer = ReasoningSplitter()
        self._calls: ToolCalls | None = None
        self._legacy: ToolCalls | None = None  # the form before tools
        self.refusal: list[str] = []
        self.extra: dict[str, Any] = {}
        self.names_reasoning = False
        self.finish: str | None = None
        self.why = ""
        self.in_pieces = False
        self._half = ""  # of a surrogate pair
        self._is_open = False  # whether it has text from before its end
        self._last = ""  # the text that came with its end

    def add(self, choice: Mapping[str, Any]) -> tuple[str, int]:
        """Take what a chunk has of it; return the new text, and the number of new characters of any kind."""
        if (error := choice.get("error")) and _is_given(error):
            raise _reported(read_error(error))
        was_ended, reason = self.finish is not None, choice.get("finish_reason")
        if reason and not self.is_interrupted and (finish := _finish_of(reason)):
            why = reason.get("message") if isinstance(reason, dict) else choice.get("native_finish_reason")
            self.finish, self.why = finish, _words(why)
        part, message = choice.get("delta"), choice.get("message")
        if part and isinstance(part, dict):
            self.in_pieces = True
        elif self.in_pieces:  # a message repeats the deltas
            return "", 0
        elif isinstance(message, dict):
            part = message
        else:
            part = {"content": choice.get("text")}  # as in the API before chats
        if (error := part.get("error")) and _is_given(error):
            raise _reported(read_error(error))
        content = part.get("content")
        text, thought, refusal = _texts(content)
        if was_ended and self._is_open and text.strip() in (self._last, self.answer.text):
            text = ""  # the last chunk, or the whole, once more
        elif self.finish is None:
            self._is_open |= bool(text)
        elif not was_ended:
            self._last = text.strip()
        if thoughts := part.get("reasoning_content") or part.get("reasoning"):
            thought = _words(thoughts) or thought
            self.names_reasoning |= not part.get("reasoning_content")
        if words := part.get("refusal"):
            refusal += _words(words)
        added = len(text) + len(thought) + len(refusal)
        if thought:
            self.answer.think(thought)
        if refusal:
            self.refusal.append(refusal)
        if calls := part.get("tool_calls") or _calls_in(content):
            self._calls = self._calls or ToolCalls()
            added += self._calls.add(calls)
        if isinstance(call := part.get("function_call"), dict):
            self._legacy = self._legacy or ToolCalls()
            added += self._legacy.add({"index": 0, "function": call})
        if not part.keys() <= _KNOWN:
            extra = clean({key: value for key, value in part.items() if key not in _KNOWN and _is_given(value)})
            added += size(extra)
            merge(self.extra, extra)
        return self.answer.feed(self._whole(text)) if text else "", added

    @property
    def is_interrupted(self) -> bool:
        """Whether its end is not that of an answer."""
        return self.finish is not None and self.finish not in _ENDS

    def calls_from(self, first: int) -> list[dict[str, Any]]:
        """Return its calls of tools; the number `first` is for the ids of calls without one.

        Raises:
            CallError: a call has no name, or arguments that are no JSON.
        """
        for calls in (self._calls, self._legacy):
            if calls is not None and (results := calls.results(first, self.finish)):
                return results
        return []

    def close(self) -> str:
        """End it; return the text that was held back."""
        return self.answer.feed(whole(self._half)) + self.answer.close()

    def _whole(self, text: str) -> str:
        """Join surrogates to pairs; hold back a half at the end, because the other half may follow."""
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        return whole(text.removesuffix(self._half))


class ChatResponse:
    """A parser that collects one answer from the bytes of its response.

    The answer is the text of one choice and the calls of tools of all choices. What is odd in a field beside them does
    no harm to it. A refusal is the text of an answer without one, and is never a piece that `feed` or `close` return.

    Attributes:
        usage: tokens, if the server counts them.
        finish_reason: ``stop``, ``length``, ``tool_calls`` or ``content_filter``, also where the server has another
            word for it; None without one.
        tool_calls: calls of functions, as the API gives them, with all their keys; None if there are none.
        refusal: words with which the LLM refuses to answer; None without any.
        extra: further keys of the message, which the API may need back on the next turn; None without any.

    All but `usage` is known after `close`.
    """

    def __init__(self, content_type: str) -> None:
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.tool_calls: tuple[Mapping[str, Any], ...] | None = None
        self.refusal: str | None = None
        self.extra: Mapping[str, Any] | None = None
        self._reader = BodyReader(content_type)
        self._choices: dict[int, _Choice] = {}
        self._main: int | None = None  # index of the choice whose text is the answer's
        self._size = 0
        self._no_field = ""  # the first line that belongs to no event
        self._beside: ApiError | None = None  # words beside the answer; an error, if the answer does not end well

    @property
    def done(self) -> bool:
        """Whether the stream has reported its end."""
        return self._reader.done

    @property
    def streamed(self) -> bool:
        """Whether the body is a stream of events."""
        return bool(self._reader.streamed)

    @property
    def has_end(self) -> bool:
        """Whether the answer has an end, so that what may follow is of no importance."""
        return self.done or self._is_ended()

    @property
    def size(self) -> int:
        """Number of characters so far, of text, thoughts, calls and further keys."""
        return self._size

    @property
    def text(self) -> str:
        """The answer so far, without thoughts and white space around it, followed by its calls of tools."""
        text = self._written or self.refusal or ""
        return text if self.tool_calls is None else f"{text}\n{tool_calls_text(self.tool_calls)}".strip()

    @property
    def reasoning(self) -> str | None:
        """The thoughts so far; None if there are none."""
        thoughts = next((each.answer.reasoning for each in self._in_order() if each.answer.reasoning), None)
        return None if thoughts is None else whole(thoughts)

    def feed(self, block: bytes) -> str:
        """Take the next bytes; return the new text of the answer, which may be empty.

        Raises:
            CallError: the bytes are no chat response, report an error, or are too many.
        """
        return "".join([self._take(event) for event in self._reader.feed(block)])

    def close(self) -> str:
        """End the body; return the text that was held back, without a refusal to answer.

        Raises:
            CallError: as `feed`; or the answer is incomplete or empty, or contradicts itself.
        """
        events = self._reader.close()
        if self._reader.streamed:
            new, needs_end = "".join([self._take(event, last=True) for event in events]), True
        else:
            new, needs_end = self._take_whole(events[0].data)
        self._check_end(needs_end and not self.done)
        for index in sorted(self._choices):
            held = self._choices[index].close()
            if held and self._main is None:
                self._main = index
            if index == self._main:
                new += held
        self._collect()
        if not self.text:
            raise self._empty()
        return new

    def _in_order(self) -> list[_Choice]:
        """List the choices: first the one with the text, then by index."""
        return [self._choices[index] for index in sorted(self._choices, key=lambda each: (each != self._main, each))]

    @property
    def _written(self) -> str:
        return "" if self._main is None else self._choices[self._main].answer.text

    def _take_whole(self, text: str) -> tuple[str, bool]:
        """Take a body that is no stream of events: an object, a list of chunks, or a chunk in each line.

        Return the new text, and whether the answer has to name its end, because the body may be cut off.
        """
        values, at = [], 0
        with suppress(ValueError):
            values, at = [parse_json(text)], len(text)
        try:
            while at < len(text):
                value, at = parse_first(text, at)
                values.append(value)
                at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches anything
        except ValueError:
            pass
        rest = text[at:].strip()
        if not values:
            raise _no_completion(text)
        new = "".join([self._take_value(value, text) for value in values])
        is_list = isinstance(values[0], list)
        in_pieces = any(choice.in_pieces for choice in self._choices.values()) and not is_list
        return new, rest != "[DONE]" and bool(len(values) > 1 or rest or in_pieces)

    def _take(self, event: Event, *, last: bool = False) -> str:
        """Take an event; the last one of a body may be cut off."""
        name, data = event
        if name == "error":
            raise _reported(read_error(data))
        try:
            value = parse_json(data)
        except ValueError:
            if name == "line":
                self._no_field = self._no_field or data
            elif not data.startswith(("{", "[")):
                self._beside = self._beside or read_error(data)
            elif not (self._is_ended() or (last and self._choices)):
                raise _no_completion(data) from None  # a piece of the answer may be lost
            return ""
        return self._take_value(value, data)

    def _take_value(self, value: Any, data: str) -> str:
        if isinstance(value, list) and value:
            return "".join([self._take_chunk(each, data) for each in value])
        return self._take_chunk(value, data)

    def _take_chunk(self, chunk: Any, data: str) -> str:
        """Take a chunk of a stream, or a whole completion."""
        if chunk is None or chunk == "":
            return ""
        if not isinstance(chunk, dict):
            raise _no_completion(data)
        error = chunk.get("error")
        if (error and _is_given(error)) or chunk.get("object") == "error" or chunk.get("type") == "error":
            raise _reported(read_error(chunk))
        if usage := chunk.get("usage"):
            self._count(usage)
        if isinstance(more := chunk.get("x_groq"), dict):
            self._count(more.get("usage"))
            if _is_given(more.get("error")):
                self._beside = read_error(more)
        choices = chunk.get("choices")
        if isinstance(choices, dict):
            choices = [choices]
        if not choices or not isinstance(choices, list):
            others = chunk.keys() - _ENVELOPE
            if any(_names_error(key) and _is_given(chunk[key]) and not _is_turn(chunk[key]) for key in others):
                self._beside = read_error(chunk)
            return ""
        new = ""
        for place, choice in enumerate(choices):
            if isinstance(choice, dict):
                new += self._take_choice(place, choice)
        return new

    def _take_choice(self, place: int, choice: Mapping[str, Any]) -> str:
        index = choice.get("index")
        if type(index) is not int:
            number = count(index)
            index = place if number is None else number
        known = self._choices.get(index)
        if known is None:
            if len(self._choices) == _MOST_CHOICES:
                raise CallError("bad_response", f"the response has more than {_MOST_CHOICES} choices")
            known = self._choices[index] = _Choice()
        new, added = known.add(choice)
        self._size += added
        if self._size > MAX_TEXT:
            raise CallError("bad_response", f"the answer is longer than {MAX_TEXT:,} characters")
        if usage := choice.get("usage"):
            self._count(usage)
        if new and self._main is None:
            self._main = index
        return new if index == self._main else ""

    def _count(self, usage: Any) -> None:
        """Take the numbers of tokens that there are; later ones count."""
        if not isinstance(usage, dict):
            return
        read = count(usage.get("prompt_tokens", usage.get("input_tokens")))
        written = count(usage.get("completion_tokens", usage.get("output_tokens")))
        total = count(usage.get("total_tokens"))
        if read is not None and total is not None:  # xAI and Google count thoughts in the total alone
            written = max(written or 0, total - read)
        if read is not None or written is not None:
            before = self.usage or Usage()
            self.usage = Usage(read or before.prompt_tokens, written or before.completion_tokens)

    def _is_ended(self) -> bool:
        return any(choice.finish is not None for choice in self._choices.values())

    def _check_end(self, needs_end: bool) -> None:
        """Raise a `CallError` unless there is an answer, and it ends as answers do."""
        for choice in self._choices.values():
            if choice.is_interrupted:
                error = self._beside or ApiError(choice.why if choice.why != choice.finish else "")
                words = f": {error.message}" if error.message else ""
                raise CallError("server", f"the answer was interrupted (finish reason: {choice.finish}){words}")
        if self._choices and self._is_ended():
            return
        if self._beside is not None:
            raise _reported(self._beside)
        if not self._choices:
            if self._no_field:
                raise _no_completion(self._no_field)
            holds = "the response holds no answer"
            raise CallError("bad_response", f"{holds}; base_url has to end in /v1 for most servers", public=holds)
        if needs_end:
            raise CallError("connection", "the answer broke off in the middle")

    def _collect(self) -> None:
        """Put the parts of the choices together."""
        calls: list[dict[str, Any]] = []
        extra: dict[str, Any] = {}
        choices = self._in_order()
        finishes = [choice.finish for choice in choices if choice.finish is not None]
        self.finish_reason = finishes[0] if finishes else None
        for choice in choices:
            if of_choice := choice.calls_from(len(calls)):
                if not calls:
                    self.finish_reason = "tool_calls" if choice.finish in (None, "stop") else choice.finish
                known = [_called(call) for call in calls]
                calls += [call for call in of_choice if _called(call) not in known]
            if choice.refusal and self.refusal is None:
                self.refusal = whole("".join(choice.refusal)).strip() or None
            merge(extra, choice.extra)
        if "tool_calls" in finishes and not calls:
            raise CallError("bad_response", "the finish reason is tool_calls, but the answer has no call")
        ids = set[str]()
        for number, call in enumerate(calls):
            if call["id"] in ids:  # results name calls by it
                call["id"] = f"{call['id']}_{number}"
            ids.add(call["id"])
        self.tool_calls = tuple(calls) or None
        if self.reasoning and any(choice.names_reasoning for choice in choices):
            extra["reasoning"] = self.reasoning
        self.extra = joined(extra) or None

    def _empty(self) -> CallError:
        if self.finish_reason == "content_filter":
            return CallError("empty", "the content filter of the server withholds the answer")
        why = f" (finish reason: {self.finish_reason})" if self.finish_reason else ""
        fix = "ask again, or ask another model"
        if self.reasoning or self.finish_reason == "length":  # many servers keep the thoughts for themselves
            fix = "it has only thoughts; raise max_tokens"
        return CallError("empty", f"the answer is empty{why}: {fix}")


def _called(call: Mapping[str, Any]) -> Any:
    return call.get("function") or call.get("custom")


def _texts(content: Any) -> tuple[str, str, str]:
    """Return text, thoughts and refusal of a message's content, which may be a list of parts."""
    if content is None or isinstance(content, str):
        return content or "", "", ""
    if isinstance(content, int | float) and not isinstance(content, bool):
        return str(content), "", ""
    texts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("thinking", "reasoning"):
            texts[1].append(_words(part.get("thinking")) or _words(part))
        elif kind == "refusal":
            texts[2].append(_words(part.get("refusal")))
        elif kind in (None, "text", "output_text"):
            texts[0].append(_words(part))
    return "".join(texts[0]), "".join(texts[1]), "".join(texts[2])


def _calls_in(content: Any) -> list[Any]:
    """List the calls of tools among the parts of a message's content, as Anthropic's API has them."""
    parts = content if isinstance(content, list) else ()
    return [part for part in parts if isinstance(part, dict) and part.get("type") in ("tool_use", "tool_call")]


def _words(value: Any, depth: int = 0) -> str:
    """Return the text of a field, which may be a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _words(value.get("text"), depth + 1) if depth < _DEEPEST else ""
    if isinstance(value, list) and depth < _DEEPEST:
        return "".join([_words(each, depth + 1) for each in value])
    return ""


def _is_given(value: Any, depth: int = 0) -> bool:
    """Tell whether there is anything in a field."""
    if depth < _DEEPEST and isinstance(value, dict | list):
        values = value.values() if isinstance(value, dict) else value
        return any(_is_given(each, depth + 1) for each in values)
    return bool(value)


def _is_turn(value: Any) -> bool:
    """Tell whether a field is a message of a conversation, as other APIs have it, and not an error's words."""
    return isinstance(value, dict) and "role" in value


def _names_error(key: str) -> bool:
    plain = key.lower().replace("_", "")
    return plain in _WORDS or plain.endswith("exception")


def _finish_of(reason: Any) -> str | None:
    """Return the end that a finish reason names: a key of `_ENDS`, or any other word, for an interruption."""
    if isinstance(reason, dict):
        reason = reason.get("type") or reason.get("reason")
    if not isinstance(reason, str):
        return "stop" if reason else None  # it has ended, and does not say how
    return _finish_word(reason[:100])


@lru_cache(maxsize=256)
def _finish_word(reason: str) -> str | None:
    word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", whole(reason.strip()))
    word = re.sub(r"[^\w]+", "_", word.lower()).strip("_").removeprefix("finish_reason_")
    return None if word in _NO_FINISH else _FINISHES.get(word, word)


def _reported(error: ApiError) -> CallError:
    words = f"the server reports: {error.message}" if error.message else "the server reports an error without a message"
    return CallError(classify(error), words, error=error)


def _no_completion(data: str) -> CallError:
    if data.lstrip()[:5].lower() in ("<!doc", "<html"):
        page = "the server answered with a web page"
        words = f"{page} ({read_error(data).message!r}); base_url has to end in /v1 for most servers"
        return CallError("bad_response", words, public=page)
    what = "nothing" if not data.strip() else repr(data[:60]) + ("…" if len(data) > 60 else "")
    return CallError(
        "bad_response", f"the server answered {what}, no chat completion", public="the response is no chat completion"
    )
