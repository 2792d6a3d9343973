"""Calls of tools stay apart however a server counts them, and keep what the API gives with them."""

from collections.abc import Sequence
from typing import Any

import pytest

from .bodies import LONDON, PARIS, TWO, call, delta, failure, functions, read, sse, whole

Chunks = Sequence[list[dict[str, Any]]]
CALLS: dict[str, tuple[Chunks, list[tuple[str, str]]]] = {
    "OpenAI": (
        [
            [call("f", "", index=0, id="a", type="function")],
            [call(None, '{"city"', index=0)],
            [call(None, ':"London"}', index=0)],
            [call("f", "", index=1, id="b", type="function")],
            [call(None, PARIS, index=1)],
        ],
        TWO,
    ),
    "interleaved by index": (
        [
            [call("f", '{"city"', index=0, id="a"), call("f", '{"city"', index=1, id="b")],
            [call(None, ':"London"}', index=0), call(None, ':"Paris"}', index=1)],
        ],
        TWO,
    ),
    "whole, one index for all": ([[call("f", LONDON, index=0, id="a")], [call("f", PARIS, index=0, id="b")]], TWO),
    "whole, without an index": ([[call("f", LONDON, id="a")], [call("f", PARIS, id="b")]], TWO),
    "whole, in one chunk": ([[call("f", LONDON, id="a"), call("f", PARIS, id="b")]], TWO),
    "whole, without index and id": ([[call("f", LONDON), call("f", PARIS)]], TWO),
    "whole, without index and id, one by one": ([[call("f", LONDON)], [call("f", PARIS)]], TWO),
    "whole, one index, no id": ([[call("f", LONDON, index=0)], [call("f", PARIS, index=0)]], TWO),
    "whole, one index, empty ids": ([[call("f", LONDON, index=0, id="")], [call("f", PARIS, index=0, id="")]], TWO),
    "whole, one id for all": ([[call("f", LONDON, index=0, id="x")], [call("f", PARIS, index=0, id="x")]], TWO),
    "whole, one id for all, indices": ([[call("f", LONDON, index=0, id="x"), call("f", PARIS, index=1, id="x")]], TWO),
    "whole, indices as texts and floats": ([[call("f", LONDON, index="0"), call("f", PARIS, index=1.0)]], TWO),
    "whole, the same twice": ([[call("f", LONDON, id="a"), call("f", LONDON, id="b")]], [TWO[0], TWO[0]]),
    "a name that comes last": (
        [[call(None, LONDON, index=0, id="a")], [call("f", None, index=0)], [call("f", PARIS, index=1, id="b")]],
        TWO,
    ),
    "a text as index": ([[call("f", LONDON, index="x")], [call("f", PARIS, index="y")]], TWO),
    "an index as float, then as int": (
        [[call("f", '{"city"', index=0.0)], [call(None, ':"London"}', index=0)], [call("f", PARIS, index="1")]],
        TWO,
    ),
    "pieces, one index, ids": (
        [
            [call("f", "", index=0, id="a")],
            [call(None, LONDON[:7], index=0)],
            [call(None, LONDON[7:], index=0)],
            [call("f", "", index=0, id="b")],
            [call(None, PARIS[:7], index=0)],
            [call(None, PARIS[7:], index=0)],
        ],
        TWO,
    ),
    "pieces, one index, no id": (
        [
            [call("f", LONDON[:7], index=0)],
            [call(None, LONDON[7:], index=0)],
            [call("f", "", index=0)],
            [call(None, PARIS[:7], index=0)],
            [call(None, PARIS[7:], index=0)],
        ],
        TWO,
    ),
    "pieces without an index": (
        [
            [call("f", "", id="a")],
            [call(None, LONDON[:7])],
            [call(None, LONDON[7:])],
            [call("f", PARIS[:7], id="b")],
            [call(None, PARIS[7:])],
        ],
        TWO,
    ),
    "pieces without index and id": (
        [[call("f", LONDON[:7])], [call(None, LONDON[7:])], [call("f", PARIS[:7])], [call(None, PARIS[7:])]],
        TWO,
    ),
    "interleaved by id": (
        [
            [call("f", "", id="a"), call("f", "", id="b")],
            [call(None, LONDON[:7], id="a")],
            [call(None, PARIS[:7], id="b")],
            [call(None, LONDON[7:], id="a")],
            [call(None, PARIS[7:], id="b")],
        ],
        TWO,
    ),
    "interleaved by id, one index": (
        [
            [call("f", "", id="a", index=0), call("f", "", id="b", index=0)],
            [call("f", LONDON[:7], id="a", index=0)],
            [call("f", PARIS[:7], id="b", index=0)],
            [call("f", LONDON[7:], id="a", index=0)],
            [call("f", PARIS[7:], id="b", index=0)],
        ],
        TWO,
    ),
    "id and name in every piece": (
        [[call("f", piece, index=0, id="a")] for piece in ("", LONDON[:7], LONDON[7:], "")]
        + [[call("f", piece, index=1, id="b")] for piece in ("", PARIS[:7], PARIS[7:], "")],
        TWO,
    ),
    "id and name in every piece, one index": (
        [[call("f", piece, index=0, id="a")] for piece in (LONDON[:7], LONDON[7:], "")]
        + [[call("f", piece, index=0, id="b")] for piece in (PARIS[:7], PARIS[7:], "")],
        TWO,
    ),
    "id and name in every piece, no index": (
        [[call("f", piece, id="a")] for piece in (LONDON[:7], LONDON[7:])]
        + [[call("f", piece, id="b")] for piece in (PARIS[:7], PARIS[7:])],
        TWO,
    ),
    "the name in every piece": (
        [[call("f", piece, index=0)] for piece in (LONDON[:7], LONDON[7:], "")]
        + [[call("f", piece, index=1)] for piece in (PARIS[:7], PARIS[7:], "")],
        TWO,
    ),
    "another id in every piece": (
        [
            [call("f" if not n else None, piece, index=0, id=f"x{n}")]
            for n, piece in enumerate((LONDON[:7], LONDON[7:], ""))
        ],
        TWO[:1],
    ),
    "another index in every piece of an id": (
        [
            [call("f" if not n else None, piece, index=n, id="a")]
            for n, piece in enumerate((LONDON[:7], LONDON[7:], ""))
        ],
        TWO[:1],
    ),
    "an index that only the first piece lacks": (
        [[call("f", "", id="a")], [call(None, LONDON[:7], index=0)], [call(None, LONDON[7:], index=0)]],
        TWO[:1],
    ),
    "the whole call after its pieces": (
        [
            [call("f", LONDON[:7], index=0, id="a")],
            [call(None, LONDON[7:], index=0)],
            [call("f", LONDON, index=0, id="a")],
        ],
        TWO[:1],
    ),
    "a name in pieces": (
        [[call("get_", "", index=0, id="a")], [call("city", "", index=0)], [call(None, "{}", index=0)]],
        [("get_city", "{}")],
    ),
    "arguments that are an object": ([[call("f", {"city": "Paris"}, index=0)]], [("f", '{"city": "Paris"}')]),
    "arguments with a brace in a text": (
        [
            [call("f", '{"x":"}\\', index=0)],
            [call("f", '"{"', index=0)],
            [call("f", "}", index=0)],
            [call("g", "{}", index=0)],
        ],
        [("f", '{"x":"}\\"{"}'), ("g", "{}")],
    ),
    "an empty object before the arguments": (
        [[call("f", "{}", index=0, id="a")], [call(None, LONDON[:7], index=0)], [call(None, LONDON[7:], index=0)]],
        TWO[:1],
    ),
    "white space after the arguments": (
        [[call("f", LONDON, index=0, id="a")], [call(None, "\n", index=0, id="b")]],
        [("f", LONDON + "\n")],
    ),
    "no arguments": ([[call("f", None, index=0, id="a"), call("g", "", index=1, id="b")]], [("f", "{}"), ("g", "{}")]),
    "no arguments, one index": (
        [[call("f", "", index=0, id="a")], [call("f", "", index=0, id="b")]],
        [("f", "{}"), ("f", "{}")],
    ),
    "no arguments, no index, no id": ([[call("f", ""), call("g", "")]], [("f", "{}"), ("g", "{}")]),
    "no arguments after some": ([[call("f", LONDON, id="a"), call("f", "", id="b")]], [("f", LONDON), ("f", "{}")]),
    "arguments of null": ([[call("f", "null", index=0, id="a")]], [("f", "{}")]),
    "arguments that are JSON twice": ([[call("f", '"{\\"city\\":\\"London\\"}"', index=0, id="a")]], TWO[:1]),
    "arguments under Cohere's name": ([[{"name": "f", "parameters": {"city": "Paris"}}]], [("f", '{"city": "Paris"}')]),
    "arguments under Anthropic's name": (
        [[{"id": "a", "type": "tool_use", "name": "f", "input": {"city": "Paris"}}]],
        [("f", '{"city": "Paris"}')],
    ),
    "null pieces": ([[call("f", LONDON, index=0, id="a")], [None], [{}], [{"index": 0, "function": None}]], TWO[:1]),  # type: ignore[list-item]
    "a call without anything": ([[call("f", LONDON, id="a")], [call("", "", id="", type="function")]], TWO[:1]),
    "the name after the id": ([[{"index": 0, "id": "a"}], [call("f", None, index=0)]], [("f", "{}")]),
    "no function": ([[{"index": 0, "id": "a", "name": "f", "arguments": LONDON}]], TWO[:1]),
    "a lone surrogate": (
        [[call("f", '{"x": "\ud83d', index=0)], [call(None, '"}', index=0)]],
        [("f", '{"x": "\ufffd"}')],
    ),
}


