"""A service whose members misbehave: each question is answered rightly, or refused rightly, within its deadline."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

pytest.importorskip("fastapi")

from .members import REFUSAL, SCHEMA, TOOLS, Members, answer

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")

IMPATIENT = 1.5  # seconds; the deadline of some clients
STALLED = 0.05  # maximum share of the impatient clients that a machine which stalls for a second may refuse
SLACK = 3.0  # seconds that the event loops of a busy machine may be late
BLEND = [sys.executable, "-W", "ignore", "-c", "from llm_blender.cli import main; main()"]
CONFIG = """
[limits]
deadline = %g
quorum = 2
grace = 0.5
[ranker]
name = "longest"
[server]
port = 0
concurrency = 400
queue = 400
"""


@dataclass
class Question:
    """A question and its outcome."""

    name: str
    form: str  # text, json or tools
    llms: Sequence[str]  # that are asked
    sure: bool  # whether a healthy one is among them
    alone: bool  # whether `model` names the only one
    stream: bool
    deadline: float  # seconds
    impatient: bool  # whether the client sets that deadline
    quorum: bool  # whether the answers of all are awaited, not of two
    leave: float | None  # seconds after which the client goes away
    status: int | None = None
    message: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    done: bool = False  # whether the stream came to its end
    seconds: float = 0.0

    def body(self) -> dict[str, Any]:
        blend: dict[str, Any] = {} if self.alone else {"llms": list(self.llms)}
        if self.impatient:
            blend["deadline"] = self.deadline
        if self.quorum:
            blend["quorum"] = len(self.llms)
        form: dict[str, Any] = {}
        if self.form == "json":
            schema = {"name": "answer", "strict": True, "schema": SCHEMA}
            form = {"response_format": {"type": "json_schema", "json_schema": schema}}
        elif self.form == "tools":
            form = {"tools": TOOLS}
        return {
            "model": self.llms[0] if self.alone else "blend",
            "messages": [{"role": "user", "content": f"{self.name} {self.form}"}],
            "stream": self.stream,
            **form,
            **({"blend": blend} if blend else {}),
        }

    def problem(self) -> str | None:
        """Describe what is wrong with the outcome; None if nothing is."""
        if self.leave is not None:
            return None
        if self.seconds > self.deadline + SLACK:
            return f"late: {self.seconds:.1f} s"
        if self.status is None:
            return f"no response: {self.error}"
        if self.stream and self.status == 200 and not self.done:
            return "a stream without its end"
        if self.status != 200 or self.error is not None:
            words = (self.error or {}).get("message")
            if not isinstance(words, str) or not words or self.status == 500:
                return f"an error without words, status {self.status}: {self.error}"
            return f"refused, status {self.status}: {words}" if self.sure and not self.hurried else None
        if any(self._right(answer(llm, self.name, self.form)) for llm in self.llms):
            return None
        refused = REFUSAL in (self.message.get("refusal"), self.message.get("content"))
        if refused and not self.sure:
            return None
        return f"wrong: {json.dumps(self.message)[:300]}"

    @property
    def hurried(self) -> bool:
        """Whether the question was refused because the client's own deadline was too near, as it says."""
        error = self.error or {}
        wait = error.get("code") == "too_busy" and error.get("retry_after", 0) >= 1
        return self.impatient and (wait or error.get("code") == "deadline")

    def _right(self, wanted: dict[str, Any]) -> bool:
        text = (self.message.get("content") or "").replace("\ufffd", "")
        match self.form:
            case "json":
                try:
                    return bool(json.loads(text) == json.loads(wanted["content"]))
                except ValueError:
                    return False
            case "tools":
                calls = [call["function"] for call in self.message.get("tool_calls") or []]
                return _parsed(calls) == _parsed([call["function"] for call in wanted["tool_calls"]])
            case _:
                return bool(text == wanted["content"])


def _parsed(functions: Sequence[dict[str, Any]]) -> list[tuple[str, Any]]:
    try:
        return [(function["name"], json.loads(function["arguments"])) for function in functions]
    except (KeyError, ValueError):
        return []


