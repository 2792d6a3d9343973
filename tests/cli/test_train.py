from __future__ import annotations

import functools
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.ranking import consensus

NAMES = ["sky", "sea", "sun", "moon", "tree", "bird"]


@pytest.fixture
def rows(good_and_bad):
    return good_and_bad / "train.jsonl"


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
def test_wrong_options(refuse, rows, recipe, args, message):
    refuse("train", "ranker", *args, message=message)


def test_export_of_what_is_nowhere(blend):
    result = blend("export", "nowhere", "out")
    assert result.exit_code == 2
    assert "No ranker 'nowhere'" in result.stderr


class TestCalibrate:
    @pytest.fixture
    def checkpoint(self, tiny_ranker, tmp_path):
        shutil.copytree(tiny_ranker(), tmp_path / "ranker")
        return tmp_path / "ranker"

    @pytest.fixture
    def pools(self, tmp_path):
        texts = ["the sky is blue", "the sky is blue and bright", "the sky is dark", "sing a bird"]
        candidates = [{"text": text, "model": f"m{i}", "scores": {"judge": s}} for i, (text, s) in
                      enumerate(zip(texts, (2, 3, 1, 0), strict=True))]  # fmt: skip
        lines = ({"instruction": f"why {name}", "candidates": candidates} for name in ("sea", "sun", "moon", "air"))
        path = tmp_path / "pools.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def test_both_numbers_are_written_and_used(self, blend, checkpoint, pools):
        result = blend("train", "calibrate", checkpoint, pools, "--score", "judge", "--json")
        assert result.exit_code == 0, result.stderr
        fit = json.loads(result.stdout)
        assert fit["pairs"] == 4 * 6
        assert fit["weights"]["consensus"] > 0
        ranker = PairRanker.from_pretrained(checkpoint)
        assert ranker.config.temperature == pytest.approx(fit["temperature"], abs=1e-4)
        weights = ranker.evidence_weights
        assert asdict(weights) == pytest.approx(fit["weights"], abs=1e-4)
        texts = ["the sky is blue", "the sky is blue and bright", "sing"]
        alone = PairRanker.from_pretrained(checkpoint, consensus=0).rank("why sea", texts, strategy="full")
        together, shares = ranker.rank("why sea", texts, strategy="full"), weights.consensus * consensus(texts)
        gains = shares[:, None] - shares
        rounded = 1e-4 * max(1, weights.model)  # the alone ones are
        assert np.nanmax(np.abs(together.logits - weights.model * alone.logits - gains)) < rounded
        assert gains[1, 2] > 0.1

    def test_recorded_comparisons_are_the_models_own(self, blend, checkpoint, pools):
        args = ("train", "calibrate", checkpoint, pools, "--score", "judge", "--comparisons", "kept.db", "--json")
        first, second = (json.loads(blend(*args).stdout) for _ in range(2))
        assert first == second

    @pytest.mark.parametrize(("args", "message"), [
        (["--score", "none"], "No file holds a score named none"),
        (["--models", "m0"], "name one with --score"),
        ([], "no labelled pairs"),
    ])  # fmt: skip
    def test_wrong_options(self, blend, checkpoint, pools, args, message):
        result = blend("train", "calibrate", checkpoint, pools, *args)
        assert result.exit_code == 2
        assert message in result.stderr


