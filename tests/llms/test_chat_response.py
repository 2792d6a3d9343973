"""Answers as real servers send them: each case with its right value, and properties of all streams."""

import json
import time
import tracemalloc
from typing import Any

import pytest

from llm_blender.errors import FailureReason
from llm_blender.llms.api_errors import CallError
from llm_blender.llms.chat_response import MAX_TEXT, ChatResponse
from llm_blender.llms.event_stream import MAX_EVENT
from llm_blender.types import Usage

from .bodies import DONE, LONDON, PARIS, SSE, TWO, call, delta, failure, functions, read, sse, whole

GOOD = sse(delta(role="assistant"), delta("Hello "), delta("there."), delta(finish="stop"))


# --- the frame: events, bytes, labels ---------------------------------------------------------------------------------

FRAMES: dict[str, bytes] = {
    "LF": GOOD,
    "CRLF": GOOD.replace(b"\n", b"\r\n"),
    "CR": GOOD.replace(b"\n", b"\r"),
    "no space": GOOD.replace(b"data: ", b"data:"),
    "a BOM": b"\xef\xbb\xbf" + GOOD,
    "white space first": b"\n\r\n  " + GOOD,
    "comments": b": OPENROUTER PROCESSING\n\n" + GOOD.replace(b"\n\n", b"\n\n:\n\n"),
    "wrapped twice": b"".join(b"data: " + line + b"\n\n" for line in GOOD.split(b"\n\n")),
    "empty data": b"data: \n\ndata:\n\n" + GOOD,
    "null": b"data: null\n\n" + GOOD,
    "a ping": b'event: ping\ndata: {"type": "ping"}\n\n' + GOOD,
    "a ping without JSON": b"data: ping\n\n" + GOOD,
    "names, ids, retries": GOOD.replace(b"data: {", b"event: message\nid: 7\nretry: 10\nfoo\nbar: x\ndata: {"),
    "several lines of data": GOOD.replace(b'"choices"', b'\ndata: "choices"').replace(b"data: {\n", b"data: {\n"),
    "no empty lines": GOOD.replace(b"\n\n", b"\n"),
    "no last empty line": GOOD.removesuffix(b"\n\n"),
    "no [DONE]": GOOD.removesuffix(DONE),
    "no [DONE], no line's end": GOOD.removesuffix(b"\n\n" + DONE),
    "junk after [DONE]": GOOD + b"data: {oops\n\n",
    "half an event after the end": GOOD.removesuffix(DONE) + b'data: {"choices":[],"usa',
    "a finish of null": sse(delta("Hello "), delta("there.")),
    "an empty finish": sse(delta("Hello ", ""), delta("there.", "null")),
    "a chunk without choices": sse({"choices": []}, {"prompt_filter_results": [{}]}, delta("Hello there.", "stop")),
    "choices that are null": sse(delta("Hello there.", "stop"), {"choices": None, "usage": {"prompt_tokens": 3}}),
    "choices as an object": sse({"choices": {"delta": {"content": "Hello there."}, "finish_reason": "stop"}}),
    "a list of chunks in an event": b"data: "
    + json.dumps([delta("Hello "), delta("there.", "stop")]).encode()
    + b"\n\n",
    "a line without a field": sse(delta("Hello "), done=json.dumps(delta("there.", "stop")).encode() + b"\n"),
    "a line that is no field": b"x-cache: miss\n" + GOOD,
    "texts instead of messages": sse(*({"choices": [{"text": text}]} for text in ("Hello ", "there."))),
    "not streamed": whole("Hello there."),
    "not streamed, without an end": whole("Hello there.", None),
    "not streamed, with a BOM": b"\xef\xbb\xbf\n " + whole("Hello there.") + b"\n",
    "not streamed, in an event": b"data: " + whole("Hello there.") + b"\n\n",
    "not streamed, a list": b"[" + whole("Hello there.") + b"]",
    "not streamed, spread out": json.dumps(json.loads(whole("Hello there.")), indent=2).encode(),
    "a list of chunks": json.dumps([delta("Hello "), delta("there.")]).encode(),
    "a chunk in each line": b"\n".join(
        json.dumps(each).encode() for each in (delta("Hello "), delta("there.", "stop"))
    ),
    "the last chunk once more": sse(delta("Hello "), delta("there.", "stop"), delta("there.", "stop")),
    "the whole after the end": sse(delta("Hello "), delta("there."), delta(finish="stop"), delta("Hello there.")),
    "the whole once more": sse(
        {"choices": [{"delta": {"content": "Hello "}, "message": {"content": "Hello "}}]},
        {"choices": [{"delta": {"content": "there."}, "message": {"content": "Hello there."}}]},
        {"choices": [{"delta": {}, "message": {"content": "Hello there."}, "finish_reason": "stop"}]},
    ),
}


