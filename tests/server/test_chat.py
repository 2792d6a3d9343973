"""`/v1/chat/completions`: what is asked, what is answered, and what is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time

import pytest

from llm_blender.config import Price, ServerConfig
from llm_blender.ensemble import Ensemble, Limits, Member
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.llms.openai_compatible import Backoff, OpenAICompatibleLLM
from llm_blender.ranking import Priors
from llm_blender.server.chat import answer_question
from llm_blender.server.request import read_question
from llm_blender.server.response import Events
from llm_blender.server.schemas import ChatRequest
from llm_blender.server.service import Service
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeOpenAIServer, FakeRanker, FakeReply

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def texts(response):
    return [choice["message"]["content"] for choice in response.json()["choices"]]


def test_the_best_answer_and_what_it_rests_on(serve):
    answer = serve(FakeLLM("a", "Short."), FakeLLM("b", "A longer answer."), FakeLLM("c", errors="auth")).ask()
    assert answer.status_code == 200
    values = answer.json()
    assert (values["object"], values["model"]) == ("chat.completion", "blend")
    assert values["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "A longer answer."},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert values["usage"] == {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8}
    blend = values["blend"]
    assert (blend["mode"], blend["degraded"], blend["cost"]) == ("pick", True, 0.0)
    assert [(c["model"], c["text"], c["rank"]) for c in blend["candidates"]] == [
        ("a", "Short.", 2),
        ("b", "A longer answer.", 1),
    ]
    assert blend["failures"] == [{"model": "c", "reason": "auth", "message": "c: planted auth"}]
    assert blend["ranking"]["probabilities"][1][0] > 0.5
    assert blend["ranking"]["comparisons"] == 2


def test_several_choices_are_the_best_ones_in_order(plain):
    assert texts(plain.ask(n=2)) == ["A longer answer.", "Short."]
    response = plain.ask(n=3)
    assert len(texts(response)) == 3
    assert len(response.json()["blend"]["candidates"]) == 4
    assert plain.ask(n=128).json()["error"]["code"] == "too_many"


def test_fused_where_asked_for(plain):
    response = plain.ask(n=2, blend={"mode": "fuse"})
    assert texts(response) == ["An answer that is made of both of them.", "A longer answer."]
    blend = response.json()["blend"]
    assert (blend["mode"], blend["fusion"]["reason"], blend["fusion"]["fuser"]) == ("fuse", "better", "chat:f")


def test_one_llm_by_its_name_and_some_by_theirs(plain):
    assert texts(plain.ask(model="a")) == ["Short."]
    only = plain.ask(blend={"llms": ["a"], "samples": 3}).json()["blend"]
    assert [candidate["model"] for candidate in only["candidates"]] == ["a"] * 3


def test_presets(serve):
    llms = [FakeLLM("a", "One."), FakeLLM("b", "Second."), FakeLLM("c", "The third.", never_ends=True)]
    running = serve(*llms, limits=Limits(deadline=10))
    fast = running.ask(model="blend-fast").json()["blend"]
    assert [candidate["model"] for candidate in fast["candidates"]] == ["a", "b"]
    assert (fast["ranking"]["strategy"], fast["failures"][0]["reason"]) == ("knockout", "timeout")
    best = running.ask(model="blend-best", blend={"llms": ["a", "b"]}).json()["blend"]
    assert (best["ranking"]["strategy"], best["mode"]) == ("full", "pick")


def asked(request, *llms, waited=0.0, deadline=20.0):
    """The answer to a request that has waited for some seconds, without a network."""

    async def ask():
        limits = Limits(deadline=deadline)
        service = Service(Ensemble([Member(llm) for llm in llms], FakeRanker(), limits=limits), ServerConfig())
        question = read_question(service, ChatRequest(model="blend", **request))
        question = dataclasses.replace(question, begun=question.begun - waited)
        return await answer_question(service, question, Events(service, question))

    return asyncio.run(ask())


def test_options_reach_the_llms():
    llm = FakeLLM("a")
    request = {
        "messages": [{"role": "developer", "content": "Rhyme."}, {"role": "user", "content": "Go."}],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 7,
        "stop": ["x"],
        "seed": -1,
        "presence_penalty": 1.0,
        "user": "somebody",
    }
    asked(request, llm)
    (call,) = llm.calls
    sampling = call.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop) == (0.5, 0.9, 7, ("x",))
    assert (sampling.seed, sampling.extra) == (2**31 - 1, {"presence_penalty": 1.0})
    assert call.messages == ({"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Go."})


def test_what_a_request_waited_is_taken_from_the_time_of_its_llms():
    request = {"messages": [{"role": "user", "content": "Go."}]}
    answer = asked(request, FakeLLM("a"), FakeLLM("b", never_ends=True), waited=99.0, deadline=100.0)
    assert 0 <= float(answer.failures[0].message.removeprefix("b: no answer within ").removesuffix(" s")) <= 0.8


def test_a_seed_finds_the_answer_again_and_without_one_everybody_is_asked(serve, tmp_path):
    llm = FakeLLM("a", ["one", "another"])
    with Store(tmp_path / "blend.db") as store:
        running = serve(llm, store=store)
        assert [texts(running.ask(seed=5)), texts(running.ask(seed=5)), texts(running.ask(seed=6))] == [
            ["one"],
            ["one"],
            ["another"],
        ]
        assert len(store) == 2
        running.ask()
        assert (len(llm.calls), len(store)) == (3, 2)


def test_without_a_seed_what_is_fused_is_not_kept_either(serve, tmp_path):
    with Store(tmp_path / "blend.db") as store:
        fuser = ChatFuser(FakeLLM("f", "An answer that is made of both of them."), store=store)
        running = serve(FakeLLM("a", "Short."), FakeLLM("b", "A longer answer."), fuser=fuser, store=store)
        assert running.ask(blend={"mode": "fuse"}).json()["blend"]["mode"] == "fuse"
        assert len(store) == 0
        running.ask(blend={"mode": "fuse"}, seed=1)
        assert len(store) == 3


def test_priors_count(serve):
    llms = [FakeLLM("a", "long"), FakeLLM("b", "longer")]
    assert texts(serve(*llms, priors=Priors({"a": 9.0})).ask()) == ["long"]


def test_the_candidates_can_be_left_out(plain):
    blend = plain.ask(blend={"candidates": False}).json()["blend"]
    assert all("text" not in candidate and "rank" in candidate for candidate in blend["candidates"])


def _tool_reply(city: str, said: str = "") -> FakeReply:
    pieces = [
        {"content": said} if said else {},
        {"tool_calls": [{"index": 0, "id": "call_7", "function": {"name": "weather", "arguments": '{"city": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": f'"{city}"}}'}}]},
    ]
    chunks = [{"choices": [{"index": 0, "delta": piece}]} for piece in pieces]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return FakeReply(body=body.encode(), content_type="text/event-stream")


def api(name: str, server: FakeOpenAIServer, **options) -> OpenAICompatibleLLM:
    return OpenAICompatibleLLM(name, "fake", server.base_url, backoff=Backoff(attempts=1), **options)


def test_calls_of_tools_are_ranked_as_their_json(serve):
    with FakeOpenAIServer([_tool_reply("Rome")]) as one, FakeOpenAIServer([_tool_reply("Florence", "I look.")]) as two:
        running = serve(api("a", one), api("b", two), FakeLLM("c"))
        response = running.ask("Weather?", tools=[TOOL], tool_choice="auto")
        values = response.json()
        message = values["choices"][0]["message"]
        assert values["choices"][0]["finish_reason"] == "tool_calls"
        assert message["content"] == "I look."
        assert message["tool_calls"] == [
            {"id": "call_7", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Florence"}'}}
        ]
        assert values["blend"]["candidates"][0]["text"] == '[{"name": "weather", "arguments": {"city": "Rome"}}]'
        assert [failure["model"] for failure in values["blend"]["failures"]] == ["c"]
        assert (one.requests[0]["tools"], one.requests[0]["tool_choice"]) == ([TOOL], "auto")
        turns = [
            {"role": "user", "content": "Weather?"},
            message,
            {"role": "tool", "tool_call_id": "call_7", "content": "Rain."},
        ]
        body = {"model": "blend", "messages": turns, "tools": [TOOL]}
        assert running.http.post("/v1/chat/completions", json=body).status_code == 200
        assert one.requests[1]["messages"] == turns
        assert running.ask("Weather?", tools=[TOOL], blend={"mode": "fuse"}).json()["error"]["param"] == "blend.mode"


def test_answers_that_are_no_json_are_none_where_json_is_wanted(serve):
    with FakeOpenAIServer([FakeReply('{"a": 1}')]) as one, FakeOpenAIServer([FakeReply("Certainly! It is 1.")]) as two:
        price = Price(input=1e6, output=0)
        running = serve(api("a", one, price=price), api("b", two, price=price))
        response = running.ask(response_format={"type": "json_object"})
        assert texts(response) == ['{"a": 1}']
        assert one.requests[0]["response_format"] == {"type": "json_object"}
        blend = response.json()["blend"]
        assert (blend["failures"][0]["reason"], blend["cost"]) == ("wrong_form", 6.0)  # it was paid for all the same


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"model": "gpt-9"}, 404, "model_not_found", "model"),
        ({"blend": {"llms": ["nobody"]}}, 400, "invalid_value", None),
        ({"blend": {"mdoe": "pick"}}, 400, "invalid_value", "blend.mdoe"),
        ({"blend": {"strategy": "best"}}, 400, "invalid_value", None),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, 400, "invalid_value", None),
        ({"messages": [{"role": "user"}]}, 400, "invalid_value", "messages.0"),
        ({"temperature": 3}, 400, "invalid_value", "temperature"),
        ({"max_tokens": "7"}, 400, "invalid_value", "max_tokens"),
        ({"logprobs": True}, 400, "invalid_value", "logprobs"),
    ],
)
def test_what_is_wrong_is_said_in_the_shape_of_openai(plain, body, status, code, param):
    body = {"model": "blend", "messages": [{"role": "user", "content": "Go."}], **body}
    response = plain.http.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    "body", [b"{", b"[NaN]", b'{"model": "\\ud800"}', b'{"a":' * 500 + b"1" + b"}" * 500, b"\xff", b""]
)
def test_what_is_no_json_is_refused(plain, body):
    response = plain.http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_the_cost_is_capped(serve):
    running = serve(
        FakeLLM("a", "Short.", cost=0.4),
        FakeLLM("b", "A longer answer.", cost=0.4),
        limits=Limits(deadline=10, max_cost=1),
    )
    blend = running.ask(blend={"max_cost": 0.5}).json()["blend"]
    assert (blend["cost"], blend["failures"][0]["reason"], blend["degraded"]) == (0.4, "budget", True)
    assert running.ask(blend={"max_cost": 99}).json()["blend"]["cost"] == 0.8
    response = running.ask(n=3, blend={"max_cost": 99})  # four answers, and the service's own cap is 1
    assert response.json()["blend"]["cost"] == 0.8
    response = running.ask(blend={"max_cost": 0.1})
    assert (response.status_code, response.json()["error"]["code"]) == (402, "all_budget")
    unknown = serve(FakeLLM("a", cost=None)).ask(blend={"max_cost": 1})
    assert unknown.status_code == 400
    assert "a `price`" in unknown.json()["error"]["message"]


def test_an_llm_that_keeps_failing_is_set_aside_and_tried_again(serve):
    good, bad = FakeLLM("a"), FakeLLM("b", "A longer answer.", errors=["server", "server", None])
    running = serve(good, bad, options={"failures": 2, "set_aside": 60})
    reasons = [running.ask().json()["blend"]["failures"][0]["reason"] for _ in range(4)]
    assert reasons == ["server", "server", "set_aside", "set_aside"]
    assert len(bad.calls) == 2
    assert 'blend_llm_set_aside{llm="b"} 1.0' in running.http.get("/metrics").text
    alone = running.ask(model="b")
    assert (alone.status_code, alone.json()["error"]["code"]) == (503, "all_set_aside")
    assert int(alone.headers["retry-after"]) >= 1
    running.service.breakers._clock = lambda: time.monotonic() + 61
    assert running.ask().json()["blend"]["failures"] == []
    assert running.ask().json()["blend"]["failures"] == []
