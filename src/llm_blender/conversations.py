"""Conversations: the one reader of messages, in every form of APIs and data sets, and the one writer of them as texts.

An LLM behind an API gets the messages of `to_messages`, with calls of tools and their results. Everything that reads
texts (rankers, fusers, chat templates, recorded answers) gets those of `text_messages` or `instruction_text`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NotRequired, TypedDict, cast

from llm_blender.errors import InputError, MessageError

__all__ = [
    "PROMPT_KEYS",
    "Instruction",
    "Message",
    "TextMessage",
    "instruction_text",
    "message_text",
    "prompt_key",
    "read_messages",
    "text_messages",
    "to_messages",
    "tool_calls_text",
]


class Message(TypedDict):
    """One turn of a conversation, as chat APIs take it; `to_messages` keeps further keys, too.

    `role` is ``system``, ``user``, ``assistant`` or ``tool``. `content` is None only in a turn that calls tools.
    """

    role: str
    content: str | None
    name: NotRequired[str]
    refusal: NotRequired[str]
    tool_calls: NotRequired[Sequence[Mapping[str, Any]]]
    tool_call_id: NotRequired[str]


class TextMessage(TypedDict):
    """One turn of a conversation as text; `role` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


Instruction = str | Sequence[Message] | Sequence[TextMessage]
"""A prompt, or a conversation whose last turn is the user's or a tool's."""

PROMPT_KEYS = ("prompt", "instruction", "question", "messages")
"""Keys of the prompt in a row of a file, in order of precedence."""

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
}
_SHAREGPT = {"from": "role", "value": "content"}
_KEYS = frozenset({"role", "content", "name", "refusal", "tool_calls", "tool_call_id", "function_call"})
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")  # not part of what a turn says
_UNREAD = {"image": "images are", "audio": "audio is", "video": "videos are", "file": "files are", "doc": "files are"}
_NOTHING = "it needs a text `role` and a text `content`"


def to_messages(instruction: Instruction) -> list[Message]:
    """Convert an instruction to messages that a chat API takes.

    Roles are normalised (``developer`` becomes ``system``, ``function`` becomes ``tool``), parts of text are joined,
    ``from`` and ``value`` (ShareGPT) are role and content, values of a tool become JSON, and the former
    ``function_call`` becomes one of `tool_calls`. Calls without an ``id`` get one, and results without a
    ``tool_call_id`` that of the call they follow. All other keys are kept, without nulls and what is no JSON.

    Raises:
        MessageError: a message lacks role or content, its role is unknown, or it holds more than text and calls.
        InputError: the instruction is empty, or no conversation at all.
    """
    if isinstance(instruction, str):
        given: Iterable[Any] = [{"role": "user", "content": instruction}]
    elif isinstance(instruction, Mapping) or not isinstance(instruction, Iterable):
        raise InputError(f"An instruction is a text or a list of messages, not {type(instruction).__name__}.")
    else:
        given = instruction
    messages = read_messages(given)
    if not any(message_text(message).strip() for message in messages):
        raise InputError("The instruction is empty: give the text that the LLMs should answer.")
    return messages


def read_messages(given: Iterable[Any]) -> list[Message]:
    """Read messages as `to_messages` does, without asking for a text: a completion may be empty.

    Raises:
        MessageError: as for `to_messages`.
    """
    messages = [_read_message(position, message) for position, message in enumerate(given)]
    _connect_results(messages)
    return messages


def text_messages(instruction: Instruction) -> list[TextMessage]:
    """Render an instruction as turns of text: a call of a tool as its JSON, its result as a turn of the user.

    Raises:
        MessageError, InputError: as for `to_messages`.
    """
    return [
        {"role": "user" if message["role"] == "tool" else message["role"], "content": message_text(message)}
        for message in to_messages(instruction)
    ]


def message_text(message: Message) -> str:
    """Render one message of `to_messages` as text."""
    text, refusal = message["content"] or "", message.get("refusal", "")
    if refusal not in text:
        text = f"{text}\n{refusal}".strip()
    if calls := message.get("tool_calls"):
        text = f"{text}\n{tool_calls_text(calls)}".strip()
    return f"Result of a tool: {text}" if message["role"] == "tool" else text


def instruction_text(instruction: Instruction, input: str = "") -> str:
    """Render an instruction as the one text that a ranker reads.

    A single message is its own text; a conversation becomes ``User: …`` and ``Assistant: …`` turns.
    `input` (MixInstruct's second field) is appended after a newline.

    Raises:
        MessageError, InputError: as for `to_messages`; a text is never refused.
    """
    if isinstance(instruction, str):
        text = instruction
    else:
        messages = text_messages(instruction)
        if len(messages) == 1:
            text = messages[0]["content"]
        else:
            text = "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)
    return f"{text}\n{input}" if text and input else text or input


