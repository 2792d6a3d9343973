from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import pytest
import zstandard

from llm_blender.cli._options import StrategyOptions
from llm_blender.errors import WorkError
from llm_blender.ranking import DEFAULT_BUDGET, STRATEGIES, Priors
from llm_blender.testing import FakeRanker

ROWS = [
    {
        "id": "a",
        "instruction": "Say something.",
        "input": "أهلاً 👋",
        "candidates": [{"text": "ok", "model": "x", "scores": {"judge": 0.1}}, {"text": "a longer one", "model": "y"}],
        "pairs": [{"a": 0, "b": 1, "label": "b", "by": "judge"}],
        "mine": {"kept": [1, None, "שלום"]},
    },
    {"instruction": [{"role": "user", "content": "Hi"}], "candidates": ["three", "is", "ragged"]},
    {"instruction": "Alone.", "candidates": ["only"], "output": "only"},
]
BAD = {"instruction": "No candidates."}


def read(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "rows.jsonl")


def test_each_row_comes_out_with_all_its_keys_and_its_ranking(blend, rows, ranker):
    result = blend("rank", rows)
    assert result.exit_code == 0, result.stderr
    out = read(result.stdout)
    assert [{key: value for key, value in row.items() if key != "ranking"} for row in out] == ROWS
    assert out[0]["ranking"] == {
        "best": 1,
        "ranks": [2, 1],
        "scores": [-10.0, 10.0],
        "strategy": "full",
        "comparisons": 2,
        "lead": pytest.approx(1, abs=1e-4),
    }
    assert [row["ranking"]["best"] for row in out] == [1, 2, 0]
    assert out[2]["ranking"]["comparisons"] == 0
    assert "3 rows ranked with 8 comparisons" in result.stderr


def test_the_prompt_holds_instruction_and_input(blend, rows, ranker):
    blend("rank", rows)
    prompts = {instruction for batch in ranker.batches for instruction, _, _ in batch}
    assert prompts == {"Say something.\nأهلاً 👋", "Hi"}


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.parquet", "out.csv"])
def test_the_name_says_the_format(blend, tmp_path, rows, ranker, name):
    plain = [{"instruction": "Q", "candidates": ["a", "bb"]}]
    (tmp_path / "plain.jsonl").write_text(json.dumps(plain[0]))
    assert blend("rank", "plain.jsonl", "-o", name).exit_code == 0
    again = blend("rank", name)  # what was written can be read
    assert [row["ranking"]["best"] for row in read(again.stdout)] == [1]


def test_standard_input(blend, rows, ranker):
    assert blend("rank", "-", stdin=rows.read_bytes()).stdout == blend("rank", rows).stdout


def test_compressed_input(blend, tmp_path, rows, ranker):
    expected = blend("rank", rows).stdout
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows.read_bytes()))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(rows.read_bytes()))
    assert blend("rank", "a.jsonl.gz").stdout == expected
    assert blend("rank", "a.jsonl.zst").stdout == expected


def test_json_is_a_summary_when_the_rows_go_to_a_file(blend, rows, ranker):
    result = blend("rank", rows, "-o", "out.jsonl", "--json")
    summary = json.loads(result.stdout)
    assert summary.pop("seconds") >= 0
    assert summary == {"rows": 3, "skipped": 0, "resumed": 0, "failed": 0, "comparisons": 8, "truncated": 0.0}


def test_json_leaves_the_rows_alone_on_standard_output(blend, rows, ranker):
    assert blend("rank", rows, "--json").stdout == blend("rank", rows).stdout


def test_strategy_budget_and_seed_reach_the_ranker(blend, tmp_path, ranker):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": "Q", "candidates": ["a" * n for n in range(6)]}))
    for options, strategy, comparisons in (
        (["--strategy", "bubble"], "bubble", 10),
        (["--budget", "10", "--best-of-n"], "knockout", 10),
        (["--budget", "18"], "top_k", 16),
        (["--budget", "30"], "full", 30),
        (["--strategy", "active", "--budget", "12", "--seed", "3"], "active", 12),
    ):
        (row,) = read(blend("rank", "rows.jsonl", *options).stdout)
        assert (row["ranking"]["strategy"], row["ranking"]["comparisons"]) == (strategy, comparisons)


def test_200_candidates_are_not_all_compared(blend, tmp_path, ranker):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": "Q", "candidates": ["a" * n for n in range(200)]}))
    (row,) = read(blend("rank", "rows.jsonl", "--best-of-n").stdout)
    assert (row["ranking"]["strategy"], row["ranking"]["comparisons"]) == ("knockout", 398)
    (row,) = read(blend("rank", "rows.jsonl").stdout)
    assert row["ranking"]["strategy"] == "top_k"
    assert row["ranking"]["best"] == 199