class TestVotes:
    @pytest.fixture
    def votes(self, tmp_path):
        lines = (
            {
                "instruction": f"why is the {one} a {other}",
                "candidates": [f"the {one} is bad", f"the {one} is good"],
                "pairs": [{"a": 0, "b": 1, "label": "b", "by": "human"}],
            }
            for one in [*NAMES, "air", "water"]
            for other in [*NAMES, "air", "water"]
        )
        (tmp_path / "votes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    @pytest.fixture
    def current(self, tiny_ranker, tmp_path):
        shutil.copytree(tiny_ranker(), tmp_path / "current")
        return tmp_path / "current"

    @pytest.mark.parametrize("rate", [1e-3, 1e-9])
    def test_only_a_better_one_replaces_the_current_one(self, blend, votes, current, monkeypatch, rate):
        from llm_blender.training import votes as module

        settings = {**module.SETTINGS, "learning_rate": rate, "keep_init": 0.0}
        monkeypatch.setattr(module, "train_on_votes", functools.partial(module.train_on_votes, settings=settings))
        before = (current / "model.safetensors").read_bytes()
        result = blend("train", "ranker", "--votes", "votes.jsonl", "-o", "new", "--init", "current", "--replace",
                       "current", "--seed", 3, "--json")  # fmt: skip
        assert result.exit_code == 0, result.stderr
        told = json.loads(result.stdout)
        better = rate == 1e-3
        assert (told["output"], told["init"], told["current"]) == ("new", "current", "current")
        assert told["learnt"]["instructions"] + told["held_out"]["instructions"] == 64
        assert told["better"] is better
        assert told["replaced"] == ("current" if better else None)
        assert told["reason"] in result.stderr
        assert told["reason"] in Path("new/README.md").read_text()
        after = (current / "model.safetensors").read_bytes()
        if better:
            assert Path(told["former"], "model.safetensors").read_bytes() == before
            assert after == Path("new/model.safetensors").read_bytes()
            assert "from its next start" in result.stderr
        else:
            assert after == before
            assert "current stays as it is" in result.stderr
            assert Path("new/model.safetensors").is_file()

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--votes", "none.db"], "no file none.db"),
            (["--votes", "few.jsonl"], "Vote on 49 more"),
            (["--votes", "votes.jsonl", "--replace", "bundled"], "blend export bundled my-ranker"),
            (["--votes", "votes.jsonl", "votes.jsonl", "--dev", "votes.jsonl"], "leave out FILE, --dev"),
            (["--votes", "votes.jsonl", "--init", "longest"], "No ranker 'longest'"),
            (["votes.jsonl", "--replace", "current"], "--init and --replace are of --votes"),
        ],
    )
    def test_wrong_options(self, blend, votes, args, message):
        with Path("votes.jsonl").open() as lines:
            Path("few.jsonl").write_text(next(lines))
        result = blend("train", "ranker", *args)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""


class TestFuser:
    @pytest.fixture
    def rows(self, good_and_bad):
        (good_and_bad / "fuser.toml").write_text(
            "max_length = 400\nanswer_max_length = 20\nsteps = 9\n"
            '[[sources]]\nfile = "train.jsonl"\nscore = "judge"\n[[dev_sources]]\nfile = "dev.jsonl"\n'
        )

    def test_a_recipe_makes_a_fuser_that_fuse_takes(self, blend, rows, tiny_llama):
        result = blend("train", "fuser", "--recipe", "fuser.toml", "-o", "made", "--backbone", tiny_llama,
                       "--steps", 2, "--lora-rank", 2, "--json")  # fmt: skip
        assert result.exit_code == 0, result.stderr
        summary = json.loads(result.stdout)
        assert (summary["output"], summary["rows"], summary["too_long"], summary["steps"]) == ("made", 6, 0, 2)
        assert [entry["step"] for entry in summary["dev"]] == [0, 2]
        assert "fuser, step 2 of 2: loss " in result.stderr
        assert "chance" not in result.stdout

        result = blend("fuse", "dev.jsonl", "-o", "fused.jsonl", "--fuser", "./made", "--no-guard")
        assert result.exit_code == 0, result.stderr

    def test_files_and_what_is_excluded(self, blend, rows, tiny_llama, monkeypatch):
        from llm_blender.training import fuser as module

        asked = {}
        monkeypatch.setattr(module, "new_fuser", lambda recipe, backbone: asked.update(r=recipe, b=backbone) or 1 / 0)
        result = blend("train", "fuser", "train.jsonl", "--dev", "dev.jsonl", "--score", "judge", "--seed", 7,
                       "--epochs", 2, "--backbone", tiny_llama)  # fmt: skip
        assert isinstance(result.exception, ZeroDivisionError)
        (source,), (dev,) = asked["r"].sources, asked["r"].dev_sources
        assert source.file.endswith("train.jsonl")
        assert dev.file.endswith("dev.jsonl")
        assert source.score == dev.score == "judge"
        assert (asked["r"].seed, asked["r"].epochs, asked["r"].backbone, asked["b"]) == (7, 2, *[str(tiny_llama)] * 2)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("", "Nothing to learn from"),
            ("none.jsonl", "no file"),
            ("train.jsonl --recipe fuser.toml", "A recipe names its sources itself"),
            ("--recipe fuser.toml --dev dev.jsonl", "A recipe names its sources itself"),
            ("--recipe none.toml", "no recipe"),
            ("train.jsonl --dev none", "no file or folder none"),
            ("train.jsonl --exclude none.jsonl", "no file"),
            ("train.jsonl --exclude train.jsonl", "no rows but those that a test file asks"),
        ],
    )
    def test_wrong_options(self, refuse, rows, line, message):
        refuse("train", "fuser", *line.split(), message=message)


def test_the_fusers_recipe_is_one():
    from llm_blender.training.fuser import FuserRecipe

    recipe = FuserRecipe.load(Path(__file__).parents[2] / "recipes" / "fuser.toml")
    assert recipe.lora_rank
    assert all(source.licence for source in recipe.sources)
