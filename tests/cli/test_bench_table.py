from __future__ import annotations

import importlib.util
import json

import pytest

OUTCOMES = {"ann,bob": "B is better", "bob,cy": "Same good", "cy,ann": "A is better"}
ROWS = [
    {
        "instruction": f"Say {word}.",
        "output": word,
        "candidates": [
            {"text": word, "model": "ann", "scores": {"win": 0}},
            {"text": word * 2, "model": "bob", "scores": {"win": 1}},
            {"text": word * 3, "model": "cy", "scores": {"win": 1}},
        ],
        "cmp_results": OUTCOMES,
    }
    for word in ("one", "two", "three")
]


@pytest.fixture(autouse=True)
def rows(tmp_path, monkeypatch, ranker):
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    lines = [*map(json.dumps, ROWS), json.dumps(ROWS[0])]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))


def test_json(blend, ranker):
    result = blend("bench", "table", "rows.jsonl", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [line["method"] for line in found["lines"]] == [
        "bob", "cy", "ann", "oracle, win", "oracle, GPT-Rank", "random", "longest", "bundled"
    ]  # fmt: skip
    assert [column["key"] for column in found["columns"]] == [
        "win", "gpt_rank", "at_least_bob_ties_as_wins", "at_least_bob_ties_as_half", "at_least_cy_ties_as_wins",
        "at_least_cy_ties_as_half", "top1", "top2", "top3",
    ]  # fmt: skip
    assert found["lines"][-1] == {
        "method": "bundled", "kind": "ranker", "comparisons": 18,
        "cells": {
            "win": {"value": 1.0, "ci95": [1.0, 1.0], "rows": 3},
            "gpt_rank": {"value": 1.0, "ci95": [1.0, 1.0], "rows": 3},
            "at_least_bob_ties_as_wins": {"value": 1.0, "ci95": [1.0, 1.0], "rows": 3},
            "at_least_bob_ties_as_half": {"value": 0.5, "ci95": [0.5, 0.5], "rows": 3},
            "at_least_cy_ties_as_wins": {"value": 1.0, "ci95": [1.0, 1.0], "rows": 3},
            "at_least_cy_ties_as_half": {"value": 0.5, "ci95": [0.5, 0.5], "rows": 3},
            **{f"top{k}": {"value": 1.0, "ci95": [1.0, 1.0], "rows": 3} for k in (1, 2, 3)},
        },
    }  # fmt: skip
    assert found["census"]["counts"] == {"repeated_rows": 1}
    assert "rows.jsonl: 1 rows repeat the prompt and candidates of an earlier one" in result.stderr
    assert found["tradeoff"] == []
    assert ranker.comparisons == 18


def test_a_score_may_have_the_name_of_the_judge(blend, tmp_path):
    rows = [
        {**row, "candidates": [{**each, "scores": {"judge": len(each["text"])}} for each in row["candidates"]]}
        for row in ROWS
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = blend("bench", "table", "own.jsonl", "--ranker", "longest", "--json")
    assert result.exit_code == 0, result.stderr
    assert [(bias["method"], bias["rate"]) for bias in json.loads(result.stdout)["lengths"]] == [
        ("judge", 1.0), ("longest", 1.0), ("judge", 1.0)
    ]  # fmt: skip


def test_tables(blend):
    result = blend("bench", "table", "rows.jsonl", "--ranker", "bundled", "--models", "ann,cy")
    assert result.exit_code == 0, result.stderr
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0] == [
        "method", "win", "GPT-Rank", "≥ cy", "≥ cy, ties ½", "≥ ann", "≥ ann, ties ½", "top-1", "top-2", "top-3"
    ]  # fmt: skip
    assert lines[1][:3] == ["cy", "100.0 ±0.0", "1.00 ±0.00"]
    assert ["correlation with GPT-Rank", "rows"] in [line[:2] for line in lines]
    assert "the judge's pairwise outcomes (`cmp_results`)" in result.stderr


def test_markdown_has_the_caption(blend):
    result = blend("bench", "table", "rows.jsonl", "--score", "win", "--markdown")
    assert result.exit_code == 0, result.stderr
    caption, table, correlations = result.stdout.strip().split("\n\n")
    assert "the pairs that the score `win` implies, not from judged pairs" in caption
    assert table.startswith("| method")
    assert correlations.startswith("| correlation with GPT-Rank")


def test_comparisons_and_metrics_are_kept(blend, ranker):
    arguments = ["bench", "table", "rows.jsonl", "--metrics", "rouge1", "--comparisons", "kept.db", "--json"]
    first = blend(*arguments)
    assert first.exit_code == 0, first.stderr
    made = ranker.comparisons
    again = blend(*arguments)
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert ranker.comparisons - made <= 8  # a few recorded pairs are compared anew before they are believed
    cells = {line["method"]: line["cells"] for line in json.loads(first.stdout)["lines"]}
    assert (cells["ann"]["rouge1"]["value"], cells["bob"]["rouge1"]["value"]) == (1, 0)
    select = blend("bench", "select", "rows.jsonl", "--score", "win", "--strategy", "full", "--comparisons", "kept.db")
    assert select.exit_code == 0, select.stderr
    assert ranker.comparisons - made <= 16


def test_a_metric_that_cannot_be_had_is_named(blend):
    result = blend("bench", "table", "rows.jsonl", "--metrics", "bertscore=no/model", "--json")
    assert result.exit_code == 0, result.stderr
    assert "No model 'no/model'" in json.loads(result.stdout)["census"]["unavailable"]["bertscore"]
    assert "bertscore is unavailable" in result.stderr


def test_pictures_and_page(blend, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    result = blend("bench", "table", "rows.jsonl", "--plot", "plots", "--html", "page.html", "--json")
    assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "plots").iterdir())) == 8
    assert "page.html drawn" in result.stderr
    assert {point["strategy"] for point in json.loads(result.stdout)["tradeoff"]} == {
        "random", "knockout", "bubble", "top_k", "single", "full", "active"
    }  # fmt: skip


@pytest.mark.parametrize("option", [["--plot", "plots"], ["--html", "page.html"]])
def test_without_matplotlib_no_work_is_begun(blend, ranker, monkeypatch, option):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = blend("bench", "table", "rows.jsonl", *option)
    assert result.exit_code == 2
    assert "pip install 'llm-blender[plot]'" in result.stderr
    assert not ranker.comparisons


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "--markdown"], "Choose one"),
        (["--score", "wins"], "did you mean 'win'"),
        (["--models", "anne"], "did you mean 'ann'"),
        (["--metrics", "rougeX"], "did you mean 'rouge"),
        (["--metrics", "bleu=model"], "bleu takes no model"),
    ],
)
def test_wrong_options(blend, ranker, arguments, message):
    result = blend("bench", "table", "rows.jsonl", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not ranker.comparisons


def test_a_limit_takes_the_first_rows(blend):
    result = blend("bench", "table", "rows.jsonl", "--limit", "2", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["limit"], found["census"]["rows"]) == (2, 2)
    assert "rows.jsonl: only the first 2 rows count (--limit)" in result.stderr
