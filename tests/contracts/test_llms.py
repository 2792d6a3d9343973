"""The promises of every `LLM`.

A new provider: add one line to `ENTRIES`, with the name of its class and a function that makes one; `get` gives the
value of a session fixture.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from llm_blender.config import Price
from llm_blender.errors import FailureReason, LLMError
from llm_blender.llms import Backoff, EmbeddedLLM, OpenAICompatibleLLM, ReplayLLM
from llm_blender.store import call_key
from llm_blender.testing import FakeLLM, FakeReply
from llm_blender.types import LLM, Candidate, Message, Sampling, Usage

from .conftest import Case, Get


@dataclass(frozen=True)
class Entry(Case):
    """One LLM, which answers `PROMPT` and each of `ODD`; each of its functions makes one of the name ``llm``.

    Attributes:
        fails: one that does not answer `PROMPT`.
        slow: one that takes many seconds to answer `PROMPT`, to be cancelled; None if no call can last.
    """

    fails: Callable[[Get], Any] | None = None
    slow: Callable[[Get], Any] | None = None


ENTRIES = [
    Entry(
        "FakeLLM",
        lambda get: FakeLLM("llm", "An answer\nof two  lines.", cost=0.5),
        fails=lambda get: FakeLLM("llm", errors="server"),
        slow=lambda get: FakeLLM("llm", delay=60),
    ),
    Entry(
        "OpenAICompatibleLLM",
        lambda get: behind(get, FakeReply("An answer\nof two  lines.", usage=(3, 2))),
        fails=lambda get: behind(get, FakeReply("broken", status=500)),
        slow=lambda get: behind(get, dawdle),
    ),
    Entry(
        "ReplayLLM",
        lambda get: ReplayLLM("llm", get("record")([PROMPT, *ODD])),
        fails=lambda get: ReplayLLM("llm", get("record")(["Another prompt."])),
    ),
    Entry(
        "EmbeddedLLM",
        lambda get: get("embedded")("llm"),
        fails=lambda get: EmbeddedLLM("llm", get("damaged_model")),
        slow=lambda get: get("embedded")("llm", system="Count: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15."),
    ),
]

PROMPT = "Give three tips for sleeping better, and say of each of them in a few words why it is one that helps."
ODD = [
    "half \ud83d a character \ude42",
    "a\x00b\x07\x1b[0m\x7f",
    "👩‍👩‍👧‍👦 \u202eright to left",
    "{x} %s <|im_end|> </s>",
]
SHORT = Sampling(temperature=0.0, max_tokens=4, seed=7)


def dawdle(request: dict[str, Any]) -> FakeReply:
    return FakeReply("on and on", endless=True, drip=0.05) if request.get("stream") else FakeReply(delay=60)


def behind(get: Get, reply: Any) -> OpenAICompatibleLLM:
    return OpenAICompatibleLLM(
        "llm", "fake", get("serve")(reply), backoff=Backoff(attempts=1), price=Price(input=1.0, output=2.0)
    )


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], Path]:
    """Return a function that writes recorded answers to prompts; equal prompts are one file."""
    made: dict[tuple[str, ...], Path] = {}

    def write(prompts: list[str]) -> Path:
        if tuple(prompts) not in made:
            rows = [
                {"instruction": prompt, "candidates": [{"text": "An answer\nof two  lines."}]} for prompt in prompts
            ]
            path = tmp_path_factory.mktemp("recorded") / "rows.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            made[tuple(prompts)] = path
        return made[tuple(prompts)]

    return write


@pytest.fixture(scope="session")
def damaged_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file that begins like a GGUF file and is not one."""
    path = tmp_path_factory.mktemp("damaged") / "model.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 64)
    return path


@pytest.fixture(scope="session")
def llm(made: Any) -> Any:
    return made


@pytest.fixture(scope="session")
def failing(entry: Entry, request: pytest.FixtureRequest) -> Any:
    assert entry.fails is not None
    return entry.fails(request.getfixturevalue)


@pytest.fixture(scope="session")
def slow(entry: Entry, request: pytest.FixtureRequest) -> Any:
    if entry.slow is None:
        pytest.skip(f"no call of a {entry.cls} can last")
    return entry.slow(request.getfixturevalue)


def to(prompt: str) -> list[Message]:
    return [{"role": "user", "content": prompt}]


def check(candidate: Candidate, llm: Any) -> None:
    """Check what holds for every answer."""
    assert isinstance(candidate, Candidate)
    assert isinstance(candidate.text, str)
    assert candidate.model == llm.name
    assert candidate.usage is None or isinstance(candidate.usage, Usage)
    assert candidate.seconds is None or candidate.seconds >= 0
    assert candidate.cost is None or candidate.cost >= 0
    again = Candidate.from_dict(json.loads(json.dumps(candidate.to_dict(), allow_nan=False)))
    assert again == candidate


