from __future__ import annotations

import json
from pathlib import Path

ROW = {
    "instruction": "Why?",
    "output": "Because.",
    "candidates": [{"model": "a", "text": "x", "scores": {"bleu": 2}}, {"model": "b", "text": "y"}],
    "cmp_results": '{"a,b": "Same good"}',
}
SAYS_X, SAYS_Y = ({"role": "assistant", "content": text} for text in "xy")


def write(*rows):
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_rows_hold(blend):
    write(ROW, {**ROW, "instruction": "How?", "cmp_results": None})
    result = blend("data", "check", "rows.jsonl")
    assert result.exit_code == 0
    table = dict(line.split("\t") for line in result.stdout.splitlines())
    assert (table["rows"], table["judged"], table["Same good"]) == ("2", "1", "1")
    assert (table["candidates by a"], table["candidates with bleu"]) == ("2", "2")
    assert json.loads(blend("data", "check", "rows.jsonl", "--json").stdout)["outcomes"] == {"Same good": 1}


def test_wrong_rows_are_named_and_end_with_2(blend):
    write(ROW, *[{**ROW, "cmp_results": "{"}] * 12)
    result = blend("data", "check", "rows.jsonl", "--json")
    assert result.exit_code == 2
    assert "rows.jsonl, line 2: `cmp_results` is a text but no JSON" in result.stderr
    assert "and 2 more malformed rows" in result.stderr
    assert "12 of 13 rows of rows.jsonl are malformed" in result.stderr
    assert json.loads(result.stdout)["rows"] == 1


def test_no_such_file(blend):
    result = blend("data", "check", "none.jsonl")
    assert result.exit_code == 2
    assert "There is no file none.jsonl" in result.stderr


def test_each_row_that_a_command_reads_is_counted_for_it(blend):
    write(
        {"instruction": "Why?", "candidates": [{"model": "a", "text": "x"}, "y"]},
        {"prompt": "How?", "candidates": ["x", "y"], "pairs": [{"a": 0, "b": 1, "label": "a"}]},
        {"prompt": "Who?", "chosen": "x", "rejected": "y"},
        {"chosen": [{"role": "user", "content": "Q"}, SAYS_X], "rejected": [{"role": "user", "content": "Q"}, SAYS_Y]},
        {"messages": [{"role": "user", "content": "Where?"}]},
        {"instruction": "When?", "candidates": [{"text": "x", "scores": {"s": 1}}, {"text": "y", "scores": {"s": 2}}]},
        {"instruction": "Whom?", "candidates": [{"text": "x", "scores": {"s": 1}}, {"text": "y", "scores": {"s": 1}}]},
        ROW,
    )
    result = blend("data", "check", "rows.jsonl", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["rows"], report["bad"], report["candidates"]) == (8, 0, 10)
    assert report["serves"] == {
        "run, data build": 6,
        "rank, fuse, data preferences": 5,
        "train ranker, bench pairs": 5,  # preferences are read as pairs, and scores that differ imply them
        "data import": 2,
        "bench, priors": 1,
    }
    assert "rows for data import\t2" in blend("data", "check", "rows.jsonl").stdout


def test_a_preference_or_a_prompt_that_cannot_be_read(blend):
    write({"prompt": "Q", "chosen": "x", "rejected": 5}, {"x": 1})
    result = blend("data", "check", "rows.jsonl", "--json")
    assert result.exit_code == 2
    assert "line 1: `rejected` must be a text" in result.stderr
    assert "line 2: there is no prompt" in result.stderr


def test_an_empty_file(blend):
    write()
    result = blend("data", "check", "rows.jsonl")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "rows.jsonl holds no row" in result.stderr
