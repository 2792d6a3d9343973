from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import llm_blender.config
import llm_blender.rankers
from llm_blender.cli import app
from llm_blender.llms import local_servers
from llm_blender.testing import FakeOpenAIServer, FakeRanker, FakeReply


@pytest.fixture
def ranker(monkeypatch: pytest.MonkeyPatch) -> FakeRanker:
    """Replace every ranker by one that prefers the longer text."""
    fake = FakeRanker()
    monkeypatch.setattr(llm_blender.rankers, "load_ranker", lambda *args, **options: fake)
    return fake


@pytest.fixture
def blend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no configuration"))
    return lambda *args, stdin=None: CliRunner().invoke(app, list(map(str, args)), input=stdin)


@pytest.fixture
def refuse(blend: Callable[..., Result]) -> Callable[..., Result]:
    """Return a function that runs a command with wrong options, and checks that it prints only the message."""

    def run(*args: object, message: str) -> Result:
        result = blend(*args)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr
        return result

    return run


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this machine a host like any other, whose LLMs may cost money."""
    monkeypatch.setattr(llm_blender.config, "is_loopback", lambda host: False)


@pytest.fixture
def rows(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Write the ROWS of the test module to a file."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in request.module.ROWS))
    return path


def isolate(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Hide configuration, store and servers of this machine."""
    patch.chdir(folder)
    patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    patch.setenv("LLM_BLENDER_STORE", str(folder / "blend.db"))
    patch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    patch.setattr(local_servers, "find_local_servers", functools.partial(local_servers.find_local_servers, ports={}))


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide configuration, store and servers of this machine."""
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Callable[..., list[FakeOpenAIServer]]]:
    """Return a function that starts a server per reply, named a, b, … in a ``blend.toml``."""
    with ExitStack() as stack:

        def start(*replies: FakeReply, more: str = "", **options: Any) -> list[FakeOpenAIServer]:
            started = [stack.enter_context(FakeOpenAIServer([reply], **options)) for reply in replies]
            members = [
                f'[[llm]]\nname = "{name}"\nmodel = "fake"\nbase_url = "{server.base_url}"\n'
                for name, server in zip("abcdef", started, strict=False)
            ]
            (tmp_path / "blend.toml").write_text("".join(members) + more)
            return started

        yield start
