from __future__ import annotations

import json
from pathlib import Path

ROW = {
    "instruction": "Why?",
    "output": "Because.",
    "candidates": [{"model": "a", "text": "x", "scores": {"bleu": 2}}, {"model": "b", "text": "y"}],
    "cmp_results": '{"a,b": "Same good"}',
}


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