def test_more_rows_than_a_chunk_keep_their_order(blend, tmp_path, ranker):
    rows = [{"id": i, "instruction": f"Q{i}", "candidates": ["a", "b" * (i % 5)]} for i in range(1_000)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["id"] for row in read(blend("rank", "rows.jsonl").stdout)] == list(range(1_000))
    assert len(ranker.batches) == 16  # 64 rows each, but the last


@pytest.mark.parametrize("command", ["rank", "fuse", "data preferences", "run"])
@pytest.mark.parametrize("text", ["", " \n\n", "[]"])
def test_an_empty_file_is_an_error(blend, tmp_path, ranker, command, text):
    (tmp_path / "rows.json").write_text(text)
    result = blend(*command.split(), "rows.json", "-o", "out.jsonl")
    assert (result.exit_code, (tmp_path / "out.jsonl").exists()) == (2, False)
    assert "rows.json holds no " in result.stderr


TOOLS = [
    {"role": "user", "content": [{"type": "text", "text": "Q"}]},
    {"role": "tool", "name": "f", "content": "42"},
]


def test_a_prompt_under_each_of_its_names_and_a_json_list(blend, tmp_path, ranker):
    rows = [
        {"prompt": "One?", "candidates": ["a", "bb"]},
        {"question": "Two?", "candidates": ["a", "bb"]},
        {"messages": TOOLS, "candidates": ["a", "bb"]},
        {"instruction": "Four?", "prompt": "a template", "candidates": ["a", "bb"]},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
    assert blend("rank", "rows.json", "-o", "out.jsonl").exit_code == 0
    read = list(dict.fromkeys(prompt for batch in ranker.batches for prompt, *_ in batch))
    assert read == ["One?", "Two?", "User: Q\n\nUser: Result of a tool: 42", "Four?"]
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row.pop("ranking")["best"] for row in written] == [1] * 4
    assert written == rows
    assert blend("rank", "rows.json", "-o", "best.jsonl", "--best-of-n").exit_code == 0
    best = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text().splitlines()]
    assert [next(iter(row)) for row in best] == ["prompt", "question", "messages", "instruction"]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("rows.json", '[{"prompt": 5, "candidates": ["a"]}]', "rows.json, row 1: `prompt` must be a text or a list"),
        ("rows.json", '[{"prompt": " ", "candidates": ["a"]}]', "row 1: `prompt` is empty"),
        ("rows.json", '[{"prompt": "a"}]', "row 1: `candidates` is missing"),
        ("rows.json", '[{"prompt": "a"', "rows.json is not JSON"),
        ("rows.csv", "prompt,answer\nQ,a\n", "rows.csv, line 2: `candidates` is missing"),
        ("rows.txt", "One?\n", "rows.txt, line 1: `candidates` is missing"),
    ],
)
def test_other_forms_name_what_is_wrong(blend, tmp_path, ranker, name, text, error):
    (tmp_path / name).write_text(text)
    result = blend("rank", name, "-o", "out.jsonl")
    assert result.exit_code == 2
    assert error in result.stderr
    assert "`instruction`" not in result.stderr


LABELLED = {
    "id": "a",
    "instruction": "Say something.",
    "input": "Softly.",
    "output": "a reference",
    "candidates": [
        {"text": "333", "model": "x", "scores": {"judge": 0.3}},
        {"text": "1", "model": "y"},
        "55555",
        {"text": "4444", "model": "z"},
    ],
    "pairs": [{"a": 0, "b": 1, "label": "a", "by": "judge"}, {"a": 3, "b": 2, "label": "b"}],
    "mine": 1,
}