def make_questions(count: int, members: Members, deadline: float, seed: int) -> list[Question]:
    """Draw questions: most ask four members, some a single one, some only members that misbehave."""
    drawn, made = random.Random(seed), []
    for number in range(count):
        alone, unlucky = drawn.random() < 0.1, drawn.random() < 0.05
        among = sorted(members.bad) if unlucky else members.names
        llms = drawn.sample(among, 1 if alone else min(4, len(among)))
        impatient = drawn.random() < 0.05
        sure = not members.bad.issuperset(llms)
        made.append(
            Question(
                name=f"q{number}",
                form=drawn.choices(["text", "json", "tools"], [6, 2, 2])[0],
                llms=llms,
                sure=sure,
                alone=alone,
                stream=drawn.random() < 0.4,
                deadline=IMPATIENT if impatient else deadline,
                impatient=impatient,
                quorum=drawn.random() < 0.2,
                leave=drawn.uniform(0.0, 0.3) if drawn.random() < 0.04 else None,
            )
        )
    return made


async def put(client: aiohttp.ClientSession, question: Question) -> None:
    """Send a question, and record its outcome."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(question.leave or question.deadline + 20):
            async with client.post("/v1/chat/completions", json=question.body()) as response:
                question.status = response.status
                if response.content_type == "text/event-stream":
                    await _read_stream(question, response)
                else:
                    body = json.loads(await response.read())
                    question.error = body.get("error")
                    question.message = body["choices"][0]["message"] if response.status == 200 else {}
    except (TimeoutError, aiohttp.ClientError) as error:
        question.status, question.error = None, {"message": f"{type(error).__name__}: {error}"}
    question.seconds = time.monotonic() - started


async def _read_stream(question: Question, response: aiohttp.ClientResponse) -> None:
    message: dict[str, Any] = {"content": ""}
    calls: dict[int, dict[str, Any]] = {}
    async for line in response.content:
        if not line.startswith(b"data: "):
            continue
        if line.strip() == b"data: [DONE]":
            question.done = True
            break
        event = json.loads(line[6:])
        if "error" in event:
            question.error = event["error"]
        for choice in event.get("choices", ()):
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            if delta.get("refusal"):
                message["refusal"] = message.get("refusal", "") + delta["refusal"]
            for call in delta.get("tool_calls") or ():
                function = calls.setdefault(call["index"], {"name": "", "arguments": ""})
                for key in function:
                    function[key] += call["function"].get(key) or ""
    message["tool_calls"] = [{"function": calls[index]} for index in sorted(calls)]
    question.message = message


@asynccontextmanager
async def blend_serve(
    folder: Path, members: Members, deadline: float
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run `blend serve` as a process of its own, with all members."""
    llms = "".join(
        f'[[llm]]\nname = "{name}"\nmodel = "{name}"\nbase_url = "{members.url}"\ntimeout = {deadline / 2.5}\n'
        for name in members.names
    )
    config = folder / "blend.toml"
    config.write_text(llms + CONFIG % deadline)
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *BLEND,
            "serve",
            "--config",
            str(config),
            stderr=log,
            env={**os.environ, "LLM_BLENDER_STORE": str(folder / "blend.db")},
        )
    try:
        yield process, await _url(process, folder / "log")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _url(process: asyncio.subprocess.Process, log: Path) -> str:
    async with asyncio.timeout(60):
        while not (found := re.search(r"serving at (\S+)/v1 ", log.read_text())):
            assert process.returncode is None, log.read_text()
            await asyncio.sleep(0.02)
    return found[1]


