"""`/v1/responses`: OpenAI's newer API, translated to a chat request and back.

Nothing is stored: a request carries the whole conversation. What an LLM needs back in the next turn is in the items of
the answer: further keys of a call in its item, those of a turn in the `encrypted_content` of its reasoning.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import JSONResponse

from llm_blender.server.chat import stream_answer, unsent, whole_answer
from llm_blender.server.errors import BodyRoute, RefusedError, error_body
from llm_blender.server.request import Question, read_question
from llm_blender.server.response import blend_json, choices_of, finish_reason, head, message, usage
from llm_blender.server.schemas import ChatRequest, ResponsesAnswer, ResponsesRequest
from llm_blender.server.service import Service, owner
from llm_blender.types import Answer, Candidate

Place = tuple[int | str, ...]
"""Keys and indices that lead to a value in the body of a request."""
router = APIRouter(route_class=BodyRoute)

_RESPONSE = {
    "model": ResponsesAnswer,
    "description": "The answer; with `stream`, the typed events of OpenAI's streams.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_NOT_STORED = "responses are not stored: send the whole conversation as `input`"
_UNSUPPORTED = {
    "previous_response_id": _NOT_STORED,
    "conversation": _NOT_STORED,
    "prompt": "prompts are not stored: send `instructions` and `input`",
    "background": "responses are not stored: wait for the answer, or stream it",
    "top_logprobs": "log probabilities are not supported",
    "response_format": "this API has it as `text.format`",
    "n": "a response is one answer; `blend.samples` sets the number of answers of each LLM",
}
# Keys of the body that are echoed and do not go to the LLMs, or that the chat request has under another name.
_ECHOED = (
    "max_output_tokens",
    "max_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "temperature",
    "top_p",
    "user",
)
_NAMES = {
    r"response_format(\.json_schema)?": "text.format",
    r"(tools\.\d+)\.function": r"\1",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "max_completion_tokens": "max_output_tokens",
}  # keys of the chat request
_PARTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_CALL = frozenset({"type", "id", "call_id", "name", "arguments", "status", "async", "caller", "namespace"})
_TURN = frozenset({"role", "content", "refusal", "tool_calls"})
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_FAILED = {"rate_limit_error": "rate_limit_exceeded", "invalid_request_error": "invalid_prompt"}


@router.post("/v1/responses", responses={200: _RESPONSE})
async def respond(body: ResponsesRequest, request: Request) -> Response:
    """Answer as `/v1/chat/completions` does, in the format of OpenAI's newer API."""
    service = Service.of(request)
    question = read_question(service, chat_request(body))
    shown = _Shown(question, body)
    if body.stream:
        return stream_answer(service, question, owner(request), _Events(shown))
    answer = await whole_answer(request, service, question)
    blend = await blend_json(service, question, answer, shown.id, owner(request))
    return JSONResponse(shown.answered(answer, _items(choices_of(answer, 1)[0]), blend))


def chat_request(body: ResponsesRequest) -> ChatRequest:
    """Translate a request to a chat request.

    Raises:
        RefusedError: it needs what this service does not have.
        RequestValidationError: a value is wrong.
    """
    for key, reason in _UNSUPPORTED.items():
        if (given := getattr(body, key, None)) and (key, given) != ("n", 1):
            raise unsupported(key, reason)
    if "message.output_text.logprobs" in (body.include or ()):
        raise unsupported("include", _UNSUPPORTED["top_logprobs"])
    turns, text = _Turns(body), body.text
    values = {
        **(body.model_extra or {}),
        **_tool_values(body),
        "messages": turns.messages,
        "max_completion_tokens": body.max_output_tokens,
        "response_format": _response_format(text.format) if text and text.format else None,
        "verbosity": text.verbosity if text else None,
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        **{key: getattr(body, key) for key in ("model", "stream", "temperature", "top_p", "seed", "blend")},
    }
    return translate(values, turns.place)


def _own_name(key: str) -> str:
    """Translate a key of the chat request to that of this API."""
    for pattern, name in _NAMES.items():
        key = re.sub(rf"^{pattern}(?=\.|$)", name, key)
    return key


def translate(values: Mapping[str, Any], place: Callable[[Place], Place]) -> ChatRequest:
    """Make a chat request for a request of another format.

    Args:
        values: its keys; those that are None are left out.
        place: translates the place of an error in the chat request to one in the client's request.

    Raises:
        RequestValidationError: a value is wrong.
    """
    try:
        return ChatRequest.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *place(each["loc"]))} for each in error.errors()]
        raise RequestValidationError(errors) from None


def unsupported(param: str, reason: str) -> RefusedError:
    """Make the error for a key that this service does not support."""
    return RefusedError(400, "unsupported_parameter", f"{param}: {reason}.", param=param)


