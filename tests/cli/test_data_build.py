from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llm_blender.testing import FakeOpenAIServer, FakeReply

ROWS = [
    {"instruction": "Why is the sky blue today?", "output": "Air scatters blue light more than it scatters red light."},
    {"instruction": "What keeps bread fresh for long?", "output": "A closed box at room temperature, and the freezer."},
    {"instruction": "Hi", "output": "Hello."},
]


def reply(body):
    if body["messages"][0]["role"] == "system":
        return FakeReply("1" if "a says" in body["messages"][1]["content"].split("begin answer B")[0] else "2")
    return FakeReply(f"{body['model']} says {body['messages'][-1]['content']}")


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "blend.db"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with FakeOpenAIServer(reply, models=("a", "b", "j")) as server:
        entries = (
            f'[[llm]]\nname = "{name}"\nmodel = "{name}"\nbase_url = "{server.base_url}"\nsamples = {samples}\n'
            "price = { input = 1.0, output = 2.0 }\n"
            for name, samples in (("a", 1), ("b", 1), ("j", 0))
        )
        (tmp_path / "blend.toml").write_text("".join(entries))
        yield server


def test_from_prompts_to_rows_with_cost_shown_first(blend, server):
    result = blend(
        *("data", "build", "in.jsonl", "-o", "rows.jsonl", "--judge", "j", "--metrics", "bleu", "--max-cost", 1),
        *("--prompt-tokens", "5-127", "--check", 2, "--json"),
    )
    assert result.exit_code == 0, result.stderr
    lines = result.stderr.splitlines()
    assert lines[0] == "2 instructions of 3; left out: 1 prompt below 5 tokens"
    assert re.fullmatch(r"candidates: 4 calls, [\d,]+ tokens, about \$0\.\d{4}, at most \$0\.\d{4}", lines[1])
    assert re.fullmatch(r"judgements: 6 calls, [\d,]+ tokens, about \$0\.\d{4}, at most \$0\.\d{4}", lines[2])
    assert "judge j: 2 pairs, 6 replies; " in result.stderr
    assert (
        "the judgement changes with the order in 0.0% of 2 pairs (0 contradictions); the first answer wins 50.0%"
        in (result.stderr)
    )
    assert "a second judgement differs in 0.0% of 2 pairs" in result.stderr
    assert "2 rows with 4 candidates in rows.jsonl, and its card rows.jsonl.md" in result.stderr
    assert lines[-1] == "paid: $0.000070"
    summary = json.loads(result.stdout)
    assert (summary["instructions"], summary["complete"], summary["judge"]["flip_rate"]) == (2, True, 0.0)
    assert summary["cost"] == pytest.approx(10 * 7e-6)
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert all(row["pairs"][0]["label"] == ("a" if row["pairs"][0]["a"] == 0 else "b") for row in rows)

    again = blend("data", "build", "in.jsonl", "-o", "rows.jsonl", "--judge", "j", "--metrics", "bleu")
    assert again.exit_code == 2
    assert "begun with other settings" in again.stderr


def test_the_lengths_of_the_paper_and_a_text_file(blend, server):
    Path("in.txt").write_text("Why is the sky blue today?\nHi\n")
    options = ("--max-cost", 1, "--metrics", "none")
    result = blend(
        "data", "build", "in.txt", "-o", "t.jsonl", "--paper-lengths", "--reference-tokens", "-127", *options
    )
    assert result.exit_code == 2
    assert "No instruction is left of 2: 1 no reference, 1 prompt below 5 tokens" in result.stderr
    result = blend("data", "build", "in.jsonl", "-o", "u.jsonl", "--paper-lengths", *options)
    assert result.exit_code == 0, result.stderr
    assert "2 instructions of 3" in result.stderr or "1 instructions of 3" in result.stderr


@pytest.mark.parametrize("value", ["5", "-", "a-b", "9-5"])
def test_wrong_ranges(blend, server, value):
    result = blend("data", "build", "in.jsonl", "-o", "r.jsonl", "--prompt-tokens", value)
    assert result.exit_code == 2
    assert "--prompt-tokens" in result.stderr


def test_costs_need_a_cap_and_prices(blend, elsewhere, server):
    result = blend("data", "build", "in.jsonl", "-o", "r.jsonl", "--metrics", "none")
    assert result.exit_code == 2
    assert "set a limit with --max-cost" in result.stderr
    text = Path("blend.toml").read_text()
    Path("blend.toml").write_text(text.replace("price = { input = 1.0, output = 2.0 }\n", ""))
    result = blend("data", "build", "in.jsonl", "-o", "r.jsonl", "--metrics", "none")
    assert result.exit_code == 2
    assert "The price of a is not known, and is not taken for zero" in result.stderr
    assert not server.requests
    result = blend("data", "build", "in.jsonl", "-o", "r.jsonl", "--metrics", "none", "--allow-unknown-prices")
    assert result.exit_code == 0
    assert "6 calls of unknown price" in result.stderr


def test_llms_on_this_machine_need_no_cap_and_no_price(blend, server):
    text = Path("blend.toml").read_text()
    Path("blend.toml").write_text(text.replace("price = { input = 1.0, output = 2.0 }\n", ""))
    for cap in ((), ("--max-cost", 1)):
        result = blend("data", "build", "in.jsonl", "-o", f"r{len(cap)}.jsonl", "--metrics", "none", *cap)
        assert result.exit_code == 0, result.stderr


def test_a_judge_of_the_pool_is_flagged_and_failures_are_told(blend, server):
    server._replies = lambda body: FakeReply("no", status=400) if "Hi" in str(body["messages"][-1]) else reply(body)
    args = ("data", "build", "in.jsonl", "-o", "r.jsonl", "--judge", "a", "--metrics", "none", "--max-cost", 1)
    result = blend(*args, "--strict")
    assert result.exit_code == 3
    assert "warning: the judge a is itself in the pool (a) and judges its own answers" in result.stderr
    assert "a: 1 answer missing, the first: a: the server refuses the request (400): no" in result.stderr
    server._replies = reply
    assert blend(*args, "--strict").exit_code == 0


def test_a_judge_without_an_outcome(blend, server):
    server._replies = lambda body: FakeReply("Well.") if "begin answer" in str(body["messages"]) else reply(body)
    args = ("in.jsonl", "-o", "r.jsonl", "--judge", "j", "--metrics", "none", "--max-cost", 1, "--check", 0)
    assert re.search(r"judge j: \d pairs, \d replies; no outcome\n", blend("data", "build", *args).stderr)


def test_no_configuration(blend, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    Path("in.txt").write_text("Hi\n")
    result = blend("data", "build", "in.txt", "-o", "r.jsonl")
    assert result.exit_code == 2
    assert "names no LLM: add an [[llm]]" in result.stderr
