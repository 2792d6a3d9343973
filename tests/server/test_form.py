"""The form of answers over HTTP, the keys that reach the LLMs, the ranges of a request, and all keys of an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from llm_blender.config import Price
from llm_blender.conversations import tool_calls_text
from llm_blender.ensemble import Limits
from llm_blender.errors import LLMError
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.testing import FakeLLM, FakeOpenAIServer, FakeReply
from llm_blender.types import Candidate, Message, OnText, Sampling, Usage

CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"color": {"type": "string"}}, "required": ["color"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "color", "strict": True, "schema": SCHEMA}}
TOOL = {"type": "function", "function": {"name": "paint", "parameters": SCHEMA}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "paint", "arguments": '{"color": "blue"}'}}
JSON, LONG = '{"color": "blue"}', '{"colour": "blue", "why": "because the ranker prefers long answers"}'


_SAMPLING = Sampling()


class PlantedLLM(OpenAICompatibleLLM):
    """An LLM behind an API, with a planted answer in place of its server's.

    Attributes:
        calls: messages and options of each call.
    """

    def __init__(self, name: str, answer: str | Candidate | Callable[[Sequence[Any]], Candidate]) -> None:
        super().__init__(name, "m", "http://127.0.0.1:9/v1", price=Price(input=0, output=1e6))
        self._answer = Candidate(answer) if isinstance(answer, str) else answer
        self.calls: list[tuple[Sequence[Any], Mapping[str, Any]]] = []

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        self.calls.append((messages, {**sampling.to_dict(), **(sampling.extra or {})}))
        answer = self._answer if isinstance(self._answer, Candidate) else self._answer(messages)
        values = {"model": self.name, "usage": Usage(1, 2), "cost": 2.0, "finish_reason": "stop"}
        return Candidate(**{**vars(answer), **{key: value for key, value in values.items() if not vars(answer)[key]}})


def calling(*calls: dict[str, Any], **fields: Any) -> Candidate:
    return Candidate(tool_calls_text(calls), tool_calls=calls, finish_reason="tool_calls", **fields)


def streamed(text: str) -> tuple[dict[str, Any], list[str], list[dict[str, Any]]]:
    """The turn that a stream adds up to, its reasons to end, and its chunks."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    chunks, turn, reasons = [json.loads(line) for line in lines], {}, []
    for choice in (choice for chunk in chunks for choice in chunk.get("choices", ())):
        for key, value in choice["delta"].items():
            turn[key] = turn[key] + value if key in turn and isinstance(value, str) else value
        reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
    return turn, reasons, chunks