class _Turns:
    """The items of a request as the turns of a chat.

    Attributes:
        messages: the turns.
    """

    def __init__(self, body: ResponsesRequest) -> None:
        self.messages: list[dict[str, Any]] = []
        self._places: list[str] = []  # the key of the body that each turn comes from
        self._more: dict[str, Any] = {}  # keys for the next turn of the assistant
        if body.instructions:
            self._add("instructions", {"role": "system", "content": body.instructions})
        if isinstance(body.input, str):
            self._add("input", {"role": "user", "content": body.input})
        else:
            for index, item in enumerate(body.input):
                self._read(f"input.{index}", item)

    def place(self, loc: Place) -> Place:
        """Translate the place of an error in the chat request to one in the body."""
        match loc:
            case ("messages", int(turn), *rest) if turn < len(self._places):
                return (self._places[turn], *rest)
            case ("messages", *_):
                return ("input",)
            case _:
                return tuple(_own_name(".".join(str(part) for part in loc)).split("."))

    def _read(self, place: str, item: Mapping[str, Any]) -> None:
        match item.get("type") or "message":
            case "message":
                self._read_message(place, item)
            case "function_call":
                call = {key: _text(place, item, key) for key in ("name", "arguments")}
                more = {key: value for key, value in item.items() if key not in _CALL}
                calls = self._assistant(place).setdefault("tool_calls", [])
                calls.append({**more, "id": _text(place, item, "call_id"), "type": "function", "function": call})
            case "function_call_output":
                turn = {"role": "tool", "content": _content(item.get("output"))}
                if item.get("call_id"):
                    turn["tool_call_id"] = _text(place, item, "call_id")
                self._add(place, turn)
            case "reasoning":
                with suppress(TypeError, ValueError, RecursionError):  # of another service, or none
                    more = json.loads(item.get("encrypted_content") or "")
                    if isinstance(more, dict):
                        self._more = {key: value for key, value in more.items() if key not in _TURN}
                if self._last_role() == "assistant":
                    self._assistant(place)
            case "item_reference":
                raise unsupported(place, "items are not stored: send the item itself")
            case kind:
                raise unsupported(f"{place}.type", f"items of the type {kind!r} are not supported")

    def _read_message(self, place: str, item: Mapping[str, Any]) -> None:
        content, role = _content(item.get("content")), item.get("role")
        if role == "assistant" and self._last_role() == "assistant" and self.messages[-1]["content"] is None:
            self.messages[-1]["content"] = content  # the text beside calls
        elif role == "assistant":
            self._add(place, {"role": role, "content": content, **self._take_more()})
        else:
            self._add(place, {"role": role, "content": content})

    def _assistant(self, place: str) -> dict[str, Any]:
        """Return the turn of the assistant that an item continues."""
        if self._last_role() != "assistant":
            self._add(place, {"role": "assistant", "content": None})
        self.messages[-1].update(self._take_more())
        return self.messages[-1]

    def _last_role(self) -> Any:
        return self.messages[-1]["role"] if self.messages else None

    def _take_more(self) -> dict[str, Any]:
        more, self._more = self._more, {}
        return more

    def _add(self, place: str, turn: dict[str, Any]) -> None:
        self.messages.append(turn)
        self._places.append(place)


def _content(content: Any) -> Any:
    """Translate the parts of a content; the chat request refuses those that are not text."""
    if not isinstance(content, list):
        return content
    return [_part(part) for part in content]


def _part(part: Any) -> Any:
    if isinstance(part, dict) and isinstance(kind := part.get("type"), str) and (key := _PARTS.get(kind)):
        return {"type": "text", "text": part.get(key)}
    return part


def _text(place: str, item: Mapping[str, Any], key: str) -> str:
    if not isinstance(value := item.get(key), str):
        raise RefusedError(400, "invalid_value", f"{place}.{key}: a text is wanted.", param=f"{place}.{key}")
    return value


def _tool_values(body: ResponsesRequest) -> dict[str, Any]:
    """Translate the tools, and the choice among them."""
    choice, tools = body.tool_choice, [_tool(f"tools.{i}", tool) for i, tool in enumerate(body.tools or ())]
    match choice:
        case {"type": "function", "name": name}:
            choice = {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "tools": [*allowed], "mode": str(choice)}:
            names = [each.get("name") for each in allowed if isinstance(each, Mapping)]
            tools = [tool for tool in tools if tool["function"]["name"] in names]
        case str() | int() | float() | list() if choice not in ("none", "auto", "required"):
            raise unsupported("tool_choice", "it is none, auto, required, or names a function")
        case {**other}:
            raise unsupported("tool_choice", f"the choice {other.get('type')!r} is not supported: name a function")
    if not tools:
        return {}
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": body.parallel_tool_calls}