@pytest.mark.parametrize("content_type", [SSE, "application/json", "text/plain; charset=utf-8", ""])
@pytest.mark.parametrize("body", FRAMES.values(), ids=FRAMES)
def test_a_whole_answer_comes_in_any_frame(body: bytes, content_type: str) -> None:
    assert read(body, content_type).text == "Hello there."
    assert read(body, content_type, size=1).text == "Hello there."
    assert read(body, content_type, size=7).text == "Hello there."


def test_a_stream_is_handed_on_as_it_comes() -> None:
    response = ChatResponse("text/plain")
    assert response.feed(b'data: {"choices":[{"delta":{"content":"Hello "}}]}\r\r') == "Hello"
    assert response.feed(b'data: {"choices":[{"delta":{"content":"you"}}]}\r\n\r\n') == " you"
    assert not response.done
    response.feed(b"data: [DONE]\r")  # and nothing after it, not even the end of the connection
    assert response.done
    assert response.close() == ""


BYTES: dict[str, tuple[bytes, str]] = {
    "no UTF-8": (GOOD.replace(b"there", b"th\xffre"), "Hello th\ufffdre."),
    "no UTF-8 in a side field": (GOOD.replace(b'"index"', b'"x": "\xff", "index"'), "Hello there."),
    "a lone surrogate": (GOOD.replace(b"there", b"th\\ud83dre"), "Hello th\ufffdre."),
    "a pair in two pieces": (sse(delta("a \ud83d"), delta("\ude00 b", "stop")), "a 😀 b"),
    "half a pair at the end": (sse(delta("ab\ud83d", "stop")), "ab\ufffd"),
    "a pair": (sse(delta("a 😀 b", "stop")), "a 😀 b"),
    "a lone surrogate in a side field": (GOOD.replace(b'"index"', b'"x": "\\udc00", "index"'), "Hello there."),
    "a raw control character": (GOOD.replace(b"there", b"th\tre"), "Hello th\tre."),
    "NaN": (GOOD.replace(b'"index"', b'"x": NaN, "y": -Infinity, "index"'), "Hello there."),
    "a huge number": (GOOD.replace(b'"index"', b'"x": ' + b"9" * 10_000 + b', "index"'), "Hello there."),
}


@pytest.mark.parametrize(("body", "text"), BYTES.values(), ids=BYTES)
def test_decoding_never_costs_the_answer(body: bytes, text: str) -> None:
    for size in (None, 1, 3):
        response = read(body, size=size)
        assert response.text == text
        response.text.encode()


# --- side fields ------------------------------------------------------------------------------------------------------

ODD: list[Any] = [None, "", "x", 0, 1.5, -1, True, False, [], {}, ["x"], {"x": 1}, [None], {"type": None}]


