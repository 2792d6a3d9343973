"""Rows of `blend run` at the rate limit of a server."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from llm_blender.ensemble import Ensemble, EnsembleSettings, Limits, Member
from llm_blender.ensemble.run import run_prompts
from llm_blender.errors import NoAnswerError
from llm_blender.jobs.job import Job
from llm_blender.llms import OpenAICompatibleLLM
from llm_blender.testing import FakeLLM, FakeOpenAIServer, FakeRanker, FakeReply
from llm_blender.types import Example, Failure


class LimitedServer:
    """The replies of a server that accepts `rate` requests in any second."""

    def __init__(self, rate: int, headers: dict[str, str]) -> None:
        self.rate, self.headers = rate, headers
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any]) -> FakeReply:
        with self._lock:
            now = time.monotonic()
            accepts = len(self.accepted) < self.rate or self.accepted[-self.rate] <= now - 1
            (self.accepted if accepts else self.refused).append(now)
        if accepts:
            return FakeReply(f"Answer to {request['messages'][-1]['content']}", delay=0.02)
        return FakeReply("slow down", status=429, headers=self.headers)


@pytest.mark.parametrize(
    ("reply", "reason", "counts"),
    [
        (FakeReply("loading", status=503, headers={"Retry-After": "9"}), "server", [True, False]),
        (FakeReply("slow down", status=429, headers={"Retry-After": "9"}), "rate_limit", [False, False]),
    ],
)
def test_calls_that_a_refusal_holds_back_say_why(reply: FakeReply, reason: str, counts: list[bool]) -> None:
    async def ask_twice(ensemble: Ensemble) -> list[Failure]:
        failures = []
        async with ensemble:
            for number in range(2):
                with pytest.raises(NoAnswerError) as caught:
                    await ensemble.aask(f"Question {number}?")
                failures += caught.value.failures
        return failures

    with FakeOpenAIServer([reply]) as server:
        llm = OpenAICompatibleLLM("a", "fake", server.base_url)
        ensemble = Ensemble([Member(llm)], FakeRanker(), settings=EnsembleSettings(limits=Limits(deadline=0.2)))
        failures = asyncio.run(ask_twice(ensemble))
        assert len(server.requests) == 1
    assert [(failure.reason, failure.own) for failure in failures] == [(reason, own) for own in counts]
    for failure in failures:
        assert str(reply.status) in failure.message
        assert failure.message.endswith("no answer within 0.2 s")
        assert failure.retry_after == pytest.approx(9, abs=0.5)


def test_an_llm_that_is_at_its_limit_from_the_beginning_is_named_early(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [Example(f"Question {number}?", id=f"p{number}") for number in range(6)]
    ensemble = Ensemble([Member(FakeLLM("a")), Member(FakeLLM("b", errors="rate_limit"))], FakeRanker())
    with Job(tmp_path / "job", "run", {}) as job:
        run_prompts(ensemble, rows, str(tmp_path / "out.jsonl"), job)
    assert [record.message for record in caplog.records] == ["the first calls failed: b (5 times): planted rate_limit"]


@pytest.mark.parametrize(
    ("prompts", "rate", "headers", "most"),
    [
        (90, 45, {"retry-after-ms": "500"}, math.inf),
        pytest.param(300, 15, {"Retry-After": "1"}, 1.15, marks=pytest.mark.slow),
    ],
)
def test_a_run_at_a_rate_limit_loses_no_row(
    prompts: int, rate: int, headers: dict[str, str], most: float, tmp_path: Path
) -> None:
    replies = LimitedServer(rate, headers)
    rows = [Example(f"Question {number}?", id=f"p{number}") for number in range(prompts)]
    with FakeOpenAIServer(replies) as server, Job(tmp_path / "job", "run", {}) as job:
        llm = OpenAICompatibleLLM("a", "fake", server.base_url, concurrency=64)
        ensemble = Ensemble([Member(llm)], FakeRanker())
        ran = run_prompts(ensemble, rows, str(tmp_path / "out.jsonl"), job)
    assert ran.complete
    assert ran.rows.done == prompts
    late = [time for time in replies.refused if time > replies.accepted[0] + 3]
    assert len(late) <= 0.05 * len([time for time in replies.accepted if time > replies.accepted[0] + 3])
    assert len(replies.refused) < 64
    assert ran.rows.seconds <= most * prompts / rate