def left_threads(before: set[threading.Thread]) -> list[str]:
    """Return the threads begun since, without those of a server or of an idle pool."""
    names = [thread.name for thread in set(threading.enumerate()) - before]
    return [name for name in names if not name.startswith("embedded-llm") and "process_request" not in name]


def test_each_public_llm_is_in_the_list(public_classes: Callable[..., set[str]]) -> None:
    assert public_classes("llm_blender.llms", "generate", "identity") == {entry.cls for entry in ENTRIES}


def test_it_is_an_llm(llm: Any, entry: Entry) -> None:
    assert isinstance(llm, LLM)
    assert (type(llm).__name__, llm.name) == (entry.cls, "llm")


def test_it_answers(llm: Any) -> None:
    messages = tuple(to(PROMPT))
    candidate = asyncio.run(llm.generate(messages, SHORT))
    check(candidate, llm)
    assert messages == tuple(to(PROMPT))
    assert candidate.text.strip()
    assert candidate.usage is None or candidate.usage.completion_tokens > 0


def test_the_pieces_are_the_text(llm: Any) -> None:
    async def ask() -> tuple[Candidate, list[str]]:
        pieces: list[str] = []
        candidate = await llm.generate(to(PROMPT), SHORT, on_text=pieces.append)
        await asyncio.sleep(0)  # pieces from a thread come through the loop
        return candidate, pieces

    candidate, pieces = asyncio.run(ask())
    check(candidate, llm)
    assert "".join(pieces).strip() == candidate.text.strip()
    assert candidate.text == asyncio.run(llm.generate(to(PROMPT), SHORT)).text


@pytest.mark.parametrize("prompt", ODD, ids=["surrogates", "control", "emoji", "template"])
def test_odd_messages_are_answered(llm: Any, prompt: str) -> None:
    check(asyncio.run(llm.generate(to(prompt), SHORT)), llm)
    assert call_key(llm.identity, to(prompt), SHORT)


def test_its_identity_is_json_and_makes_the_key_of_a_call(
    llm: Any, entry: Entry, request: pytest.FixtureRequest
) -> None:
    before = json.dumps(llm.identity, sort_keys=True, allow_nan=False)
    assert json.loads(before) == llm.identity
    asyncio.run(llm.generate(to(PROMPT), SHORT))
    assert json.dumps(llm.identity, sort_keys=True) == before
    keys = [call_key(llm.identity, to(PROMPT), sampling) for sampling in (SHORT, SHORT, Sampling(seed=8))]
    assert keys[0] == keys[1] != keys[2]
    if entry.cls != "OpenAICompatibleLLM":  # another server is another address
        again = entry.make(request.getfixturevalue)
        assert call_key(again.identity, to(PROMPT), SHORT) == keys[0]


def test_several_calls_at_once(llm: Any) -> None:
    async def ask() -> list[Candidate]:
        return await asyncio.gather(*(llm.generate(to(PROMPT), SHORT) for _ in range(3)))

    candidates = asyncio.run(ask())
    for candidate in candidates:
        check(candidate, llm)
    assert len({candidate.text for candidate in candidates}) == 1


def test_an_answer_costs_no_more_than_it_can(llm: Any) -> None:
    most = llm.most_cost(to(PROMPT), SHORT)
    candidate = asyncio.run(llm.generate(to(PROMPT), SHORT))
    assert most is not None
    assert candidate.cost is None or 0 <= candidate.cost <= most
    json.dumps(llm.most_cost(to(ODD[0])))


def test_a_failure_has_a_reason(failing: Any) -> None:
    for _ in range(2):
        with pytest.raises(LLMError) as error:
            asyncio.run(failing.generate(to(PROMPT), SHORT))
        assert error.value.llm == "llm"
        assert error.value.reason in get_args(FailureReason)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_cancelling_leaves_nothing_running(slow: Any, streamed: bool) -> None:
    before = set(threading.enumerate())
    pieces: list[str] = []

    async def cancel() -> tuple[float, int]:
        how: dict[str, Any] = {"on_text": pieces.append} if streamed else {}
        asking = asyncio.create_task(slow.generate(to(PROMPT), Sampling(max_tokens=900), **how))
        await asyncio.sleep(0.3)
        assert not asking.done()
        asking.cancel()
        started = time.perf_counter()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return started, len(pieces)

    started, count = asyncio.run(cancel())
    assert time.perf_counter() - started < 1
    assert left_threads(before) == []
    assert len(pieces) == count


def test_a_call_after_a_cancelled_one_is_answered(llm: Any) -> None:
    async def ask() -> Candidate:
        asking = asyncio.create_task(llm.generate(to(PROMPT), SHORT))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        candidate: Candidate = await llm.generate(to(PROMPT), SHORT)
        return candidate

    check(asyncio.run(ask()), llm)
