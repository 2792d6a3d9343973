from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llm_blender.data import read_records
from llm_blender.datasets import Imported, ImportPlan, import_rows
from llm_blender.testing import FakeOpenAIServer, FakeReply

WRITERS = ("ann", "bob", "cy")


def is_judgement(body: dict[str, Any]) -> bool:
    return body["messages"][0]["role"] == "system"


def call_digest(body: dict[str, Any]) -> str:
    """Hash the parts of a request that identify a call."""
    request = {key: body.get(key) for key in ("model", "messages", "seed", "temperature")}
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:12]


class Server:
    """Answers with texts that name their call; judgements begin with an outcome's number.

    Attributes:
        digests: of the calls, in the order in which they came.
        answer: makes another reply where it does not give back None.
        on_call: called with the number of each call.
    """

    def __init__(self, stack: ExitStack, models: tuple[str, ...], delay: float = 0.0) -> None:
        self.digests: list[str] = []
        self.answer: Callable[[dict[str, Any]], FakeReply | None] = lambda body: None
        self.on_call: Callable[[int], None] = lambda number: None
        self._lock, self._delay = threading.Lock(), delay
        self.fake = stack.enter_context(FakeOpenAIServer(self._reply, models=models))

    @property
    def calls(self) -> int:
        return len(self.digests)

    def of_model(self, model: str) -> int:
        return sum(body["model"] == model for body in self.fake.requests)

    def _reply(self, body: dict[str, Any]) -> FakeReply:
        digest = call_digest(body)
        with self._lock:
            self.digests.append(digest)
            number = len(self.digests)
        self.on_call(number)
        if (given := self.answer(body)) is not None:
            return given
        if is_judgement(body):
            return FakeReply(f"{int(digest, 16) % 4 + 1}\n{digest}", delay=self._delay)
        return FakeReply(f"{body['model']} answers {body['messages'][-1]['content']} {digest}", delay=self._delay)


def config_text(
    base_url: str,
    writers: tuple[str, ...] = WRITERS,
    *,
    judge: str | None = "judge",
    price: str | None = "1.0",
    **more: Any,
) -> str:
    """Write a ``blend.toml`` with these LLMs, and a judge that writes nothing."""
    lines = []
    for name in (*writers, *([judge] if judge else [])):
        lines += ["[[llm]]", f'name = "{name}"', f'model = "{name}"', f'base_url = "{base_url}"', "timeout = 20"]
        lines += [f"{key} = {value}" for key, value in more.items()]
        if price is not None:
            lines.append(f"price = {{ input = {price}, output = {price} }}")
        if name == judge:
            lines.append("samples = 0")
    return "\n".join(lines) + "\n"


def write_prompts(path: Path, n: int, **more: Any) -> Path:
    rows = ({"instruction": f"Question {i}?", "output": f"Answer {i} in a few words.", **more} for i in range(n))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def server() -> Iterator[Server]:
    with ExitStack() as stack:
        yield Server(stack, (*WRITERS, "judge"))


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to an empty folder with its own store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "blend.db"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Return a function that writes a JSON list (.json) or JSON Lines, and makes the folder."""

    def write(name: str, records: list[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        path.write_text(json.dumps(records, indent=2) if name.endswith(".json") else lines)
        return path

    return write


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., tuple[list[dict[str, Any]], Imported]]:
    """Return a function that imports, and reads the rows."""

    def run(*inputs: Path, **options: Any) -> tuple[list[dict[str, Any]], Imported]:
        out = tmp_path / "out.jsonl"
        result = import_rows(ImportPlan(inputs, **options), str(out))
        return [record for _, record in read_records(out)], result

    return run
