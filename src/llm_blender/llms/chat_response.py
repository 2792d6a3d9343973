"""Parse the body of an OpenAI-compatible response, streamed or not, into one answer.

No I/O: bytes go in, text comes out. A response that is not streamed is read as one chunk of a stream, so servers that
ignore ``stream`` work, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ValidationError

from llm_blender.llms.api_errors import CallError
from llm_blender.types import Usage

_TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "[THINK]": "[/THINK]",
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

    Attributes:
        text: the answer so far, without white space around it.
    """

    def __init__(self) -> None:
        self.text = ""
        self._thoughts: list[str] = []
        self._held = ""  # text or thought, not known yet
        self._closing: str | None = None  # the tag that ends the current thought
        self._begun = False

    @property
    def reasoning(self) -> str | None:
        """The thoughts so far; None if there are none."""
        return "".join(self._thoughts).removesuffix(_GPT_OSS_TURN).strip() or None

    def think(self, piece: str) -> None:
        """Take a piece that the API marks as a thought."""
        self._thoughts.append(piece)

    def feed(self, piece: str) -> str:
        """Take the next piece; return the new text, which may be empty."""
        self._held += piece
        while not self._begun:
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
            start = self._held.lstrip()
            opened = next((tag for tag in _TAGS if start.startswith(tag)), None)
            if opened is not None:
                self._held, self._closing = start.removeprefix(opened), _TAGS[opened]
            elif any(tag.startswith(start) for tag in _TAGS):
                return ""
            else:
                self._held, self._begun = start, True
        return self._release(self._held.rstrip())  # white space may turn out to be the last

    def close(self) -> str:
        """End the answer; return the text that was held back."""
        if self._closing is not None:
            self._thoughts.append(self._held)
            self._held = ""
        rest = self._release(self._held.strip())
        if unopened := _UNOPENED.match(self.text):
            self._thoughts.append(unopened[1])
            self.text = self.text[unopened.end() :].strip()
        return rest

    def _release(self, text: str) -> str:
        self._held = self._held[len(text) :]
        self.text += text
        return text


def split_reasoning(text: str) -> tuple[str, str | None]:
    """Split an answer into its text and the thoughts before it (None without thoughts).

    The text is empty if the thoughts do not end.
    """
    splitter = ReasoningSplitter()
    splitter.feed(text)
    splitter.close()
    return splitter.text, splitter.reasoning


MAX_BYTES = 16 * 1024 * 1024
"""Maximum bytes of one response; a longer one is an error."""


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(BaseModel):
    index: int | None = None
    id: str | None = None
    function: _Function = _Function()


class _Part(BaseModel):
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")
        return self.content or ""

    @property
    def thought(self) -> str:
        return self.reasoning_content or self.reasoning or ""


class _Choice(BaseModel):
    delta: _Part | None = None
    message: _Part | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(BaseModel):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class ChatResponse:
    """A parser that collects one answer from the bytes of its response.

    Attributes:
        usage: tokens, if the server counts them.
        finish_reason: ``stop``, ``length``, … as the server reports it.
        done: whether the stream has ended.
    """

    def __init__(self, content_type: str) -> None:
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.done = False
        self._streamed = "text/event-stream" in content_type
        self._answer = ReasoningSplitter()
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._choices = 0
        self._bytes = 0
        self._rest = bytearray()

    @property
    def text(self) -> str:
        """The answer so far, without thoughts and white space around it, followed by its calls of tools."""
        calls = self.tool_calls
        return self._answer.text if calls is None else f"{self._answer.text}\n{tool_calls_text(calls)}".strip()

    @property
    def tool_calls(self) -> tuple[Mapping[str, Any], ...] | None:
        """Calls of functions, as the API gives them; None if there are none."""
        return tuple(self._tool_calls[index] for index in sorted(self._tool_calls)) or None

    @property
    def reasoning(self) -> str | None:
        """The thoughts so far; None if there are none."""
        return self._answer.reasoning

    def feed(self, block: bytes) -> str:
        """Take the next bytes; return the new text of the answer, which may be empty.

        Raises:
            CallError: the bytes are no chat response, report an error, or are too many.
        """
        self._bytes += len(block)
        if self._bytes > MAX_BYTES:
            raise CallError("bad_response", f"the answer is longer than {MAX_BYTES >> 20} MiB")
        self._rest += block
        if not self._streamed or b"\n" not in block:
            return ""
        return "".join(self._take(data) for data in self._events())

    def close(self) -> str:
        """End the body; return the text that was held back.

        Raises:
            CallError: as `feed`; or the answer is incomplete or empty.
        """
        # A stream's last line may have no end.
        new = self.feed(b"\n") if self._streamed else self._take(bytes(self._rest))
        if self._streamed and not self.done and self.finish_reason is None and self._choices:
            raise CallError("connection", "the answer broke off in the middle")
        if not self._choices:
            raise CallError("bad_response", "the response holds no answer; does base_url end in /v1?")
        new += self._answer.close()
        if not self.text:
            why = f" (finish reason: {self.finish_reason})" if self.finish_reason else ""
            fix = "it has only thoughts; raise max_tokens" if self.reasoning else "ask again, or ask another model"
            raise CallError("empty", f"the answer is empty{why}: {fix}")
        return new

    def _events(self) -> Iterator[bytes]:
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and not self.done:
                data = bytes(line[5:].strip())
                if data == b"[DONE]":
                    self.done = True
                else:
                    yield data

    def _take(self, data: bytes) -> str:
        try:
            chunk = _Chunk.model_validate_json(data)
        except ValidationError:
            raise CallError("bad_response", f"the server answered {_glimpse(data)}, no chat completion") from None
        if chunk.error:
            message = chunk.error.get("message") if isinstance(chunk.error, dict) else None
            raise CallError("server", f"the server reports: {message or chunk.error}")
        if chunk.usage is not None:
            self.usage = Usage(chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0)
        if not chunk.choices:
            return ""
        self._choices += 1
        choice = chunk.choices[0]
        self.finish_reason = choice.finish_reason or self.finish_reason
        part = choice.delta or choice.message or _Part()
        self._answer.think(part.thought)
        for place, call in enumerate(part.tool_calls or ()):
            self._take_tool_call(place if call.index is None else call.index, call)
        return self._answer.feed(part.text)

    def _take_tool_call(self, index: int, piece: _ToolCall) -> None:
        empty = {"id": f"call_{index}", "type": "function", "function": {"name": "", "arguments": ""}}
        call = self._tool_calls.setdefault(index, empty)
        call["id"] = piece.id or call["id"]
        call["function"]["name"] += piece.function.name or ""
        call["function"]["arguments"] += piece.function.arguments or ""


def tool_calls_text(calls: Sequence[Mapping[str, Any]]) -> str:
    """Render calls of functions as text for ranking: their names and arguments as JSON."""
    return json.dumps([_readable(call["function"]) for call in calls], ensure_ascii=False)


def _readable(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function["arguments"]
    with suppress(ValueError):  # not JSON: as the LLM wrote it
        arguments = json.loads(arguments)
    return {"name": function["name"], "arguments": arguments}


def _glimpse(data: bytes) -> str:
    text = data[:60].decode("utf-8", errors="replace")
    return "nothing" if not text.strip() else repr(text) + ("…" if len(data) > 60 else "")
