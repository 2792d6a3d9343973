"""Keys of a request that servers refuse, in the words of real ones."""

from __future__ import annotations

from typing import Any

import pytest

from llm_blender.llms.api_errors import read_error
from llm_blender.llms.refused_keys import Changes

KEYS = ("stream", "stream_options", "temperature", "top_p", "max_tokens", "seed", "user", "stop", "store", "metadata")
KEYS += ("parallel_tool_calls", "n")
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Hm.",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"x": 1}}
        ],
    },
]


def error(words: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": words, **more}}


def detail(*loc: str | int) -> dict[str, Any]:
    return {"detail": [{"type": "extra_forbidden", "loc": list(loc), "msg": "Extra inputs are not permitted"}]}


def sent(*more: str) -> dict[str, Any]:
    return {"model": "m", "messages": TURNS, "tools": [], **dict.fromkeys([*KEYS, *more], 1), "stream": True}


def after(body: object, status: int = 400, *more: str) -> Changes | None:
    return Changes().after(read_error(body, status), sent(*more))


@pytest.mark.parametrize(
    ("body", "omitted"),
    [
        (
            error("Your organization must be verified to stream this model.", param="stream", code="unsupported_value"),
            "stream",
        ),
        (error("Your organization must be verified to stream this model."), "stream"),
        (error("Cannot use tools with stream", code=500, type="server_error"), "stream"),
        (error("Streaming is not supported for this model."), "stream"),
        (error("This model does not support streaming."), "stream"),
        (detail("body", "stream_options", "include_usage"), "stream_options"),
        ({"object": "error", "message": detail("body", "stream_options", "include_usage")}, "stream_options"),
        (
            error(
                "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is "
                "supported.",
                param="temperature",
                code="unsupported_value",
            ),
            "temperature",
        ),
        (error("Unsupported value: 'temperature' does not support 0.2 with this model."), "temperature"),
        (error("temperature: Extra inputs are not permitted", type="invalid_request_error"), "temperature"),
        (error("`temperature` and `top_p` cannot both be specified for this model. Please use only one."), "top_p"),
        (error("unknown field seed"), "seed"),
        (error("Input should be less than 65536", param="seed"), "seed"),
        (error("Invalid value", param="stream"), "stream"),
        ({"error": 'json: unknown field "metadata"'}, "metadata"),
        ({"detail": "Unsupported parameter: store"}, "store"),
        ({"message": "Unsupported parameter(s): `seed`"}, "seed"),
        (error("The parameter stop is not supported"), "stop"),
        (error("Additional properties are not allowed ('user' was unexpected)"), "user"),
        (error("Unrecognized request arguments supplied: seed, user"), "seed user"),
        (error("ollama does not support parameters: ['seed', 'user'], for model=x."), "seed user"),
        (error("property 'parallel_tool_calls' is unsupported"), "parallel_tool_calls"),
        (error("This model does not support parallel tool calls."), "parallel_tool_calls"),
        (error("Unsupported parameter", param="parallel_tool_calls"), "parallel_tool_calls"),
    ],
)
@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_a_key_is_left_out(body: object, omitted: str, status: int) -> None:
    assert after(body, status) == Changes(omitted=frozenset(omitted.split()))


@pytest.mark.parametrize(
    ("words", "omitted"),
    [
        ("`temperature` may only be set to 1 when thinking is enabled.", "temperature"),
        ("invalid temperature: only 1 is allowed for this model", "temperature"),
        ("O-series models don't support temperature=0.2. Only temperature=1 is supported.", "temperature"),
        ("temperature is deprecated for this model.", "temperature"),
        ("This model only supports temperature=1", "temperature"),
        ("Only default temperature is supported", "temperature"),
        ("temperature cannot be changed", "temperature"),
        ("temperature: only 1.0 supported", "temperature"),
        ("The following parameters are not supported for this model: 'seed', 'user'", "seed user"),
        ("Unable to submit request because stop is not supported by this model.", "stop"),
        ("reasoning_effort is not supported; use top_p instead", "reasoning_effort"),
        ("This endpoint cannot stream", "stream"),
        ("seed isn't supported", "seed"),
        ("seed must not be set", "seed"),
        ("You may not specify seed for this model", "seed"),
        ("seed is not a valid parameter", "seed"),
        ("disallowed parameter: seed", "seed"),
        ("forbidden field: seed", "seed"),
        ("property seed should not exist; property user should not exist", "seed user"),
        ("This model doesn't support the seed field. Remove seed and try again.", "seed"),
        ("This model doesn't support the stopSequences field.", "stop"),
        ("Argument not supported on this model: presencePenalty", "presence_penalty"),
        ("Penalty is not enabled for this model", "presence_penalty frequency_penalty"),
        ("Unsupported parameter: 'reasoning.effort' is not supported with this model.", "reasoning_effort"),
        ("Invalid parameter: 'parallel_tool_calls' is only allowed when 'tools' are given.", "parallel_tool_calls"),
        ("property 'seed' is unsupported, did you mean 'stop'?", "seed"),
        ("unknown field `seed`, expected one of `model`, `temperature`, `top_p`", "seed"),
        ('Unrecognized field "seed" (class Chat), not marked as ignorable (known properties: "user", "top_p")', "seed"),
        ("1 validation error for Chat\nuser\n  Extra inputs are not permitted [input_value='u']", "user"),
        ("extraneous key [seed] is not permitted#: extraneous key [user] is not permitted", "seed user"),
        ("Streaming not supported", "stream"),
        ("Streaming with tools is not supported", "stream"),
        ("Only non-streaming requests are supported", "stream"),
        ("stream=True is not supported", "stream"),
        ("stream must be false", "stream"),
        ("json mode cannot be combined with stream", "stream"),
        ("Structured outputs are not supported with streaming", "stream"),
        ('"llama3.2" does not support thinking', "reasoning_effort"),
        ('think value "low" is not supported for this model', "reasoning_effort"),
        (
            'invalid reasoning value: \'minimal\' (must be "high", "medium", "low", or "none")',
            "reasoning_effort",
        ),
        ("The value of the enable_thinking parameter is restricted to True.", "enable_thinking"),
        ("Invalid tool_choice type: 'object'. Supported string values: none, auto, required", "tool_choice"),
    ],
)
def test_in_the_words_of_other_servers(words: str, omitted: str) -> None:
    more = ("presence_penalty", "frequency_penalty", "reasoning_effort", "enable_thinking", "tool_choice")
    more += ("response_format",)
    assert after(error(words), 400, *more) == Changes(omitted=frozenset(omitted.split()))


@pytest.mark.parametrize(
    "body",
    [
        {"errors": [{"message": "Unknown field", "path": ["seed"]}]},
        {"title": "Validation errors", "errors": {"seed": ["The seed field is not supported."]}},
        {"error": {"message": "Validation error", "details": [{"field": "seed", "message": "is not allowed"}]}},
        {"message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}]"},
    ],
)
def test_in_other_shapes(body: object) -> None:
    assert after(body) == Changes(omitted=frozenset({"seed"}))


@pytest.mark.parametrize("name", ["response_format", "tool_choice", "logit_bias", "reasoning_effort", "top_k"])
def test_any_optional_key_is_left_out(name: str) -> None:
    assert after(error(f"Unsupported parameter: '{name}'", param=name), 400, name) == Changes(frozenset({name}))
    assert after(error(f"{name} is not supported by this backend"), 501, name) == Changes(frozenset({name}))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"error": "'response_format.type' must be 'json_schema' or 'text'"}, "response_format"),
        (
            error("Invalid value: 'json_schema'. Supported values are: 'text'.", param="response_format.type"),
            "response_format",
        ),
        (
            {
                "detail": [
                    {
                        "type": "literal_error",
                        "loc": ["body", "response_format", "type"],
                        "msg": "Input should be 'text'",
                    }
                ]
            },
            "response_format",
        ),
        (error("Invalid value: 'minimal'. Supported values are: 'low'.", param="reasoning_effort"), "reasoning_effort"),
        (error("reasoning_effort: Input should be 'none' or 'high'"), "reasoning_effort"),
    ],
)
def test_a_value_that_only_other_servers_have(body: object, name: str) -> None:
    assert after(body, 400, name) == Changes(frozenset({name}))


