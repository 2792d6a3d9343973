"""The programs of examples/ run, with fake servers in place of Ollama and of a service."""

from __future__ import annotations

import contextlib
import json
import re
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_blender.testing import FakeLLM, FakeOpenAIServer, FakeRanker, FakeReply

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BEST = "Air scatters blue light much more than red light, so blue comes from all sides of the sky."
TEXTS = [
    "Because.",
    BEST,
    "The air scatters blue light more than red light, and so blue comes from all sides.",
    "Blue light is scattered by the air more than red light, and comes from everywhere in the sky.",
]


def run(name: str, *arguments: str) -> None:
    names = runpy.run_path(str(EXAMPLES / name))
    names["main"](*arguments)


def reply(request: dict[str, Any]) -> FakeReply:
    """Answer by the seed, and as a judge prefer the longer answer."""
    prompt = request["messages"][-1]["content"]
    quoted = re.findall(r"begin answer [AB] ===\n(.*?)\n===", prompt, re.DOTALL)
    if len(quoted) == 2:
        first = len(quoted[0]) > len(quoted[1])
        if prompt.endswith("tie."):
            return FakeReply("A" if first else "B")
        return FakeReply("1" if first else "2")
    return FakeReply(TEXTS[request.get("seed", 0) % 4] if request["model"] == "one" else BEST)


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeOpenAIServer]:
    with FakeOpenAIServer(reply, models=["one", "two"]) as server:
        monkeypatch.setenv("OLLAMA_URL", server.base_url)
        monkeypatch.setenv("OLLAMA_MODELS", "one,two")
        monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "store.db"))
        yield server


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, serve_app: Any) -> Iterator[None]:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    from llm_blender.config import ServerConfig
    from llm_blender.ensemble import Ensemble, Member
    from llm_blender.server import create_app

    ensemble = Ensemble([Member(FakeLLM("a", "Because.")), Member(FakeLLM("b", BEST))], FakeRanker())
    with contextlib.ExitStack() as stack:
        url = serve_app(stack, create_app(ensemble, ServerConfig()))
        monkeypatch.setenv("BLEND_URL", f"{url}/v1")
        yield


def test_the_table_names_the_programs() -> None:
    named = re.findall(r"^\| \[(\S+)\]\((\S+)\) \|", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted((path.name,) * 2 for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb"))
    assert len(named) == 10


def test_the_source_distribution_holds_them() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert "examples" in settings["targets"]["sdist"]["include"]


def test_ollama_ensemble(ollama: FakeOpenAIServer, capsys: pytest.CaptureFixture[str]) -> None:
    run("ollama_ensemble.py")
    assert capsys.readouterr().out.endswith(f"\n\n{BEST}\n")
    assert [request["model"] for request in ollama.requests].count("two") == 2


def test_openai_sdk(service: None, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai")
    run("openai_sdk.py")
    assert capsys.readouterr().out == f"{BEST}\n  a: Because.\n  b: {BEST}\n{BEST}\n"


def test_langchain_chat(service: None, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("langchain_openai")
    run("langchain_chat.py")
    assert capsys.readouterr().out == f"{BEST}\n" * 2


def test_best_of_n_to_dpo(ollama: FakeOpenAIServer, tmp_path: Path) -> None:
    run("best_of_n_to_dpo.py", str(tmp_path / "preferences.jsonl"))
    records = [json.loads(line) for line in (tmp_path / "preferences.jsonl").read_text().splitlines()]
    (sky,) = [record for record in records if "sky" in record["prompt"][0]["content"]]
    assert sky["chosen"][0]["content"] in TEXTS[1:]
    assert sky["rejected"] == [{"role": "assistant", "content": "Because."}]
    assert sky["probability"] > 0.6
    assert len(ollama.requests) == 12


def test_grpo_reward(capsys: pytest.CaptureFixture[str]) -> None:
    run("grpo_reward.py")
    lines = capsys.readouterr().out.splitlines()
    assert "Air scatters" in lines[0]
    assert sum(float(line.split()[0]) for line in lines) == pytest.approx(1.5, abs=0.03)


@pytest.mark.slow
def test_own_ranker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    run("own_ranker.py", str(tmp_path / "own"))
    assert float(capsys.readouterr().out.split("=")[-1]) > 0.8
    assert (tmp_path / "own" / "ranker" / "README.md").is_file()


def test_llm_judge(ollama: FakeOpenAIServer, capsys: pytest.CaptureFixture[str]) -> None:
    run("llm_judge.py")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1. Air scatters")
    assert lines[-1].startswith("6 calls, 0 without a verdict")


def test_mixinstruct_from_nothing(ollama: FakeOpenAIServer, tmp_path: Path) -> None:
    run("mixinstruct_from_nothing.py", str(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert all(row["pairs"] and len(row["candidates"]) == 2 for row in rows)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_cluster(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RANKER", "longest")
    run("ray_cluster.py")
    assert "rows 48 to 63" in capsys.readouterr().out


def test_notebook(ollama: FakeOpenAIServer, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        assert {"id", "cell_type", "metadata", "source"} <= cell.keys()
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Keep it in a closed bread box")
    assert lines[-1] == BEST