def _tool(place: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    if (kind := tool.get("type")) != "function":
        reason = f"{kind!r} is not supported: this service runs no tools, so that only the type 'function' is"
        raise unsupported(f"{place}.type", reason)
    if "name" not in tool and "function" in tool:
        raise unsupported(f"{place}.function", "put its `name` and `parameters` beside `type`, as this API has them")
    _text(place, tool, "name")
    keys = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {key: tool[key] for key in keys if tool.get(key) is not None}}


def _response_format(given: Mapping[str, Any]) -> dict[str, Any]:
    if given.get("type") != "json_schema":
        return dict(given)
    return {"type": "json_schema", "json_schema": {key: value for key, value in given.items() if key != "type"}}


def _items(candidate: Candidate, *, begun: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Render an answer as items: thoughts, the message, calls of functions.

    Args:
        candidate: the answer.
        begun: the message whose text a stream has begun with, which is then the first item.
    """
    turn = message(candidate)
    calls, more = turn.get("tool_calls") or (), {key: value for key, value in turn.items() if key not in _TURN}
    if not calls:  # some APIs need their thoughts back to go on after a call, and refuse them elsewhere
        more.pop("reasoning_content", None)
    status = "incomplete" if finish_reason(candidate) in _INCOMPLETE else "completed"
    items: list[dict[str, Any]] = []
    if candidate.reasoning or more:
        summary = [{"type": "summary_text", "text": candidate.reasoning}] if candidate.reasoning else []
        kept = {"encrypted_content": json.dumps(more)} if more else {}
        items.append({"id": _new_id("rs_"), "type": "reasoning", "summary": summary, **kept})
    parts: list[dict[str, Any]] = []
    text, refusal = turn.get("content") or "", turn.get("refusal")
    if text or begun is not None or not (refusal or calls):
        parts.append({**_EMPTY_TEXT, "text": text})
    if refusal:
        parts.append({"type": "refusal", "refusal": refusal})
    if begun is not None:
        items.insert(0, {**begun, "status": status, "content": parts})
    elif parts:
        items.append({**_new_message(), "status": status, "content": parts})
    return [*items, *(_call_item(call) for call in calls)]


_EMPTY_TEXT: Mapping[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


def _new_message() -> dict[str, Any]:
    return {"id": _new_id("msg_"), "type": "message", "role": "assistant", "status": "in_progress", "content": []}


def _call_item(call: Mapping[str, Any]) -> dict[str, Any]:
    more = {key: value for key, value in call.items() if key not in _CALL and key not in ("function", "custom")}
    called = call.get("function") or call["custom"]  # this one is unasked
    function = {"name": called["name"], "arguments": called.get("arguments", called.get("input", ""))}
    item = {"id": _new_id("fc_"), "type": "function_call", "status": "completed", "call_id": call["id"]}
    return {**more, **item, **function}


def _new_id(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4().hex}"


class _Shown:
    """The object that answers a request.

    Attributes:
        id: its id.
    """

    def __init__(self, question: Question, body: ResponsesRequest) -> None:
        begin = head("response", question.model, "resp_")
        self.id: str = begin["id"]
        self._values = {
            **begin,
            "created_at": begin.pop("created"),
            **{key: getattr(body, key) for key in _ECHOED},
            "background": False,
            "instructions": body.instructions,
            "metadata": body.metadata or {},
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": body.reasoning.model_dump() if body.reasoning else {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "text": {"format": {"type": "text"}, **(body.text.model_dump(exclude_none=True) if body.text else {})},
            "tool_choice": body.tool_choice or "auto",
            "tools": [{"description": None, "parameters": None, "strict": None, **tool} for tool in body.tools or ()],
            "top_logprobs": 0,
            "truncation": "disabled",
        }
        del self._values["created"]

    def begun(self, status: str = "in_progress", error: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Render the object without an answer."""
        empty: dict[str, Any] = {"completed_at": None, "incomplete_details": None, "output": [], "usage": None}
        return {**self._values, "status": status, "error": error, **empty}

    def answered(self, answer: Answer, output: Sequence[Mapping[str, Any]], blend: Mapping[str, Any]) -> dict[str, Any]:
        """Render the object with an answer."""
        reason = _INCOMPLETE.get(finish_reason(choices_of(answer, 1)[0]))
        done = {"incomplete_details": {"reason": reason}} if reason else {"completed_at": int(time.time())}
        counts = usage(answer)
        tokens = {
            "input_tokens": counts["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": counts["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": counts["total_tokens"],
        }
        status = "incomplete" if reason else "completed"
        return {**self.begun(status), **done, "output": list(output), "usage": tokens, "blend": blend}


class _Events:
    """OpenAI's typed events of one answer.

    Attributes:
        id: id of the response.
    """

    def __init__(self, shown: _Shown) -> None:
        self.id, self._shown = shown.id, shown
        self._number = 0
        self._message: dict[str, Any] | None = None  # whose text is sent while an LLM writes it

    def begin(self) -> list[bytes]:
        """Render the events before the text."""
        return [self._event(f"response.{kind}", response=self._shown.begun()) for kind in ("created", "in_progress")]

    def text(self, text: str) -> list[bytes]:
        """Render a piece of the text; the first one begins the message."""
        lines = []
        if self._message is None:
            self._message = _new_message()
            lines = [self._added(0, self._message), *self._part("added", 0, self._message, 0, _EMPTY_TEXT)]
        return [*lines, *self._delta(0, self._message, 0, "output_text", text)]

    def end(self, answer: Answer, sent: str, blend: Mapping[str, Any]) -> list[bytes]:
        """Render the rest of the answer: `sent` is the text sent so far."""
        items = _items(choices_of(answer, 1)[0], begun=self._message)
        lines: list[bytes] = []
        for index, item in enumerate(items):
            begun = index == 0 and self._message is not None
            if not begun:
                lines.append(self._added(index, item))
            match item["type"]:
                case "message":
                    for place, part in enumerate(item["content"]):
                        lines += self._content(index, item, place, part, sent if begun and place == 0 else None)
                case "reasoning":
                    lines += self._thoughts(index, item)
                case _:
                    lines += self._arguments(index, item)
            lines.append(self._event("response.output_item.done", output_index=index, item=item))
        response = self._shown.answered(answer, items, blend)
        return [*lines, self._event(f"response.{response['status']}", response=response)]

    def fail(self, error: Exception) -> list[bytes]:
        """Render an error."""
        body = error_body(error)
        reason = {"code": _FAILED.get(body["error"]["type"], "server_error"), "message": body["error"]["message"]}
        more = {"blend": body["blend"]} if "blend" in body else {}
        return [self._event("response.failed", response={**self._shown.begun("failed", reason), **more})]

    def _event(self, kind: str, **values: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **values}
        self._number += 1
        return f"event: {kind}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()

    def _added(self, index: int, item: Mapping[str, Any]) -> bytes:
        """Render the begin of an item, before its parts."""
        empty: dict[str, Any] = {"content": [], "summary": [], "arguments": ""}
        status = {"status": "in_progress"} if "status" in item else {}
        begun = {**item, **{key: empty[key] for key in empty if key in item}, **status}
        return self._event("response.output_item.added", output_index=index, item=begun)

    def _part(self, what: str, index: int, item: Mapping[str, Any], place: int, part: Mapping[str, Any]) -> list[bytes]:
        where = {"item_id": item["id"], "output_index": index, "content_index": place}
        return [self._event(f"response.content_part.{what}", **where, part=part)]

    def _delta(self, index: int, item: Mapping[str, Any], place: int, kind: str, text: str) -> list[bytes]:
        if not text:
            return []
        where = {"item_id": item["id"], "output_index": index, "content_index": place}
        more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        return [self._event(f"response.{kind}.delta", **where, delta=text, **more)]

    def _content(
        self, index: int, item: Mapping[str, Any], place: int, part: Mapping[str, Any], sent: str | None
    ) -> list[bytes]:
        """Render a part of a message; `sent` is its text so far, None before its begin."""
        kind, key = part["type"], "refusal" if part["type"] == "refusal" else "text"
        where = {"item_id": item["id"], "output_index": index, "content_index": place}
        more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        begin = self._part("added", index, item, place, {**part, key: ""}) if sent is None else []
        return [
            *begin,
            *self._delta(index, item, place, kind, unsent(part[key], sent or "")),
            self._event(f"response.{kind}.done", **where, **{key: part[key]}, **more),
            *self._part("done", index, item, place, part),
        ]

    def _thoughts(self, index: int, item: Mapping[str, Any]) -> list[bytes]:
        lines = []
        for place, part in enumerate(item["summary"]):
            where = {"item_id": item["id"], "output_index": index, "summary_index": place}
            name = "response.reasoning_summary"
            lines += [
                self._event(f"{name}_part.added", **where, part={**part, "text": ""}),
                self._event(f"{name}_text.delta", **where, delta=part["text"]),
                self._event(f"{name}_text.done", **where, text=part["text"]),
                self._event(f"{name}_part.done", **where, part=part),
            ]
        return lines

    def _arguments(self, index: int, item: Mapping[str, Any]) -> list[bytes]:
        where, name = {"item_id": item["id"], "output_index": index}, "response.function_call_arguments"
        return [
            self._event(f"{name}.delta", **where, delta=item["arguments"]),
            self._event(f"{name}.done", **where, name=item["name"], arguments=item["arguments"]),
        ]
