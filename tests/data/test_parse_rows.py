from __future__ import annotations

import json

import pytest

from llm_blender.data import keep_candidates, parse_row, parse_rows, read_rows
from llm_blender.errors import RowError


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"n": n}) + "\n" for n in (1, -1, 3)))
    return file


def positive(record):
    if record["n"] < 0:
        raise ValueError("n is negative")
    return record["n"]


def test_a_parser_of_ones_own(path):
    bad = []
    assert list(parse_rows(path, positive, on_bad=bad.append)) == [1, 3]
    assert [str(error) for error in bad] == [f"{path}, line 2: n is negative"]
    with pytest.raises(RowError, match="line 2: n is negative"):
        list(parse_rows(path, positive))


def test_messages_are_checked_with_the_row(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"instruction": [{"role": "wizard", "content": "x"}], "candidates": ["a"]}))
    with pytest.raises(RowError, match="unknown role 'wizard'"):
        list(read_rows(file))


@pytest.mark.parametrize("text", ["\\ud83d", "\\uDE42 alone", "\\ude42\\ud83d"])
def test_half_a_character_is_refused(tmp_path, text):
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"instruction": "Q", "candidates": [], "extra": ["{text}"]}}')
    with pytest.raises(RowError, match="surrogate"):
        list(read_rows(file))


def test_a_whole_surrogate_pair_is_a_character(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"instruction": "\\ud83d\\ude42", "candidates": []}')
    assert next(read_rows(file)).instruction == "🙂"


def test_kept_candidates_keep_their_pairs():
    row = {
        "instruction": "Q",
        "candidates": ["a", "b", "c"],
        "pairs": [{"a": 2, "b": 0, "label": "a", "by": "me"}, {"a": 0, "b": 1, "label": "b"}],
        "own": 1,
    }
    kept = keep_candidates(row, [0, 2])
    assert kept == {**row, "candidates": ["a", "c"], "pairs": [{"a": 1, "b": 0, "label": "a", "by": "me"}]}
    assert parse_row(kept).pairs[0].a == 1
    assert keep_candidates({"candidates": ["a", "b"]}, [1]) == {"candidates": ["b"]}