@pytest.mark.parametrize("odd", ODD, ids=json.dumps)
def test_an_odd_side_field_never_costs_the_answer(odd: Any) -> None:
    side = ("id", "object", "created", "model", "usage", "system_fingerprint", "service_tier", "logprobs", "x")
    chunk = delta("Hello there.", "stop", role=odd, name=odd, annotations=odd, x=odd)
    chunk["choices"][0] |= {"index": odd, "logprobs": odd, "x": odd, "message": odd, "usage": odd}
    assert read(sse({**chunk, **dict.fromkeys(side, odd)}, dict.fromkeys(side, odd))).text == "Hello there."
    message = json.loads(whole("Hello there.", refusal=odd if odd != "x" else None, audio=odd, function_call=None))
    message["choices"][0] |= {"index": odd, "logprobs": odd}
    assert read(json.dumps({**message, **dict.fromkeys(side, odd)}).encode()).text == "Hello there."
    for key in ("reasoning_content", "reasoning", "tool_calls", "function_call"):
        if not (isinstance(odd, dict | list) and odd):
            assert read(whole("Hello there.", **{key: odd})).text == "Hello there."


@pytest.mark.parametrize("odd", [odd for odd in ODD if not isinstance(odd, str) or not odd], ids=json.dumps)
def test_an_odd_finish_reason_never_costs_the_answer(odd: Any) -> None:
    assert read(sse(delta("Hello there."), delta(finish=odd))).text == "Hello there."
    assert read(whole("Hello there.", odd)).text == "Hello there."


@pytest.mark.parametrize("odd", [None, "", 0, False, [], {}, [None], {"code": None, "message": ""}], ids=json.dumps)
def test_an_error_that_is_none(odd: Any) -> None:
    chunk = delta("Hello there.", "stop", error=odd)
    chunk["choices"][0]["error"] = odd
    assert read(sse({**chunk, "error": odd}, {"error": odd, "choices": []})).text == "Hello there."


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, Usage(3, 2)),
        ({"prompt_tokens": "3", "completion_tokens": 2.25}, Usage(3, 2)),
        ({"prompt_tokens": None, "completion_tokens": 2}, Usage(0, 2)),
        ({"prompt_tokens": 3, "completion_tokens": {"x": 1}, "prompt_tokens_details": "x"}, Usage(3, 0)),
        ({"prompt_tokens": -1, "completion_tokens": True}, None),
        ({"prompt_tokens": float("nan"), "completion_tokens": 1e300}, None),
        ({}, None),
        (None, None),
        ([3, 2], None),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    assert read(sse(delta("Hi.", "stop"), {"choices": [], "usage": usage})).usage == expected
    assert read(sse(delta("Hi.", "stop"), {"choices": None, "usage": usage})).usage == expected
    assert read(sse(delta("Hi.", "stop"), {"usage": usage})).usage == expected
    assert read(json.dumps({**json.loads(whole("Hi.")), "usage": usage}).encode()).usage == expected
    chunk = delta("Hi.", "stop")
    chunk["choices"][0]["usage"] = usage
    assert read(sse(chunk)).usage == expected


def test_usage_under_other_names() -> None:
    usage = {"input_tokens": 3, "output_tokens": 2}
    assert read(sse(delta("Hi.", "stop"), {"choices": [], "usage": usage})).usage == Usage(3, 2)
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    assert read(sse({**delta("Hi.", "stop"), "x_groq": {"usage": usage}})).usage == Usage(3, 2)


def test_thoughts_that_only_the_total_counts() -> None:
    usage = {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}
    assert read(sse({**delta("Hi.", "stop"), "usage": usage})).usage == Usage(32, 103)
    for total in (41, 9, 0, None, "x"):
        assert read(sse({**delta("Hi.", "stop"), "usage": {**usage, "total_tokens": total}})).usage == Usage(32, 9)


def test_a_usage_of_zeros_takes_nothing_back() -> None:
    given, zeros = ({"prompt_tokens": n, "completion_tokens": n} for n in (3, 0))
    assert read(sse({**delta("Hi.", "stop"), "usage": given}, {"choices": [], "usage": zeros})).usage == Usage(3, 3)


def test_the_last_usage_counts() -> None:
    first, last = ({"prompt_tokens": 3, "completion_tokens": n} for n in (1, 2))
    assert read(sse({**delta("Hi."), "usage": first}, {**delta("", "stop"), "usage": last})).usage == Usage(3, 2)


# --- ends -------------------------------------------------------------------------------------------------------------