def test_structured_outputs_are_the_response_format() -> None:
    words = error("This model does not support structured outputs.")
    assert after(words, 400, "response_format") == Changes(frozenset({"response_format"}))


@pytest.mark.parametrize(
    "body",
    [
        error("max_tokens is too large: 100000. This model supports at most 4096 tokens", param="max_tokens"),
        error(
            "max_tokens is too large: 100000. This model supports at most 4096 tokens",
            param="max_tokens",
            code="invalid_value",
        ),
        error("This model's maximum context length is 8192 tokens. Reduce max_tokens.", code="context_length_exceeded"),
        error("Rejected: the temperature of it is not allowed by our content policy", code="content_policy_violation"),
        error("A prompt with such a temperature is not allowed by our safety system"),
        error("The user is not allowed to use this model"),
        error("temperature must be between 0 and 1", param="temperature"),
        error("Input should be a valid string", param="user"),
        error("The model 'stream' does not exist or is not supported", code="model_not_found"),
        error("Unsupported parameter: 'tools'", param="tools"),
        error("Unsupported parameter"),
        error("Invalid API key; parameter user not recognized"),
        error("Invalid schema for function 'f': 'seed' is not supported", param="tools[0].function.parameters"),
        error("Invalid schema for the format 'x': 'stop' is not permitted."),
        error("temperature 3 is not allowed: it has to be in [0, 2]", param="temperature"),
        error("max_tokens must not be set above 4096"),
        error("temperature cannot be used below 0.1"),
        error(
            "'messages' must contain the word 'json', to use 'response_format' of type 'json_object'", param="messages"
        ),
        error("Invalid value: 'x'. Supported values are: 'user'.", param="messages[0].role"),
        error("Only streaming requests are supported"),
        error("stream=false is not supported"),
        error("Non-streaming is not supported"),
        error("This model only supports stream mode, please enable the stream parameter"),
        error("unexpected EOF while reading stream"),
        error("'name' is not supported for role 'user'"),
        error("Unsupported value: 'messages[0].role' does not support 'developer'.", param="messages[0].role"),
        error("Unsupported value: 'max_tokens' does not support 0.", param="max_tokens", code="unsupported_value"),
        error("The server is not available"),
        "",
    ],
)
@pytest.mark.parametrize("status", [400, 422, 500])
def test_other_errors_change_nothing(body: object, status: int) -> None:
    assert after(body, status) is None


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_other_statuses_change_nothing(status: int) -> None:
    assert after(error("Unsupported parameter: 'seed'"), status) is None