def tool_calls_text(calls: Sequence[Mapping[str, Any]]) -> str:
    """Render calls of tools as text: their names and arguments as JSON."""
    text = json.dumps([_readable_call(call) for call in calls], ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8")  # arguments can escape a lone surrogate


def prompt_key(record: Mapping[str, Any], first: str = PROMPT_KEYS[0]) -> str | None:
    """Return the one of `PROMPT_KEYS` that holds the prompt of a record, `first` before the others; None without."""
    return next((key for key in (first, *PROMPT_KEYS) if record.get(key) is not None), None)


def _readable_call(call: Mapping[str, Any]) -> dict[str, Any]:
    called = call.get("function") or call.get("custom") or {}
    arguments = called.get("arguments", called.get("input"))
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):  # not JSON: as the LLM wrote it
            arguments = json.loads(arguments)
    return {"name": called.get("name"), "arguments": arguments}


def _read_message(position: int, message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise MessageError(position, "", _NOTHING)
    if "from" in message and "value" in message and not message.keys() & {"role", "content"}:
        message = {_SHAREGPT.get(key, key): value for key, value in message.items()}
    if not isinstance(message.get("role"), str):
        raise MessageError(position, "role", _NOTHING)
    role = _ROLES.get(message["role"].strip().lower())
    if role is None:
        raise MessageError(position, "role", f"unknown role {message['role']!r}; known: {', '.join(_ROLES)}")
    values = {key: value for key, value in _present(message).items() if key in _KEYS or _is_json(value)}
    for key in ("name", "refusal", "tool_call_id"):
        if not isinstance(values.get(key, ""), str):
            raise MessageError(position, key, f"a text is wanted, not {type(values[key]).__name__}")
    content = message.get("content")
    if role == "tool" and isinstance(content, Mapping | int | float):
        content = json.dumps(content, ensure_ascii=False, default=str)
    content = _joined(position, content)
    calls = _read_calls(position, values)
    values.pop("function_call", None)
    if content is None and not calls:
        content = values.get("refusal")
        if content is None and ("content" not in message or role in ("system", "user")):
            raise MessageError(position, "", _NOTHING)
    more = {"tool_calls": calls} if calls else {}
    return cast(Message, {**values, "role": role, "content": content if calls else content or "", **more})


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what is null or an empty list: clients send back each key of a turn, with or without a value."""
    return {key: value for key, value in values.items() if value is not None and value != [] and value != ()}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):  # such as a time, in a column of Parquet
        return False
    return True


def _joined(position: int, content: Any) -> str | None:
    """Join the parts of a content; None if there is none."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, Mapping) or not isinstance(content, Sequence):
        kind = type(content).__name__
        raise MessageError(position, "content", f"a text or a list of parts is wanted, not {kind}")
    return "".join(_part(position, part) for part in content)


def _part(position: int, part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = (part.get("type") or "text") if isinstance(part, Mapping) else None
    if not isinstance(kind, str):
        raise MessageError(position, "content", "a part is neither a text nor an object with a `type`")
    if kind in _THOUGHTS:
        return ""
    if kind not in _TEXT_PARTS:
        unread = next((words for name, words in _UNREAD.items() if name in kind), f"parts of the type {kind!r} are")
        raise MessageError(position, "content", f"{unread} not read: send text")
    text = part.get("refusal" if kind == "refusal" else "text")
    if not isinstance(text, str):
        raise MessageError(position, "content", f"a part of the type {kind!r} has no text")
    return text


def _read_calls(position: int, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = values.get("tool_calls")
    if calls is None:
        calls = [{"function": values["function_call"]}] if "function_call" in values else []
    if isinstance(calls, str | Mapping) or not isinstance(calls, Sequence):
        raise MessageError(position, "tool_calls", f"a list of calls is wanted, not {type(calls).__name__}")
    return [_read_call(position, index, call) for index, call in enumerate(calls)]


def _read_call(position: int, index: int, call: Any) -> dict[str, Any]:
    where = f"tool_calls.{index}"
    if not isinstance(call, Mapping):
        raise MessageError(position, where, f"a call is an object, not {type(call).__name__}")
    call = _present(call)
    if not isinstance(call.get("id", ""), str):
        raise MessageError(position, f"{where}.id", f"a text is wanted, not {type(call['id']).__name__}")
    kind = "custom" if "custom" in call else "function"
    if kind not in call:  # chat templates also take a call without this level
        call[kind] = {key: call.pop(key) for key in ("name", "arguments") if key in call}
    called = call[kind]
    if not isinstance(called, Mapping) or not isinstance(called.get("name"), str):
        raise MessageError(position, where, "a call needs the `name` of its function")
    if kind == "function" and not isinstance(called.get("arguments"), str):
        arguments = json.dumps(called.get("arguments") or {}, ensure_ascii=False, default=str)
        called = {**called, "arguments": arguments}
    return {"id": f"call_{position}_{index}", "type": kind, **call, kind: called}


def _connect_results(messages: Sequence[Message]) -> None:
    """Give each result without a ``tool_call_id`` that of the first open call of its name, or else of any name."""
    waiting: dict[str, str] = {}  # names of functions, by the ids of their calls
    for message in messages:
        for call in message.get("tool_calls", ()):
            waiting[call["id"]] = (call.get("function") or call["custom"])["name"]
        if message["role"] == "tool":
            if waiting and "tool_call_id" not in message:
                name = message.get("name")
                message["tool_call_id"] = next((id for id in waiting if waiting[id] == name), next(iter(waiting)))
            waiting.pop(message.get("tool_call_id", ""), None)