@pytest.mark.parametrize("stream", [False, True])
def test_the_right_form_wins_whatever_the_ranker_prefers(serve, stream):
    response = serve(PlantedLLM("a", LONG), PlantedLLM("b", f"```json\n{JSON}\n```")).ask(
        response_format=FORMAT, stream=stream
    )
    if stream:
        turn, reasons, chunks = streamed(response.text)
        blend = chunks[-1]["blend"]
    else:
        turn, blend = response.json()["choices"][0]["message"], response.json()["blend"]
        reasons = [response.json()["choices"][0]["finish_reason"]]
        assert response.json()["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    assert (turn["content"], reasons, blend["cost"], blend["degraded"]) == (JSON, ["stop"], 4.0, True)
    (failure,) = blend["failures"]
    assert (failure["model"], failure["reason"], failure["text"]) == ("a", "wrong_form", LONG)
    assert "`color` is missing" in failure["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_where_no_answer_has_the_form_the_error_has_what_each_lacks(serve, stream):
    running = serve(PlantedLLM("a", LONG), PlantedLLM("b", "42"), options={"failures": 1})
    for _ in range(3):  # and no LLM is set aside for it
        response = running.ask(response_format=FORMAT, stream=stream)
        assert response.status_code == (200 if stream else 502)
        body = streamed(response.text)[2][0] if stream else response.json()
        assert body["error"]["code"] == "all_wrong_form"
        assert "`color` is missing" in body["error"]["message"]
        assert "a JSON object is required, not a number" in body["error"]["message"]
        assert [failure["text"] for failure in body["blend"]["failures"]] == [LONG, "42"]
        assert (body["blend"]["cost"], body["blend"]["usage"]) == (4.0, {"prompt_tokens": 2, "completion_tokens": 4})
    assert running.ask().json()["blend"]["failures"] == []
    metrics = running.http.get("/metrics").text
    assert 'blend_llm_calls_total{llm="a",outcome="wrong_form"} 3.0' in metrics
    assert "blend_cost_dollars_total 16.0" in metrics


def test_wrong_answers_do_not_fill_the_quorum(serve):
    running = serve(PlantedLLM("a", "Blue."), PlantedLLM("b", JSON), limits=Limits(deadline=10, quorum=1))
    assert running.ask(response_format={"type": "json_object"}).json()["choices"][0]["message"]["content"] == JSON


def test_texts_of_wrong_answers_are_left_out_with_those_of_the_candidates(serve):
    running = serve(PlantedLLM("a", LONG), PlantedLLM("b", JSON))
    blend = running.ask(response_format=FORMAT, blend={"candidates": False}).json()["blend"]
    assert [part.get("text") for part in (blend["failures"][0], blend["candidates"][0])] == [None, None]


def test_required_calls_and_their_arguments(serve):
    wrong = calling({**CALL, "function": {"name": "paint", "arguments": '{"colour": "blue", "why": "so"}'}})
    running = serve(
        PlantedLLM("a", "Certainly, I paint it blue now."), PlantedLLM("b", wrong), PlantedLLM("c", calling(CALL))
    )
    for choice in ("required", {"type": "function", "function": {"name": "paint"}}):
        values = running.ask(tools=[TOOL], tool_choice=choice).json()
        assert values["choices"][0]["message"] == {"role": "assistant", "content": None, "tool_calls": [CALL]}
        assert values["choices"][0]["finish_reason"] == "tool_calls"
        assert [failure["reason"] for failure in values["blend"]["failures"]] == ["wrong_form"] * 2
    values = running.ask(tools=[TOOL], response_format=FORMAT, stream=True)
    assert streamed(values.text)[0]["tool_calls"] == [{**CALL, "index": 0}]


class Color(BaseModel):
    """The schema of an answer."""

    color: str


def test_the_official_client_parses_answers_and_refusals(serve):
    url = f"{serve(PlantedLLM('a', LONG), PlantedLLM('b', JSON)).url}/v1"
    messages = [{"role": "user", "content": "What color?"}]
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        parsed = client.chat.completions.parse(model="blend", messages=messages, response_format=Color)
        assert parsed.choices[0].message.parsed == Color(color="blue")
    refusal = Candidate("I do not answer that.", refusal="I do not answer that.")
    url = f"{serve(PlantedLLM('a', refusal), PlantedLLM('b', '42')).url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        message = (
            client.chat.completions.parse(model="blend", messages=messages, response_format=Color).choices[0].message
        )
        assert (message.refusal, message.parsed, message.content) == ("I do not answer that.", None, None)
        with client.chat.completions.stream(model="blend", messages=messages, response_format=Color) as stream:
            assert stream.get_final_completion().choices[0].message.refusal == "I do not answer that."


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "strin"}}}},
         "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "http://127.0.0.1:9/a"}}}},
         "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {}}, "response_format.type"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": 3}}}]},
         "tools.0.function.parameters"),
        ({"tools": [TOOL, {"type": "web_search"}]}, "tools.1.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)  # fmt: skip
def test_forms_that_are_refused_before_any_call(serve, body, param):
    llm = PlantedLLM("a", JSON)
    response = serve(llm).ask(**body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert llm.calls == []


def test_few_unknown_keys_reach_the_llms(serve):
    llm = PlantedLLM("a", "Yes.")
    known = {
        "presence_penalty": -2, "frequency_penalty": 2, "logit_bias": {"50256": -100}, "reasoning_effort": "low",
        "verbosity": "low", "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1,
        "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip
    about = {"user": "ann", "metadata": {}, "store": False, "service_tier": "auto", "safety_identifier": "x"}
    unknown = {
        "provider": {"data_collection": "allow"}, "models": ["dear"], "plugins": [{"id": "web"}],
        "api_base": "http://169.254.169.254/", "base_url": "http://127.0.0.1:9", "extra": {"model": "x"},
        "api_key": "k", "web_search_options": {}, "max_new_tokens": 9, "n_predict": 9, "extra_body": {"model": "x"},
    }  # fmt: skip
    response = serve(llm, options={"pass": ["cache_prompt"]}).ask(
        **known, **about, **unknown, cache_prompt=True, response_format={"type": "text"}, tool_choice="auto", tools=[],
        parallel_tool_calls=True,
    )  # fmt: skip
    assert response.json()["blend"]["ignored"] == sorted(unknown)
    ((_, options),) = llm.calls
    assert options["extra"] == {**known, "cache_prompt": True}
    assert "ignored" not in serve(llm).ask(**known, **about).json()["blend"]


def test_mistrals_word_for_a_required_call_is_translated(serve):
    llm = PlantedLLM("a", calling(CALL))
    assert serve(llm).ask(tools=[TOOL], tool_choice="any").status_code == 200
    ((_, options),) = llm.calls
    assert options["extra"]["tool_choice"] == "required"


def test_the_keys_of_the_operator_win(serve):
    with FakeOpenAIServer() as server:
        extra = {"reasoning_effort": "low", "provider": {"data_collection": "deny"}, "top_k": 5}
        running = serve(OpenAICompatibleLLM("a", "fake", server.base_url, extra=extra), options={"pass": ["provider"]})
        response = running.ask(
            reasoning_effort="high", top_k=50, provider={"data_collection": "allow"}, models=["dear"]
        )
        assert response.status_code == 200
        (body,) = server.requests
        assert {**body, **extra} == body
        assert "models" not in body


@pytest.mark.parametrize(
    "body",
    [
        '"temperature": 1e999', '"top_k": 1e999', '"provider": {"x": [-1e400]}', '"top_k": NaN', '"x": -Infinity',
        f'"top_k": {"1" * 400}.0', f'"x": {"9" * 250}e80', '"tools": [{"type": "function", "function": {"name": "f", '
        '"parameters": {"maximum": 1e999}}}]',
    ],
)  # fmt: skip
def test_numbers_that_are_none_in_json_are_refused(serve, body):
    llm = PlantedLLM("a", "Yes.")
    running = serve(llm)
    content = f'{{"model": "blend", "messages": [{{"role": "user", "content": "Go."}}], {body}}}'
    response = running.http.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
    assert llm.calls == []
    text = {"model": "blend", "messages": [{"role": "user", "content": "Is 1e999 NaN, or Infinity?"}], "top_k": 1e200}
    assert running.http.post(CHAT, json=text).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"top_p": 0}, {"top_p": 1}, {"temperature": 0}, {"temperature": 2}, {"presence_penalty": -2},
        {"max_tokens": -1}, {"max_tokens": None}, {"max_completion_tokens": -1}, {"n": None}, {"stop": None},
        {"stop": []}, {"stop": ""}, {"top_logprobs": 0, "logprobs": False}, {"top_logprobs": None}, {"logprobs": None},
        {"tools": []}, {"tools": None, "tool_choice": None}, {"tools": [], "tool_choice": "auto"}, {"functions": None},
        {"functions": [], "function_call": None}, {"stream_options": None}, {"stream": None}, {"seed": None},
        {"stream": True, "stream_options": {"include_usage": None}}, {"response_format": None}, {"user": None},
        {"response_format": {"type": "text"}}, {"parallel_tool_calls": None}, {"logit_bias": None}, {"blend": None},
        {"reasoning_effort": None}, {"temperature": None, "top_p": None}, {"presence_penalty": 0},
    ],
)  # fmt: skip
def test_what_openai_takes_is_taken(serve_for_all, body):
    llm = PlantedLLM("a", "Yes.")
    assert serve_for_all(llm).ask(**body).status_code == 200
    ((_, options),) = llm.calls
    sent = {"temperature": None, "top_p": None, "presence_penalty": None, **body}
    assert [options.get(key) for key in ("temperature", "top_p", "presence_penalty")] == list(sent.values())[:3]
    assert set(options) <= {"temperature", "top_p", "presence_penalty", "extra", "sample", "seed", "stop"}
    assert options["stop"] == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"top_p": -0.1}, "top_p: must be at least 0"),
        ({"top_p": 1.1}, "top_p: must be at most 1"),
        ({"temperature": 2.1}, "temperature: must be at most 2"),
        ({"temperature": "hot"}, "temperature: must be a number."),
        ({"presence_penalty": 3}, "presence_penalty: must be at most 2"),
        ({"frequency_penalty": -3}, "frequency_penalty: must be at least -2"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1; null and -1 mean no limit."),
        ({"max_completion_tokens": 0}, "max_completion_tokens: must be at least 1; null and -1 mean no limit."),
        ({"max_tokens": -2}, "max_tokens: must be at least 1; null and -1 mean no limit."),
        ({"max_tokens": "7"}, "max_tokens: must be a whole number."),
        ({"max_tokens": 7.5}, "max_tokens: must be a whole number."),
        ({"n": 0}, "n: must be at least 1."),
        ({"stop": 3}, "stop: must be a text, or a list of texts."),
        ({"stop": ["a", 3]}, "stop: must be a text, or a list of texts."),
        ({"stop": ["a"] * 17}, "stop: must be at most 16 texts."),
        ({"logprobs": True}, "logprobs: logprobs are not supported."),
        ({"logprobs": False, "top_logprobs": 3}, "top_logprobs: logprobs are not supported."),
        ({"functions": [{"name": "f"}]}, "functions: this key of OpenAI's old API is not supported: use `tools`."),
        ({"function_call": "auto"}, "function_call: this key of OpenAI's old API is not supported: use `tool_choice`."),
        ({"tools": {}}, "tools: must be a list."),
        ({"tools": [3]}, "tools.0: must be an object."),
        ({"tool_choice": 3}, "tool_choice: must be `none`, `auto`, `required`, or name a function of `tools`."),
        ({"response_format": "json"}, "response_format: must be an object."),
        ({"stream": "yes"}, "stream: must be true or false."),
        ({"model": ""}, "model: must not be empty."),
        ({"model": 3}, "model: must be a text."),
        ({"blend": {"mode": "best"}}, "blend.mode: must be 'pick', 'fuse' or 'auto'."),
        ({"blend": {"mdoe": "pick"}}, "blend.mdoe: is no key that is known here."),
        ({"blend": {"llms": []}}, "blend.llms: must have at least 1 of them."),
        ({"blend": []}, "blend: must be an object."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_worded_plainly(serve_for_all, body, message):
    response = serve_for_all(FakeLLM("a")).ask(**{"model": "blend", **body})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_value", message.partition(":")[0])
    assert error["message"].startswith(message)
    assert "nput" not in error["message"]  # pydantic's "Input should be"


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"[]", "application/json", "invalid_value"),
        (b'"x"', "application/json; charset=utf-8", "invalid_value"),
        (b"", "application/json", "invalid_value"),
        (b"{", "application/json", "invalid_json"),
        (b"{}", "text/plain", "invalid_value"),
        (b"{}", "application/x-www-form-urlencoded", "invalid_value"),
    ],
)
def test_what_is_no_request(serve_for_all, content, kind, code):
    response = serve_for_all(FakeLLM("a")).http.post(CHAT, content=content, headers={"content-type": kind})
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)
    assert "body" in response.json()["error"]["message"]


