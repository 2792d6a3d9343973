"""Rows of `blend run` at the rate limit of a server."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from llm_blender.ensemble import Ensemble, Member
from llm_blender.ensemble.run import run_prompts
from llm_blender.jobs.job import Job
from llm_blender.llms import OpenAICompatibleLLM
from llm_blender.testing import FakeOpenAIServer, FakeRanker, FakeReply
from llm_blender.types import Example


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