def test_a_key_that_was_not_sent_changes_nothing() -> None:
    assert after(error("Unsupported parameter: 'logit_bias'", param="logit_bias")) is None


def test_the_maximum_of_tokens_is_renamed_and_then_left_out() -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    changes = after(error(words, param="max_tokens", code="unsupported_parameter"))
    assert changes == after(error(words)) == Changes(renamed={"max_tokens": "max_completion_tokens"})
    assert changes is not None
    body = changes.apply(sent())
    assert (body.get("max_tokens"), body["max_completion_tokens"]) == (None, 1)
    changes = changes.after(read_error(detail("body", "max_completion_tokens"), 422), body)
    assert changes is not None
    assert not {"max_tokens", "max_completion_tokens"} & changes.apply(sent()).keys()


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens cannot be used with reasoning models",
        "this model is not supported MaxTokens, please use MaxCompletionTokens",
        "max_tokens is deprecated, use max_completion_tokens",
    ],
)
def test_the_maximum_of_tokens_in_other_words(words: str) -> None:
    assert after(error(words)) == Changes(renamed={"max_tokens": "max_completion_tokens"})


def test_the_newer_name_becomes_the_older_one() -> None:
    body = {"model": "m", "messages": TURNS, "max_completion_tokens": 5}
    changes = Changes().after(read_error(detail("body", "max_completion_tokens"), 422), body)
    assert changes is not None
    assert changes.apply(body) == {"model": "m", "messages": TURNS, "max_tokens": 5}


def test_without_stream_there_are_no_options_of_it() -> None:
    assert not {"stream", "stream_options"} & Changes(frozenset({"stream"})).apply(sent()).keys()
    assert "stream_options" not in Changes().apply({**sent(), "stream": False})


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (detail("body", "messages", 1, "assistant", "reasoning_content"), "reasoning_content"),
        (detail("body", "messages", 1, "assistant", "tool_calls", 0, "extra_content"), "extra_content"),
        (
            error("'messages.1' : for 'role:assistant' ('messages.1' : property 'reasoning_content' is unsupported)"),
            "reasoning_content",
        ),
        (
            error(
                "Unknown parameter: 'messages[1].reasoning_content'.",
                param="messages[1].reasoning_content",
                code="unknown_parameter",
            ),
            "reasoning_content",
        ),
        (error("Unknown parameter: 'messages[1].tool_calls[0].extra_content'."), "extra_content"),
        (error("reasoning_content is not supported"), "reasoning_content"),
        (error("reasoning_content must not appear in the messages"), "reasoning_content"),
        (error("The reasoning_content field in input messages is not supported"), "reasoning_content"),
        (
            error("body -> messages -> 1 -> assistant -> reasoning_content: extra fields not permitted"),
            "reasoning_content",
        ),
        (
            error("1 validation error for Turn\nreasoning_content\n  Extra inputs are not permitted"),
            "reasoning_content",
        ),
    ],
)
def test_a_key_of_messages_is_left_out_of_all(body: object, key: str) -> None:
    changes = after(body)
    assert changes == Changes(omitted_in_messages=frozenset({key}))
    assert changes is not None
    user, assistant = changes.apply(sent())["messages"]
    assert user == TURNS[0]
    (call,) = assistant["tool_calls"]
    assert key not in assistant
    assert key not in call
    assert call["function"] == {"name": "f", "arguments": "{}"}


def test_a_key_of_a_function_is_left_out_and_its_name_is_kept() -> None:
    function = {"name": "f", "arguments": "{}", "thought_signature": "s"}
    turn = {"role": "assistant", "name": "x", "tool_calls": [{"id": "a", "type": "function", "function": function}]}
    body = {"model": "m", "messages": [turn]}
    words = error("Unknown parameter: 'messages[0].tool_calls[0].function.thought_signature'.")
    changes = Changes().after(read_error(words, 400), body)
    assert changes == Changes(omitted_in_messages=frozenset({"thought_signature"}))
    (message,) = Changes(omitted_in_messages=frozenset({"thought_signature", "name"})).apply(body)["messages"]
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert "name" not in message


@pytest.mark.parametrize("key", ["role", "content", "tool_calls"])
def test_what_a_message_needs_is_kept(key: str) -> None:
    assert after(detail("body", "messages", 1, "assistant", key)) is None