RICH = calling(
    {**CALL, "extra_content": {"google": {"thought_signature": "s1"}}},
    reasoning="It should be blue.",
    extra={"reasoning_details": [{"type": "x"}], "role": "user", "content": "no", "tool_calls": [], "refusal": "no"},
)


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_has_all_that_its_api_needs_back(serve, stream):
    """A loop of tools against an LLM that insists on its signature and its thoughts."""

    def answer(messages: Sequence[Any]) -> Candidate:
        if len(messages) == 1:
            return RICH
        _, turn, result = messages
        call = turn["tool_calls"][0]
        if call.get("extra_content") != {"google": {"thought_signature": "s1"}}:
            raise LLMError("a", "bad_request", "Function call is missing a thought_signature")
        if turn.get("reasoning_content") != "It should be blue." or "reasoning_details" not in turn:
            raise LLMError("a", "bad_request", "Missing `reasoning_content` field")
        return Candidate(f"It is {result['content']}.")

    running = serve(PlantedLLM("a", answer))
    response = running.ask("Paint it.", tools=[TOOL], stream=stream)
    if stream:
        turn, reasons, chunks = streamed(response.text)
        turn["content"] = turn["content"] or None
        (call,) = turn["tool_calls"]
        assert call.pop("index") == 0
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "reasoning_content": "It should be blue."}
    else:
        turn, reasons = response.json()["choices"][0]["message"], [response.json()["choices"][0]["finish_reason"]]
    assert reasons == ["tool_calls"]
    assert turn == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "It should be blue.",
        "reasoning_details": [{"type": "x"}],
        "tool_calls": [{**CALL, "extra_content": {"google": {"thought_signature": "s1"}}}],
    }
    turns = [
        {"role": "user", "content": "Paint it."}, turn, {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
    ]  # fmt: skip
    body = {"model": "blend", "messages": turns, "tools": [TOOL], "stream": stream}
    second = running.http.post(CHAT, json=body)
    said = streamed(second.text)[0]["content"] if stream else second.json()["choices"][0]["message"]["content"]
    assert said == "It is blue."


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_go_back_under_the_name_that_they_came_under(serve, stream):
    """A loop of tools against a server that insists on `reasoning`."""

    def reply(request: Mapping[str, Any]) -> FakeReply:
        turns = [turn for turn in request["messages"] if turn["role"] == "assistant"]
        if turns and turns[0].get("reasoning") != "Hm.":
            return FakeReply("missing `reasoning`", status=400)
        message = {"content": "Blue."} if turns else {"reasoning": "Hm.", "tool_calls": [CALL]}
        return FakeReply(body=json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())

    with FakeOpenAIServer(reply) as server:
        running = serve(OpenAICompatibleLLM("a", "fake", server.base_url))
        response = running.ask("Paint it.", tools=[TOOL], stream=stream)
        turn = streamed(response.text)[0] if stream else response.json()["choices"][0]["message"]
        assert turn["reasoning_content"] == turn["reasoning"] == "Hm."
        result = {"role": "tool", "tool_call_id": "call_1", "content": "blue"}
        messages = [{"role": "user", "content": "Paint it."}, turn, result]
        body = {"model": "blend", "messages": messages, "tools": [TOOL]}
        assert running.http.post(CHAT, json=body).json()["choices"][0]["message"]["content"] == "Blue."


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_has_its_own_key(serve, stream):
    response = serve(PlantedLLM("a", Candidate("No.", refusal="No."))).ask(stream=stream)
    turn = streamed(response.text)[0] if stream else response.json()["choices"][0]["message"]
    assert (turn["content"] or None, turn["refusal"]) == (None, "No.")


def test_a_refusal_that_is_streamed_has_its_own_key(serve):
    chunk = {"choices": [{"delta": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}
    body = b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"
    with FakeOpenAIServer([FakeReply(body=body, content_type="text/event-stream")]) as server:
        running = serve(OpenAICompatibleLLM("a", "fake", server.base_url))
        turn = streamed(running.ask(stream=True).text)[0]
    assert (turn["content"], turn["refusal"]) == ("", "No.")


@pytest.mark.parametrize(
    ("given", "expected"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("eos", "stop"), (None, "stop")],
)
def test_reasons_to_end_are_those_of_openai(serve_for_all, given, expected):
    answer = Candidate("Yes.", finish_reason=given)
    running = serve_for_all(PlantedLLM("a", answer), PlantedLLM("b", answer))
    assert running.ask().json()["choices"][0]["finish_reason"] == expected
    assert streamed(running.ask(stream=True).text)[1] == [expected]


def test_the_fingerprint_is_of_version_and_llms(serve):
    running = serve(FakeLLM("a"), FakeLLM("b"))
    first = running.ask().json()["system_fingerprint"]
    chunks = streamed(running.ask(stream=True).text)[2]
    assert {chunk["system_fingerprint"] for chunk in chunks} == {first}
    assert serve(FakeLLM("a"), FakeLLM("b")).ask().json()["system_fingerprint"] == first
    assert serve(FakeLLM("a"), FakeLLM("c")).ask().json()["system_fingerprint"] != first


SIGNED = {**CALL, "extra_content": {"google": {"thought_signature": "s1"}}}


def _insisting(body: dict[str, Any]) -> FakeReply:
    """Reply like a server that refuses the second turn without the signature and the thoughts of the first."""
    if len(body["messages"]) == 1:
        turn = {"role": "assistant", "content": None, "reasoning_content": "It should be blue.", "tool_calls": [SIGNED]}
        chunk = {"choices": [{"index": 0, "delta": turn, "finish_reason": "tool_calls"}]}
        return FakeReply(
            body=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode(), content_type="text/event-stream"
        )
    turn = body["messages"][1]
    if "thought_signature" not in json.dumps(turn.get("tool_calls")):
        return FakeReply("Function call is missing a thought_signature in functionCall parts.", status=400)
    if turn.get("reasoning_content") != "It should be blue.":
        return FakeReply("Missing `reasoning_content` field in the assistant message.", status=400)
    return FakeReply("It is blue.")


@pytest.mark.parametrize("stream", [False, True])
def test_a_loop_of_tools_with_the_official_client_and_a_server_that_insists(serve, stream):
    with FakeOpenAIServer(_insisting) as server, openai.OpenAI(
        base_url=f"{serve(OpenAICompatibleLLM('a', 'fake', server.base_url)).url}/v1", api_key="none", max_retries=0
    ) as client:  # fmt: skip
        messages: list[Any] = [{"role": "user", "content": "Paint it."}]
        for _ in range(2):
            options: dict[str, Any] = {"model": "blend", "messages": messages, "tools": [TOOL]}
            if stream:
                with client.chat.completions.stream(**options) as events:
                    message = events.get_final_completion().choices[0].message
            else:
                message = client.chat.completions.create(**options).choices[0].message
            if message.tool_calls:
                messages.append(message.model_dump(exclude_none=True))
                messages.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "done"})
        assert message.content == "It is blue."
        assert len(server.requests) == 2