ENDS = {
    "stop": "stop eos eos_token stop_sequence end_turn STOP completed COMPLETE endTurn normal END_ID stopStringFound",
    "length": """length max_tokens MAX_TOKENS model_length max_output_tokens FinishReason.MAX_TOKENS token_limit
        maximum_tokens contextLengthReached maxPredictedTokensReached repetition""",
    "content_filter": "content_filter SAFETY RECITATION PROHIBITED_CONTENT refusal sensitive",
}


@pytest.mark.parametrize(
    ("word", "finish"), [(word, finish) for finish, words in ENDS.items() for word in words.split()]
)
def test_ends_in_other_words(word: str, finish: str) -> None:
    assert read(sse(delta("Hello."), delta(finish=word))).finish_reason == finish
    assert read(whole("Hello.", word)).finish_reason == finish


@pytest.mark.parametrize("word", ["tool_calls", "tool_use", "function_call", "TOOL_CALLS", "stop", "STOP", None])
def test_ends_of_calls(word: str | None) -> None:
    response = read(whole(None, word, tool_calls=[call("f", LONDON, id="a")]))
    assert (response.finish_reason, functions(response)) == ("tool_calls", [("f", LONDON)])


INTERRUPTIONS = [
    "error",
    "abort",
    "cancelled",
    "insufficient_system_resource",
    "network_error",
    "OTHER",
    "xyzzy",
    "pause",
]


@pytest.mark.parametrize("word", INTERRUPTIONS)
def test_no_other_end_makes_an_answer(word: str) -> None:
    for body in (sse(delta("The weather is su"), delta(finish=word)), whole("The weather is su", word)):
        error = failure(body)
        assert error.reason == "server"
        assert word.lower() in str(error)


def test_an_end_after_an_interruption_does_not_mend_it() -> None:
    assert failure(sse(delta("The weather is su"), delta(finish="error"), delta(finish="stop"))).reason == "server"


