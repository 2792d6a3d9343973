from __future__ import annotations

import json

import pytest

from llm_blender.testing import FakeOpenAIServer, FakeReply

ROWS = [
    {
        "instruction": f"Say {word}.",
        "output": f"{word} and {word} again",
        "candidates": [{"text": word, "model": "ann"}, {"text": f"{word} and", "model": "bob"}],
        "ranking": {"best": 1},
        "fusion": {"text": f"{word} and {word}", "fuser": "chat", "used": [1, 0]},
    }
    for word in ("one", "two", "three")
]


@pytest.fixture(autouse=True)
def rows(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    more = {key: value for key, value in ROWS[0].items() if key != "fusion"}
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, [*ROWS, more])))


def test_json(blend):
    result = blend("bench", "fuse", "rows.jsonl", "--json")
    assert result.exit_code == 0, result.stderr
    assert "rows.jsonl: 1 of 4 rows have no fused answer or no reference" in result.stderr
    report = json.loads(result.stdout)
    assert set(report) == {"measures", "unavailable", "effort", "judge"}
    assert report["effort"][0]["rows"] == 3
    bleu, bleu_best, rouge, rouge_best = report["measures"]
    assert [bleu["metric"], bleu_best["metric"]] == ["bleu", "bleu"]
    assert rouge == {
        "file": "rows.jsonl", "metric": "rougeL", "method": "answer", "rows": 3, "mean": pytest.approx(6 / 7),
        "ci95": [pytest.approx(6 / 7)] * 2,
        "versus": {"method": "best candidate", "mean": pytest.approx(6 / 7 - 2 / 3),
                   "ci95": [pytest.approx(6 / 7 - 2 / 3)] * 2},
    }  # fmt: skip
    assert (rouge_best["mean"], rouge_best["versus"]) == (pytest.approx(2 / 3), None)


def test_tables_with_candidates(blend):
    result = blend("bench", "fuse", "rows.jsonl", "--metric", "rouge1", "--candidates")
    assert result.exit_code == 0, result.stderr
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0] == ["metric", "method", "rows", "mean", "95 %", "against best candidate", "95 %"]
    methods = ["answer", "best candidate", "random", "longest", "ann", "bob", "oracle"]
    assert [line[1] for line in lines[1:8]] == methods
    assert lines[9][:4] == ["reasons", "rows", "fused", "let through"]
    markdown = blend("bench", "fuse", "rows.jsonl", "--metric", "rouge1", "--markdown").stdout
    assert markdown.startswith("| metric | method")


def test_models_are_named_and_missing_ones_told(blend):
    result = blend("bench", "fuse", "rows.jsonl", "--metric", "rouge1", "--metric", "bertscore=no/model", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert [measure["method"] for measure in report["measures"]] == ["answer", "best candidate"]
    (lost,) = report["unavailable"]
    assert (lost["file"], lost["metric"]) == ("rows.jsonl", "bertscore")
    assert "No model 'no/model'" in lost["reason"]
    assert "bertscore is unavailable: No model 'no/model'" in result.stderr
    alone = blend("bench", "fuse", "rows.jsonl", "--metric", "bertscore=no/model")
    assert alone.exit_code == 1
    assert "unavailable" in alone.stdout


def test_several_files_and_a_judge(blend, tmp_path):
    more = [{**row, "fusion": {**row["fusion"], "returned": "fuse", "reason": "better"}} for row in ROWS]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, more)))
    with FakeOpenAIServer([FakeReply("A")]) as server:  # always the first: both orders together are a tie
        (tmp_path / "blend.toml").write_text(f'[[llm]]\nname = "j"\nmodel = "fake"\nbase_url = "{server.base_url}"\n')
        result = blend("bench", "fuse", "rows.jsonl", "more.jsonl", "--metric", "rouge1", "--judge", "j", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert [entry["file"] for entry in report["effort"]] == ["rows.jsonl", "more.jsonl"]
    (judged,) = report["judge"]
    assert (judged["file"], judged["judge"], judged["rows"], judged["ties"]) == ("more.jsonl", "j", 3, 3)
    unknown = blend("bench", "fuse", "rows.jsonl", "--judge", "k")
    assert unknown.exit_code == 2
    assert "LLM" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "rougeX"], "did you mean 'rouge"),
        (["--metric", "bleu=model"], "bleu takes no model"),
        (["--json", "--markdown"], "Choose one"),
    ],
)
def test_wrong_options(blend, arguments, message):
    result = blend("bench", "fuse", "rows.jsonl", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_without_fusions(blend, tmp_path):
    (tmp_path / "plain.jsonl").write_text(json.dumps({"instruction": "a", "output": "b", "candidates": ["c"]}))
    result = blend("bench", "fuse", "plain.jsonl")
    assert result.exit_code == 2
    assert "`fusion`, from `blend fuse`" in result.stderr


def test_a_page_of_examples(blend, tmp_path):
    result = blend("bench", "fuse", "rows.jsonl", "--metric", "rouge1", "--html", "new/page.html", "--examples", "2")
    assert result.exit_code == 0, result.stderr
    assert "page.html written" in result.stderr
    page = (tmp_path / "new" / "page.html").read_text()
    assert page.count("<article") == 2
    assert "against best candidate" in page
    (tmp_path / "file").touch()
    failed = blend("bench", "fuse", "rows.jsonl", "--metric", "rouge1", "--html", "file/page.html")
    assert (failed.exit_code, "cannot hold the page" in failed.stderr) == (2, True)


def test_a_limit_takes_the_first_rows(blend):
    result = blend("bench", "fuse", "rows.jsonl", "--metric", "rouge1", "--limit", "2", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["limit"], report["effort"][0]["rows"]) == (2, 2)
    assert "rows.jsonl: only the first 2 rows count (--limit)" in result.stderr
    assert "limit" not in json.loads(blend("bench", "fuse", "rows.jsonl", "--metric", "rouge1", "--json").stdout)
