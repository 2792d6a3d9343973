from __future__ import annotations

import json

import pytest

SCORES = [(0.0, 1.0), (1.0, 0.5), (0.6, 0.2)]
LLM = '[[llm]]\nname = "{0}"\nprice = {{ input = {1}, output = {1} }}\nseconds = {2}\n'
PRICES = LLM.format("ann", 1, 2) + '[[ranker]]\nname = "bundled"\nseconds = 0.1\n'
BOB = LLM.format("bob", 5, 4)


USAGE = {"prompt_tokens": 60, "completion_tokens": 40}


def rows(prefix):
    return [
        {
            "instruction": f"{prefix} {place}",
            "candidates": [
                {"model": model, "text": text, "scores": {"stars": score}, "usage": USAGE}
                for model, text, score in zip(("ann", "bob"), ("a", "bbb"), scores, strict=True)
            ],
        }
        for place, scores in enumerate(SCORES)
    ]


@pytest.fixture(autouse=True)
def files(tmp_path, ranker):
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows("test"))))
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, [*rows("train")[1:]])))
    (tmp_path / "prices.toml").write_text(PRICES + BOB)
    return tmp_path


ARGUMENTS = ("bench", "pays", "test.jsonl", "--score", "stars", "--choose-on", "train.jsonl")


def test_json(blend):
    result = blend(*ARGUMENTS, "--prices", "prices.toml", "--json")
    assert result.exit_code == 0, result.stderr
    lines = {line["method"]: line for line in json.loads(result.stdout)}
    assert list(lines) == [
        "best single: ann", "single: bob", "routing, 20 nearest", "bundled, all 2", "random", "oracle, routing",
        "oracle, picking",
    ]  # fmt: skip
    picked = lines["bundled, all 2"]
    assert (picked["kind"], picked["rows"], picked["calls"], picked["comparisons"]) == ("pick", 3, 2, 2)
    assert picked["quality"]["value"] == pytest.approx(1.7 / 3)  # the longer text
    assert picked["dollars"] == {"value": pytest.approx(0.6), "ci95": [pytest.approx(0.6)] * 2}
    assert picked["seconds"]["value"] == pytest.approx(4 + 2 * 0.1)
    assert picked["extra_dollars"]["value"] == pytest.approx(0.5)
    assert picked["gain"]["value"] == pytest.approx((1.7 - 1.6) / 3)
    assert picked["gain_per_dollar"]["value"] == pytest.approx((1.7 - 1.6) / 3 / 0.5)
    assert lines["best single: ann"]["gain"] is None
    assert "no row holds several answers of ann" in result.stderr
    assert "estimated" not in result.stderr


def test_an_unknown_price_is_named(blend, files):
    (files / "prices.toml").write_text(PRICES)
    result = blend(*ARGUMENTS, "--prices", "prices.toml")
    assert result.exit_code == 0, result.stderr
    assert "no price known for bob: lines that call them are unknown" in result.stderr
    assert "no seconds known for bob" in result.stderr
    lines = {line.split("\t")[0]: line for line in result.stdout.splitlines()}
    assert "unknown" in lines["bundled, all 2"]
    assert "unknown" not in lines["best single: ann"]
    values = {
        line["method"]: line for line in json.loads(blend(*ARGUMENTS, "--prices", "prices.toml", "--json").stdout)
    }
    assert values["bundled, all 2"]["dollars"] is None


def test_prices_of_the_configuration(blend, files):
    text = '[[llm]]\nname = "ann"\nmodel = "m"\nbase_url = "http://localhost/v1"\nprice = { input = 2, output = 2 }\n'
    (files / "blend.toml").write_text(text)
    best, *_ = json.loads(blend(*ARGUMENTS, "--json").stdout)
    assert (best["dollars"]["value"], best["seconds"]) == (pytest.approx(0.2), None)


def test_recorded_comparisons_have_no_time(blend, files):
    (files / "prices.toml").write_text(BOB)
    result = blend(*ARGUMENTS, "--prices", "prices.toml", "--comparisons", "kept.db")
    assert result.exit_code == 0, result.stderr
    assert "bundled: cached comparisons have no time" in result.stderr


def test_remarks(blend, files):
    record = rows("test")[0]
    for candidate in record["candidates"]:
        del candidate["usage"]
    more = {**rows("test")[1], "candidates": [{"model": "cy", "text": "c", "scores": {"stars": 1}}] * 2}
    known = [{**record, "candidates": more["candidates"]}, more]  # cy is best
    (files / "train.jsonl").write_text("\n".join(map(json.dumps, known)))
    (files / "test.jsonl").write_text("\n".join(map(json.dumps, [record, more])))
    result = blend(*ARGUMENTS, "--prices", "prices.toml", "--markdown")
    assert result.exit_code == 0, result.stderr
    assert "2 of 2 instructions are in --choose-on too" in result.stderr
    assert "4 of 4 answers have no `usage`" in result.stderr
    assert "in 2 of 2 rows not all of the 3 LLMs" in result.stderr
    assert "best of up to 2: cy" in result.stdout
    assert result.stdout.startswith("| method")


def test_pictures(blend, files):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    result = blend(*ARGUMENTS, "--prices", "prices.toml", "--plot", "pictures")
    assert result.exit_code == 0, result.stderr
    assert (files / "pictures" / "pays-dollars.png").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--json", "--markdown"], "Choose one"),
        (["--complete"], "name the LLMs"),
        (["--strategy", "fulll"], "full"),
        (["--prices", "none.toml"], "check --prices"),
        (["--models", "ann,bobb"], "did you mean 'bob'"),
    ],
)
def test_wrong_options(blend, more, message):
    result = blend(*ARGUMENTS, *more)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_limit_takes_the_first_rows_but_of_the_training_rows_all(blend):
    result = blend(*ARGUMENTS, "--prices", "prices.toml", "--limit", "1", "--json")
    assert result.exit_code == 0, result.stderr
    assert {(line["rows"], line["limit"]) for line in json.loads(result.stdout)} == {(1, 1)}
    assert "test.jsonl: only the first 1 rows count (--limit)" in result.stderr
    assert json.loads(result.stdout)[0]["method"] == "best single: ann"
