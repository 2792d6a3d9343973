"""Streams: stages, signs of life, early text, errors in the middle, and clients that go away."""

from __future__ import annotations

import json
import threading
import time

import httpx
import pytest

from llm_blender.ensemble import Limits
from llm_blender.testing import FakeLLM, FakeRanker


def events(text: str) -> list[dict]:
    return [json.loads(line[len(": blend ") :]) for line in text.splitlines() if line.startswith(": blend ")]


def chunks(text: str) -> list[dict]:
    data = [line[len("data: ") :] for line in text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(line) for line in data[:-1]]


def said(text: str) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks(text) for choice in chunk["choices"])


def test_stages_are_comments(serve):
    response = serve(FakeLLM("a", "Short."), FakeLLM("b", errors="auth"), FakeLLM("c", "Longer.")).ask(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    told = events(response.text)
    assert told[0] == {"event": "started", "llms": ["a", "b", "c"]}
    assert {event["event"] for event in told} == {"started", "wrote", "failed", "comparing"}
    assert next(event for event in told if event["event"] == "failed")["reason"] == "auth"
    assert chunks(response.text)[0]["choices"][0]["delta"] == {"role": "assistant", "content": "Longer."}


def test_candidates_can_be_watched_while_they_are_written(plain):
    told = events(plain.ask(stream=True, blend={"watch": True, "mode": "fuse"}).text)
    pieces = [event["text"] for event in told if event["event"] == "writing" and event["call"] == 1]
    assert pieces == ["A ", "longer ", "answer."]
    assert [event["text"] for event in told if event["event"] == "wrote"] == ["Short.", "A longer answer."]
    assert "".join(event["text"] for event in told if event["event"] == "fusing").startswith("An answer")


@pytest.mark.parametrize("answer", ["One two three.", "  One\n\ntwo   three. \n"])
def test_an_only_answer_is_told_while_it_is_written(serve, answer):
    running = serve(FakeLLM("a", answer))
    streamed = running.ask(stream=True).text
    assert said(streamed) == running.ask().json()["choices"][0]["message"]["content"] == answer.strip()
    first = streamed.index('"content": "One')
    assert first < streamed.index('"event": "wrote"')


class SlowRanker(FakeRanker):
    """Takes its time."""

    def __init__(self, seconds=1.0):
        super().__init__()
        self.seconds, self.began, self.ended = seconds, 0.0, 0.0

    def rank_many(self, *args, **options):
        self.began = time.monotonic()
        time.sleep(self.seconds)
        self.ended = time.monotonic()
        return super().rank_many(*args, **options)


def test_the_service_lives_while_the_ranker_works(serve):
    ranker = SlowRanker(2.0)
    running = serve(ranker=ranker, options={"heartbeat": 0.1})
    looks = []

    def look() -> None:
        while not ranker.ended:
            started = time.monotonic()
            httpx.get(f"{running.url}/healthz").raise_for_status()
            looks.append((started, time.monotonic()))
            time.sleep(0.05)

    looking = threading.Thread(target=look)
    looking.start()
    text = running.ask(stream=True).text
    looking.join()
    assert text.count(": heartbeat\n\n") >= 4
    assert any(ranker.began < started and ended < ranker.ended for started, ended in looks)


def test_an_error_in_the_middle(serve):
    response = serve(FakeLLM("a", errors="rate_limit"), FakeLLM("b", errors="auth")).ask(stream=True)
    assert response.status_code == 200
    (body,) = chunks(response.text)
    assert (body["error"]["type"], body["error"]["code"]) == ("server_error", "no_answer")
    assert [failure["reason"] for failure in body["blend"]["failures"]] == ["rate_limit", "auth"]


def test_the_deadline_is_of_the_whole_request(serve):
    running = serve(FakeLLM("a"), FakeLLM("b", never_ends=True), limits=Limits(deadline=1))
    started = time.monotonic()
    blend = running.ask().json()["blend"]
    assert [failure["reason"] for failure in blend["failures"]] == ["timeout"]
    assert time.monotonic() - started < 4
    response = serve(FakeLLM("a"), FakeLLM("b"), ranker=SlowRanker(), limits=Limits(deadline=0.5)).ask()
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_cancels_everything(serve, stream):
    llms = [FakeLLM("a", never_ends=True), FakeLLM("b", never_ends=True)]
    running = serve(*llms)
    body = {"model": "blend", "messages": [{"role": "user", "content": "Go."}], "stream": stream}
    with httpx.Client(base_url=running.url, timeout=0.5) as client:
        if stream:
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                next(response.iter_raw())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/chat/completions", json=body)
    assert running.idle()
    assert [llm.cancelled for llm in llms] == [1, 1]