DISCONNECTED = {"code": 502, "message": "Provider disconnected"}
BROKEN: dict[str, tuple[bytes, FailureReason, str]] = {
    "an error beside the end": (
        sse(
            delta("The weather in Paris is very lovely and su"),
            {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": DISCONNECTED}]},
        ),
        "server",
        "Provider disconnected",
    ),
    "an error beside an end without a delta": (
        sse(delta("The weather is su"), {"choices": [{"finish_reason": "error", "error": DISCONNECTED}]}),
        "server",
        "Provider disconnected",
    ),
    "an error beside a choice": (
        sse(delta("The weather is su"), {**delta("", "stop"), "error": DISCONNECTED}),
        "server",
        "Provider disconnected",
    ),
    "an error in a choice that ends well": (
        sse({"choices": [{"delta": {"content": "Hi."}, "finish_reason": "stop", "error": DISCONNECTED}]}),
        "server",
        "Provider disconnected",
    ),
    "an error in a message": (whole("Hi.", error="no memory"), "server", "no memory"),
    "the provider's own word for the end": (
        sse({"choices": [{"delta": {"content": "x"}, "finish_reason": "error", "native_finish_reason": "quota_gone"}]}),
        "server",
        "quota_gone",
    ),
    "words in the finish reason": (
        sse(delta("x"), {"choices": [{"finish_reason": {"type": "abort", "message": "no memory"}}]}),
        "server",
        "no memory",
    ),
    "an error in a key of the provider's own": (
        sse(delta("x"), {"choices": [], "x_groq": {"error": "over capacity"}}),
        "server",
        "over capacity",
    ),
    "an exception by name": (
        sse(delta("x"), {"modelStreamErrorException": {"message": "no memory"}}),
        "server",
        "no memory",
    ),
    "words after an interruption": (
        sse(delta("x", "error"), {"message": "Upstream gone", "code": 1}, done=b""),
        "server",
        "Upstream gone",
    ),
    "an error after text": (sse(delta("x"), {"error": {"message": "no memory"}}), "server", "no memory"),
    "an error after an end": (sse(delta("x", "stop"), {"error": "no memory"}), "server", "no memory"),
    "an error with null choices": (
        b'{"id":null,"choices":null,"error":{"message":"Provider returned error","code":429}}',
        "rate_limit",
        "Provider returned error",
    ),
    "no credits": (b'{"error":{"message":"Insufficient credits","code":402}}', "auth", "Insufficient credits"),
    "object: error": (
        sse({"object": "error", "message": "maximum context length is 4096 tokens", "code": 400}, done=b""),
        "bad_request",
        "maximum context length is 4096 tokens",
    ),
    "a line named error": (
        b'error: {"code":400,"message":"the request exceeds the available context size"}\n\n' + DONE,
        "bad_request",
        "the request exceeds the available context size",
    ),
    "a line named error after text": (
        sse(delta("The weather is su"), done=b'error: {"code":500,"message":"no memory"}\n\n' + DONE),
        "server",
        "no memory",
    ),
    "an event named error": (
        sse(delta("x"), done=b'event: error\ndata: {"message": "no memory"}\n\n' + DONE),
        "server",
        "no memory",
    ),
    "an event named error, in words": (b"event: error\ndata: no memory\n\n", "server", "no memory"),
    "an event named error, after its data": (
        sse(delta("x"), done=b"data: no memory\nevent: error\n\n"),
        "server",
        "no",
    ),
    "an event named error, without data": (sse(delta("x"), done=b"event: error\n\n" + DONE), "server", "error"),
    "type: error": (
        sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        "server",
        "Overloaded",
    ),
    "detail": (b'{"detail": "no memory"}', "server", "no memory"),
    "detail, amid a stream": (
        sse(delta("x"), {"detail": [{"loc": ["body"], "msg": "no memory"}]}),
        "server",
        "no memory",
    ),
    "message": (b'{"message": "no memory", "code": "rate_limit_exceeded"}', "rate_limit", "no memory"),
    "Error": (b'{"Error": "no memory"}', "server", "no memory"),
    "a status beside a message": (b'{"status": 429, "message": "no memory"}', "rate_limit", "no memory"),
    "errors": (b'{"errors": [{"message": "no memory"}]}', "server", "no memory"),
    "a list": (b'[{"error": {"code": 429, "message": "no memory"}}]', "rate_limit", "no memory"),
    "JSON in a message": (
        b'{"error":{"message":"{\\"error\\":{\\"message\\":\\"no memory\\",\\"code\\":429}}"}}',
        "rate_limit",
        "no memory",
    ),
    "a line of JSON amid a stream": (sse(delta("x"), done=b'{"error": "no memory"}\n'), "server", "no memory"),
    "words amid a stream": (
        sse(delta("x"), done=b"data: Internal Server Error\n\n"),
        "server",
        "Internal Server Error",
    ),
    "words at its end": (sse(delta("x"), done=b"data: Internal Server Error"), "server", "Internal Server Error"),
    "words and [DONE]": (sse(delta("x"), done=b"data: Internal Server Error\n\n" + DONE), "server", "Internal Server"),
    "an event that is cut off": (
        sse(delta("x"), done=b'data: {"choices": [{"delta": {"con'),
        "connection",
        "broke off",
    ),
    "an event that is no JSON": (sse(delta("x"), done=b"data: {oops}\n\n" + GOOD), "bad_response", "{oops}"),
    "a stream without an end": (sse(delta("x"), done=b""), "connection", "broke off"),
    "half a [DONE]": (sse(delta("x"), done=b"data: [DON"), "connection", "broke off"),
    "lines without an end": (b'{"choices":[{"delta":{"content":"x"}}]}\n', "connection", "broke off"),
    "a line that is cut off": (json.dumps(delta("x")).encode() + b'\n{"choices": [', "connection", "broke off"),
    "a body that is cut off": (b'{"choices": [{"mess', "bad_response", "choices"),
    "a number": (b"data: 7\n\n", "bad_response", "'7'"),
    "no choice": (sse({"choices": []}), "bad_response", "no answer"),
    "nothing": (b"", "bad_response", "nothing"),
    "comments alone": (b": ping\n\n", "bad_response", "no answer"),
    "words instead of a stream": (b"no memory", "bad_response", "no memory"),
    "a page": (b"<html>portal</html>", "bad_response", "web page ('portal')"),
    "a page with a title": (
        b"<!DOCTYPE html>\n<html lang=en><head><title>Open WebUI</title></head></html>",
        "bad_response",
        "web page ('Open WebUI')",
    ),
    "the format of Ollama": (
        b'{"message":{"role":"assistant","content":"x"},"done":true}\n',
        "bad_response",
        "no answer",
    ),
    "the format of Anthropic": (
        b'event: message_start\ndata: {"type":"message_start","message":{"role":"assistant","content":[]}}\n\n',
        "bad_response",
        "no answer",
    ),
    "calls announced, none there": (
        sse(delta("I will look."), delta(finish="tool_calls")),
        "bad_response",
        "tool_calls",
    ),
    "a call without a name": (whole(tool_calls=[call(None, LONDON, id="a")]), "bad_response", "name"),
    "arguments cut off": (
        sse(delta(tool_calls=[call("f", '{"city', index=0)]), delta(finish="stop")),
        "bad_response",
        "JSON",
    ),
    "arguments cut off by max_tokens": (
        sse(delta(tool_calls=[call("f", '{"city', index=0)]), delta(finish="length")),
        "bad_response",
        "max_tokens",
    ),
    "arguments with NaN": (whole(tool_calls=[call("f", '{"x": NaN}')]), "bad_response", "JSON"),
    "a filter": (sse(delta(""), delta(finish="content_filter")), "empty", "content filter"),
    "empty": (sse(delta(" \n"), delta(finish="stop")), "empty", "ask again"),
    "hidden thoughts alone": (whole(None, "length"), "empty", "max_tokens"),
    "thoughts alone": (sse(delta(reasoning="Hm."), delta(finish="length")), "empty", "max_tokens"),
    "too many choices": (
        sse(*({"choices": [{"index": n, "delta": {"content": "x"}}]} for n in range(200))),
        "bad_response",
        "choices",
    ),
    "too many calls": (whole(tool_calls=[call("f", "{}", id=f"c{n}") for n in range(2_000)]), "bad_response", "calls"),
}


@pytest.mark.parametrize("content_type", [SSE, "application/json"])
@pytest.mark.parametrize(("body", "reason", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_never_passes(body: bytes, reason: str, words: str, content_type: str) -> None:
    error = failure(body, content_type)
    assert (error.reason, words in str(error)) == (reason, True), (error.reason, str(error))
    assert not str(error).endswith("?")


def test_a_filter_gives_no_advice_to_ask_again() -> None:
    assert "ask again" not in str(failure(whole("", "content_filter")))


def test_a_failure_carries_what_the_server_reports() -> None:
    error = failure(b'{"error": {"message": "Slow down", "code": 429, "retry_after": 9}}')
    assert error.error is not None
    assert (error.error.status, error.retry_after) == (429, 9)


def test_messages_for_strangers_do_not_quote_the_body() -> None:
    assert "base_url" not in (failure(sse({"choices": []})).public or "base_url")
    assert "portal" not in (failure(b"<html>portal</html>").public or "portal")


# --- choices ----------------------------------------------------------------------------------------------------------


def test_text_in_one_choice_and_calls_in_another() -> None:
    text = {"index": 0, "message": {"content": "I will look."}, "finish_reason": "tool_calls"}
    calls = [
        {
            "index": 1,
            "message": {"content": None, "tool_calls": [call("f", LONDON, id="a")]},
            "finish_reason": "tool_calls",
        },
        {
            "index": 2,
            "message": {"content": "", "tool_calls": [call("f", PARIS, id="b")]},
            "finish_reason": "tool_calls",
        },
    ]
    for number, choices in enumerate(([text, *calls], [text, calls[0], calls[0]], [calls[0], text])):
        response = read(json.dumps({"choices": choices}).encode())
        assert response.text.startswith("I will look.\n")
        assert functions(response) == (TWO if number == 0 else TWO[:1])
        assert response.finish_reason == "tool_calls"
    streamed = sse(
        {"choices": [{"index": 0, "delta": {"content": "I will "}}]},
        {"choices": [{"index": 1, "delta": {"tool_calls": [call("f", LONDON[:7], index=0, id="a")]}}]},
        {"choices": [{"index": 0, "delta": {"content": "look."}, "finish_reason": "stop"}]},
        {
            "choices": [
                {"index": 1, "delta": {"tool_calls": [call(None, LONDON[7:], index=0)]}, "finish_reason": "tool_calls"}
            ]
        },
    )
    response = read(streamed)
    assert response.text.startswith("I will look.\n")
    assert (functions(response), response.finish_reason) == (TWO[:1], "tool_calls")


def test_texts_of_choices_are_not_mixed() -> None:
    pieces = [(0, "Hello "), (1, "Good "), (0, "there."), (1, "day.")]
    chunks = [{"choices": [{"index": index, "delta": {"content": text}}]} for index, text in pieces]
    assert read(sse(*chunks)).text == "Hello there."
    both = {"choices": [{"message": {"content": "Hello there."}}, {"message": {"content": "Good day."}}]}
    assert read(json.dumps(both).encode()).text == "Hello there."


def test_an_empty_choice_before_the_text() -> None:
    both = {"choices": [{"message": {"content": None}}, {"message": {"content": "Hi."}, "finish_reason": "stop"}]}
    assert read(json.dumps(both).encode()).text == "Hi."


# --- what is not text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text", "thoughts", "refusal"),
    [
        ("Hi.", "Hi.", None, None),
        ([{"type": "text", "text": "Hi "}, {"type": "text", "text": "you."}], "Hi you.", None, None),
        ([{"type": "output_text", "text": "Hi."}], "Hi.", None, None),
        (["Hi ", {"text": "you."}], "Hi you.", None, None),
        ({"type": "text", "text": "Hi."}, "Hi.", None, None),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Hi."}],
            "Hi.",
            "Hm.",
            None,
        ),
        ([{"type": "refusal", "refusal": "No."}], "No.", None, "No."),
        ([{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "Hi."}], "Hi.", None, None),
        ([None, 7, {"type": "text", "text": None}, {"type": "text", "text": "Hi."}], "Hi.", None, None),
        (42, "42", None, None),
    ],
)
def test_content(content: Any, text: str, thoughts: str | None, refusal: str | None) -> None:
    for body in (whole(content), sse(delta(content), delta(finish="stop"))):
        response = read(body)
        assert (response.text, response.reasoning, response.refusal) == (text, thoughts, refusal)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_thoughts(key: str) -> None:
    body = sse(delta(**{key: "Hm. "}), delta("", **{key: "So."}), delta("Hi.", **{key: None}), delta(finish="stop"))
    assert (read(body).text, read(body).reasoning) == ("Hi.", "Hm. So.")
    assert read(body).extra == ({"reasoning": "Hm. So."} if key == "reasoning" else None)


def test_thoughts_that_come_under_two_names() -> None:
    response = read(whole("Hi.", reasoning="Hm.", reasoning_content="Hm."))
    assert (response.reasoning, response.extra) == ("Hm.", None)


def test_a_refusal_is_an_answer() -> None:
    words = "I can't help with that."
    for body in (
        sse(delta(refusal="I can't "), delta(content=None, refusal="help with that."), delta(finish="stop")),
        whole(None, refusal=words),
        whole("", "content_filter", refusal=words),
    ):
        response = read(body)
        assert response.text == response.refusal == words
        response = ChatResponse(SSE)
        assert response.feed(body) + response.close() == ""  # a client would take the pieces for content
    assert read(whole("Hi.", refusal=None)).refusal is None
    assert read(whole("Hi.", refusal="")).refusal is None


def test_further_keys_of_the_message() -> None:
    body = sse(
        delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "abc"}], x=None, annotations=[]),
        delta("Hi.", reasoning_details=[{"type": "reasoning.encrypted", "data": "def"}], signature="a"),
        delta(extra_content={"google": {"a": 1}}, signature="b"),
        delta(extra_content={"google": {"b": float("nan"), "c": "\ud83d"}}, finish="stop"),
    )
    assert read(body).extra == {
        "reasoning_details": [{"type": "reasoning.encrypted", "data": text} for text in ("abc", "def")],
        "signature": "b",
        "extra_content": {"google": {"a": 1, "c": "\ufffd"}},
    }
    assert read(GOOD).extra is None
    assert read(whole("Hi.", reasoning_details=[{"x": 1}])).extra == {"reasoning_details": [{"x": 1}]}


