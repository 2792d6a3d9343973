from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path

import pytest

from llm_blender.cli.data_import import import_data
from llm_blender.datasets import FORMATS, ImportPlan

BASE = "Air scatters blue light."


@pytest.fixture
def results(tmp_path):
    """Write a folder in AlpacaEval's layout: two models, judged against a third."""
    for model, text, preference in (("good", "Rayleigh scattering.", 1.75), ("poor", "Because.", 1)):
        folder = tmp_path / "results" / model / "judge"
        folder.mkdir(parents=True)
        prompts = [f"Why is the sky blue, in {n} words?" for n in range(20)]
        outputs = [{"instruction": q, "output": text, "generator": model, "dataset": "own"} for q in prompts]
        (folder.parent / "model_outputs.json").write_text(json.dumps(outputs))
        answers = {"output_1": BASE, "generator_1": "base", "output_2": text, "generator_2": model}
        by_prompt = {q: {"annotator": "judge", "preference": preference if q != prompts[0] else None} for q in prompts}
        annotations = [{"instruction": q, **answers, **judgement} for q, judgement in by_prompt.items()]
        (folder / "annotations.json").write_text(json.dumps(annotations))
    return tmp_path / "results"


def rows(path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_folder_becomes_rows_a_summary_and_a_card(blend, results):
    result = blend("data", "import", "results", "-o", "out.jsonl", "--reference", "base", "--json", "--name", "own")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    (written,) = summary.pop("written")
    assert summary == {
        "format": "alpaca_eval",
        "files": 4,
        "records": 80,
        "skipped": {"the annotator gave no preference": 2},
        "first_bad": None,
        "rows": 20,
        "left_out": {},
        "remarks": ["1 rows have no answer by base, hence no reference"],
    }
    assert len(written.pop("sha256")) == 64
    assert written == {
        "path": "out.jsonl",
        "split": "",
        "rows": 20,
        "candidates": 2 + 19 * 3,
        "pairs": 38,
        "ties": 0,
        "card": "out.jsonl.md",
    }
    for line in (
        "alpaca_eval: 80 records in 4 files became 20 rows",
        "2 records left out: 2 the annotator gave no preference",
        "20 rows with 38 judged pairs in out.jsonl, and its card out.jsonl.md",
    ):
        assert line in result.stderr
    last = rows("out.jsonl")[-1]
    assert (last["reference"], [c["model"] for c in last["candidates"]]) == (BASE, ["base", "good", "poor"])
    assert last["candidates"][1]["scores"] == {"judge_win_vs_base": 0.75}
    assert "# own\n" in Path("out.jsonl.md").read_text()


def test_bench_ranks_what_was_imported(blend, results, ranker):
    assert blend("data", "import", "results", "-o", "out.jsonl").exit_code == 0
    bench = blend("bench", "pairs", "out.jsonl", "--json")
    assert bench.exit_code == 0, bench.stderr
    table = {entry["method"]: entry for entry in json.loads(bench.stdout)}
    assert {entry["pairs"] for entry in table.values()} == {38}
    assert table["longest"]["accuracy"] == 0.5  # the base is longer than both: right of one, wrong of the other
    select = blend(
        "bench", "select", "out.jsonl", "--score", "judge_win_vs_base", "--models", "good,poor", "--complete", "--json"
    )
    assert select.exit_code == 0, select.stderr
    assert {entry["method"]: entry["quality"] for entry in json.loads(select.stdout)}["oracle"] == 0.75


def test_a_split_in_folders(blend, results, tmp_path):
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    args = ["data", "import", "results", "-o", "{split}/rows.jsonl", "--split", "train=0.7,test=0.3", "--json"]
    result = blend(*args)
    assert result.exit_code == 0, result.stderr
    written = {file["split"]: file["rows"] for file in json.loads(result.stdout)["written"]}
    assert written == {name: len(rows(f"{name}/rows.jsonl")) for name in ("train", "test")}
    assert sum(written.values()) == 20
    before = Path("train/rows.jsonl").read_bytes()
    assert blend(*args, "--seed", 1).exit_code == 0
    assert Path("train/rows.jsonl").read_bytes() != before
    assert blend(*args).exit_code == 0
    assert Path("train/rows.jsonl").read_bytes() == before


def test_rows_on_standard_output(blend, results):
    result = blend("data", "import", "results", "-o", "-", "--json", "--models", "good")
    assert result.exit_code == 0, result.stderr
    assert {len(json.loads(line)["candidates"]) for line in result.stdout.splitlines()} == {1, 2}
    assert "20 rows with 19 judged pairs in -\n" in result.stderr


def test_bad_rows_are_counted_where_that_is_wanted(blend, tmp_path):
    good = {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go."}
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps({'prompt': 'Hi'})}\n")
    result = blend("data", "import", "x.jsonl", "-o", "out.jsonl")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: x.jsonl, line 2: `chosen` is missing; the keys are prompt\n"
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]
    result = blend("data", "import", "x.jsonl", "-o", "out.jsonl", "--skip-bad", "--json")
    assert json.loads(result.stdout)["skipped"] == {"bad row": 1}
    assert "the first bad one: x.jsonl, line 2" in result.stderr


@pytest.mark.parametrize(
    ("message", "line"),
    {
        "no file or folder missing": "missing",
        "AlpacaEval's results, not alpaca": "results --format alpaca",
        "did you mean 'good'?": "results --models god",
        "did you mean 'judge'?": "results --annotators juge",
        "add up to 0.9": "results --split train=0.9",
        "holds {split}": "results --split train=0.9,test=0.1",
        "--judge is for": "results --judge me",
        "no file none.jsonl": "results --exclude none.jsonl",
        "no folder nowhere": "results -o nowhere/out.jsonl",
    }.items(),
)
def test_wrong_options_end_with_2_and_no_file(refuse, results, message, line):
    refuse("data", "import", "-o", "out.jsonl", *line.split(), message=message)
    assert [path.name for path in results.parent.iterdir()] == ["results"]


def test_the_options_are_those_of_the_library(blend):
    parameters = set(inspect.signature(import_data).parameters)
    assert {field.name for field in fields(ImportPlan)} == parameters - {"out", "as_json"}
    text = blend("data", "import", "--help").stdout
    assert all(name in text for name in FORMATS)
