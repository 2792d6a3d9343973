"""Errors of servers in every shape, and the reasons that their codes stand for."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_blender.llms.api_errors import ApiError, CallError, classify, is_unpaid, read_error

EXTRA = {"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"], "msg": "Not permitted"}

SHAPES: dict[str, tuple[Any, str]] = {
    "error is a text": ({"error": "no memory"}, "no memory"),
    "error is an object": ({"error": {"message": "no memory", "type": "x", "param": None}}, "no memory"),
    "error is a list": ({"error": [{"message": "no memory"}, {"message": "no disk"}]}, "no memory; no disk"),
    "message": ({"message": "no memory"}, "no memory"),
    "message is an object": ({"object": "error", "message": {"detail": [EXTRA]}}, "body.stream_options.include_usage"),
    "detail is a text": ({"detail": "no memory"}, "no memory"),
    "detail is a list": ({"detail": [EXTRA]}, "Not permitted"),
    "detail is an object": ({"detail": {"error": {"message": "no memory"}}}, "no memory"),
    "object: error": ({"object": "error", "message": "no memory", "code": 400}, "no memory"),
    "errors": ({"success": False, "errors": [{"code": 7003, "message": "no memory"}]}, "no memory"),
    "msg": ({"code": "1", "msg": "no memory"}, "no memory"),
    "Message": ({"__type": "ThrottlingException", "Message": "no memory"}, "no memory"),
    "error_msg": ({"error_code": 17, "error_msg": "no memory"}, "no memory"),
    "base_resp": ({"base_resp": {"status_code": 1008, "status_msg": "no memory"}}, "no memory"),
    "two keys": ({"statusCode": 400, "error": "Bad Request", "message": "no memory"}, "Bad Request: no memory"),
    "problem": ({"type": "about:blank", "title": "Full", "status": 503, "detail": "no memory"}, "no memory: Full"),
    "a list": ([{"error": {"code": 429, "message": "no memory", "status": "RESOURCE_EXHAUSTED"}}], "no memory"),
    "JSON as text": ({"error": {"message": '{"error": {"message": "no memory"}}'}}, "no memory"),
    "JSON as bytes": (b'\xef\xbb\xbf {"error": "no memory"}', "no memory"),
    "of a provider behind": (
        {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error": "no memory"}'}}},
        "Provider returned error: no memory",
    ),
    "details": ({"error": {"message": "invalid", "details": [{"message": "no memory"}]}}, "invalid: no memory"),
    "by key": ({"title": "invalid", "errors": {"seed": ["no memory"]}}, "seed: no memory"),
    "an event": ('event: error\ndata: {"error": {"message": "no memory"}}\n\n', "no memory"),
    "llama.cpp's line": ('error: {"code": 400, "message": "no memory"}\n\n', "no memory"),
    "a page with a title": (
        "<!DOCTYPE html>\n<head><title>502 Bad\n Gateway</title></head><h1>x</h1>",
        "502 Bad Gateway",
    ),
    "a page cut off": ("<html><h1>no memory</h1><script>var x = '<b>no</b>", "no memory"),
    "a title that has not ended": ("<html><title>502 Bad Gateway", "502 Bad Gateway"),
    "a page": ("<html><script>var x</script><h1>no</h1> <p>memory &amp; disk</html>", "no memory & disk"),
    "plain": (" no\n memory ", "no memory"),
    "unknown keys": ({"fault": {"faultstring": "no memory"}}, '{"fault": {"faultstring": "no memory"}}'),
    "cut off": ('{"error": {"mess', '{"error": {"mess'),
    "bad bytes": (b"no \xff memory", "no \ufffd memory"),
    "nothing": (b"", ""),
    "nothing in it": ("{}", ""),
    "null": (None, ""),
}


@pytest.mark.parametrize(("body", "words"), SHAPES.values(), ids=SHAPES)
def test_the_words_of_every_shape(body: Any, words: str) -> None:
    message = read_error(body).message
    assert words in message if words else message == ""
    assert "\n" not in message
    if not isinstance(body, bytes | str) and body:
        assert read_error(json.dumps(body).encode()).message == message


@pytest.mark.parametrize(
    ("body", "params"),
    [
        ({"error": {"param": "stream", "message": "x"}}, ("stream",)),
        ({"error": {"param": "messages.[0].content", "message": "x"}}, ("messages",)),
        ({"error": {"param": None, "message": "x"}}, ()),
        (
            {"detail": [EXTRA, {"loc": ["body", "seed"], "msg": "x"}, {"loc": ["body", "seed"], "msg": "y"}]},
            ("stream_options", "seed"),
        ),
        ({"object": "error", "message": {"detail": [EXTRA]}}, ("stream_options",)),
        ({"detail": [{"loc": ["body"], "msg": "x"}]}, ()),
        ({"detail": [{"loc": "body.temperature", "msg": "x"}]}, ("temperature",)),
        ({"errors": [{"path": ["seed"], "message": "x"}]}, ("seed",)),
        ({"path": "/v1/chat", "message": "x"}, ()),
        ([{"error": {"details": [{"fieldViolations": [{"field": "n"}]}], "message": "x"}}], ()),
    ],
)
def test_the_keys_of_the_request_that_an_error_names(body: Any, params: tuple[str, ...]) -> None:
    assert read_error(body, 422).params == params


REASONS: dict[str, tuple[Any, int | None, str]] = {
    "401": ("", 401, "auth"),
    "402": ("", 402, "auth"),
    "403": ("", 403, "auth"),
    "404": ("", 404, "not_found"),
    "408": ("", 408, "server"),
    "409": ("", 409, "server"),
    "425": ("", 425, "server"),
    "429": ("", 429, "rate_limit"),
    "400": ("", 400, "bad_request"),
    "413": ("", 413, "bad_request"),
    "422": ("", 422, "bad_request"),
    "500": ("", 500, "server"),
    "529": ("", 529, "server"),
    "no status": ("oh no", None, "server"),
    "429 inside": ({"error": {"message": "x", "code": 429}}, None, "rate_limit"),
    "429 as a text": ({"error": {"message": "x", "code": "429"}}, None, "rate_limit"),
    "402 inside": ({"error": {"message": "Insufficient credits", "code": 402}}, None, "auth"),
    "400 inside": ({"object": "error", "message": "too long", "code": 400}, None, "bad_request"),
    "a 500 that passes a 400 on": ({"error": {"message": "x", "code": 400}}, 500, "bad_request"),
    "no money, as a rate": ({"error": {"message": "x", "code": "insufficient_quota"}}, 429, "auth"),
    "no money, by its type": ({"error": {"message": "x", "type": "insufficient_quota", "code": None}}, None, "auth"),
    "a rate, by its type": (
        {"error": {"message": "x", "type": "tokens", "code": "rate_limit_exceeded"}},
        None,
        "rate_limit",
    ),
    "a rate at Google": ({"error": {"message": "x", "status": "RESOURCE_EXHAUSTED"}}, None, "rate_limit"),
    "a rate in a 400": ({"code": "Throttling.RateQuota", "message": "x"}, 400, "rate_limit"),
    "a type that says less than the status": (
        {"error": {"message": "x", "type": "invalid_request_error"}},
        404,
        "not_found",
    ),
    "a wrong key in a 400": ({"error": {"message": "x", "details": [{"reason": "API_KEY_INVALID"}]}}, 400, "auth"),
    "a wrong key": (
        {"error": {"message": "x", "type": "invalid_request_error", "code": "invalid_api_key"}},
        None,
        "auth",
    ),
    "no model": ({"error": {"message": "x", "code": "model_not_found"}}, 503, "not_found"),
    "no model, vLLM": ({"object": "error", "message": "x", "type": "NotFoundError"}, None, "not_found"),
    "too long": ({"error": {"message": "x", "code": "context_length_exceeded"}}, None, "bad_request"),
    "too long in a 500": (
        {"error": {"message": "x", "type": "exceed_context_size_error", "code": 500}},
        500,
        "bad_request",
    ),
    "refused option": ({"detail": [EXTRA]}, 422, "bad_request"),
    "bad request": ({"error": {"message": "x", "type": "invalid_request_error"}}, None, "bad_request"),
    "server_error": ({"error": {"message": "x", "type": "server_error"}}, None, "server"),
    "overloaded": ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, None, "server"),
    "a timeout": ({"error": {"message": "x", "code": "timeout"}}, None, "server"),
    "a number of the provider's own": ({"error": {"message": "x", "code": "1302"}}, 429, "rate_limit"),
    "no tools behind a gateway": (
        {"error": {"message": "No endpoints found that support tool use.", "code": 404}},
        404,
        "bad_request",
    ),
    "no model behind a gateway": ({"error": {"message": "No endpoints found for x.", "code": 404}}, 404, "not_found"),
    "no tools, as a fault": (
        {"error": {"message": "tools param requires --jinja flag", "code": 500}},
        500,
        "bad_request",
    ),
    "no tools in a model": ({"error": "the model does not support tools"}, 500, "bad_request"),
    "too long, in the words of llama.cpp": (
        {"error": {"code": 500, "message": "the request exceeds the available context size", "type": "server_error"}},
        500,
        "bad_request",
    ),
    "too long, in the words of Ollama": (
        {"error": {"message": "prompt too long; exceeded max context length by 3 tokens", "type": "api_error"}},
        500,
        "bad_request",
    ),
    "too long, in the words of LM Studio": (
        {"error": "Trying to keep the first 5000 tokens when context the overflows."},
        None,
        "bad_request",
    ),
    "too many tokens for a minute": (
        {"error": {"message": "Request too large for x on tokens per minute", "code": "rate_limit_exceeded"}},
        413,
        "bad_request",
    ),
    "a prompt that uses up the rate": (
        {"error": {"type": "rate_limit_error", "message": "This would exceed the limit of 40,000 input tokens."}},
        429,
        "rate_limit",
    ),
    "turns that a template refuses": (
        {"error": {"message": "Conversation roles must alternate user/assistant", "type": "server_error"}},
        500,
        "bad_request",
    ),
    "no system message": ({"error": {"message": "System role not supported", "code": 500}}, 500, "bad_request"),
    "no money, in words": (
        {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}},
        400,
        "auth",
    ),
    "no money, in Chinese": ({"error": {"code": "1113", "message": "余额不足或无可用资源包"}}, 429, "auth"),
    "no money, in a 200": ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, None, "auth"),
    "a rate, in a 200": ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, None, "rate_limit"),
    "a rate, in other words": ({"error_code": 18, "error_msg": "Open api qps request limit"}, None, "rate_limit"),
    "a wrong key, in a 200": ({"error_code": 110, "error_msg": "Access token invalid"}, None, "auth"),
    "no key, in a 200": ({"detail": "Not authenticated"}, None, "auth"),
    "no model, OpenRouter": ({"error": {"message": "x is not a valid model ID", "code": 400}}, 400, "not_found"),
    "no model, LiteLLM": ({"error": {"message": "Invalid model name passed in model=x."}}, 400, "not_found"),
    "no model, DeepSeek": ({"error": {"message": "Model Not Exist", "type": "x"}}, 400, "not_found"),
    "no model, LM Studio": ({"error": "No models loaded. Please load a model."}, 400, "not_found"),
    "no such path, LM Studio": (
        {"error": "Unexpected endpoint or method. (POST /chat/completions)"},
        None,
        "not_found",
    ),
    "too long, in later words of LM Studio": ({"error": "Context size has been exceeded."}, None, "bad_request"),
    "a crash in a 400": ({"error": "The model has crashed without additional information."}, 400, "server"),
    "a crash in a 424": ({"error": "Request failed during generation", "error_type": "generation"}, 424, "server"),
    "bad request, TGI": ({"error": "`inputs` must be shorter", "error_type": "validation"}, None, "bad_request"),
    "a wrong key in a 400, in words": (
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***."},
        400,
        "auth",
    ),
    "no money at a proxy": ({"error": {"message": "x", "type": "budget_exceeded", "code": "400"}}, 400, "auth"),
    "no money, as a precondition": ({"error": "Account x is suspended, possibly due to a limit."}, 412, "auth"),
    "a text that a filter refuses, as if the key were wrong": (
        {"error": {"code": 403, "message": "x requires moderation on y. Your input was flagged"}},
        403,
        "bad_request",
    ),
    "a text against the rules": ({"error": "Content violates usage guidelines. Failed check: x"}, 403, "bad_request"),
    "an unknown word": ({"error": {"message": "x", "code": "gremlins"}}, None, "server"),
}


@pytest.mark.parametrize(("body", "status", "reason"), REASONS.values(), ids=REASONS)
def test_the_reason_is_the_same_for_a_status_and_a_code(body: Any, status: int | None, reason: str) -> None:
    assert classify(read_error(body, status)) == reason


def test_an_account_without_money() -> None:
    assert is_unpaid(read_error({"error": {"message": "Insufficient credits", "code": 402}}))
    assert is_unpaid(read_error({"error": {"message": "x", "code": "insufficient_quota"}}, 429))
    assert is_unpaid(read_error({"error": {"message": "Your credit balance is too low."}}, 400))
    assert not is_unpaid(read_error({"error": {"message": "x", "code": "invalid_api_key"}}, 401))
    assert not is_unpaid(read_error("", 429))


def test_the_parts_of_an_error() -> None:
    body = {"error": {"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded", "param": None}}
    assert read_error(body, 429) == ApiError("Slow down.", 429, "rate_limit_exceeded")


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": {"message": "x", "retry_after": 7}}, 7),
        ({"error": {"message": "x", "retry_after_ms": "250"}}, 0.25),
        ({"error": {"message": "x", "details": [{"retryDelay": "34.5s"}]}}, 34.5),
        ({"error": {"message": "Limit reached. Please try again in 6m0.5s. Visit"}}, 360.5),
        ({"error": {"message": "Please try again in 320ms."}}, 0.32),
        ({"error": {"message": "Please retry after 12 seconds."}}, 12),
        ({"error": {"message": "Please wait 20 seconds before trying again"}}, 20),
        ({"error": {"message": "Try again in about 1 minute and 30 seconds."}}, 90),
        ({"error": {"message": "x", "metadata": {"headers": {"Retry-After": "12"}}}}, 12),
        (
            {"error": {"message": "x", "metadata": {"headers": {"X-RateLimit-Remaining": 0, "X-RateLimit-Reset": 30}}}},
            30,
        ),
        ({"error": {"message": "Try again."}}, None),
    ],
)
def test_the_wait_that_a_body_names(body: Any, seconds: float | None) -> None:
    error = read_error(body, 429)
    assert error.retry_after == seconds
    assert CallError("rate_limit", "x", error=error).retry_after == seconds
    assert CallError("rate_limit", "x", 3.0, error=error).retry_after == 3.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "code", "loc", "param", "type", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values, st.none() | st.integers(400, 599))
def test_no_value_is_an_exception(value: Any, status: int | None) -> None:
    error = read_error(value, status)
    assert "\n" not in error.message
    assert classify(error)
    read_error(json.dumps(value), status)


@given(st.binary(max_size=40))
def test_no_bytes_are_an_exception(body: bytes) -> None:
    classify(read_error(body))


@pytest.mark.parametrize("body", ["[" * 100_000, '{"error":' * 100_000, '{"code":' + "9" * 10_000 + "}"])
def test_nor_are_abysses(body: str) -> None:
    assert len(read_error(body).message) < 3_000


@pytest.mark.parametrize("part", ["<title", "<title>", "<script ", "<style>x</scrip", "<"])
def test_a_page_takes_time_that_is_linear_in_its_length(part: str) -> None:
    began = time.process_time()
    assert len(read_error("<html>" + part * (60_000 // len(part))).message) < 3_000
    assert time.process_time() - began < 0.2