def test_pieces_of_one_item_are_joined_as_clients_join_them() -> None:
    item = {"type": "reasoning.text", "index": 0, "format": "f"}
    pieces = [{**item, "text": "Let me"}, {**item, "text": " see"}, {**item, "text": ".", "signature": "s"}]
    other = {"type": "reasoning.summary", "index": 1, "summary": "Saw."}
    body = sse(*(delta(reasoning_details=[piece]) for piece in [*pieces, other]), delta("Hi.", "stop"))
    assert read(body).extra == {"reasoning_details": [{**item, "text": "Let me see.", "signature": "s"}, other]}


# --- size -------------------------------------------------------------------------------------------------------------


def refusal_of(head: bytes, block: bytes, most: int) -> CallError:
    """Feed a block again and again, at most so many times, until it is refused."""
    response = ChatResponse(SSE)
    response.feed(head)
    try:
        for _ in range(most):
            response.feed(block)
    except CallError as error:
        return error
    raise AssertionError("all blocks were read")


@pytest.mark.parametrize("part", ["content", "reasoning", "refusal", "x"])
def test_a_long_answer_is_refused_early(part: str) -> None:
    tracemalloc.start()
    error = refusal_of(b"", sse(delta(**{part: "a " * 500}), done=b""), MAX_TEXT // 1_000 + 1)
    assert error.reason == "bad_response"
    assert "1,000,000 characters" in str(error)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_long_arguments_are_refused_too() -> None:
    block = sse(delta(tool_calls=[call("f", "[" * 1_000, index=0)]), done=b"")
    assert "1,000,000 characters" in str(refusal_of(b"", block, 1_001))


@pytest.mark.parametrize("head", [b"data: {", b'{"x": "', b"data: a\ndata: "])
def test_a_long_event_is_refused(head: bytes) -> None:
    assert "8 MiB" in str(refusal_of(head, b"a" * 65_536, MAX_EVENT // 65_536 + 1))


def test_an_endless_stream_without_text_is_refused() -> None:
    assert "64 MiB" in str(refusal_of(b"", b":" + b" " * (1 << 20) + b"\n", 65))


@pytest.mark.parametrize("piece", ["\n", "ab\n", "<", " <think>"])
def test_time_grows_with_the_length_alone(piece: str) -> None:
    def seconds(count: int) -> float:
        blocks = [sse(delta(piece), done=b"")] * count
        response = ChatResponse(SSE)
        started = time.process_time()
        for block in blocks:
            response.feed(block)
        response.feed(sse(delta("</think>a", "stop")))
        response.close()
        return time.process_time() - started

    seconds(1_000)
    assert seconds(40_000) < 40 * max(seconds(4_000), 0.01)


def test_time_for_calls_grows_with_the_length_alone() -> None:
    blocks = [sse(delta(tool_calls=[call("f", "[],", index=0, id="a")]), done=b"")] * 20_000
    response = ChatResponse(SSE)
    started = time.process_time()
    response.feed(sse(delta(tool_calls=[call("f", "[", index=0, id="a")]), done=b""))
    for block in blocks:
        response.feed(block)
    response.feed(sse(delta(tool_calls=[call("f", "[]]", index=0, id="a")], finish="tool_calls")))
    response.close()
    assert time.process_time() - started < 5
    assert len(response.tool_calls or ()) == 1
