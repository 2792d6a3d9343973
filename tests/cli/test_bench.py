from __future__ import annotations

import importlib.util
import json

import pytest

from llm_blender.testing import FakeOpenAIServer, FakeReply

ROWS = [
    {
        "instruction": f"Say {word}.",
        "candidates": [
            {"text": word, "model": "ann", "scores": {"win": 0, "stars": 2}},
            {"text": word * 2, "model": "bob", "scores": {"win": 1, "stars": 3}},
            {"text": word * 3, "model": "cy", "scores": {"win": 1, "stars": 9}},
        ],
        "pairs": [{"a": 0, "b": 1, "label": "b"}, {"a": 2, "b": 1, "label": "b"}, {"a": 0, "b": 2, "label": "tie"}],
    }
    for word in ("one", "two", "three")
]


@pytest.fixture(autouse=True)
def rows(tmp_path, ranker):
    lines = [json.dumps(row) for row in ROWS]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    (tmp_path / "train.jsonl").write_text(lines[0])


def test_pairs_json(blend):
    result = blend("bench", "pairs", "rows.jsonl", "train.jsonl", "--json")
    assert result.exit_code == 0, result.stderr
    ours, random, longest, first, *others = json.loads(result.stdout)
    bins = ours.pop("bins")
    assert ours == {
        "file": "rows.jsonl", "subset": None, "method": "bundled", "pairs": 6, "ties": 3, "accuracy": 0.5,
        "ci95": [0.5, 0.5], "with_ties": 0.5, "undecided": 0.0, "longest": 0.5, "prefers_longer": 1.0,
        "flip_rate": 0.0, "ece": pytest.approx(0.466, abs=1e-3), "brier": pytest.approx(0.468, abs=1e-3),
        "brier_base_rate": 0.0, "versus": None,
    }  # fmt: skip
    assert [(part["pairs"], part["accuracy"]) for part in bins] == [(4, 0.5), (2, 0.5)]
    assert [row["method"] for row in (random, longest, first)] == ["random", "longest", "first"]
    assert first["versus"] == {"method": "bundled", "accuracy": -0.5, "ci95": [-0.5, -0.5]}
    assert {row["file"] for row in others} == {"train.jsonl"}