class TestSorted:
    def test_candidates_and_all_that_refers_to_them_follow(self, blend, tmp_path, ranker):
        (tmp_path / "rows.jsonl").write_text(json.dumps(LABELLED))
        (plain,) = read(blend("rank", "rows.jsonl").stdout)
        (row,) = read(blend("rank", "rows.jsonl", "--sorted").stdout)
        assert row["candidates"] == [LABELLED["candidates"][i] for i in (2, 3, 0, 1)]
        assert row["pairs"] == [{"a": 2, "b": 3, "label": "a", "by": "judge"}, {"a": 1, "b": 0, "label": "b"}]
        assert row["ranking"] == {
            **plain["ranking"],
            "best": 0,
            "ranks": [1, 2, 3, 4],
            "scores": sorted(plain["ranking"]["scores"], reverse=True),
        }
        for key in ("id", "instruction", "input", "output", "mine"):
            assert row[key] == LABELLED[key]

    def test_a_permutation_that_is_not_its_own_inverse(self, blend, tmp_path, ranker):
        row = {"instruction": "Q", "candidates": ["22", "1", "333"], "pairs": [{"a": 0, "b": 2, "label": "b"}]}
        (tmp_path / "rows.jsonl").write_text(json.dumps(row))
        (out,) = read(blend("rank", "rows.jsonl", "--sorted").stdout)
        assert out["candidates"] == ["333", "22", "1"]
        assert out["pairs"] == [{"a": 1, "b": 0, "label": "b"}]

    def test_ties_share_their_rank(self, blend, tmp_path, ranker):
        (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": "Q", "candidates": ["1", "22", "2", "aa"]}))
        (out,) = read(blend("rank", "rows.jsonl", "--sorted").stdout)
        assert out["candidates"] == ["22", "aa", "1", "2"]
        assert out["ranking"]["ranks"] == [1, 1, 3, 3]

    def test_of_only_some_models(self, blend, tmp_path, ranker):
        (tmp_path / "rows.jsonl").write_text(json.dumps(LABELLED))
        (out,) = read(blend("rank", "rows.jsonl", "--sorted", "--models", "x,y,z").stdout)
        assert [candidate["model"] for candidate in out["candidates"]] == ["z", "x", "y"]
        assert out["pairs"] == [{"a": 1, "b": 2, "label": "a", "by": "judge"}]


class TestBestOfN:
    def test_the_best_is_the_output(self, blend, tmp_path, ranker):
        better = [{"text": "another, longer one", "model": "w"}, *LABELLED["candidates"]]
        rows = [LABELLED, {**LABELLED, "candidates": better, "pairs": []}, {"instruction": "Q", "candidates": ["a"]}]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rankings = [row["ranking"] for row in read(blend("rank", "rows.jsonl").stdout)]
        kept = {key: LABELLED[key] for key in ("id", "instruction", "input")}
        assert read(blend("rank", "rows.jsonl", "--best-of-n").stdout) == [
            {**kept, "output": "55555", "ranking": rankings[0]},
            {**kept, "output": "another, longer one", "model": "w", "ranking": rankings[1]},
            {"instruction": "Q", "output": "a", "ranking": rankings[2]},
        ]

    def test_a_conversation_stays_one(self, blend, rows, ranker):
        out = read(blend("rank", rows, "--best-of-n").stdout)
        assert (out[1]["instruction"], out[1]["output"]) == (ROWS[1]["instruction"], "ragged")

    def test_one_of_both(self, blend, rows, ranker):
        result = blend("rank", rows, "--best-of-n", "--sorted")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Choose one of --sorted and --best-of-n" in result.stderr


class TestModels:
    def test_others_leave_the_row_and_indices_fit(self, blend, tmp_path, ranker):
        row = {
            "instruction": "Q",
            "candidates": [{"text": "t" * (4 - i), "model": model} for i, model in enumerate("xyzy")],
            "pairs": [{"a": 0, "b": 1, "label": "a"}, {"a": 3, "b": 2, "label": "tie"}],
        }
        (tmp_path / "rows.jsonl").write_text(json.dumps(row))
        (out,) = read(blend("rank", "rows.jsonl", "--models", "z, y").stdout)
        assert [candidate["model"] for candidate in out["candidates"]] == ["y", "z", "y"]
        assert out["pairs"] == [{"a": 2, "b": 1, "label": "tie"}]
        assert out["ranking"]["best"] == 0

    def test_a_row_without_them_is_bad(self, blend, rows, ranker):
        result = blend("rank", rows, "--models", "x")
        assert result.exit_code == 2
        assert f"{rows}, line 2: no candidate is by x" in result.stderr
        assert blend("rank", rows, "--models", "x", "--skip-bad").exit_code == 0

    def test_a_name_that_nobody_bears_is_refused(self, blend, rows, ranker):
        result = blend("rank", rows, "--models", "x,yy", "--skip-bad")
        assert result.exit_code == 2
        assert "Unknown model 'yy': did you mean 'y'?" in result.stderr


class TestBadRows:
    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (json.dumps(BAD), "`candidates` is missing"),
            (json.dumps({"instruction": "Q", "candidates": []}), "`candidates` is empty"),
            (json.dumps({"instruction": " \n", "candidates": ["a"]}), "`instruction` is empty"),
            (json.dumps({"candidates": ["a"]}), "`instruction` is missing"),
            (json.dumps({"instruction": [{"role": "user"}], "candidates": ["a"]}), "a text `content`"),
            (json.dumps({"instruction": "Q", "candidates": ["a", 5]}), "candidate 1"),
            ('{"instruction": "Q", "candidates": ["\\ud83d"]}', "a lone surrogate"),
            ("{", "not JSON"),
            ("[]", "a JSON object is wanted"),
            (b'{"instruction": "\xff", "candidates": ["a"]}', "not UTF-8"),
        ],
    )
    def test_the_first_stops_with_file_line_and_reason_before_any_work(self, blend, rows, ranker, line, reason):
        with rows.open("ab") as file:
            file.write(line if isinstance(line, bytes) else line.encode())
        result = blend("rank", rows, "-o", "out.jsonl")
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {rows}, line 4: ")
        assert reason in result.stderr
        assert result.stderr.count("\n") == 1
        assert ranker.comparisons == 0
        assert left_over(rows.parent) == []

    def test_skip_bad_counts_them(self, blend, rows, ranker):
        rows.write_text("{\n" + rows.read_text() + json.dumps(BAD))
        result = blend("rank", rows, "-o", "out.jsonl", "--skip-bad", "--json")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["skipped"] == 2
        assert f"2 bad rows left out, the first: {rows}, line 1: not JSON" in result.stderr
        assert len(read(Path("out.jsonl").read_text())) == 3

    def test_nothing_but_bad_rows_is_an_error(self, blend, tmp_path, ranker):
        (tmp_path / "rows.jsonl").write_text(json.dumps(BAD))
        result = blend("rank", "rows.jsonl", "-o", "out.jsonl", "--skip-bad")
        assert result.exit_code == 2
        assert "rows.jsonl holds no well-formed row. The first" in result.stderr
        assert left_over(tmp_path) == []

    def test_standard_input_is_called_so(self, blend, ranker):
        assert "error: -, line 1: not JSON" in blend("rank", "-", stdin="{").stderr


