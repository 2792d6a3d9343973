from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import get_args

import pytest

from llm_blender.cli import data as module
from llm_blender.data import PAIR_CHOICES, PREFERENCE_FORMATS
from llm_blender.errors import WorkError
from llm_blender.ranking import STRATEGIES
from llm_blender.testing import FakeRanker

ROWS = [
    {
        "id": 1,
        "instruction": "Say something.",
        "input": "أهلاً 👋",
        "candidates": [
            {"text": "333", "model": "x"},
            {"text": "1", "model": "y"},
            {"text": "55555", "model": "z"},
        ],
    },
    {"instruction": [{"role": "human", "content": "Hi"}], "candidates": ["a", "bb"]},
    {"instruction": "Alone.", "candidates": ["only"]},
    {"instruction": "Twice.", "candidates": ["same", "same"]},
    {"instruction": "As long.", "candidates": ["abc", "def"]},
]
BAD = {"instruction": "No candidates."}


def read(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def preferences(blend, *args, **options):
    result = blend("data", "preferences", *args, **options)
    assert result.exit_code == 0, result.stderr
    return read(result.stdout)


def texts_of(record):
    return record["chosen"], record["rejected"]


def test_records_and_why_other_rows_have_none(blend, rows, ranker):
    result = blend("data", "preferences", rows)
    assert result.exit_code == 0, result.stderr
    first, second = read(result.stdout)
    assert list(first) == list(second)
    assert first == {
        "prompt": [{"role": "user", "content": "Say something.\nأهلاً 👋"}],
        "chosen": [{"role": "assistant", "content": "55555"}],
        "rejected": [{"role": "assistant", "content": "1"}],
        "margin": 4.0,
        "probability": pytest.approx(0.982, abs=1e-3),
        "chosen_model": "z",
        "rejected_model": "y",
        "id": "1",
    }
    assert second["prompt"] == [{"role": "user", "content": "Hi"}]
    assert (second["chosen_model"], second["id"]) == (None, None)
    assert "2 preferences from 5 rows with 10 comparisons" in result.stderr
    assert "none: 1 equal, 1 single, 1 tie" in result.stderr


def test_standard_format_is_texts(blend, rows, ranker):
    first, second = preferences(blend, rows, "--format", "standard")
    assert (first["prompt"], *texts_of(first)) == ("Say something.\nأهلاً 👋", "55555", "1")
    assert (second["prompt"], *texts_of(second)) == ("Hi", "bb", "a")


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.parquet"])
def test_the_name_says_the_format_of_the_file(blend, rows, ranker, name):
    from llm_blender.data import read_records

    assert preferences(blend, rows, "-o", name) == []
    assert [record for _, record in read_records(name)] == preferences(blend, rows)


def test_the_choice_of_pairs(blend, rows, ranker):
    def choose(choice):
        return [texts_of(record) for record in preferences(blend, rows, "--format", "standard", "--pairs", choice)]

    assert choose("best_second") == [("55555", "333"), ("bb", "a")]
    assert choose("all") == [("55555", "333"), ("55555", "1"), ("333", "1"), ("bb", "a")]
    assert choose("best_random")[0] in {("55555", "333"), ("55555", "1")}


def test_the_seed_draws(blend, rows, ranker):
    args = [rows, "--format", "standard", "--pairs", "best_random"]
    drawn = {texts_of(preferences(blend, *args, "--seed", seed)[0]) for seed in range(10)}
    assert drawn == {("55555", "333"), ("55555", "1")}
    assert preferences(blend, *args, "--seed", 3) == preferences(blend, *args, "--seed", 3)


def many(count, candidates=11):
    return [
        {"id": row, "instruction": f"Q{row}", "candidates": [chr(97 + n) * (n * 7 % 11 + 1) for n in range(candidates)]}
        for row in range(count)
    ]


class TestDirectComparison:
    @pytest.fixture
    def long_rows(self, tmp_path):
        path = tmp_path / "many.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in many(10)))
        return path

    @pytest.mark.parametrize("strategy", ["auto", "bubble", "single", "active"])
    def test_margin_is_that_of_both_orders_whatever_the_strategy(self, blend, long_rows, ranker, strategy):
        ranker.order_bias, ranker.noise = 0.5, 0.2
        records = preferences(blend, long_rows, "--format", "standard", "--strategy", strategy)
        assert len(records) == 10
        for record in records:
            comparison = ranker.compare(record["prompt"], record["chosen"], record["rejected"])
            assert record["margin"] == pytest.approx(comparison.logit, abs=1e-4)
            assert record["probability"] == pytest.approx(comparison.probability, abs=1e-4)

    def test_what_the_strategy_left_out_is_compared_for_all_rows_at_once(self, blend, long_rows, ranker):
        result = blend("data", "preferences", long_rows, "-o", "out.jsonl", "--strategy", "knockout", "--json")
        summary = json.loads(result.stdout)
        assert summary["comparisons"] == ranker.comparisons <= 10 * (20 + 2)
        assert len(ranker.batches) == 5  # four rounds of the cup, and the pairs

    def test_all_pairs_take_auto_for_full(self, blend, long_rows, ranker):
        records = preferences(blend, long_rows, "--pairs", "all")
        assert len(records) == 10 * 55
        assert (len(ranker.batches), ranker.comparisons) == (1, 10 * 110)

    def test_chunks_change_nothing(self, blend, tmp_path, ranker):
        path, lines = tmp_path / "rows.jsonl", [json.dumps(row) + "\n" for row in many(400)]

        def prefer(lines):
            path.write_text("".join(lines))
            return preferences(blend, path)

        whole = prefer(lines)  # 256 rows, and the others
        assert whole == [*prefer(lines[:200]), *prefer(lines[200:])]
        assert len(whole) == 400


def test_the_least_confidence_leaves_out_and_counts(blend, tmp_path, ranker):
    rows = [{"instruction": f"Q{n}", "candidates": ["a", "a" * (1 + n)]} for n in range(1, 5)]  # margins 1, 2, 3, 4
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = ["rows.jsonl", "-o", "out.jsonl", "--json", "--min-confidence"]
    for least, kept in ((0.5, 4), (0.8, 3), (0.9, 2), (0.99, 0)):
        summary = json.loads(blend("data", "preferences", *args, least).stdout)
        assert (summary["records"], summary["dropped"].get("unsure", 0)) == (kept, 4 - kept)
        records = read(Path("out.jsonl").read_text())
        assert len(records) == kept
        assert all(record["probability"] >= least for record in records)


def cut_rows(tmp_path):
    texts = [
        {"text": "A long answer that breaks", "finish_reason": "length"},
        {"text": "Short.", "finish_reason": "stop"},
    ]
    rows = [{"instruction": "One?", "candidates": texts}, {"instruction": "Two?", "candidates": ["Longer.", "No."]}]
    path = tmp_path / "cut.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_chosen_answers_that_were_cut_off_are_counted_or_left_out(blend, tmp_path, ranker):
    result = blend("data", "preferences", cut_rows(tmp_path), "-o", "out.jsonl", "--json")
    assert "1 chosen answer cut off at max_tokens; --whole leaves them out" in result.stderr
    assert (json.loads(result.stdout)["records"], json.loads(result.stdout)["cut_off"]) == (2, 1)
    whole = blend("data", "preferences", "cut.jsonl", "-o", "out.jsonl", "--json", "--whole")
    assert "chosen answer" not in whole.stderr
    found = json.loads(whole.stdout)
    assert (found["records"], found["cut_off"], found["dropped"]) == (1, 0, {"cut_off": 1})


def test_best_of_n_counts_what_was_cut_off(blend, tmp_path, ranker):
    result = blend("rank", cut_rows(tmp_path), "-o", "best.jsonl", "--best-of-n", "--json")
    assert "1 chosen answer cut off at max_tokens" in result.stderr
    assert json.loads(result.stdout)["cut_off"] == 1
    first, second = map(json.loads, (tmp_path / "best.jsonl").read_text().splitlines())
    assert (first["finish_reason"], "finish_reason" in second) == ("length", False)


def test_the_summary(blend, rows, ranker):
    rows.write_text("{\n" + rows.read_text())
    result = blend("data", "preferences", rows, "-o", "out.jsonl", "--json", "--skip-bad")
    summary = json.loads(result.stdout)
    assert summary.pop("seconds") >= 0
    assert summary == {
        "rows": 5,
        "skipped": 1,
        "comparisons": 10,
        "truncated": 0.0,
        "records": 2,
        "cut_off": 0,
        "dropped": {"single": 1, "equal": 1, "tie": 1},
    }
    assert f"1 bad row left out, the first: {rows}, line 1: not JSON" in result.stderr


def test_only_some_models(blend, rows, ranker):
    (record,) = preferences(blend, rows, "--models", "x,y", "--skip-bad")
    assert (record["chosen_model"], record["rejected_model"]) == ("x", "y")


class TestStoredRankings:
    @pytest.fixture
    def ranked(self, blend, rows, ranker):
        assert blend("rank", rows, "-o", "ranked.jsonl").exit_code == 0
        ranker.batches.clear()
        return "ranked.jsonl"

    def test_the_pairs_are_the_same_and_nothing_is_compared(self, blend, ranked, rows, ranker):
        records = preferences(blend, ranked, "--use-ranking")
        assert ranker.comparisons == 0
        keys = ("prompt", "chosen", "rejected", "chosen_model", "rejected_model", "id")
        direct = preferences(blend, rows)
        assert [[r[key] for key in keys] for r in records] == [[r[key] for key in keys] for r in direct]

    def test_margin_is_the_difference_of_the_scores(self, blend, ranked, ranker):
        first, _ = preferences(blend, ranked, "--use-ranking")
        scores = read(Path(ranked).read_text())[0]["ranking"]["scores"]
        assert (first["margin"], first["probability"]) == (max(scores) - min(scores), None)

    def test_sorted_rows_say_the_same(self, blend, ranked, rows, ranker):
        blend("rank", rows, "-o", "sorted.jsonl", "--sorted")
        assert preferences(blend, "sorted.jsonl", "--use-ranking") == preferences(blend, ranked, "--use-ranking")

    def test_a_row_without_is_bad(self, blend, rows, ranker):
        result = blend("data", "preferences", rows, "--use-ranking")
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{rows}, line 1: `ranking` is missing" in result.stderr

    def test_without_it_what_stands_in_the_rows_is_not_looked_at(self, blend, tmp_path, ranker):
        (tmp_path / "odd.jsonl").write_text(json.dumps({**ROWS[0], "ranking": "mine"}))
        assert len(preferences(blend, "odd.jsonl")) == 1

    @pytest.mark.parametrize(
        "options",
        [
            ["--min-confidence", "0.9"],
            ["--models", "x"],
            ["--ranker", "mine"],
            ["--strategy", "full"],
            ["--budget", "9"],
        ],
    )
    def test_what_does_not_go_together(self, blend, ranked, ranker, options):
        result = blend("data", "preferences", ranked, "--use-ranking", *options)
        assert result.exit_code == 2
        assert options[0] in result.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--pairs worst_best", "--pairs"),
        ("--format chat", "--format"),
        ("--min-confidence 0.4", "--min-confidence"),
        ("--min-confidence nan", "confidence"),
        ("--models w", "no candidate is by w"),
    ],
)
def test_wrong_options_end_with_2_before_any_work(refuse, rows, ranker, option, message):
    refuse("data", "preferences", "rows.jsonl", *option.split(), message=message)
    assert ranker.comparisons == 0