def test_pairs_by_subset(blend, tmp_path, ranker):
    rows = [{**row, "meta": {"part": f"part {i % 2}"}} for i, row in enumerate(ROWS)]
    (tmp_path / "parts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for more, pairs in (([], [6, 4, 2]), (["--score", "win"], [6, 4, 2])):
        result = blend("bench", "pairs", "parts.jsonl", "--by", "part", "--json", *more)
        assert result.exit_code == 0, result.stderr
        ours = [row for row in json.loads(result.stdout) if row["method"] == "bundled"]
        assert [row["subset"] for row in ours] == [None, "part 0", "part 1"]
        assert [row["pairs"] for row in ours] == pairs
    assert ranker.comparisons == 2 * (2 * 6)
    table = blend("bench", "pairs", "parts.jsonl", "--by", "meta.part").stdout.splitlines()
    assert [line.split("\t")[1] for line in table[1::5]] == ["(all)", "part 0", "part 1"]


def test_pairs_drawn(blend, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    result = blend("bench", "pairs", "rows.jsonl", "train.jsonl", "--plot", "plots", "--json")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "agreement.png", "agreement.svg", "reliability.png", "reliability.svg"
    ]  # fmt: skip
    assert "plots/reliability.svg" in result.stderr
    json.loads(result.stdout)


def test_without_matplotlib_no_work_is_begun(blend, ranker, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = blend("bench", "pairs", "rows.jsonl", "--plot", "plots")
    assert result.exit_code == 2
    assert "pip install 'llm-blender[plot]'" in result.stderr
    assert not ranker.comparisons


def test_pairs_implied_by_a_score(blend, ranker):
    result = blend("bench", "pairs", "rows.jsonl", "--score", "win", "--models", "ann,cy", "--json")
    ours = json.loads(result.stdout)[0]
    assert (ours["pairs"], ours["ties"], ours["accuracy"]) == (3, 0, 1)
    assert ranker.comparisons == 2 * 3


def test_select_json(blend, ranker):
    args = ["rows.jsonl", "--score", "win", "--models", "ann, bob", "--strategy", "full", "--strategy", "knockout"]
    result = blend("bench", "select", *args, "--choose-on", "train.jsonl", "--json")
    assert result.exit_code == 0, result.stderr
    found = {row["method"]: row for row in json.loads(result.stdout)}
    assert list(found) == [
        "bundled, full", "bundled, knockout", "random", "longest", "consensus", "first",
        "best single: bob", "best in hindsight: bob", "oracle",
    ]  # fmt: skip
    assert found["bundled, full"] == {
        "method": "bundled, full", "rows": 3, "quality": 1.0, "ci95": [1.0, 1.0], "vs_random_ci95": [0.5, 0.5],
        "comparisons": 6, "vs_single": 0.0, "vs_single_ci95": [0.0, 0.0],
    }  # fmt: skip
    assert found["random"]["vs_random_ci95"] is None


@pytest.mark.parametrize(("score", "oracle"), [("win", "100.0"), ("stars", "9.000")])
def test_tables_show_percent_where_the_scores_are_shares(blend, score, oracle):
    table = blend("bench", "select", "rows.jsonl", "--score", score).stdout.splitlines()
    assert table[0].split("\t") == ["method", "rows", "quality", "95 %", "against random, 95 %", "comparisons"]
    assert table[-1].split("\t")[:3] == ["oracle", "3", oracle]


def test_markdown(blend):
    table = blend("bench", "pairs", "rows.jsonl", "--markdown").stdout.splitlines()
    assert table[0].startswith("| file       | method  | pairs |")
    assert len(table) == 2 + 5
    assert len({len(line) for line in table}) == 1


def test_comparisons_are_kept_for_the_other_bench(blend, ranker):
    assert blend("bench", "select", "rows.jsonl", "--score", "win", "--comparisons", "kept.db").exit_code == 0
    made = ranker.comparisons
    assert made == 3 * 6
    assert blend("bench", "pairs", "rows.jsonl", "--comparisons", "kept.db").exit_code == 0
    assert ranker.comparisons - made <= 2 * 4  # probes only


def test_several_rankers(blend):
    result = blend("bench", "pairs", "rows.jsonl", "--ranker", "one", "--ranker", "two", "--json")
    one, two, *_ = json.loads(result.stdout)
    assert (one["method"], two["method"]) == ("one", "two")
    assert two["versus"] == {"method": "one", "accuracy": 0.0, "ci95": [0.0, 0.0]}


def test_a_baseline_that_is_named_is_what_others_are_compared_with(blend):
    result = blend("bench", "pairs", "rows.jsonl", "--ranker", "longest", "--ranker", "bundled", "--json")
    longest, bundled, random, first = json.loads(result.stdout)
    assert [row["method"] for row in (longest, bundled, random, first)] == ["longest", "bundled", "random", "first"]
    assert longest["versus"] is None
    assert bundled["versus"]["method"] == random["versus"]["method"] == "longest"


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """Start a server whose LLM prefers the first answer, or replies without a verdict."""
    monkeypatch.setenv("LLM_BLENDER_STORE", str(tmp_path / "store.db"))
    with FakeOpenAIServer([FakeReply("A")] * 3 + [FakeReply("I am only a fake.")]) as server:
        config = f'[[llm]]\nname = "fake"\nprovider = "openai"\nbase_url = "{server.base_url}"\nmodel = "fake"\n'
        (tmp_path / "blend.toml").write_text(config)
        yield server


@pytest.mark.parametrize("command", [["pairs", "train.jsonl"], ["select", "train.jsonl", "--score", "win"]])
def test_an_llm_of_the_configuration_judges(blend, judge, command):
    for made in (2, 1):
        result = blend("bench", *command, "--ranker", "judge:fake", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)[0]["method"].startswith("judge:fake")
        calls = len(judge.requests)
        expected = f"judge:fake: {calls:,} calls, 0 found" if made == 2 else f"judge:fake: 0 calls, {calls:,} found"
        assert expected in result.stderr
        assert "held no verdict and count as ties, such as 'I am only a fake.'" in result.stderr


def test_an_llm_that_the_configuration_does_not_name(blend, judge):
    result = blend("bench", "pairs", "rows.jsonl", "--ranker", "judge:fale")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Unknown LLM 'fale': did you mean 'fake'?" in result.stderr
    assert (
        "no configuration file"
        in blend("bench", "pairs", "rows.jsonl", "--ranker", "judge:fake", "--config", "x").stderr
    )


def test_rows_from_standard_input(blend):
    result = blend("bench", "pairs", "-", "--json", stdin=json.dumps(ROWS[0]))
    assert json.loads(result.stdout)[0]["file"] == "-"


def test_incomplete_rows_are_told_or_left_out(blend, tmp_path):
    ragged = {**ROWS[0], "candidates": ROWS[0]["candidates"][:2], "pairs": []}
    (tmp_path / "ragged.jsonl").write_text("\n".join(map(json.dumps, [ragged, ROWS[1]])))
    args = ["bench", "select", "ragged.jsonl", "--score", "win", "--models", "ann,bob,cy", "--json"]
    result = blend(*args)
    assert "in 1 of 2 rows" in result.stderr
    assert json.loads(result.stdout)[0]["rows"] == 2
    assert json.loads(blend(*args, "--complete").stdout)[0]["rows"] == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["pairs", "none.jsonl"], "There is no file none.jsonl"),
        (["pairs", "rows.jsonl", "--models", "ann"], "name one with --score"),
        (["pairs", "rows.jsonl", "--by", "part"], "Unknown key 'part'"),
        (["pairs", "rows.jsonl", "--score", "won"], "Unknown score 'won': did you mean 'win'?"),
        (["select", "rows.jsonl", "--score", "win", "--models", "ann,bop"], "Unknown model 'bop': did you mean 'bob'?"),
        (
            ["select", "rows.jsonl", "--score", "win", "--strategy", "ful"],
            "Unknown strategy 'ful': did you mean 'full'?",
        ),
        (["select", "rows.jsonl", "--score", "win", "--complete"], "--models"),
        (["select", "rows.jsonl", "--score", "win", "--choose-on", "none.jsonl"], "There is no file none.jsonl"),
        (["pairs", "rows.jsonl", "--comparisons", "no/folder.db"], "cannot keep comparisons"),
        (["pairs", "rows.jsonl", "--json", "--markdown"], "one of --json and --markdown"),
    ],
)
def test_wrong_input(blend, ranker, args, message):
    result = blend("bench", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not ranker.comparisons


def test_no_pairs(blend, tmp_path):
    (tmp_path / "bare.jsonl").write_text(json.dumps({**ROWS[0], "pairs": []}))
    result = blend("bench", "pairs", "rows.jsonl", "bare.jsonl")
    assert result.exit_code == 2
    assert "bare.jsonl holds no labelled pairs" in result.stderr


@pytest.mark.parametrize("command", [["pairs"], ["pairs", "--score", "win"], ["select", "--score", "win"]])
def test_a_limit_takes_the_first_rows(blend, command):
    name, *more = command
    result = blend("bench", name, "rows.jsonl", *more, "--limit", "2", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert {line["limit"] for line in found} == {2}
    assert found[0]["pairs" if name == "pairs" else "rows"] == (2 if name == "select" else 4)
    assert "rows.jsonl: only the first 2 rows count (--limit)" in result.stderr
    assert all("limit" not in line for line in json.loads(blend("bench", name, "rows.jsonl", *more, "--json").stdout))
    assert blend("bench", name, "rows.jsonl", *more, "--limit", "0").exit_code == 2