class TestWrongOptions:
    @pytest.mark.parametrize("option", ["--budget 1", "--seed -1", "--backend tpu"])
    def test_exit_2(self, refuse, rows, ranker, option):
        refuse("rank", "rows.jsonl", *option.split(), message=option.partition(" ")[0])
        assert ranker.comparisons == 0

    @pytest.mark.parametrize("command", ["rank", "data preferences"])
    def test_a_wrong_file_or_strategy(self, refuse, rows, ranker, command):
        words = command.split()
        refuse(*words, "missing.jsonl", message="no file missing.jsonl")
        refuse(*words, "rows.jsonl", "--strategy", "bubbles", message="did you mean 'bubble'?")
        refuse(*words, "rows.jsonl", "-o", "nowhere/out.jsonl", message="no folder nowhere")
        assert ranker.comparisons == 0

    def test_a_ranker_that_is_nowhere(self, blend, rows):
        result = blend("rank", rows, "--ranker", "./nowhere")
        assert result.exit_code == 2
        assert "No ranker './nowhere'" in result.stderr

    def test_a_device_is_for_torch(self, blend, rows):
        result = blend("rank", rows, "--device", "cuda", "--backend", "onnx")
        assert result.exit_code == 2
        assert "torch backend" in result.stderr


def test_work_that_fails_leaves_no_file(blend, rows, monkeypatch):
    def fail(*args, **options):
        raise WorkError("The device is gone.")

    monkeypatch.setattr("llm_blender.rankers.load_ranker", lambda *args, **options: FakeRanker())
    monkeypatch.setattr(FakeRanker, "rank_many", fail)
    result = blend("rank", rows, "-o", "out.jsonl")
    assert (result.exit_code, result.stderr) == (1, "error: The device is gone.\n")
    assert left_over(rows.parent) == []


def test_an_existing_file_is_replaced_only_by_a_whole_one(blend, rows, ranker):
    out = rows.parent / "out.jsonl"
    out.write_text("old")
    assert blend("rank", rows, "-o", out, "--strategy", "no").exit_code == 2
    assert out.read_text() == "old"
    assert blend("rank", rows, "-o", rows).exit_code == 0  # in place
    assert len(read(rows.read_text())) == 3