@pytest.mark.parametrize(("chunks", "expected"), CALLS.values(), ids=CALLS)
def test_calls_are_told_apart(chunks: Chunks, expected: list[tuple[str, str]]) -> None:
    body = sse(*(delta(tool_calls=pieces) for pieces in chunks), delta(finish="tool_calls"))
    response = read(body)
    assert functions(response) == expected
    assert response.finish_reason == "tool_calls"
    if len(chunks) == 1:
        assert functions(read(whole(tool_calls=chunks[0]))) == expected


def test_a_single_call_that_is_no_list() -> None:
    assert functions(read(whole(tool_calls=call("f", LONDON)))) == TWO[:1]


def test_calls_among_the_parts_of_the_content() -> None:
    text = {"type": "text", "text": "I will look."}
    part = {"type": "tool_use", "id": "a", "name": "f", "input": {"city": "Paris"}}
    for body in (whole([text, part], "tool_use"), sse(delta([text]), delta([part]), delta(finish="tool_use"))):
        (called,) = read(body).tool_calls or ()
        function = {"name": "f", "arguments": '{"city": "Paris"}'}
        assert called == {"id": "a", "type": "function", "function": function}
        assert read(body).text.startswith("I will look.\n")


def test_ids() -> None:
    response = read(
        whole(tool_calls=[call("f", "", id="a"), call("g", ""), call("h", "", id=7), call("i", "", id=None)])
    )
    assert [each["id"] for each in response.tool_calls or ()] == ["a", "call_1", "7", "call_3"]
    assert all(each["type"] == "function" for each in response.tool_calls or ())


