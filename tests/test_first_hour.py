"""The page of the first hour, followed line by line with fake servers in place of Ollama."""

from __future__ import annotations

import functools
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import llm_blender.rankers
from llm_blender.cli import app
from llm_blender.config import load_config
from llm_blender.llms import local_servers
from llm_blender.llms.providers import PROVIDERS
from llm_blender.testing import FakeOpenAIServer, FakeRanker, FakeReply

PAGE = (Path(__file__).parents[1] / "docs" / "first-hour.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
LINES = [line for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S) for line in block.splitlines()]
MODELS = ["llama3.2:3b", "qwen3:4b"]


def reply(request: dict[str, Any]) -> FakeReply:
    """Multiply two numbers; the models are right on other ones, and say more where they are."""
    numbers = [int(number) for number in re.findall(r"\d+", request["messages"][-1]["content"])]
    if len(numbers) != 2:
        return FakeReply("Sleep at the same hours.")
    if numbers[0] in ((4, 6, 8), (3, 4, 5, 7))[MODELS.index(request["model"])]:
        return FakeReply(f"{numbers[0]} times {numbers[1]} is easy. The answer is {numbers[0] * numbers[1]}.")
    return FakeReply("The answer is 1.")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for provider in PROVIDERS.values():
        for name in (*provider.keys, *filter(None, [provider.url_env])):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "store.db"))
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setattr(llm_blender.rankers, "load_ranker", lambda *args, **options: FakeRanker())
    monkeypatch.chdir(tmp_path)
    with FakeOpenAIServer(reply, models=MODELS) as server:
        port = int(server.base_url.rpartition(":")[2].removesuffix("/v1"))
        find = functools.partial(local_servers.find_local_servers, ports={port: "vLLM"})
        monkeypatch.setattr(local_servers, "find_local_servers", find)
        yield tmp_path


def test_every_line_works(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (machine / "score.py").write_text(FILES["score.py"])
    rows = [
        {"instruction": f"How much is {a} times {b}?", "output": str(a * b)} for a in range(3, 9) for b in range(11, 16)
    ]
    (machine / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outputs = {}
    for line in LINES:
        program, *arguments = shlex.split(line, comments=True)
        if program == "blend" and "init" not in outputs and arguments[0] == "ask":
            continue  # the embedded model: tests/llms runs it
        if program == "blend":
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, (line, result.output)
            outputs[" ".join(arguments[:2])] = outputs[arguments[0]] = result.stdout
        elif program == "python":
            runpy.run_path(arguments[0])
        else:
            assert program == "pip"
    assert [entry.model for entry in load_config().llm] == MODELS
    select = dict(line.split("\t", 1) for line in outputs["bench select"].splitlines())
    quality, gain = (select["bundled, auto"].split("\t")[i] for i in (1, 5))
    assert quality == "100.0"  # the fake ranker prefers the longer answer, which is the right one
    assert float(gain) > 20
    assert {"best single LLM", "bundled, auto with priors from scores"} <= select.keys()
    assert json.loads((machine / "priors.json").read_text())
    assert len(LINES) == 11


def test_its_files_are_what_they_are_called() -> None:
    from llm_blender.config import Config

    assert set(FILES) == {"questions.jsonl", "score.py", "blend.toml"}
    assert len(Config.from_toml(FILES["blend.toml"]).llm) == 2
    for line in FILES["questions.jsonl"].splitlines():
        row = json.loads(line)
        assert row["output"].isdecimal()
        assert row["instruction"]