def test_a_bad_row_stops_before_any_work(blend, rows, ranker):
    rows.write_text(rows.read_text() + json.dumps(BAD))
    result = blend("data", "preferences", rows, "-o", "out.jsonl")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {rows}, line 6: `candidates` is missing")
    assert ranker.comparisons == 0
    assert [path.name for path in rows.parent.iterdir()] == ["rows.jsonl"]


def test_work_that_fails_leaves_no_file(blend, rows, ranker, monkeypatch):
    calls = []

    def fail_second(self, *args, **options):
        calls.append(args)
        if len(calls) == 2:  # the chosen pairs
            raise WorkError("The device is gone.")
        return whole(self, *args, **options)

    whole = FakeRanker.rank_many
    monkeypatch.setattr(FakeRanker, "rank_many", fail_second)
    result = blend("data", "preferences", rows, "-o", "out.jsonl", "--strategy", "single")
    assert (result.exit_code, result.stderr) == (1, "error: The device is gone.\n")
    assert [path.name for path in rows.parent.iterdir()] == ["rows.jsonl"]


def test_the_options_are_those_of_the_library(blend):
    hints = inspect.get_annotations(module.preferences, eval_str=True)
    assert get_args(get_args(hints["pairs"])[0]) == PAIR_CHOICES
    assert get_args(get_args(hints["format"])[0]) == PREFERENCE_FORMATS
    text = blend("data", "preferences", "--help").stdout
    assert all(strategy in text for strategy in STRATEGIES)