@pytest.mark.parametrize(
    "command",
    [
        ["rank", "--best-of-n"],
        ["run"],
        ["data", "preferences"],
        ["data", "build"],
        ["data", "import"],
        ["priors", "fit", "--from", "pairs"],
    ],
    ids=" ".join,
)
def test_an_output_that_holds_less_does_not_replace_its_input(refuse, rows, command):
    before = rows.read_text()
    out = rows.parent / "." / rows.name
    refuse(*command, rows, "-o", out, message=f"{out} would replace its input, and hold less than it")
    assert rows.read_text() == before


def test_truncation_is_reported(blend, rows, ranker, monkeypatch):
    whole = ranker.rank_many
    monkeypatch.setattr(
        ranker,
        "rank_many",
        lambda *args, **options: [dataclasses.replace(r, truncated=0.25) for r in whole(*args, **options)],
    )
    result = blend("rank", rows, "-o", "out.jsonl", "--json")
    assert json.loads(result.stdout)["truncated"] == 0.25
    assert "25.0% of the text was too long" in result.stderr


def test_a_terminal_shows_a_bar(blend, rows, ranker, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    result = blend("rank", rows)
    assert "ranking" in result.stderr
    assert "3/3 rows" in result.stderr
    assert len(read(result.stdout)) == 3  # the rows went past it


def test_the_ranker_of_the_configuration(blend, rows, monkeypatch):
    loaded = []

    def load(name, **options):
        loaded.append(name)
        return FakeRanker()

    monkeypatch.setattr("llm_blender.rankers.load_ranker", load)
    Priors({"x": 9.0, "y": -9.0}, ranker="mine").save(Path("priors.json"))
    Path("blend.toml").write_text(
        '[ranker]\nname = "mine"\nstrategy = "knockout"\nbudget = 2\npriors = "priors.json"\n'
    )
    out = read(blend("rank", rows).stdout)
    assert [row["ranking"]["strategy"] for row in out] == ["knockout"] * 3
    assert out[0]["ranking"]["best"] == 0  # by the priors
    assert blend("compare", "Q", "a", "b").exit_code == 0
    assert blend("data", "preferences", rows).exit_code == 0
    assert blend("priors", "fit", rows, "-o", "learned.json", "--from", "ranker").exit_code == 0
    assert loaded == ["mine"] * 4
    assert json.loads(Path("learned.json").read_text())["ranker"] == "mine"
    Path("other.toml").write_text('[ranker]\nname = "other"\n')
    for command in (["rank", rows], ["compare", "Q", "a", "b"]):
        assert blend(*command, "--config", "other.toml").exit_code == 0
        assert blend(*command, "--ranker", "named").exit_code == 0
    assert loaded[4:] == ["other", "named"] * 2
    own = read(blend("rank", rows, "--strategy", "full", "--budget", 12, "--config", "other.toml").stdout)
    assert own[0]["ranking"]["strategy"] == "full"


@pytest.mark.parametrize(
    "command",
    [
        ["rank", "rows.jsonl"],
        ["compare", "Q", "a", "b"],
        ["data", "preferences", "rows.jsonl"],
        ["priors", "fit", "rows.jsonl", "-o", "priors.json", "--from", "ranker"],
    ],
)
def test_a_broken_configuration_is_noticed(blend, rows, ranker, command):
    Path("blend.toml").write_text("[ranker]\nnmae = 1\n")
    result = blend(*command)
    assert result.exit_code == 2
    assert 'blend.toml: [ranker]: unknown key "nmae"; did you mean "name"?' in result.stderr


@pytest.mark.parametrize("name", ["out.json", "out.jsonl.bz2", "out.txt.zst", "out.xlsx"])
def test_rows_are_not_written_in_a_format_that_the_name_denies(blend, rows, ranker, name):
    result = blend("rank", rows, "-o", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Rows cannot be written to {name}" in result.stderr
    assert "name the file .jsonl, .jsonl.gz, .jsonl.zst, .parquet or .csv" in result.stderr
    assert left_over(rows.parent) == []
    assert ranker.comparisons == 0


@pytest.mark.parametrize("name", ["out", "out.ndjson", "out.jsonl.gz", "out.gz", "out.tsv.gz", "/dev/null"])
def test_rows_are_written_where_the_name_denies_nothing(blend, rows, ranker, name):
    assert blend("rank", rows, "-o", name).exit_code == 0


def test_the_help_says_what_the_library_does(blend):
    assert StrategyOptions().settings() == {"strategy": "auto", "budget": DEFAULT_BUDGET, "seed": 0}
    text = blend("rank", "--help").stdout
    assert all(strategy in text for strategy in STRATEGIES)