def test_ids_are_not_used_twice() -> None:
    response = read(whole(tool_calls=[call("f", LONDON, id="a"), call("f", PARIS, id="a"), call("g", "{}", id="b")]))
    assert [each["id"] for each in response.tool_calls or ()] == ["a", "a_1", "b"]


def test_calls_of_custom_tools() -> None:
    custom = {"id": "a", "type": "custom", "custom": {"name": "sql", "input": "SELECT '{"}}
    pieces = [
        {**custom, "custom": {"name": "sql", "input": ""}},
        *({"custom": {"input": x}} for x in ("SELECT", " '{")),
    ]
    other = {**custom, "id": "b"}
    for body in (
        whole(None, "tool_calls", tool_calls=[custom, other]),
        sse(
            *(delta(tool_calls=[{"index": 0, **piece}]) for piece in [*pieces, other]),
            delta(finish="tool_calls"),
        ),
    ):
        assert read(body).tool_calls == (custom, other)
    assert "raise max_tokens" in str(failure(whole(None, "length", tool_calls=[custom])))


def test_the_form_before_tools() -> None:
    message = {"name": "f", "arguments": LONDON}
    for body in (
        whole(None, "function_call", function_call=message),
        sse(
            delta(function_call={"name": "f"}),
            delta(function_call={"arguments": LONDON}),
            delta(finish="function_call"),
        ),
        whole(None, function_call=message, tool_calls=[call("f", LONDON)]),
    ):
        response = read(body)
        assert (functions(response), response.finish_reason) == (TWO[:1], "tool_calls")


def test_text_before_calls() -> None:
    response = read(
        sse(delta("I will look."), delta(tool_calls=[call("f", LONDON, index=0)]), delta(finish="tool_calls"))
    )
    assert response.text == 'I will look.\n[{"name": "f", "arguments": {"city": "London"}}]'


def test_keys_that_the_next_turn_needs_stay_on_the_calls() -> None:
    signature = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    pieces = [
        {**call("f", "", index=0, id="a"), **signature, "type": None, "x": None},
        {"index": 0, "function": {"arguments": LONDON, "thought_signature": "aW4="}, "extra_content": {"more": [1]}},
    ]
    (streamed,) = read(sse(*(delta(tool_calls=[piece]) for piece in pieces), delta(finish="stop"))).tool_calls or ()
    assert streamed == {
        "id": "a",
        "type": "function",
        "function": {"name": "f", "arguments": LONDON, "thought_signature": "aW4="},
        "extra_content": {"google": {"thought_signature": "c2ln"}, "more": [1]},
    }
    (one,) = read(whole(tool_calls=[{**call("f", LONDON, id="a"), **signature}])).tool_calls or ()
    assert one["extra_content"] == signature["extra_content"]
