"""``blend plan``: counts all rows, measures some, pays nothing unasked, and names what it does not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from llm_blender.testing import FakeOpenAIServer, FakeRanker, FakeReply

Blend = Callable[..., Result]
PRICE = 7e-6  # of each call: 3 and 2 tokens
ZERO = {"expected": 0, "low": 0, "high": 0, "maximum": 0}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "blend.db"))
    with FakeOpenAIServer(lambda body: FakeReply(f"{body['model']} answers."), models=("a", "bb")) as server:
        configure(server)
        yield server


def configure(server: FakeOpenAIServer, price: str = "price = { input = 1.0, output = 2.0 }", ending: str = "") -> None:
    entries = (
        f'[[llm]]\nname = "{name}"\nmodel = "{name}"\nbase_url = "{server.base_url}"\n{price}\nmax_tokens = 50\n'
        for name in ("a", "bb")
    )
    Path("blend.toml").write_text("".join(entries) + ending)


def write(path: str, rows: list[dict[str, Any]]) -> str:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ranked_rows(count: int) -> list[dict[str, Any]]:
    return [
        {"instruction": f"Q{i}", "candidates": [f"{i} {n} {'x' * (i % 7)}" for n in range(1 + i % 4)]}
        for i in range(count)
    ]


def prompts(count: int) -> list[dict[str, Any]]:
    return [{"id": f"p{i}", "prompt": f"Question {i}?"} for i in range(count)]


def planned(blend: Blend, *args: object) -> dict[str, Any]:
    result = blend("plan", *args, "--json")
    assert result.exit_code == 0, result.stderr
    plan: dict[str, Any] = json.loads(result.stdout)
    missing = {
        f"{name}.{part}" if part else name
        for name in ("tokens", "hours", "comparisons", "dollars")
        for part, one in ({"": plan[name]} if "expected" in plan[name] else plan[name]).items()
        if one["expected"] is None
    }
    assert missing <= set(plan["unknown"])
    assert plan["actors"] is not None or "actors" in plan["unknown"]
    return plan


# Ranking


def test_a_plan_to_rank_counts_all_rows_and_measures_a_sample(blend: Blend, ranker: FakeRanker) -> None:
    rows = ranked_rows(400)
    plan = planned(blend, write("rows.jsonl", rows), "--sample", 300)
    pairs = sum(n * (n - 1) for n in (1 + i % 4 for i in range(400)))
    assert (plan["work"], plan["rows"], plan["skipped"], plan["candidates"]) == ("rank", 400, 0, 1000)
    assert plan["characters"] == sum(len(row["instruction"]) + sum(map(len, row["candidates"])) for row in rows)
    assert plan["comparisons"] == dict.fromkeys(("expected", "low", "high", "maximum"), pytest.approx(pairs))
    assert (plan["calls"], plan["dollars"], plan["tokens"]["prompt"]) == ({}, ZERO, ZERO)
    assert plan["sample"]["rows"] == 300
    assert plan["sample"]["seconds"] > 0
    for hours in (plan["hours"]["cpu"], plan["hours"]["wall"]):
        assert 0 < hours["low"] <= hours["expected"] <= hours["high"] < 1
    assert plan["hours"]["gpu"] == ZERO
    assert plan["actors"]["1"] == pytest.approx(plan["hours"]["wall"]["expected"])
    assert plan["actors"]["16"] < plan["actors"]["4"] < plan["actors"]["1"]
    assert plan["unknown"] == {}


def test_the_strategy_bounds_the_comparisons(blend: Blend, ranker: FakeRanker) -> None:
    file = write("rows.jsonl", [{"instruction": "Q", "candidates": [f"{n}" * (1 + n) for n in range(8)]}] * 5)
    assert planned(blend, file, "--sample", 0)["comparisons"]["maximum"] == 5 * 2 * (7 + 2 * 2)  # auto: top_k
    assert planned(blend, file, "--sample", 0, "--best-of-n")["comparisons"]["maximum"] == 5 * 14  # knockout
    assert planned(blend, file, "--sample", 0, "--strategy", "full")["comparisons"]["maximum"] == 5 * 56
    assert planned(blend, file, "--sample", 0, "--budget", 60)["comparisons"]["maximum"] == 5 * 56
    assert not ranker.batches
    plan = planned(blend, file, "--sample", 0)
    assert plan["comparisons"]["expected"] is None
    assert "--sample N" in plan["unknown"]["comparisons"]
    assert plan["unknown"]["hours.cpu"] == plan["unknown"]["actors"] == plan["unknown"]["comparisons"]


def test_files_of_a_folder_and_rows_on_standard_input(blend: Blend, ranker: FakeRanker) -> None:
    write("in/a.jsonl", ranked_rows(3))
    write("in/b.jsonl", ranked_rows(4))
    assert planned(blend, "in", "--sample", 2)["rows"] == 7
    assert planned(blend, "in/*.jsonl", "--sample", 2)["rows"] == 7
    lines = Path("in/b.jsonl").read_text()
    result = blend("plan", "-", "--for", "rank", "--json", stdin=lines)
    assert json.loads(result.stdout)["rows"] == 4
    assert "--for" in blend("plan", "-", stdin=lines).stderr


def test_prompts_on_standard_input(blend: Blend, ranker: FakeRanker, server: FakeOpenAIServer) -> None:
    result = blend("plan", "-", "--for", "run", "--json", stdin=Path(write("in.jsonl", prompts(3))).read_text())
    assert json.loads(result.stdout)["calls"] == {"a": 3, "bb": 3}


def test_a_judge_of_close_calls_has_a_maximum(blend: Blend, ranker: FakeRanker, server: FakeOpenAIServer) -> None:
    configure(server, ending='[ranker]\njudge = "bb"\njudge_pairs = 2\n')
    plan = planned(blend, write("rows.jsonl", ranked_rows(12)))
    assert (plan["calls"], plan["dollars"]["expected"], len(server.requests)) == ({"bb": 4 * 12}, None, 0)
    assert plan["hours"]["cpu"]["expected"] > 0
    assert "judge bb is not measured" in plan["unknown"]["dollars"]
    plan = planned(blend, write("in.jsonl", prompts(6)))
    assert plan["calls"] == {"a": 6, "bb": 6 + 6 * 4}


def test_bad_rows(blend: Blend, ranker: FakeRanker, refuse: Callable[..., Result]) -> None:
    file = write("rows.jsonl", [*ranked_rows(3), {"instruction": "Q", "candidates": "none"}])
    refuse("plan", file, message="rows.jsonl, line 4")
    plan = planned(blend, file, "--skip-bad")
    assert (plan["rows"], plan["skipped"]) == (3, 1)
    refuse("plan", write("none.jsonl", []), "--for", "rank", message="holds no row")


def test_a_job_prints_the_plan_beside_what_it_took(blend: Blend, ranker: FakeRanker) -> None:
    file = write("rows.jsonl", ranked_rows(20))
    assert "kept in out.jsonl.plan" in blend("plan", file, "-o", "out.jsonl", "--strategy", "full").stderr
    result = blend("rank", file, "-o", "out.jsonl", "--strategy", "full")
    assert result.exit_code == 0, result.stderr
    assert "hours.cpu: estimated " in result.stderr
    assert ", actual " in result.stderr
    again = blend("rank", file, "-o", "out.jsonl", "--strategy", "full")  # nothing is left to do
    assert "actual" not in again.stderr
    other = blend("rank", file, "-o", "out.jsonl", "--strategy", "knockout", "--restart")
    assert "out.jsonl.plan was made for other rows or settings" in other.stderr
    write("rows.jsonl", ranked_rows(21))
    more = blend("rank", file, "-o", "out.jsonl", "--strategy", "full", "--restart")
    assert "was made for other rows" in more.stderr
    assert "plan" not in blend("rank", file, "-o", "unplanned.jsonl").stderr


def test_what_is_unknown_has_a_note_and_no_row(blend: Blend, ranker: FakeRanker) -> None:
    result = blend("plan", write("rows.jsonl", ranked_rows(20)), "--sample", 0)
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in result.stdout.splitlines()}
    assert lines["rows"][0] == "20"
    assert not [name for name, cells in lines.items() if set(cells) == {"unknown"}]
    assert lines["dollars"][0] == "$0.0000"
    assert "hours.cpu, hours.wall" in result.stderr
    assert result.stderr.count(": nothing was measured") == 1


def test_the_table_has_the_calls_of_all_llms(blend: Blend, ranker: FakeRanker, server: FakeOpenAIServer) -> None:
    result = blend("plan", write("in.jsonl", prompts(6)), "-n", 2)
    lines = dict(line.split("\t")[:2] for line in result.stdout.splitlines())
    assert (lines["calls of a, at most"], lines["calls of bb, at most"], lines["calls of all, at most"]) == (
        "12",
        "12",
        "24",
    )
    assert "calls of all, at most" not in blend("plan", "in.jsonl", "--llm", "a").stdout


# Fusing


def test_fusing_without_an_llm_is_measured(blend: Blend, ranker: FakeRanker) -> None:
    file = write("rows.jsonl", ranked_rows(12))
    plan = planned(blend, file, "--for", "fuse", "--fuser", "longest", "-o", "out.jsonl")
    assert (plan["work"], plan["sample"]["rows"], plan["calls"], plan["dollars"]) == ("fuse", 12, {}, ZERO)
    assert plan["hours"]["cpu"]["expected"] > 0
    assert plan["comparisons"]["expected"] is None
    assert plan["comparisons"]["maximum"] > 0
    assert "hours.cpu: estimated " in blend("fuse", file, "-o", "out.jsonl", "--fuser", "longest").stderr
    shuffled = ("--fuser", "longest", "--order", "shuffled", "-o", "shuffled.jsonl")
    planned(blend, file, "--for", "fuse", *shuffled)
    assert "hours.cpu: estimated " in blend("fuse", file, *shuffled).stderr


def test_fusing_by_an_llm_is_free_until_a_sample_is_wanted(
    blend: Blend, ranker: FakeRanker, server: FakeOpenAIServer
) -> None:
    file = write("rows.jsonl", [row for row in ranked_rows(40) if len(row["candidates"]) > 1][:8])
    plan = planned(blend, file, "--for", "fuse")
    assert (plan["calls"], len(server.requests), plan["dollars"]["expected"]) == ({"a": 8}, 0, None)
    assert plan["tokens"]["completion"]["maximum"] == 8 * 50
    assert "may cost money" in plan["unknown"]["dollars"]
    most = plan["dollars"]["maximum"]
    plan = planned(blend, file, "--for", "fuse", "--sample", 4, "-o", "out.jsonl")
    assert len(server.requests) == 4
    assert plan["dollars"]["expected"] == pytest.approx(8 * PRICE)
    assert 8 * PRICE < most == plan["dollars"]["maximum"]
    assert plan["sample"]["dollars"] == pytest.approx(4 * PRICE)
    again = planned(blend, file, "--for", "fuse", "--sample", 4)
    assert (again["dollars"], again["sample"]["dollars"]) == (plan["dollars"], 0)  # known from the store
    result = blend("fuse", file, "-o", "out.jsonl")
    assert len(server.requests) == 8  # the store has the others
    assert "dollars: estimated $0.000028 ($0.000028 to $0.000028), actual $0.000028" in result.stderr


# Running


def test_a_plan_to_run_calls_no_llm(blend: Blend, ranker: FakeRanker, server: FakeOpenAIServer) -> None:
    plan = planned(blend, write("in.jsonl", prompts(6)))
    assert (plan["work"], plan["rows"], plan["candidates"], len(server.requests)) == ("run", 6, None, 0)
    assert plan["calls"] == {"a": 6, "bb": 6}
    assert plan["tokens"]["prompt"]["expected"] == pytest.approx(2 * plan["characters"] / 4)
    assert plan["tokens"]["completion"] == {"expected": None, "low": None, "high": None, "maximum": 600}
    assert plan["comparisons"]["maximum"] == 12
    assert plan["dollars"]["expected"] is None
    assert 12 * 50 * 2e-6 < plan["dollars"]["maximum"] < 0.01
    plan = planned(blend, "in.jsonl", "-n", 3, "--llm", "a", "--mode", "fuse", "--fuser", "chat:bb")
    assert plan["calls"] == {"a": 18, "bb": 6}
    assert plan["tokens"]["prompt"]["expected"] is None  # the fuser reads answers


def test_the_maximum_is_that_of_max_cost(blend: Blend, ranker: FakeRanker, server: FakeOpenAIServer) -> None:
    most = planned(blend, write("in.jsonl", prompts(1)))["dollars"]["maximum"]
    assert blend("run", "in.jsonl", "-o", "less.jsonl", "--max-cost", most * 0.99).exit_code == 1
    assert blend("run", "in.jsonl", "-o", "out.jsonl", "--max-cost", most * 1.01).exit_code == 0


def test_an_unknown_price_is_not_zero(
    blend: Blend, elsewhere: None, ranker: FakeRanker, server: FakeOpenAIServer
) -> None:
    configure(server, price="")
    plan = planned(blend, write("in.jsonl", prompts(6)), "--sample", 4)
    assert plan["dollars"] == dict.fromkeys(("expected", "low", "high", "maximum"))
    assert "a has no price" in plan["unknown"]["dollars.maximum"]
    assert plan["tokens"]["prompt"]["expected"] == pytest.approx(36)


def test_answers_of_the_sample_are_not_paid_for_again(
    blend: Blend, ranker: FakeRanker, server: FakeOpenAIServer
) -> None:
    plan = planned(blend, write("in.jsonl", prompts(6)), "--sample", 4, "-o", "out.jsonl")
    assert len(server.requests) == 8
    assert plan["dollars"]["expected"] == pytest.approx(12 * PRICE)
    assert plan["dollars"]["low"] == plan["dollars"]["high"] == pytest.approx(12 * PRICE)
    assert plan["tokens"]["completion"] == {"expected": 24, "low": 24, "high": 24, "maximum": 600}
    assert plan["comparisons"]["expected"] == pytest.approx(12)
    assert plan["sample"]["dollars"] == pytest.approx(8 * PRICE)
    assert 0 < plan["hours"]["wall"]["expected"] < 0.1
    again = planned(blend, "in.jsonl", "--sample", 4)
    assert (again["dollars"], again["sample"]["dollars"]) == (plan["dollars"], 0)  # known from the store
    result = blend("run", "in.jsonl", "-o", "out.jsonl")
    assert result.exit_code == 0, result.stderr
    assert len(server.requests) == 12
    assert "hours.cpu: estimated " in result.stderr
    assert "dollars: estimated $0.000028 ($0.000028 to $0.000028), actual $0.000028" in result.stderr


def test_the_sample_keeps_within_its_cost(blend: Blend, ranker: FakeRanker, server: FakeOpenAIServer) -> None:
    result = blend("plan", write("in.jsonl", prompts(6)), "--sample", 4, "--max-cost", 1e-6)
    assert (result.exit_code, len(server.requests)) == (1, 0)
    assert "--max-cost" in result.stderr
