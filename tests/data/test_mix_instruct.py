from __future__ import annotations

import json
import subprocess
import sys

import pytest

from llm_blender.data import parse_mix_instruct_row, read_mix_instruct, report_rows
from llm_blender.errors import InputError, RowError
from llm_blender.types import LabelledPair

RESULTS = {"ann,bob": "A is better", "cy,ann": "Same good", "bob,cy": "Same bad"}
ROW = {
    "id": "dolly_15k/qa/1",
    "instruction": "Why is the sky blue?",
    "input": "",
    "output": "Air scatters blue light most.",
    "candidates": [
        {"decoding_method": "top_p_sampling", "model": model, "text": f"by {model}", "scores": {"bleu": 1.5}}
        for model in ("ann", "bob", "cy")
    ],
    "cmp_results": RESULTS,
}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("spelling", [RESULTS, json.dumps(RESULTS)])
def test_both_spellings_of_cmp_results(spelling):
    row = parse_mix_instruct_row({**ROW, "cmp_results": spelling})
    assert row.extra["cmp_results"] == RESULTS
    assert row.pairs == (
        LabelledPair(0, 1, "a", "cmp_results"),
        LabelledPair(0, 2, "tie", "cmp_results"),
        LabelledPair(1, 2, "tie", "cmp_results"),
    )
    assert row.candidates[2].scores == {"bleu": 1.5}
    assert (row.reference, row.id) == (ROW["output"], ROW["id"])


@pytest.mark.parametrize("nothing", [None, "", "null", {}, "{}"])
def test_a_row_that_was_not_judged(nothing):
    row = parse_mix_instruct_row({**ROW, "cmp_results": nothing})
    assert (row.pairs, row.extra["cmp_results"]) == ((), {})


def test_pairs_that_a_row_of_parquet_does_not_have():
    row = parse_mix_instruct_row({**ROW, "cmp_results": {**RESULTS, "ann,dan": None}})
    assert row.extra["cmp_results"] == RESULTS


def test_a_row_without_the_key():
    row = parse_mix_instruct_row({key: value for key, value in ROW.items() if key != "cmp_results"})
    assert (row.pairs, row.extra) == ((), {})


@pytest.mark.parametrize(
    ("results", "label"),
    [
        ({"ann,bob": "A is better", "bob,ann": "B is better"}, "a"),
        ({"ann,bob": "A is better", "bob,ann": "A is better"}, "tie"),
        ({"ann,bob": "Same bad", "bob,ann": "A is better"}, "b"),
    ],
)
def test_a_pair_in_both_orders_is_one(results, label):
    assert parse_mix_instruct_row({**ROW, "cmp_results": results}).pairs == (LabelledPair(0, 1, label, "cmp_results"),)


def test_pairs_of_the_row_itself_go_first():
    pairs = [{"a": 1, "b": 0, "label": "a", "by": "me"}]
    assert parse_mix_instruct_row({**ROW, "pairs": pairs}).pairs == (LabelledPair(1, 0, "a", "me"),)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cmp_results": "{"}, "is a text but no JSON"),
        ({"cmp_results": "[1]"}, "must hold outcomes by pair of LLMs, not list"),
        ({"cmp_results": {"ann,dan": "A is better"}}, "'ann,dan' does not name two candidates"),
        ({"cmp_results": {"ann,ann": "A is better"}}, "compares a candidate with itself"),
        ({"cmp_results": {"ann,bob": "C is better"}}, "outcome of 'ann,bob' is 'C is better'"),
        ({"cmp_results": {"ann,bob": 1}}, "outcome of 'ann,bob' is 1"),
        ({"candidates": [{"text": "x"}, {"text": "y", "model": "a"}]}, "candidate 0 has no `model`"),
        ({"candidates": [{"text": "x", "model": "a"}] * 2}, "2 candidates are by 'a'"),
        ({"candidates": None}, "`candidates` is missing"),
        ({"instruction": None}, "`instruction` is missing"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path, change, reason):
    path = write(tmp_path / "rows.jsonl", [ROW, {**ROW, **change}, ROW])
    with pytest.raises(RowError, match=r"rows\.jsonl, line 2: ") as error:
        list(read_mix_instruct(path))
    assert reason in str(error.value)
    bad = []
    assert len(list(read_mix_instruct(path, on_bad=bad.append))) == 2
    assert [each.line for each in bad] == [2]


def test_a_file_has_no_splits(tmp_path):
    with pytest.raises(InputError, match="has no splits"):
        list(read_mix_instruct(write(tmp_path / "rows.jsonl", [ROW]), "test"))


def test_a_report_counts_what_is_missing(tmp_path):
    rows = [
        ROW,
        {**ROW, "instruction": "why is  the sky BLUE?", "cmp_results": json.dumps({"ann,bob": "Same bad"})},
        {**ROW, "instruction": "Else?", "candidates": ROW["candidates"][:2], "cmp_results": None, "output": " "},
        {**ROW, "instruction": "Bad?", "cmp_results": "{"},
    ]
    rows[2]["candidates"] = [{"model": "ann", "text": "x"}, {"model": "bob", "text": "y", "scores": {"bleu": None}}]
    bad = []
    report = report_rows(read_mix_instruct(write(tmp_path / "r.jsonl", rows), on_bad=bad.append), bad)
    assert report.to_dict() == {
        "rows": 3,
        "bad": 1,
        "first_bad": str(bad[0]),
        "duplicates": 1,
        "models": {"ann": 3, "bob": 3, "cy": 2},
        "incomplete": 1,
        "without_reference": 1,
        "judged": 2,
        "pairs": 4,
        "outcomes": {"Same bad": 2, "A is better": 1, "Same good": 1},
        "scores": {"bleu": 6},
        "candidates": 8,
        "serves": {
            "run, data build": 3,
            "rank, fuse, data preferences": 3,
            "train ranker, bench pairs": 2,
            "bench, priors": 3,
        },
    }


_MEMORY = """
import resource, sys
from llm_blender.data import read_mix_instruct, report_rows
next(read_mix_instruct(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = report_rows(read_mix_instruct(sys.argv[1]), [])
print(report.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_reading_needs_little_memory(tmp_path):
    long = {**ROW, "candidates": [{**candidate, "text": "word " * 2000} for candidate in ROW["candidates"]]}
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        for i in range(2000):
            file.write(json.dumps({**long, "instruction": f"Question {i}?"}) + "\n")
    assert path.stat().st_size > 50e6
    run = subprocess.run([sys.executable, "-c", _MEMORY, str(path)], capture_output=True, text=True, check=True)
    rows, kilobytes = map(int, run.stdout.split())
    assert rows == 2000
    assert kilobytes < 10_000
