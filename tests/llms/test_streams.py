"""Properties of all streams: a whole answer is never lost, a broken one never passes, no error is unexpected."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_blender.llms.api_errors import CallError
from llm_blender.llms.chat_response import ChatResponse
from llm_blender.types import Usage

SCALARS = [None, True, False, 0, -1, 7, 1.5, float("nan"), float("inf"), 10**400, "", "x", "\ud83d", "\x00"]


def any_value(dice: Random, keys: Sequence[str], leaves: Sequence[Any] = SCALARS, depth: int = 3) -> Any:
    """Make a JSON value of any kind."""
    kind = dice.random()
    if not depth or kind < 0.4:
        return dice.choice(leaves)
    inner = [any_value(dice, keys, leaves, depth - 1) for _ in range(dice.randint(0, 4))]
    return inner if kind < 0.6 else {dice.choice(keys): each for each in inner}


dice = st.integers(0, 2**32).map(Random)
"""For what needs no shrinking: cuts, orders, values, line ends."""
labels = st.sampled_from(["text/event-stream", "application/json", "text/plain", ""])
words = st.sampled_from(["Hello", " ", "\n", "é", "😀", '"', "\\", "data: ", "[DONE]", "{}", "\u2028"])
texts = st.lists(words, max_size=6).map("".join)
arguments = st.dictionaries(st.sampled_from(["a", "}", '"', "é"]), st.integers() | st.text(max_size=3), max_size=2)
ends = st.sampled_from(["stop", "length", "eos", "STOP", "max_tokens"])

SIDES = ["id", "object", "created", "usage", "logprobs", "role", "audio", "x"]


@dataclass
class Stream:
    """Chunks of an answer, and what the answer is."""

    chunks: list[dict[str, Any]]
    text: str
    thoughts: str
    calls: list[tuple[str, str]]
    usage: Usage | None


def cut(whole: Any, dice: Random, most: int = 4) -> list[Any]:
    """Cut a text or bytes at random places; a piece may be empty."""
    cuts = sorted(dice.randint(0, len(whole)) for _ in range(dice.randint(0, most)))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def shuffled(value: dict[str, Any], dice: Random) -> dict[str, Any]:
    return {key: value[key] for key in dice.sample(sorted(value), len(value))}


def make_stream(
    text: str,
    thoughts: str,
    calls: list[dict[str, Any]],
    usage: Usage | None,
    finish: str,
    dice: Random,
) -> Stream:
    names_and_arguments = [(f"f{n}", json.dumps(each)) for n, each in enumerate(calls)]
    if not text.strip() and not calls:
        text = "Hello"
    parts: list[dict[str, Any]] = [{"reasoning_content": piece} for piece in cut(thoughts, dice)]
    parts += [{"content": piece} for piece in cut(text, dice)]
    parts += call_parts(names_and_arguments, dice)
    chunks = []
    side = {key: any_value(dice, SIDES) for key in dice.sample(SIDES, dice.randint(0, 4))}
    for part in parts:
        keys = dice.sample(["content", "refusal", "tool_calls", "function_call", "reasoning"], dice.randint(0, 3))
        choice: dict[str, Any] = {"delta": shuffled({**side, **dict.fromkeys(keys), **part}, dice), "logprobs": side}
        choice |= dice.choice([{}, {"index": 0}, {"index": None}, {"finish_reason": None}, {"finish_reason": ""}])
        numbers = {} if isinstance(side.get("usage"), dict) else side
        chunks.append(shuffled({**numbers, "choices": [shuffled(choice, dice)]}, dice))
    tokens = usage and {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    chunks.append({"choices": [{"index": 0, "delta": dice.choice([{}, None]), "finish_reason": finish}]})
    chunks.append({"choices": dice.choice([[], None]), "usage": tokens})
    return Stream(chunks, text.strip(), thoughts.strip(), names_and_arguments, usage)


def call_parts(calls: list[tuple[str, str]], dice: Random) -> list[dict[str, Any]]:
    """Write calls as one of the servers does."""
    whole, has_index, has_id, all_zero, repeated = (dice.random() < 0.5 for _ in range(5))
    parts = []
    for number, (name, text) in enumerate(calls):
        for place, piece in enumerate([text] if whole else cut(text, dice)):
            call: dict[str, Any] = {"index": 0 if all_zero else number} if has_index else {}
            function = {"arguments": piece}
            if not place or repeated:
                call |= {"id": f"c{number}"} if has_id else {}
                function |= {"name": name} if not place or has_id else {}
            parts.append({"tool_calls": [shuffled({**call, "function": shuffled(function, dice)}, dice)]})
    return parts


tokens = st.builds(Usage, st.integers(0, 9), st.integers(0, 9))
streams = st.builds(make_stream, texts, texts, st.lists(arguments, max_size=3), st.none() | tokens, ends, dice)


def framed(chunks: list[dict[str, Any]], dice: Random) -> list[bytes]:
    """Write each chunk as an event of a stream."""
    end = dice.choice([b"\n", b"\r\n", b"\r"])
    between = [b"", b"", b": ping\n\n", b"data:\n\n", b"event: ping\ndata: {}\n\n", b"\n", b"id: 1\n"]
    head = dice.choice([b"data: ", b"data:", b"event: message\ndata: "])
    ascii_only = dice.random() < 0.5
    events = [json.dumps(chunk, ensure_ascii=ascii_only).encode(errors="surrogatepass") for chunk in chunks]
    return [(dice.choice(between) + head + event + b"\n\n").replace(b"\n", end) for event in events]


def read(blocks: list[bytes], label: str) -> tuple[ChatResponse, str]:
    response = ChatResponse(label)
    pieces = [response.feed(block) for block in blocks]
    return response, "".join([*pieces, response.close()])


def check_that_it_can_be_written(response: ChatResponse) -> None:
    json.dumps([response.text, response.tool_calls, response.extra], ensure_ascii=False, allow_nan=False).encode()


@given(streams, labels, dice)
def test_a_whole_answer_is_never_lost(stream: Stream, label: str, dice: Random) -> None:
    body = dice.choice([b"", b"\xef\xbb\xbf"]) + b"".join(framed(stream.chunks, dice))
    body += dice.choice([b"", b"data: [DONE]\n\n", b"data: [DONE]", b'data: {"cut": '])
    response, shown = read(cut(body, dice, 8), label)
    assert shown == response.text[: len(shown)]
    assert [
        (each["function"]["name"], each["function"]["arguments"]) for each in response.tool_calls or ()
    ] == stream.calls
    if not stream.calls:
        assert response.text == stream.text
    assert (response.reasoning or "") == stream.thoughts
    assert response.usage == stream.usage
    check_that_it_can_be_written(response)


@given(streams, labels, dice)
def test_a_stream_without_its_end_never_passes(stream: Stream, label: str, dice: Random) -> None:
    *events, last = framed(stream.chunks[:-1], dice)
    body = b"".join(events)
    body += last.rstrip()[: dice.randrange(len(last.rstrip()))]
    body = dice.choice([body, body[: dice.randint(0, len(body))]])
    with pytest.raises(CallError):
        read(cut(body, dice), label)


FAULTS = [
    b'data: {"error": {"message": "no memory"}}\n\n',
    b'data: {"choices": null, "error": "no memory"}\n\n',
    b'data: {"object": "error", "message": "no memory"}\n\n',
    b"event: error\ndata: no memory\n\n",
    b'error: {"message": "no memory"}\n\n',
    b'{"error": "no memory"}\n\n',
    b'data: {"choices": [{"delta": {}, "finish_reason": "error", "error": {"message": "no memory"}}]}\n\n',
    b'data: {"choices": [{"delta": {}, "error": "no memory"}]}\n\n',
    b'data: {"choices": [{"delta": {}, "finish_reason": "abort", "native_finish_reason": "no memory"}]}\n\n',
]


@given(streams, labels, st.sampled_from(FAULTS), dice)
def test_an_answer_with_an_error_in_it_never_passes(stream: Stream, label: str, fault: bytes, dice: Random) -> None:
    events = framed(stream.chunks, dice)
    place = dice.randint(1, len(events))
    with pytest.raises(CallError, match="no memory"):
        read(cut(b"".join([*events[:place], fault, *events[place:]]), dice), label)


@given(streams, labels, dice)
def test_a_spoiled_stream_raises_nothing_but_its_error(stream: Stream, label: str, dice: Random) -> None:
    body = bytearray(b"".join(framed(stream.chunks, dice)))
    for _ in range(dice.randint(1, 5)):
        body[dice.randrange(len(body))] = dice.randrange(256)
    with suppress(CallError):
        check_that_it_can_be_written(read(cut(bytes(body), dice), label)[0])


KEYS = ["choices", "delta", "message", "content", "tool_calls", "function", "name", "arguments", "index", "id", "usage"]
KEYS += ["error", "finish_reason", "refusal", "reasoning_content", "function_call", "type", "text", "detail", "x"]
LEAVES = [*SCALARS, "stop", "tool_calls", "error", "{}", '{"a": 1}']


@given(dice)
def test_no_chunk_raises_anything_but_a_call_error(dice: Random) -> None:
    for _ in range(10):
        chunks = [any_value(dice, KEYS, LEAVES, depth=6) for _ in range(dice.randint(0, 3))]
        chunks += [{"choices": [any_value(dice, KEYS, LEAVES)]} for _ in range(dice.randint(0, 3))]
        chunks += [{"choices": [{"delta": {key: any_value(dice, KEYS, LEAVES) for key in KEYS}}]}]
        chunks += dice.choice([[], [{"choices": [{"delta": {}, "finish_reason": "stop"}]}]])
        lines = [json.dumps(chunk).encode() for chunk in chunks]
        for body in (b"".join(b"data: " + line + b"\n\n" for line in lines), b"\n".join(lines), lines[-1]):
            with suppress(CallError):
                check_that_it_can_be_written(read([body], "")[0])


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"data: ", b"\r", b"\n\n", b"{", b'"', b"[DONE]"])), labels)
def test_no_bytes_raise_anything_but_a_call_error(blocks: list[bytes], label: str) -> None:
    with suppress(CallError):
        read(blocks, label)


@pytest.mark.parametrize("value", ["[" * 200, "[" * 900, "[" * 100_000, '{"content":' * 900, '{"x":' * 3_000])
def test_an_abyss_raises_nothing_but_a_call_error(value: str) -> None:
    closed = value + "1" + "".join({"[": "]", "{": "}"}.get(mark, "") for mark in reversed(value))
    for body in (
        value,
        closed,
        f'{{"choices": [{{"delta": {{"content": {closed}}}}}]}}',
        f'{{"choices": [{{"delta": {{"content": "x", "y": {closed}}}, "finish_reason": "stop"}}]}}',
        f'{{"choices": [{{"delta": {{"tool_calls": [{{"function": {{"arguments": {closed}}}}}]}}}}]}}',
        f'{{"error": {closed}}}',
    ):
        with suppress(CallError):
            check_that_it_can_be_written(read([f"data: {body}\n\n".encode()], "")[0])
