"""`/v1/responses`: translated to a chat and back, valid for OpenAI's models, streamed in OpenAI's order."""

from __future__ import annotations

import asyncio
import copy
import json

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from llm_blender.ensemble import Limits
from llm_blender.llms.openai_compatible import Backoff, OpenAICompatibleLLM
from llm_blender.server.responses import chat_request
from llm_blender.server.schemas import ResponsesRequest
from llm_blender.testing import FakeLLM, FakeOpenAIServer, FakeReply

BEST = "A longer answer,\nin two lines."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "name": "weather", "description": "Look.", "parameters": SCHEMA, "strict": False}
CHAT_TOOL = {"type": "function", "function": {key: TOOL[key] for key in TOOL if key != "type"}}
CALL = {"id": "call_7", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
EVENTS = TypeAdapter(ResponseStreamEvent)


@pytest.fixture(scope="module")
def running(serve_for_all):
    return serve_for_all(FakeLLM("a", "Short."), FakeLLM("b", BEST), options={"failures": 1000})


@pytest.fixture
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def api(name: str, server: FakeOpenAIServer) -> OpenAICompatibleLLM:
    return OpenAICompatibleLLM(name, "fake", server.base_url, backoff=Backoff(attempts=1))


def reply(message: dict, finish: str = "stop") -> FakeReply:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    body = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    return FakeReply(body=json.dumps(body).encode())


def respond(running, **body) -> httpx.Response:
    return running.http.post("/v1/responses", json={"model": "blend", "input": "Say something.", **body})


def events(text: str) -> list[dict]:
    """Parse a stream, and check what all events have in common."""
    found = []
    for block in text.split("\n\n"):
        if block and not block.startswith(":"):
            name, data = block.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
            EVENTS.validate_python(found[-1])
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def replayed(found: list[dict]) -> list[dict]:
    """Put the items together from the pieces of a stream."""
    items: dict[int, dict] = {}
    for event in found:
        kind, index = event["type"], event.get("output_index")
        if kind == "response.output_item.added":
            assert index == len(items)
            items[index] = copy.deepcopy(event["item"])
        elif kind == "response.content_part.added":
            items[index]["content"].append(dict(event["part"]))
        elif kind == "response.reasoning_summary_part.added":
            items[index]["summary"].append(dict(event["part"]))
        elif kind == "response.output_text.delta":
            items[index]["content"][event["content_index"]]["text"] += event["delta"]
        elif kind == "response.refusal.delta":
            items[index]["content"][event["content_index"]]["refusal"] += event["delta"]
        elif kind == "response.reasoning_summary_text.delta":
            items[index]["summary"][event["summary_index"]]["text"] += event["delta"]
        elif kind == "response.function_call_arguments.delta":
            items[index]["arguments"] += event["delta"]
        elif kind == "response.output_item.done":
            status = {"status": event["item"]["status"]} if "status" in event["item"] else {}
            items[index] |= status
            assert items[index] == event["item"]
    return list(items.values())


def test_an_answer_is_a_response(client):
    response = client.responses.create(
        model="blend", input="Say something.", instructions="Be brief.", max_output_tokens=50, temperature=0.5,
        metadata={"topic": "sky"}, user="me", store=True,
    )  # fmt: skip
    values = Response.model_validate(response.to_dict())
    assert (values.output_text, values.status, values.object, values.error) == (BEST, "completed", "response", None)
    assert values.id.startswith("resp_")
    assert (values.instructions, values.max_output_tokens, values.temperature) == ("Be brief.", 50, 0.5)
    assert (values.metadata, values.user, values.store) == ({"topic": "sky"}, "me", False)
    assert (values.tools, values.tool_choice, values.text.format.type) == ([], "auto", "text")
    assert (values.usage.input_tokens, values.usage.total_tokens) == (8, 15)
    (item,) = values.output
    assert (item.type, item.status, item.content[0].annotations) == ("message", "completed", [])
    assert [candidate["model"] for candidate in values.blend["candidates"]] == ["a", "b"]


def test_options_of_the_ensemble_work(client, running):
    response = client.responses.create(model="a", input="Go.", extra_body={"blend": {"candidates": False}})
    assert (response.output_text, response.model) == ("Short.", "a")
    assert "text" not in response.blend["candidates"][0]
    assert respond(running, blend={"mdoe": "pick"}).json()["error"]["param"] == "blend.mdoe"


def test_async_and_streamed(running):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
            whole = await client.responses.create(model="blend", input="Go.")
            async with client.responses.stream(model="blend", input="Go.") as stream:
                pieces = [event.delta async for event in stream if event.type == "response.output_text.delta"]
                final = await stream.get_final_response()
            return whole.output_text, "".join(pieces), final.output_text, final.blend["mode"]

    assert asyncio.run(ask()) == (BEST, BEST, BEST, "pick")


def test_the_events_come_in_openais_order(running):
    response = respond(running, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "data: [DONE]" not in response.text
    found = events(response.text)
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert found[0]["response"]["status"] == found[1]["response"]["status"] == "in_progress"
    last = found[-1]["response"]
    assert len({event["response"]["id"] for event in found if "response" in event}) == 1
    assert replayed(found) == last["output"]
    assert ": blend {" in response.text
    whole = respond(running).json()
    assert last["output"][0]["content"] == whole["output"][0]["content"]
    assert (last["usage"], set(last)) == (whole["usage"], set(whole))


def test_an_only_answer_comes_while_it_is_written(serve):
    text = respond(serve(FakeLLM("a", "  One\n\ntwo   three. \n")), stream=True).text
    assert text.index('"delta": "One"') < text.index('"event": "wrote"')
    found = events(text)
    assert [event["delta"] for event in found if "delta" in event] == ["One", "\n\ntwo", "   three."]
    assert replayed(found) == found[-1]["response"]["output"]
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "One\n\ntwo   three."


def test_a_client_that_goes_away_cancels_everything(serve):
    llm = FakeLLM("a", never_ends=True)
    running = serve(llm, FakeLLM("b", never_ends=True))
    body = {"model": "blend", "input": "Go.", "stream": True}
    with (
        httpx.Client(base_url=running.url, timeout=5) as client,
        client.stream("POST", "/v1/responses", json=body) as response,
    ):
        assert b"response.created" in next(response.iter_raw())
    assert running.idle()
    assert llm.cancelled == 1


def test_a_quiet_stream_has_heartbeats(serve):
    text = respond(serve(FakeLLM("a", delay=0.2), options={"heartbeat": 0.05}), stream=True).text
    assert ": heartbeat\n\n" in text
    assert events(text)[-1]["type"] == "response.completed"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_is_cut_off_is_incomplete(serve, finish, reason, stream):
    with FakeOpenAIServer([FakeReply("Half of it", finish_reason=finish)]) as server:
        response = respond(serve(api("a", server)), stream=stream)
    values = events(response.text)[-1]["response"] if stream else response.json()
    assert (values["status"], values["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert (values["output"][0]["status"], values["completed_at"]) == ("incomplete", None)
    Response.model_validate(values)


def test_thoughts_are_an_item_of_their_own(serve):
    with FakeOpenAIServer([FakeReply("It is 42.", reasoning="Six times seven.")]) as server:
        running = serve(api("a", server), FakeLLM("b", "No."))
        response = Response.model_validate(respond(running).json())
        found = events(respond(running, stream=True).text)
        alone = events(respond(running, stream=True, model="a").text)
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert (response.output[0].summary[0].text, response.output_text) == ("Six times seven.", "It is 42.")
    assert [item["type"] for item in replayed(found)] == ["reasoning", "message"]
    assert [item["type"] for item in replayed(alone)] == ["message", "reasoning"]  # known only at the end
    assert replayed(alone) == alone[-1]["response"]["output"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_custom_call_that_is_unasked_is_shown(serve, stream):
    call = {"id": "call_7", "type": "custom", "custom": {"name": "weather", "input": "Rome"}}
    with FakeOpenAIServer(lambda _: reply({"tool_calls": [call]}, "tool_calls")) as server:
        response = respond(serve(api("a", server), FakeLLM("b")), input="Weather?", tools=[TOOL], stream=stream)
        values = events(response.text)[-1]["response"] if stream else response.json()
        (item,) = Response.model_validate(values).output
        assert (item.type, item.call_id, item.name, item.arguments) == ("function_call", "call_7", "weather", "Rome")


@pytest.mark.parametrize("stream", [False, True])
def test_tools_there_and_back(serve, stream):
    def answer(request):
        if request["messages"][-1]["role"] == "tool":
            return FakeReply("Rain in Rome.")
        return reply(
            {"content": "I look.", "tool_calls": [{**CALL, "extra_content": {"signature": "s"}}]}, "tool_calls"
        )

    with FakeOpenAIServer(answer) as server:
        running = serve(api("a", server), FakeLLM("b"))
        given = [{"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]}]
        more = {"tools": [TOOL], "tool_choice": {"type": "function", "name": "weather"}, "parallel_tool_calls": False}
        response = respond(running, input=given, **more, stream=stream)
        if stream:
            found = events(response.text)
            values = found[-1]["response"]
            assert replayed(found) == values["output"]
        else:
            values = response.json()
        parsed = Response.model_validate(values)
        words, call = parsed.output
        assert (words.content[0].text, call.type, call.call_id) == ("I look.", "function_call", "call_7")
        assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Rome"})
        assert (parsed.tools[0].name, parsed.parallel_tool_calls) == ("weather", False)
        first = server.requests[0]
        assert (first["tools"], first["parallel_tool_calls"]) == ([CHAT_TOOL], False)
        assert first["tool_choice"] == {"type": "function", "function": {"name": "weather"}}

        result = {"type": "function_call_output", "call_id": "call_7", "output": "Rain."}
        again = respond(running, input=[*given, *values["output"], result], tools=[TOOL]).json()
        assert again["output"][0]["content"][0]["text"] == "Rain in Rome."
        turn, told = server.requests[-1]["messages"][1:]
        assert (turn["role"], turn["tool_calls"][0]["id"], told["tool_call_id"]) == ("assistant", "call_7", "call_7")
        assert told["role"] == "tool"


def turns(*items, **more) -> list[dict]:
    body = ResponsesRequest.model_validate({"model": "blend", "input": list(items), **more})
    given = chat_request(body).model_dump(exclude_unset=True, exclude_none=True)["messages"]
    for turn in given:
        if isinstance(turn.get("content"), list):
            turn["content"] = "".join(part["text"] for part in turn["content"])
    return [{key: value for key, value in turn.items() if value is not None} for turn in given]


def test_items_are_turns_of_a_chat():
    def call(id: str) -> dict:
        return {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": "f", "arguments": "{}"}

    def chat_call(id: str) -> dict:
        return {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}

    result = {"type": "function_call_output", "output": [{"type": "input_text", "text": "Done."}]}
    said = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    assert turns(
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": "Two things."},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "opaque, of another service"},
        {**said, "content": [{"type": "output_text", "text": "Both.", "annotations": []}]},
        {**call("1"), "extra_content": {"signature": "s"}},
        call("2"),
        {**result, "call_id": "1"},
        {**result, "call_id": "2"},
        call("3"),
        {**said, "content": [{"type": "refusal", "refusal": "Not that."}]},
        {**result, "call_id": "3"},
        {"role": "user", "content": [{"type": "input_text", "text": "Go "}, {"type": "input_text", "text": "on."}]},
        instructions="Be brief.",
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": turns({"role": "developer", "content": "."})[0]["role"], "content": "Be kind."},
        {"role": "user", "content": "Two things."},
        {
            "role": "assistant",
            "content": "Both.",
            "tool_calls": [{**chat_call("1"), "extra_content": {"signature": "s"}}, chat_call("2")],
        },
        {"role": "tool", "tool_call_id": "1", "content": "Done."},
        {"role": "tool", "tool_call_id": "2", "content": "Done."},
        {"role": "assistant", "content": "Not that.", "tool_calls": [chat_call("3")]},
        {"role": "tool", "tool_call_id": "3", "content": "Done."},
        {"role": "user", "content": "Go on."},
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_turn_needs_back_is_in_its_reasoning(serve, stream):
    more = {"reasoning_content": "Hm.", "reasoning_details": [{"data": "x"}]}
    with FakeOpenAIServer([reply({"content": None, "tool_calls": [CALL], **more}, "tool_calls")]) as server:
        running = serve(api("a", server))
        response = respond(running, input="Go.", tools=[TOOL], stream=stream)
        values = events(response.text)[-1]["response"] if stream else response.json()
        thoughts, call = Response.model_validate(values).output
        assert (thoughts.type, thoughts.summary[0].text, call.type) == ("reasoning", "Hm.", "function_call")
        result = {"type": "function_call_output", "call_id": "call_7", "output": "Rain."}
        given = [{"role": "user", "content": "Go."}, *values["output"], result]
        assert respond(running, input=given, tools=[TOOL]).status_code == 200
        turn = server.requests[-1]["messages"][1]
    assert {key: turn[key] for key in more} == more
    assert turn["tool_calls"] == [CALL]


@pytest.mark.parametrize("model", ["blend", "a"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_a_part_and_can_be_sent_back(serve, stream, model):
    with FakeOpenAIServer([reply({"content": None, "refusal": "I cannot do that."})]) as server:
        running = serve(api("a", server), api("b", server))
        response = respond(running, stream=stream, model=model)
        if stream:
            found = events(response.text)
            values = found[-1]["response"]
            assert replayed(found) == values["output"]
            assert [
                event["type"] for event in found if "output_text" in event["type"] or "refusal" in event["type"]
            ] == [
                "response.refusal.delta",
                "response.refusal.done",
            ]
        else:
            values = response.json()
        (item,) = Response.model_validate(values).output
        assert (item.content[0].type, item.content[0].refusal) == ("refusal", "I cannot do that.")
        given = [{"role": "user", "content": "Go."}, *values["output"], {"role": "user", "content": "Why?"}]
        assert respond(running, input=given).status_code == 200
        assert server.requests[-1]["messages"][1] == {"role": "assistant", "content": "I cannot do that."}


def test_options_reach_the_chat():
    def chat(**more):
        body = ResponsesRequest.model_validate({"model": "blend", "input": "Go.", **more})
        return chat_request(body).model_dump(exclude_unset=True, exclude={"model", "messages"})

    schema = {"name": "place", "schema": SCHEMA, "strict": True}
    assert chat(text={"format": {"type": "json_schema", **schema}, "verbosity": "low"}) == {
        "response_format": {"type": "json_schema", "json_schema": schema},
        "verbosity": "low",
    }
    assert chat(text={"format": {"type": "json_object"}}) == {"response_format": {"type": "json_object"}}
    assert chat(reasoning={"effort": "low", "summary": "auto"}, max_output_tokens=9, top_p=0.5) == {
        "reasoning_effort": "low",
        "max_completion_tokens": 9,
        "top_p": 0.5,
    }
    echoed = {"metadata": {"a": "b"}, "store": True, "truncation": "auto", "service_tier": "auto", "max_tool_calls": 3}
    assert chat(**echoed, include=["reasoning.encrypted_content"], stream_options={"include_obfuscation": False}) == {}
    assert chat(seed=3, top_k=20) == {"seed": 3, "top_k": 20}
    other = {"type": "function", "name": "other", "parameters": None}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}
    assert chat(tools=[other, TOOL], tool_choice=choice) == {"tools": [CHAT_TOOL], "tool_choice": "required"}
    assert chat(tools=[], tool_choice="auto", parallel_tool_calls=True) == {}


def test_json_of_a_schema(serve):
    class Place(BaseModel):
        city: str

    with FakeOpenAIServer([FakeReply('{"city": "Rome"}')]) as server:
        running = serve(api("a", server))
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
            parsed = client.responses.parse(model="blend", input="Where?", text_format=Place)
            assert parsed.output_parsed == Place(city="Rome")
            with client.responses.stream(model="blend", input="Where?", text_format=Place) as stream:
                assert stream.get_final_response().output_parsed == Place(city="Rome")
        assert server.requests[0]["response_format"]["json_schema"]["name"] == "Place"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "not stored"),
        ({"conversation": "conv_1"}, "conversation", "not stored"),
        ({"conversation": {"id": "conv_1"}}, "conversation", "not stored"),
        ({"background": True}, "background", "not stored"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "not stored"),
        ({"top_logprobs": 3}, "top_logprobs", "log probabilities"),
        ({"response_format": {"type": "json_object"}}, "response_format", "text.format"),
        ({"n": 2}, "n", "blend.samples"),
        ({"include": ["message.output_text.logprobs"]}, "include", "log probabilities"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "'web_search' is not supported"),
        ({"tools": [TOOL, {"type": "mcp", "server_label": "x"}]}, "tools.1.type", "'mcp' is not supported"),
        ({"tools": [CHAT_TOOL]}, "tools.0.function", "beside `type`"),
        ({"tools": [{"type": "function"}]}, "tools.0.name", "a text is wanted"),
        ({"tools": [TOOL], "tool_choice": {"type": "file_search"}}, "tool_choice", "'file_search' is not supported"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", "tool_choice"),
        ({"tools": [TOOL], "tool_choice": ["f"]}, "tool_choice", "names a function"),
        (
            {"input": [{"type": "function_call_output", "call_id": 5, "output": "x"}]},
            "input.0.call_id",
            "text is wanted",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0", "send the item itself"),
        ({"input": [{"type": "computer_call"}]}, "input.0.type", "'computer_call' are not supported"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input.0.call_id", "text is wanted"),
        ({"input": [{"role": "user", "content": "Go."}, {"role": "robot", "content": "."}]}, "input.1.role", ""),
        ({"input": []}, "input", ""),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type", "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": 3}}}, "text.format.schema", "text.format"),
        ({"tools": [{**TOOL, "parameters": {"type": 3}}]}, "tools.0.parameters", "tools.0.parameters"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice", "other"),
        ({"temperature": 3}, "temperature", ""),
        ({"max_output_tokens": 0}, "max_output_tokens", ""),
    ],
)
def test_what_is_not_supported_is_refused_with_its_key(running, body, param, words):
    response = respond(running, **body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert words in error["message"]


@pytest.mark.parametrize(
    "content",
    ["[1]", '"x"', "5", "null", "[[1, 2]]", "[" * 99_999, "gAAAA", 7, {"a": 1}],
    ids=lambda content: f"{content}"[:9],
)
def test_encrypted_content_of_another_service_is_passed_over(running, content):
    thoughts = {"type": "reasoning", "summary": [], "encrypted_content": content}
    response = respond(running, input=[{"role": "user", "content": "Go."}, thoughts])
    assert response.status_code == 200


def test_content_that_is_not_text_is_refused_where_it_is(running):
    image = {"type": "input_image", "image_url": "https://example.com/a.png"}
    turn = {"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, image]}
    error = respond(running, input=[{"role": "user", "content": "Hello."}, turn]).json()["error"]
    assert error["param"].startswith("input.1.content")


def test_errors_are_of_the_clients_kinds(client):
    with pytest.raises(openai.NotFoundError, match="model"):
        client.responses.create(model="gpt-9", input="Go.")
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="blend", input="Go.", previous_response_id="resp_1")
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "unsupported_parameter")
    for call in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="responses are not stored"):
            call("resp_1")


def test_an_error_in_the_middle_of_a_stream(serve):
    running = serve(FakeLLM("a", errors="rate_limit"), FakeLLM("b", errors="auth"))
    found = events(respond(running, stream=True).text)
    assert [event["type"] for event in found] == ["response.created", "response.in_progress", "response.failed"]
    response = found[-1]["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert [failure["reason"] for failure in response["blend"]["failures"]] == ["rate_limit", "auth"]
    limited = serve(FakeLLM("a", errors="rate_limit"), limits=Limits(deadline=5))
    assert events(respond(limited, stream=True).text)[-1]["response"]["error"]["code"] == "rate_limit_exceeded"
    assert respond(limited).status_code == 429
