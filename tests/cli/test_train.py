from __future__ import annotations

import json

import pytest

from llm_blender.rankers.pair_ranker import PairRanker

NAMES = ["sky", "sea", "sun", "moon", "tree", "bird"]


@pytest.fixture
def rows(tmp_path):
    for file, names in (("train", NAMES), ("dev", NAMES[:2])):
        lines = (
            {
                "instruction": f"why is the {name}",
                "candidates": [
                    {"text": f"the {name} is good", "scores": {"judge": 1}},
                    {"text": f"the {name} is bad", "scores": {"judge": 0}},
                ],
            }
            for name in names
        )
        (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "train.jsonl"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        "max_length = 64\nsource_max_length = 16\nbatch_tokens = 80\nalone = 0\n"
        '[[sources]]\nfile = "train.jsonl"\n[[dev_sources]]\nfile = "dev.jsonl"\n'
    )
    return path


def test_a_recipe_makes_a_checkpoint_that_export_takes(blend, rows, recipe, tiny_encoder):
    result = blend("train", "ranker", "--recipe", recipe, "-o", "made", "--backbone", tiny_encoder, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["output"], summary["pairs"], summary["steps"]) == ("made", 6, 3)
    assert summary["dev"]["pairs"] == 2

    result = blend("export", "made", "exported", "--json")
    assert result.exit_code == 0, result.stderr
    files = [f"exported/onnx/model_{precision}.onnx" for precision in ("fp32", "int8")]
    assert json.loads(result.stdout) == {"output": "exported", "files": files}
    one, other = (PairRanker.from_pretrained(name).compare("why", "good", "bad") for name in ("made", "exported"))
    assert one.logit == pytest.approx(other.logit, abs=2e-4)
    assert blend("export", "made", "made").exit_code == 0


def test_files_and_what_is_excluded(blend, rows, tiny_encoder, monkeypatch):
    from llm_blender.training import run as module

    asked = {}
    monkeypatch.setattr(module, "new_pair_ranker", lambda recipe, backbone: asked.update(r=recipe, b=backbone) or 1 / 0)
    result = blend("train", "ranker", rows, "--dev", "dev.jsonl", "--score", "judge", "--max-groups", 3, "--seed", 7,
                   "--epochs", 2, "--exclude", "dev.jsonl", "--backbone", tiny_encoder)  # fmt: skip
    assert isinstance(result.exception, ZeroDivisionError)
    (source,), (dev,) = asked["r"].sources, asked["r"].dev_sources
    assert (source.file, source.scores, source.max_groups) == (str(rows), ("judge",), 3)
    assert dev.file.endswith("dev.jsonl")
    assert (asked["r"].seed, asked["r"].epochs, asked["b"]) == (7, 2, str(tiny_encoder))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Nothing to learn from"),
        (["none.jsonl"], "no file"),
        (["train.jsonl", "--pairs", "mismatched"], "implied or labelled"),
        (["train.jsonl", "--recipe", "recipe.toml"], "A recipe names its sources itself"),
        (["--recipe", "recipe.toml", "--dev", "dev.jsonl"], "A recipe names its sources itself"),
        (["--recipe", "none.toml"], "no recipe"),
        (["train.jsonl", "--dev", "none"], "no file or folder none"),
        (["train.jsonl", "--exclude", "none.jsonl"], "no file"),
    ],
)
def test_wrong_options(blend, rows, recipe, args, message):
    result = blend("train", "ranker", *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_export_of_what_is_nowhere(blend):
    result = blend("export", "nowhere", "out")
    assert result.exit_code == 2
    assert "No ranker 'nowhere'" in result.stderr
