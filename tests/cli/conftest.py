from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import llm_blender.rankers
from llm_blender.cli import app
from llm_blender.testing import FakeRanker


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
def rows(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Write the ROWS of the test module to a file."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in request.module.ROWS))
    return path
