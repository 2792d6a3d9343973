"""`[ranker] judge` on the command line: ask, run, serve and rank."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_blender.testing import FakeOpenAIServer, FakeReply

ROWS = [
    {"instruction": "Close.", "candidates": [{"text": "four", "model": "a"}, {"text": "three", "model": "strong"}]},
    {"instruction": "Clear.", "candidates": ["four", "as long as a sentence"]},
]


def reply(body: dict[str, Any]) -> FakeReply:
    """Answer as an LLM, or judge: the shorter of the two candidates is better, in any order."""
    content = body["messages"][-1]["content"]
    if len(body["messages"]) == 1:
        return FakeReply({"a": "four", "b": "three", "strong": "strong's"}[body["model"]])
    return FakeReply("A" if content.find("\nfour\n") < content.find("\nthree\n") else "B")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranker: Any) -> Iterator[FakeOpenAIServer]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "blend.db"))
    with FakeOpenAIServer(reply, models=("a", "b", "strong")) as server:
        yield server


def configure(server: FakeOpenAIServer, *, judge: str = "strong", samples: int = 0, more: str = "") -> None:
    """Write a blend.toml with the LLMs a and b, and one that judges."""
    entries = [
        f'[[llm]]\nname = "{name}"\nmodel = "{name}"\nbase_url = "{server.base_url}"\nmax_tokens = 9\n'
        "price = { input = 1.0, output = 2.0 }\n"
        for name in ("a", "b", "strong")
    ]
    text = f'{more}[ranker]\njudge = "{judge}"\n' + "".join(entries) + f"samples = {samples}\n"
    Path("blend.toml").write_text(text)


def test_ask_shows_the_verdict(blend, server):
    configure(server)
    result = blend("ask", "Name one.", "--show")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[1].startswith("1.  a")
    assert "judge: strong preferred 1 to 2 (both orders)" in result.stderr
    assert "LLMs prefer their own answers" not in result.stderr
    assert len(server.requests) == 4
    answer = json.loads(blend("ask", "Name one.", "--json").stdout)
    assert answer["text"] == "four"
    assert answer["ranking"]["evidence"]["judging"] == {
        "judge": "strong",
        "member": False,
        "verdicts": [{"a": 1, "b": 0, "value": -1.0}],
    }
    assert answer["ranking"]["evidence"]["parts"]["judge"][0] > 0
    assert len(server.requests) == 4  # the store has the replies of the judge, too


def test_the_judge_stays_where_other_llms_are_chosen(blend, server):
    configure(server)
    result = blend("ask", "Name one.", "--llm", "a", "--llm", "b", "--json")
    answer = json.loads(result.stdout)
    assert (answer["text"], len(answer["candidates"])) == ("four", 2)


def test_a_judge_that_answers_itself_is_flagged(blend, server):
    configure(server, judge="b")
    result = blend("ask", "Name one.", "--llm", "a", "--llm", "b", "--json")
    assert "the judge b is also one of the LLMs that answer: LLMs prefer their own answers" in result.stderr
    assert json.loads(result.stdout)["ranking"]["evidence"]["judging"]["member"] is True


def test_a_judge_that_fails_is_reported_and_does_not_degrade(blend, server):
    configure(server, more="[limits]\nmax_cost = 0.0003\n")
    result = blend("ask", "Name one.", "--show", "--strict")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[1].startswith("1.  b")
    assert "a close call has no verdict of the judge: strong: an answer may cost" in result.stderr


def test_run_counts_its_cost_and_its_failures(blend, server, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "One."}\n{"prompt": "Two."}\n')
    configure(server)
    result = blend("run", "in.jsonl", "-o", "out.jsonl", "--json")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["four", "four"]
    assert json.loads(result.stdout)["cost"] == pytest.approx(8 * (3 + 2 * 2) / 1e6)
    configure(server, more="[limits]\nmax_cost = 0.0003\n")
    (tmp_path / "new.jsonl").write_text('{"prompt": "Three."}\n{"prompt": "Four."}\n')  # the store has the others
    late = blend("run", "new.jsonl", "-o", "new-out.jsonl")
    assert "2 close calls have no verdict of the judge: strong: an answer may cost" in late.stderr


def test_rank_reads_the_judge_of_the_configuration(blend, server, rows):
    configure(server)
    result = blend("rank", rows)
    assert result.exit_code == 0, result.stderr
    close, clear = [json.loads(line)["ranking"] for line in result.stdout.splitlines()]
    assert (close["best"], clear["best"]) == (0, 1)
    assert close["evidence"]["judging"]["member"] is True  # strong wrote one of the two
    assert "evidence" not in clear
    assert len(server.requests) == 2
    assert "the judge strong is also one of the LLMs" in result.stderr
    assert "strong: 2 calls, 0 found in the store" in result.stderr


def test_rank_counts_what_the_judge_cost_in_all_runs_of_the_job(blend, server, rows):
    configure(server)
    first = json.loads(blend("rank", rows, "-o", "out.jsonl", "--json").stdout)
    assert first["cost"] == pytest.approx(2 * (3 + 2 * 2) / 1e6)
    Path("out.jsonl").unlink()
    again = json.loads(blend("rank", rows, "-o", "out.jsonl", "--json").stdout)
    assert (again["resumed"], again["cost"]) == (again["rows"], first["cost"])
    Path("blend.toml").unlink()
    assert "cost" not in json.loads(blend("rank", rows, "-o", "plain.jsonl", "--json").stdout)


def test_rank_goes_on_without_a_judge_that_fails(blend, server, rows):
    configure(server)
    server.models = ("a", "b")
    result = blend("rank", rows)
    assert result.exit_code == 0, result.stderr
    close = json.loads(result.stdout.splitlines()[0])["ranking"]
    assert (close["best"], close["evidence"]["judging"]["failure"]["reason"]) == (1, "not_found")
    assert "a close call has no verdict of the judge: strong: " in result.stderr


def test_rank_asks_a_judge_that_failed_again(blend, server, rows):
    configure(server)
    server.models = ("a", "b")
    result = blend("rank", rows, "-o", "out.jsonl")
    assert "1 rows lack a verdict of the judge; --retry-failed asks it again" in result.stderr
    server.models = ("a", "b", "strong")
    assert "1 rows lack a verdict" in blend("rank", rows, "-o", "out.jsonl").stderr
    result = blend("rank", rows, "-o", "out.jsonl", "--retry-failed")
    assert "lack" not in result.stderr
    assert json.loads(Path("out.jsonl").read_text().splitlines()[0])["ranking"]["best"] == 0


def test_rank_flags_another_name_of_the_same_model(blend, server, rows):
    configure(server, judge="twin")
    same = Path("blend.toml").read_text().replace('name = "a"\nmodel = "a"', 'name = "twin"\nmodel = "strong"')
    Path("blend.toml").write_text(same)
    result = blend("rank", rows)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[0])["ranking"]["evidence"]["judging"]["member"] is True


def test_another_model_of_the_judge_is_another_job(blend, server):
    configure(server)
    Path("new.jsonl").write_text('{"prompt": "One."}\n')
    assert blend("run", "new.jsonl", "-o", "out.jsonl").exit_code == 0
    changed = (
        Path("blend.toml").read_text().replace('name = "strong"\nmodel = "strong"', 'name = "strong"\nmodel = "a"')
    )
    Path("blend.toml").write_text(changed)
    again = blend("run", "new.jsonl", "-o", "out.jsonl")
    assert again.exit_code == 2
    assert "judge" in again.stderr
