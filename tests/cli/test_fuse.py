"""``blend fuse``, and ``blend ask`` where it fuses."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_blender.llms import local_servers
from llm_blender.store import Store
from llm_blender.testing import FakeOpenAIServer, FakeRanker, FakeReply

FUSED = "a fused answer, longer than all the candidates together"
ROWS = [
    {
        "id": "a",
        "instruction": "Say something.",
        "input": "Loudly.",
        "output": "kept",
        "candidates": [{"text": "short", "model": "x"}, {"text": "a longer one", "model": "y"}],
        "mine": 1,
    },
    {"instruction": [{"role": "user", "content": "Hi"}], "candidates": ["three", "is", "ragged", "indeed"]},
    {"instruction": "Alone.", "candidates": ["only"]},
]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "blend.db"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    find = functools.partial(local_servers.find_local_servers, ports={})
    monkeypatch.setattr(local_servers, "find_local_servers", find)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def reply(body: dict[str, Any]) -> FakeReply:
    return FakeReply(FUSED if body["messages"][0]["role"] == "system" else "a longer one")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeOpenAIServer]:
    """Start a server with an LLM, `llama`, that fuses well, and another that only writes candidates."""
    with FakeOpenAIServer(reply) as llama, FakeOpenAIServer([FakeReply("short")]) as other:
        (tmp_path / "blend.toml").write_text(
            f'[[llm]]\nname = "llama"\nmodel = "fake"\nbase_url = "{llama.base_url}"\n'
            f'[[llm]]\nname = "other"\nmodel = "fake"\nbase_url = "{other.base_url}"\n'
        )
        yield llama


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_each_row_comes_out_with_all_its_keys_and_its_fusion(blend, rows, ranker, server):
    result = blend("fuse", rows)
    assert result.exit_code == 0, result.stderr
    out = read(result.stdout)
    added = ("ranking", "fusion")
    assert [{key: value for key, value in row.items() if key not in added} for row in out] == ROWS
    fusion = out[0]["fusion"]
    assert (fusion["answer"], fusion["text"], fusion["fuser"], sorted(fusion["used"])) == (
        FUSED, FUSED, "chat:llama", [0, 1],
    )  # fmt: skip
    assert (fusion["asked"], fusion["returned"], fusion["reason"]) == ("fuse", "fuse", "better")
    assert fusion["probability"] > 0.5
    assert sorted(out[1]["fusion"]["used"]) == [0, 2, 3]  # the best three of four
    assert (out[2]["fusion"]["reason"], out[2]["fusion"]["answer"]) == ("one_candidate", "only")
    assert out[0]["ranking"]["best"] == 1
    assert any("Say something.\nLoudly." in body["messages"][1]["content"] for body in server.requests)
    assert "3 rows fused in " in result.stderr
    assert "2 fused answers by chat:llama returned (better 2, one_candidate 1)" in result.stderr


def test_answers_are_found_again(blend, rows, ranker, server, tmp_path):
    first, again = blend("fuse", rows), blend("fuse", rows, "-o", "out.jsonl", "--json")
    assert len(server.requests) == 2
    with Store(tmp_path / "blend.db") as store:
        assert len(store) == 2
    fused = [row["fusion"]["answer"] for row in read((tmp_path / "out.jsonl").read_text())]
    assert fused == [row["fusion"]["answer"] for row in read(first.stdout)]
    summary = json.loads(again.stdout)
    assert summary.pop("seconds") >= 0
    assert summary == {
        "rows": 3, "skipped": 0, "resumed": 0, "failed": 0, "fused": 2, "reasons": {"better": 2, "one_candidate": 1},
        "usage": {"prompt_tokens": 6, "completion_tokens": 4}, "cost": 0, "truncated": 0.0,
    }  # fmt: skip


@pytest.fixture
def paid(tmp_path: Path) -> Iterator[FakeOpenAIServer]:
    """Start a server whose LLM is paid by the token, one call at a time."""
    with FakeOpenAIServer() as server:
        (tmp_path / "blend.toml").write_text(
            f'[[llm]]\nname = "a"\nmodel = "fake"\nbase_url = "{server.base_url}"\nconcurrency = 1\n'
            'price = { input = 1.0, output = 2.0 }\n[ranker]\nname = "longest"\n'
        )
        yield server


def fused(blend: Any, rows: Path, *options: str) -> dict[str, Any]:
    result = blend("fuse", rows, "-o", "out.jsonl", "--json", *options)
    assert result.exit_code == 0, result.stderr
    summary: dict[str, Any] = json.loads(result.stdout)
    return summary


def test_what_was_paid_for_a_chunk_is_counted_when_it_is_done_again(blend, rows, paid):
    loud = FakeReply("not this", status=400)
    paid._replies = lambda body: loud if "Loudly" in str(body) else FakeReply(FUSED, usage=(30, 10))
    assert fused(blend, rows)["cost"] == pytest.approx(50e-6)
    loud = FakeReply("", usage=(30, 0))
    again = fused(blend, rows, "--retry-failed")
    assert (again["resumed"], again["reasons"]["empty"]) == (0, 1)
    assert again["cost"] == pytest.approx(80e-6)  # an empty answer is paid, too
    assert again["usage"] == {"prompt_tokens": 30, "completion_tokens": 10}
    assert fused(blend, rows)["cost"] == pytest.approx(80e-6)
    assert fused(blend, rows, "--restart")["cost"] == pytest.approx(30e-6)  # of a new job, which finds the other stored


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_what_was_paid_before_a_kill_is_counted(blend, tmp_path, rows, paid):
    def kill(body: dict[str, Any]) -> FakeReply:
        if len(paid.requests) == 2:
            process.kill()
        return FakeReply(FUSED, usage=(30, 10))

    paid._replies = kill
    command = [sys.executable, "-m", "llm_blender", "fuse", str(rows), "-o", "out.jsonl"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    assert process.wait() == -signal.SIGKILL
    summary = fused(blend, rows)
    assert (len(paid.requests), summary["resumed"]) == (3, 0)
    assert summary["cost"] == pytest.approx(100e-6)
    assert summary["usage"] == {"prompt_tokens": 60, "completion_tokens": 20}


def test_the_guard_and_how_to_switch_it_off(blend, rows, ranker, server):
    ranker._strength = lambda text: -len(text)  # the shorter is the better
    guarded, open_ = (read(blend("fuse", rows, *options).stdout) for options in ((), ("--no-guard",)))
    assert [row["fusion"]["reason"] for row in guarded] == ["worse", "worse", "one_candidate"]
    assert guarded[0]["fusion"]["answer"] == "short"
    assert guarded[0]["fusion"]["text"] == FUSED
    assert [row["fusion"]["reason"] for row in open_] == ["unguarded", "unguarded", "one_candidate"]
    assert open_[0]["fusion"]["answer"] == FUSED


def test_auto_and_top_k(blend, rows, ranker, server):
    out = read(blend("fuse", rows, "--mode", "auto", "--top-k", 2).stdout)
    assert out[0]["fusion"]["lead"] > 0.9
    assert (out[0]["fusion"]["reason"], out[0]["fusion"]["overlap"]) == ("better", 0.0)  # "short" is no part of it
    assert len(out[1]["fusion"]["used"]) == 2


def test_a_ranking_that_a_row_has_is_kept(blend, tmp_path, rows, ranker, server):
    assert blend("rank", rows, "-o", "ranked.jsonl").exit_code == 0
    before = ranker.comparisons
    out = read(blend("fuse", "ranked.jsonl").stdout)
    assert ranker.comparisons - before == 4  # the guard's
    ranked = read((tmp_path / "ranked.jsonl").read_text())
    assert [row["ranking"] for row in out] == [row["ranking"] for row in ranked]
    blend("fuse", "ranked.jsonl", "--ranker", "bundled")
    assert ranker.comparisons - before == 4 + 4 + 2 + 12
    ranked[0]["ranking"]["scores"] = "nonsense"
    (tmp_path / "ranked.jsonl").write_text(json.dumps(ranked[0]))
    assert read(blend("fuse", "ranked.jsonl").stdout)[0]["ranking"]["best"] == 1


def test_settings_of_the_configuration(blend, tmp_path, rows, ranker, server):
    path = tmp_path / "blend.toml"
    path.write_text(path.read_text() + '[fuser]\nname = "chat:other"\ntop_k = 2\nguard = false\n')
    out = read(blend("fuse", rows).stdout)
    assert (out[0]["fusion"]["fuser"], out[0]["fusion"]["reason"], out[0]["fusion"]["text"]) == (
        "chat:other", "unguarded", "short",
    )  # fmt: skip
    assert len(out[1]["fusion"]["used"]) == 2
    assert read(blend("fuse", rows, "--fuser", "chat:llama").stdout)[0]["fusion"]["fuser"] == "chat:llama"
    result = blend("fuse", rows, "--fuser", "chat:missing")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Unknown LLM 'missing'" in result.stderr


def test_a_row_that_the_fuser_refuses(blend, tmp_path, rows, ranker):
    def picky(body: dict[str, Any]) -> FakeReply:
        return FakeReply("not this", status=400) if "Loudly" in str(body) else FakeReply(FUSED)

    with FakeOpenAIServer(picky) as llama:
        (tmp_path / "blend.toml").write_text(f'[[llm]]\nname = "a"\nmodel = "fake"\nbase_url = "{llama.base_url}"\n')
        result = blend("fuse", rows)
    out = read(result.stdout)
    assert [row["fusion"]["reason"] for row in out] == ["failed", "better", "one_candidate"]
    assert out[0]["fusion"]["answer"] == "a longer one"
    assert "not this" in out[0]["fusion"]["error"]
    assert "the first failure: a: the server refuses the request (400): not this" in result.stderr


def test_a_fuser_that_cannot_be_reached(blend, tmp_path, rows, ranker):
    (tmp_path / "blend.toml").write_text(
        '[[llm]]\nname = "a"\nmodel = "m"\nbase_url = "http://127.0.0.1:9"\ntimeout = 1\n'
    )
    result = blend("fuse", rows, "-o", "out.jsonl")
    assert (result.exit_code, result.stdout) == (1, "")
    assert not (tmp_path / "out.jsonl").exists()
    assert "error: a: no connection to http://127.0.0.1:9" in result.stderr


def test_bad_rows(blend, tmp_path, ranker, server):
    (tmp_path / "bad.jsonl").write_text(json.dumps({"instruction": "q"}) + "\n" + json.dumps(ROWS[0]))
    refused = blend("fuse", "bad.jsonl")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert server.requests == []
    result = blend("fuse", "bad.jsonl", "--skip-bad")
    assert result.exit_code == 0
    assert "1 bad row left out, the first: bad.jsonl, line 1" in result.stderr


def test_a_wrong_fuser_or_device(blend, rows, ranker, server):
    result = blend("fuse", rows, "--fuser", "nowhere")
    assert result.exit_code == 2
    assert "No fuser 'nowhere'" in result.stderr
    result = blend("fuse", rows, "--device", "cpu")
    assert result.exit_code == 2
    assert "The device 'cpu' is for a fuser that runs on torch" in result.stderr


# blend ask


def test_ask_fuses(blend, ranker, server):
    result = blend("ask", "Say something.", "--mode", "fuse")
    assert (result.exit_code, result.stdout) == (0, f"{FUSED}\n")
    assert "fused: the ranker prefers the fused answer to the best candidate (probability 1.00)" in result.stderr
    answer = json.loads(blend("ask", "Say something.", "--mode", "fuse", "--json").stdout)
    assert (answer["text"], answer["mode"]) == (FUSED, "fuse")
    assert (answer["fusion"]["fuser"], answer["fusion"]["stored"]) == ("chat:llama", True)
    picked = json.loads(blend("ask", "Say something.", "--json").stdout)
    assert (picked["text"], picked["mode"], "fusion" in picked) == ("a longer one", "pick", False)


def test_ask_says_why_it_did_not_fuse(blend, server, monkeypatch):
    import llm_blender.rankers

    monkeypatch.setattr(
        llm_blender.rankers, "load_ranker", lambda *args, **options: FakeRanker(lambda text: -len(text))
    )
    result = blend("ask", "Say something.", "--mode", "fuse", "--show")
    assert "not fused: the ranker does not prefer the fused answer to the best candidate" in result.stderr
    assert f"not used, by chat:llama\n{FUSED}\n" in result.stdout
    assert "fused by" not in result.stdout
    assert blend("ask", "Say something.", "--mode", "fuse").stdout == "short\n"


def test_ask_with_another_fuser(blend, ranker, server, tmp_path):
    result = blend("ask", "Say something.", "--mode", "fuse", "--fuser", "chat:other", "--json")
    answer = json.loads(result.stdout)
    assert (answer["fusion"]["fuser"], answer["fusion"]["reason"]) == ("chat:other", "worse")
    one = blend("ask", "Say something.", "--mode", "fuse", "--fuser", "chat:llama", "--llm", "other", "-n", 2, "--json")
    alone = json.loads(one.stdout)  # llama fuses and writes no candidate
    assert [candidate["model"] for candidate in alone["candidates"]] == ["other", "other"]
    assert alone["fusion"]["reason"] == "same_candidates"


def test_ask_with_a_fuser_that_fails(blend, ranker, server, tmp_path):
    path = tmp_path / "blend.toml"
    with FakeOpenAIServer([FakeReply("no", status=401)]) as third:
        more = f'[[llm]]\nname = "gone"\nmodel = "fake"\nbase_url = "{third.base_url}"\nsamples = 0\n'
        path.write_text(path.read_text() + more)
        options = ("ask", "Say something.", "--mode", "fuse", "--fuser", "chat:gone")
        result, strict = blend(*options), blend(*options, "--strict")
    assert (result.exit_code, result.stdout) == (0, "a longer one\n")
    assert "not fused: the fuser failed: gone: the server wants a key" in result.stderr
    assert strict.exit_code == 3