class Watch:
    """The metrics and the memory of a service, sampled while it runs.

    Attributes:
        set_aside: the members that were set aside at any time.
        memory: resident MiB of the process; empty where the system does not tell.
    """

    def __init__(self, client: aiohttp.ClientSession, process: int) -> None:
        self._client, self._process = client, process
        self.set_aside: set[str] = set()
        self.memory: list[float] = []

    async def metrics(self) -> dict[str, float]:
        async with self._client.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    async def run(self) -> None:
        statm = Path(f"/proc/{self._process}/statm")
        while True:
            for name, value in (await self.metrics()).items():
                if value and (found := re.fullmatch(r'blend_llm_set_aside\{llm="(.*)"\}', name)):
                    self.set_aside.add(found[1])
            if statm.exists():
                self.memory.append(int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
            await asyncio.sleep(0.25)


@dataclass
class Report:
    """What a run showed."""

    questions: list[Question]
    calls: Counter[str]
    followed: int
    set_aside: set[str]
    memory: list[float]
    left: dict[str, float]  # requests and calls that run on after the last answer
    exit_status: int
    exit_seconds: float
    log: str

    def summary(self) -> str:
        """Describe the run in figures."""
        seconds = sorted(question.seconds for question in self.questions if question.leave is None)
        calls, faults = sum(self.calls.values()), sum(self.calls.values()) - self.calls[""]
        memory = self.memory or [0.0]
        return (
            f"{len(self.questions)} questions: median {statistics.median(seconds):.2f} s, longest {seconds[-1]:.2f} s; "
            f"{calls} calls, {faults} with one of {len(self.calls) - 1} faults; memory {memory[0]:.0f} to "
            f"{max(memory):.0f} MiB, {memory[-1]:.0f} at the end; {self.exit_seconds:.1f} s to exit\n"
        )

    def problems(self) -> Counter[str]:
        """Count the wrong outcomes, by kind; each kind with its first example."""
        first: dict[str, str] = {}
        count: Counter[str] = Counter()
        for question in self.questions:
            if problem := question.problem():
                kind = f"{question.form} {re.split(r'[:,]', problem)[0]}"
                first.setdefault(kind, f"{problem} ({question.name}, {question.form}, {list(question.llms)})")
                count[first[kind]] += 1
        return count


async def run(folder: Path, members: Members, questions: list[Question], rate: float, deadline: float) -> Report:
    """Ask at a fixed rate, whether or not the earlier questions are answered; then end the service."""
    async with members, blend_serve(folder, members, deadline) as (process, url):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(url, connector=connector) as client:
            watch = Watch(client, process.pid)
            watching = asyncio.create_task(watch.run())
            begun, tasks = time.monotonic(), []
            for number, question in enumerate(questions):
                await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
                tasks.append(asyncio.create_task(put(client, question)))
            await asyncio.gather(*tasks)
            watching.cancel()
            await asyncio.wait([watching])
            left = await _left(watch, members)
        ending = time.monotonic()
        process.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(process.wait(), 30)
        seconds = time.monotonic() - ending
    log = (folder / "log").read_text()
    return Report(questions, members.calls, members.followed, watch.set_aside, watch.memory, left, status, seconds, log)


async def _left(watch: Watch, members: Members) -> dict[str, float]:
    """Return what still runs, a moment after the last answer."""
    end = time.monotonic() + 5
    while True:
        metrics = await watch.metrics()
        left = {"running": metrics["blend_running"], "waiting": metrics["blend_waiting"], "calls": members.active}
        if not any(left.values()) or time.monotonic() > end:
            return left
        await asyncio.sleep(0.1)


def chaos(tmp_path: Path, *, llms: int, bad: int, count: int, rate: float, deadline: float, seed: int) -> Report:
    names = [f"m{number}" for number in range(llms)]
    members = Members(names, random.Random(seed).sample(names, bad), seed=seed)
    questions = make_questions(count, members, deadline, seed)
    report = asyncio.run(run(tmp_path, members, questions, rate, deadline))
    sys.stdout.write(report.summary())
    problems = report.problems()
    assert not problems, "\n".join(f"{count} x {problem}" for problem, count in problems.most_common())
    impatient = [question for question in questions if question.impatient and question.sure and question.leave is None]
    assert sum(question.hurried for question in impatient) <= 2 + STALLED * len(impatient)
    assert report.followed == 0
    assert report.set_aside <= members.bad
    assert not any(report.left.values()), report.left
    assert (report.exit_status, "Traceback" in report.log) == (0, False), report.log[-3000:]
    assert report.exit_seconds < 6
    return report


@pytest.mark.slow
def test_a_few_members_misbehave(tmp_path):
    report = chaos(tmp_path, llms=8, bad=3, count=60, rate=30, deadline=5, seed=1)
    assert len(report.calls) > 10  # kinds of faults
    answered = [question for question in report.questions if question.sure and question.leave is None]
    assert len(answered) > 40


@pytest.mark.slow
def test_twenty_members_of_which_five_misbehave(tmp_path):
    report = chaos(tmp_path, llms=20, bad=5, count=2000, rate=50, deadline=15, seed=0)
    memory = report.memory
    assert len(report.calls) > 55
    if memory:
        half = len(memory) // 2
        assert max(memory) < memory[0] + 300
        assert statistics.median(memory[half + half // 2 :]) < statistics.median(memory[half // 2 : half]) + 40
