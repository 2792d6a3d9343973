"""Every fault of an LLM's server, at one, at all but a quorum, and at all: the answer or the right error, in time."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from llm_blender.config import Price
from llm_blender.ensemble import Limits
from llm_blender.llms.openai_compatible import Backoff, OpenAICompatibleLLM
from llm_blender.testing import FakeOpenAIServer, FakeReply

DEADLINE, TIMEOUT, COST = 15.0, 0.8, 0.005
WELL = FakeReply("It is well.", usage=(3, 2))
# fault: what the server does, the reason in `failures`, the status when all do it, and how often each is asked
FAULTS = {
    "time-out": (FakeReply(delay=1.2), "timeout", 504, 1),
    "429": (FakeReply("slower", status=429), "rate_limit", 429, 2),
    "500": (FakeReply("broken", status=500), "server", 502, 2),
    "reset before the answer": (FakeReply(reset_after=0), "connection", 502, 2),
    "reset in the middle": (FakeReply("one two three", reset_after=2), "connection", 502, 1),
    "empty": (FakeReply(""), "empty", 502, 1),
    "white space": (FakeReply(" \n "), "empty", 502, 1),
    "garbage": (FakeReply(body=b'{"choices": [{"mess'), "bad_response", 502, 1),
    "slow drip": (FakeReply("word " * 200, drip=0.05), "timeout", 504, 1),
    "huge": (FakeReply(body=b"x" * (17 << 20)), "bad_response", 502, 1),
    "HTML": (FakeReply(body=b"<html>Hello</html>", content_type="text/html"), "bad_response", 502, 1),
    "never-ending": (FakeReply("again ", endless=True), "timeout", 504, 1),
}


class Planted:
    """Three LLMs behind servers that do what is planted, and the service around them."""

    def __init__(self, serve, stack: contextlib.ExitStack) -> None:
        self.replies = [WELL] * 3
        self.servers = [
            stack.enter_context(FakeOpenAIServer(lambda request, i=i: self.replies[i]))  # type: ignore[misc]
            for i in range(3)
        ]
        self.llms = [
            OpenAICompatibleLLM(
                name,
                "fake",
                server.base_url,
                backoff=Backoff(attempts=2, first=0.01),
                price=Price(input=1000, output=1000),
            )
            for name, server in zip("abc", self.servers, strict=True)
        ]
        limits = Limits(deadline=DEADLINE, quorum=1, grace=10)
        self.running = serve(*self.llms, limits=limits, options={"failures": 10_000})

    def plant(self, fault: str, faulty: int) -> None:
        """What the first `faulty` of them do from now on; the others do well."""
        self.replies = [FAULTS[fault][0]] * faulty + [WELL] * (3 - faulty)
        for llm in self.llms:
            llm.timeout = 10.0 if fault == "huge" else TIMEOUT  # a busy machine needs a while for so many bytes
            llm._pacers.clear()  # a rate limit of the last test is over

    def quiet(self) -> bool:
        """Whether no server has a request left, after a moment."""
        end = time.monotonic() + 20
        while any(server._running for server in self.servers) and time.monotonic() < end:
            time.sleep(0.01)
        return not any(server._running for server in self.servers)


@pytest.fixture(scope="module")
def planted(serve_for_all):
    with contextlib.ExitStack() as stack:
        yield Planted(serve_for_all, stack)


@pytest.mark.parametrize("faulty", [1, 2, 3], ids=["one", "all but the quorum", "all"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_answer_or_the_right_error(planted, fault, faulty):
    _, reason, status, asked = FAULTS[fault]
    planted.plant(fault, faulty)
    before = [len(server.requests) for server in planted.servers]
    started = time.monotonic()
    response = planted.running.ask()
    assert time.monotonic() - started < DEADLINE + 2
    values = response.json()
    if faulty == 3:
        assert response.status_code == status
        assert values["error"]["code"] == f"all_{reason}"
    else:
        assert response.status_code == 200
        assert values["choices"][0]["message"]["content"] == "It is well."
        assert values["blend"]["degraded"]
        answers = 3 if reason == "empty" else 3 - faulty  # an empty one is paid for
        assert values["blend"]["cost"] == pytest.approx(COST * answers)
        assert values["usage"]["total_tokens"] == 5 * answers
    failures = {failure["model"]: failure["reason"] for failure in values["blend"]["failures"]}
    assert failures == dict.fromkeys("abc"[:faulty], reason)
    calls = [len(server.requests) - count for server, count in zip(planted.servers, before, strict=True)]
    assert calls[:faulty] == [asked] * faulty  # tried again in one layer, and only what may pass
    assert planted.running.idle()
    assert planted.quiet()


@pytest.mark.parametrize("fault", ["500", "reset in the middle", "slow drip"])
def test_in_a_stream_too(planted, fault):
    planted.plant(fault, 1)
    assert '"content": "It is well."' in planted.running.ask(stream=True).text
    planted.plant(fault, 3)
    text = planted.running.ask(stream=True).text
    assert f'"code": "all_{FAULTS[fault][1]}"' in text
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux tells what is open")
def test_nothing_is_left_open(planted):
    planted.replies = [FAULTS["reset in the middle"][0], FAULTS["never-ending"][0], WELL]
    planted.running.ask()
    assert planted.quiet()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        planted.running.ask()
    assert planted.running.idle()
    assert planted.quiet()
    end = time.monotonic() + 20
    while (now := len(os.listdir("/proc/self/fd"))) > before + 3 and time.monotonic() < end:  # noqa: PTH208
        time.sleep(0.05)
    assert now <= before + 3
