"""Admission and circuit breakers: by themselves, and around LLMs that are slow, full, or not at fault."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from unittest import mock

import httpx
import pytest

from llm_blender.config import ServerConfig
from llm_blender.ensemble import Ensemble, Limits, Member
from llm_blender.errors import LLMError
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.server import create_app
from llm_blender.server.errors import RefusedError
from llm_blender.server.limits import Admission, CircuitBreakers
from llm_blender.server.service import most_at_once
from llm_blender.testing import FakeLLM, FakeOpenAIServer, FakeRanker, FakeReply
from llm_blender.types import Failure

from ..clock import now, simulate

DOWN = Failure("a", "server", "a: down at http://10.0.0.1", public="a: down")


def test_a_breaker_doubles_its_pause_and_lets_one_request_try():
    now = 0.0
    breakers = CircuitBreakers(["a"], 2, 10.0, lambda: now)
    breakers.failed(Failure("a", "bad_request", "a: the client's fault"))
    breakers.failed(DOWN)
    assert breakers.refusal("a") is None
    breakers.failed(DOWN)
    aside = breakers.refusal("a")
    assert aside is not None
    assert aside.message == "a: set aside after 2 failures in a row, tried again in 10 s; the last: " + DOWN.message
    assert aside.public == "a: set aside after 2 failures in a row, tried again in 10 s; the last: a: down"
    assert (aside.retry_after, aside.own) == (10.0, False)
    assert not breakers.probe("a")
    now = 10.0
    assert breakers.refusal("a") is None
    assert breakers.probe("a")  # this one tries
    assert not breakers.probe("a")
    assert breakers.refusal("a") is not None
    breakers.failed(DOWN, probe=True)
    now = 29.0
    assert breakers.is_open("a")
    now = 30.0
    assert breakers.probe("a")
    breakers.succeeded("a")
    assert breakers.refusal("a") is None
    assert not breakers.is_open("a")


def test_failures_of_calls_that_began_earlier_do_not_lengthen_a_pause():
    now = 0.0
    breakers = CircuitBreakers(["a"], 2, 10.0, lambda: now)
    for _ in range(84):
        breakers.failed(DOWN)
    aside = breakers.refusal("a")
    assert aside is not None
    assert aside.retry_after == 10.0


@pytest.mark.parametrize("reason", ["bad_request", "wrong_form", "empty", "budget", "set_aside", "rate_limit"])
def test_what_a_request_or_a_rate_causes_opens_no_breaker(reason):
    breakers = CircuitBreakers(["a"], 1, 10.0)
    breakers.failed(Failure("a", reason, "a: no"))
    breakers.failed(Failure("a", "timeout", "a: cut off", own=False))
    assert breakers.refusal("a") is None


def test_an_attempt_that_settles_nothing_is_given_back():
    now = 0.0
    breakers = CircuitBreakers(["a"], 1, 10.0, lambda: now)
    breakers.failed(DOWN)
    now = 10.0
    assert breakers.probe("a")
    breakers.failed(Failure("a", "timeout", "a: the client's own deadline", own=False), probe=True)
    assert breakers.refusal("a") is None
    assert breakers.probe("a")
    breakers.release("a")  # as for a client that went away
    assert breakers.probe("a")
    breakers.failed(DOWN, probe=True)
    aside = breakers.refusal("a")
    assert aside is not None
    assert aside.retry_after == 20.0


def test_the_gate_lets_go_of_what_is_cancelled_before_it_began():
    async def run():
        admission = Admission(1, 1)
        tasks = [admission.begin(lambda: asyncio.sleep(60), 60) for _ in range(2)]
        with pytest.raises(RefusedError, match="2 requests are running"):
            admission.begin(lambda: asyncio.sleep(0), 60)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert admission.admitted == admission.running == 0
        running = admission.begin(lambda: asyncio.sleep(60), 60)
        with pytest.raises(RefusedError) as caught:
            await admission.begin(lambda: asyncio.sleep(0), 0.05)  # the wait counts
        assert (caught.value.status, caught.value.code) == (429, "too_busy")
        assert not await admission.drain(0.01)
        with pytest.raises(RefusedError, match="shut down"):
            await running
        with pytest.raises(RefusedError, match="shutting down"):
            admission.begin(lambda: asyncio.sleep(0), 60)

    simulate(run)


def test_requests_that_would_be_late_are_refused_at_once():
    async def run():
        admission = Admission(2, 100)

        def begin(deadline):
            return admission.begin(lambda: asyncio.sleep(0.2), deadline)

        await asyncio.gather(begin(9), begin(9))  # the mean is 0.2 s now
        tasks = [begin(1.5) for _ in range(4)]  # two rounds of two
        began = now()
        with pytest.raises(RefusedError) as caught:
            begin(0.5)  # it would begin after 0.4 s
        assert now() == began
        assert caught.value.code == "too_busy"
        assert caught.value.retry_after == pytest.approx(0.2)
        await asyncio.gather(*tasks, begin(1.5))

    simulate(run)


@pytest.mark.parametrize("first", ["impatient", "answered"])
def test_impatient_requests_do_not_shorten_the_mean_duration(first):
    async def run():
        admission = Admission(1, 100)

        def begin(deadline):
            return admission.begin(lambda: asyncio.sleep(0.2), deadline)

        if first == "answered":
            await begin(9)
        for _ in range(5):
            with pytest.raises(RefusedError, match=r"within 0\.01 s"):
                await begin(0.01)
        if first == "impatient":
            await begin(9)  # the first answer is worth more than all of them
        running = begin(9)
        with pytest.raises(RefusedError) as caught:
            begin(0.4)  # it would begin after 0.2 s
        assert caught.value.code == "too_busy"
        await running

    simulate(run)


def test_a_request_does_not_wait_for_an_llm_without_room_in_time():
    async def run():
        admission = Admission(9, 9, {"a": 1, "b": 1})

        async def work(seconds):
            await asyncio.sleep(seconds)
            for name in "ab":
                admission.call_ended(name, usual=True)

        await admission.begin(lambda: work(0.4), 9, {"a": 1, "b": 1})  # the mean of both, and of their calls
        busy = admission.begin(lambda: work(0.4), 9, {"a": 1})
        began = now()
        await admission.begin(lambda: work(0.01), 0.5, {"a": 1, "b": 1})
        assert now() - began < 0.02
        await busy

    simulate(run)


def slow_work(admission, rest=0.0, **seconds):
    """Make work whose calls end after some seconds by LLM, and which takes `rest` seconds more."""

    async def work():
        passed = 0.0
        for name, end in sorted(seconds.items(), key=lambda item: item[1]):
            await asyncio.sleep(end - passed)
            passed = end
            admission.call_ended(name, usual=end < 0.5)  # the others hang
        await asyncio.sleep(rest)

    return work


def test_a_request_is_judged_by_its_llms_and_not_by_requests_that_waited_for_others():
    async def run():
        admission = Admission(9, 9, {"a": 1, "b": 1, "c": 1})
        await admission.begin(slow_work(admission, a=0.02, b=0.6), 9, {"a": 1, "b": 1})  # the mean of both is long
        busy = [admission.begin(slow_work(admission, **{name: 0.6}), 9, {name: 1}) for name in "abc"]
        quick = admission.begin(slow_work(admission, a=0.02), 0.5, {"a": 1, "b": 1})  # the mean of a is short
        with pytest.raises(RefusedError) as caught:
            admission.begin(slow_work(admission), 0.5, {"b": 1, "c": 1})  # whose calls have no mean
        assert caught.value.code == "too_busy"
        busy[0].cancel()
        await quick
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)

    simulate(run)


def test_a_place_that_was_taken_in_this_tick_of_the_clock_is_not_free():
    async def run():
        admission = Admission(9, 9, {"a": 1, "b": 1})
        await admission.begin(slow_work(admission, a=0.02, b=0.6), 9, {"a": 1, "b": 1})  # the mean of both is long
        loop = asyncio.get_running_loop()
        now = loop.time()
        with mock.patch("asyncio.get_running_loop", return_value=mock.Mock(wraps=loop, time=lambda: now)):
            busy = [admission.begin(slow_work(admission, **{name: 0.6}), 9, {name: 1}) for name in "ab"]
            with pytest.raises(RefusedError) as caught:
                admission.begin(slow_work(admission), 0.02, {"a": 1, "b": 1})
        assert caught.value.code == "too_busy"
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)

    simulate(run)


def test_the_time_after_the_calls_counts():
    async def run():
        admission = Admission(9, 9, {"a": 1})
        work = slow_work(admission, a=0.02, rest=0.3)
        await admission.begin(work, 9, {"a": 1})
        busy = [admission.begin(work, 9, {"a": 1}) for _ in range(2)]
        with pytest.raises(RefusedError) as caught:
            admission.begin(work, 0.3, {"a": 1})
        assert caught.value.code == "too_busy"
        await asyncio.gather(*busy, admission.begin(work, 0.7, {"a": 1}))

    simulate(run)


@pytest.mark.parametrize("age", [0.0, 0.7])
def test_a_request_does_not_wait_for_an_llm_whose_calls_hang(age):
    async def run():
        admission = Admission(9, 9, {"a": 1, "b": 1})
        work, both = slow_work(admission, a=0.02, b=0.02), {"a": 1, "b": 1}
        await admission.begin(work, 9, both)
        hangs = admission.begin(slow_work(admission, a=5), 9, {"a": 1})
        await asyncio.sleep(age)  # nothing happens from here to the deadline
        began = now()
        await admission.begin(work, 0.6, both)
        assert now() - began < (0.05 if age else 0.6)
        hangs.cancel()
        await asyncio.gather(hangs, return_exceptions=True)

    simulate(run)


def test_waiting_requests_are_refused_as_soon_as_they_would_be_late():
    async def run():
        admission = Admission(1, 100)
        first = admission.begin(lambda: asyncio.sleep(0.2), 1)
        later = [admission.begin(lambda: asyncio.sleep(0.2), 0.65) for _ in range(5)]
        began = now()
        await first
        done, _ = await asyncio.wait(later, return_when=asyncio.FIRST_EXCEPTION)
        assert now() - began == pytest.approx(0.2)
        assert all(task.exception().code == "too_busy" for task in done)
        results = await asyncio.gather(*later, return_exceptions=True)
        assert results[0] is None
        assert [result.status for result in results[2:]] == [429] * 3

    simulate(run)


def test_a_request_waits_for_the_places_of_its_own_llms_only():
    async def run():
        admission = Admission(10, 10, {"a": 1, "b": 4})
        begun: list[str] = []
        release = asyncio.Event()

        async def work(name):
            begun.append(name)
            await release.wait()

        def begin(name, *, enough=None, **calls):
            return admission.begin(lambda: work(name), 9, calls, enough=enough)

        tasks = [begin("both", a=1, b=1), begin("both again", a=1, b=1), begin("b", b=1), begin("any", c=1)]
        tasks.append(begin("quorum", enough=1, a=1, b=1))
        await asyncio.sleep(0.01)
        assert begun == ["both", "b", "any", "quorum"]
        assert not admission.has_room("a")  # two calls for its one place
        assert admission.has_room("b")
        tasks.append(begin("many samples", b=99))
        release.set()
        await asyncio.gather(*tasks)
        assert begun[4:] == ["both again", "many samples"]
        assert admission.running == 0
        assert admission.has_room("a")

    simulate(run)


def test_how_many_requests_the_llms_take():
    def ensemble(quorum=None, *sizes):
        llms = [
            Member(OpenAICompatibleLLM(f"m{i}", "m", "http://x/v1", concurrency=n), k) for i, (n, k) in enumerate(sizes)
        ]
        return Ensemble([*llms, Member(FakeLLM("free"))], FakeRanker(), limits=Limits(quorum=quorum))

    assert most_at_once(ensemble()) is None
    assert most_at_once(ensemble(None, (4, 1), (8, 1))) == 4
    assert most_at_once(ensemble(None, (4, 1), (8, 4))) == 2
    assert most_at_once(ensemble(None, (1, 3))) == 1
    assert most_at_once(ensemble(2, (4, 1), (8, 1))) == 8  # and the one without a maximum
    assert most_at_once(ensemble(1, (4, 1))) is None


async def flood(app, count, **body):
    """Send the same question `count` times at once."""
    transport = httpx.ASGITransport(app)
    messages = [{"role": "user", "content": "Go."}]
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as http,
    ):
        asked = [
            http.post("/v1/chat/completions", json={"model": "blend", "messages": messages, **body})
            for _ in range(count)
        ]
        responses = await asyncio.gather(*asked)
        after = await http.post("/v1/chat/completions", json={"model": "blend", "messages": messages})
        return responses, after, await http.get("/readyz")


def test_a_burst_sets_no_llm_aside():
    with FakeOpenAIServer([FakeReply(delay=0.4)]) as server:
        llms = [OpenAICompatibleLLM(name, "fake", server.base_url) for name in "ab"]
        app = create_app(
            Ensemble([Member(llm) for llm in llms], FakeRanker(), limits=Limits(deadline=3.0)), ServerConfig()
        )
        responses, after, ready = asyncio.run(flood(app, 120))
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) <= {200, 429, 504}
    assert statuses[200] >= 4
    assert statuses[504] <= 4  # of a busy machine, in the last round
    assert all(int(response.headers["retry-after"]) >= 1 for response in responses if response.status_code == 429)
    assert (after.status_code, ready.status_code) == (200, 200)
    assert not any(app.state.service.breakers.is_open(name) for name in "ab")


def test_an_impatient_client_sets_no_llm_aside(serve):
    running = serve(FakeLLM("a", delay=0.2), FakeLLM("b", delay=0.2), options={"failures": 1})
    assert [running.ask(blend={"deadline": 0.1}).status_code for _ in range(3)] == [504] * 3
    assert running.http.get("/readyz").status_code == 200
    assert running.ask().status_code == 200


def test_an_llm_that_hangs_for_the_whole_deadline_is_set_aside_and_one_that_writes_is_not(serve):
    llms = FakeLLM("hangs", delay=60), FakeLLM("writes", never_ends=True)
    running = serve(*llms, limits=Limits(deadline=1.0), options={"failures": 1, "set_aside": 60})
    assert running.ask(stream=True).status_code == 200
    breakers = running.service.breakers
    assert (breakers.is_open("hangs"), breakers.is_open("writes")) == (True, False)


def test_a_request_that_leaves_the_llms_less_time_for_a_fuser_sets_none_aside(serve):
    running = serve(
        FakeLLM("a", delay=0.6), limits=Limits(deadline=1.0), options={"failures": 1}, fuser=ChatFuser(FakeLLM("f"))
    )
    assert running.ask(blend={"mode": "fuse"}).status_code == 504  # the LLMs have half of the deadline then
    assert not running.service.breakers.is_open("a")


def test_more_samples_than_places_set_no_llm_aside():
    with FakeOpenAIServer([FakeReply(delay=0.25)]) as server:
        llm = OpenAICompatibleLLM("a", "fake", server.base_url, concurrency=1)
        app = create_app(Ensemble([Member(llm)], FakeRanker(), limits=Limits(deadline=1.0)), ServerConfig(failures=1))
        responses, after, ready = asyncio.run(flood(app, 1, blend={"samples": 9}))
    assert responses[0].json()["blend"]["degraded"]
    assert (after.status_code, ready.status_code) == (200, 200)


def test_an_attempt_of_a_client_that_is_refused_or_impatient_is_given_back(serve):
    llm = FakeLLM("a", errors=[LLMError("a", "server", "down")], delay=0.1)
    running = serve(llm, options={"failures": 1, "set_aside": 0.2})
    assert running.ask().status_code == 502
    refused = running.ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "all_set_aside")
    assert refused.headers["retry-after"] == "1"
    time.sleep(0.2)
    assert running.ask(blend={"deadline": 0.05}).status_code == 504
    assert running.ask().status_code == 200


def test_the_wait_of_a_set_aside_llm_is_told(serve):
    running = serve(FakeLLM("a", errors="server"), options={"failures": 1, "set_aside": 120})
    running.ask()
    response = running.ask()
    assert response.status_code == 503
    assert 110 < int(response.headers["retry-after"]) <= 120
    assert response.json()["error"]["retry_after"] == int(response.headers["retry-after"])
