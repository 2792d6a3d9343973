from __future__ import annotations

import functools
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from llm_blender.rankers import load_ranker
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.ranking import consensus, reliability

NAMES = ["sky", "sea", "sun", "moon", "tree", "bird"]


@pytest.fixture
def rows(tmp_path):
    """Write ``train.jsonl`` and ``dev.jsonl``, for rankers and fusers; return the first."""
    for file, names in (("train", NAMES), ("dev", NAMES[:2])):
        lines = (
            {
                "instruction": f"why is the {name}",
                "output": f"the {name} is good",
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
def recipe(rows, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        "max_length = 64\nsource_max_length = 16\nbatch_tokens = 80\nalone = 0\n"
        '[[sources]]\nfile = "train.jsonl"\nname = "Good and bad"\n[[dev_sources]]\nfile = "dev.jsonl"\n'
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

    given = {}
    monkeypatch.setattr(module, "new_pair_ranker", lambda recipe, backbone: given.update(r=recipe, b=backbone) or 1 / 0)
    result = blend("train", "ranker", rows, "--dev", "dev.jsonl", "--score", "judge", "--max-groups", 3, "--seed", 7,
                   "--epochs", 2, "--exclude", "dev.jsonl", "--backbone", tiny_encoder)  # fmt: skip
    assert isinstance(result.exception, ZeroDivisionError)
    (source,), (dev,) = given["r"].sources, given["r"].dev_sources
    assert (source.file, source.scores, source.max_groups) == (str(rows), ("judge",), 3)
    assert dev.file.endswith("dev.jsonl")
    assert (given["r"].seed, given["r"].epochs, given["b"]) == (7, 2, str(tiny_encoder))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Nothing to learn from"),
        (["none.jsonl"], "no file"),
        (["train.jsonl", "--pairs", "mismatched"], "implied or labelled"),
        (["train.jsonl", "--init", "bundled", "--backbone", "x"], "give one of them"),
        (["train.jsonl", "--init", "bundled", "--ranker", "simcls"], "give one of them"),
        (["train.jsonl", "--init", "nowhere"], "No ranker 'nowhere'"),
        (["--recipe", "recipe.toml", "--max-length", "32"], "leave at least 32 tokens"),
        (["train.jsonl", "--private"], "--private needs --push-to-hub"),
        (["train.jsonl", "--push-to-hub", "a/b/c"], "'a/b/c' is no name on the Hub"),
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


def test_without_a_backbone_the_bundled_ranker_is_trained_on(blend, rows, monkeypatch):
    from llm_blender.training import run as module

    given = {}
    monkeypatch.setattr(module, "new_pair_ranker", lambda recipe, backbone: given.update(r=recipe) or 1 / 0)
    result = blend("train", "ranker", rows, "--learning-rate", "1e-5", "--max-length", "200", "--licence", "MIT")
    assert isinstance(result.exception, ZeroDivisionError)
    recipe = given["r"]
    assert (recipe.init, recipe.alone_layers, recipe.keep_best, recipe.hold_out) == ("bundled", 4, True, 0.2)
    assert (recipe.learning_rate, recipe.max_length, recipe.source_max_length) == (1e-5, 200, 66)
    assert recipe.sources[0].licence == "MIT"


def test_what_is_doubtful_is_named_and_pushed_only_when_wanted(blend, rows, tiny_encoder, monkeypatch):
    from llm_blender import _hub

    pushed = []
    monkeypatch.setattr(_hub, "check_push", lambda repo: None)
    monkeypatch.setattr(
        _hub, "push_folder", lambda folder, repo, private: pushed.append((folder, repo, private)) or "url"
    )
    args = [
        "train",
        "ranker",
        rows,
        "-o",
        "made",
        "--backbone",
        tiny_encoder,
        "--max-length",
        "64",
        "--hold-out",
        "0.4",
    ]
    result = blend(*args, "--seed", "1", "--push-to-hub", "ann/mine", "--private")
    assert result.exit_code == 0, result.stderr
    assert "remark: " in result.stderr
    assert "3 pairs held out of the same files are to measure on" in result.stderr
    assert result.stdout.startswith("agreement on pairs held out ")
    assert "; longest answer 1.000" in result.stdout
    assert pushed == [(Path("made"), "ann/mine", True)]
    assert "pushed to url" in result.stderr


def test_export_of_what_is_nowhere(blend):
    result = blend("export", "nowhere", "out")
    assert result.exit_code == 2
    assert "No ranker 'nowhere'" in result.stderr


class TestBaselines:
    @pytest.mark.parametrize("kind", ["summa_reranker", "simcls", "reward_model", "mlm_scoring"])
    def test_the_same_command_trains_each(self, blend, recipe, tiny_encoder, kind):
        args = ("--ranker", kind, "--recipe", "recipe.toml", "-o", "made", "--backbone", tiny_encoder, "--json")
        result = blend("train", "ranker", *args)
        assert result.exit_code == 0, result.stderr
        summary = json.loads(result.stdout)
        assert (summary["output"], summary["pairs"], summary["int8"]) == ("made", 6, {})
        figures = {"pairs", "agreement", "agreement_low", "agreement_high", "longest", "ece", "brier", "log_loss"}
        assert set(summary["dev"]) == figures
        assert (summary["dev"]["pairs"], summary["dev"]["longest"]) == (2, 1)

        name = "mlm:made" if kind == "mlm_scoring" else Path("made")
        ranking = load_ranker(name).rank("why is the sky", ["the sky is good", "the sky is bad"])
        assert sorted(ranking.ranks) == [1, 2]
        if kind in ("summa_reranker", "simcls"):
            assert load_ranker(name).temperature == summary["temperature"]
        card = Path("made/README.md").read_text()
        assert ('load_ranker("mlm:made")' if kind == "mlm_scoring" else 'load_ranker("made")') in card
        assert f"| ranker | {kind} |" in card
        assert "| Good and bad | not named | 6 | 0 | 6 | 6 | `" in card
        assert "alone_layers" not in card
        assert f"| {kind} | {summary['steps']} | " in card

        if kind == "reward_model":
            weights = Path("made/model.safetensors").read_bytes()
            again = blend("train", "ranker", *args)
            assert json.loads(again.stdout)["dev"] == summary["dev"]
            assert Path("made/model.safetensors").read_bytes() == weights
            other = blend("train", "ranker", "--ranker", "simcls", *args[2:])
            assert other.exit_code == 2
            assert "belongs to a run with another recipe" in other.stderr

    def test_a_summa_reranker_has_the_scores_for_tasks(self, blend, recipe, tiny_encoder):
        Path("summa.toml").write_text('base = "recipe.toml"\nranker = "summa_reranker"\ndev_sources = []\n')
        result = blend("train", "ranker", "--recipe", "summa.toml", "-o", "made", "--backbone", tiny_encoder, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(Path("made/config.json").read_text())["tasks"] == ["preference", "judge"]
        assert json.loads(result.stdout)["dev"] == {}
        assert "There were no development pairs." in Path("made/README.md").read_text()

    def test_a_ranker_that_is_not_known(self, blend, recipe):
        result = blend("train", "ranker", "--ranker", "simclr", "--recipe", "recipe.toml")
        assert result.exit_code == 2
        assert "did you mean 'simcls'" in result.stderr


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
        assert fit["situations"]["several"]["pairs"] == 4 * 6
        assert fit["weights"]["several"]["consensus"] > 0
        ranker = PairRanker.from_pretrained(checkpoint)
        assert ranker.config.temperature == pytest.approx(fit["temperature"], abs=1e-4)
        weights = ranker.evidence_weights
        for situation, of_situation in asdict(weights).items():
            assert of_situation == pytest.approx(fit["weights"][situation], abs=1e-4)
        own = weights.several
        texts = ["the sky is blue", "the sky is blue and bright", "sing"]
        alone = PairRanker.from_pretrained(checkpoint, evidence=False).rank("why sea", texts, strategy="full")
        together, shares = ranker.rank("why sea", texts, strategy="full"), consensus(texts) * reliability(3)
        offsets = own.consensus * shares + own.length * np.log1p([len(text) for text in texts])
        gains = offsets[:, None] - offsets
        rounded = 1e-4 * max(1, own.model)  # the alone ones are
        assert np.nanmax(np.abs(together.logits - own.model * alone.logits - gains)) < rounded

    def test_recorded_comparisons_are_the_models_own(self, blend, checkpoint, pools):
        args = ("train", "calibrate", checkpoint, pools, "--score", "judge", "--comparisons", "kept.db", "--json")
        first, second = (json.loads(blend(*args).stdout) for _ in range(2))
        assert [first[key] for key in ("temperature", "situations")] == [
            second[key] for key in ("temperature", "situations")
        ]
        for situation, weights in first["weights"].items():
            assert second["weights"][situation] == pytest.approx(weights, rel=1e-3, abs=1e-3)

    @pytest.mark.parametrize(("args", "message"), [
        (["--score", "none"], "No file holds a score named none"),
        (["--models", "m0"], "name one with --score"),
        ([], "no labelled pairs"),
    ])  # fmt: skip
    def test_wrong_options(self, blend, checkpoint, pools, args, message):
        result = blend("train", "calibrate", checkpoint, pools, *args)
        assert result.exit_code == 2
        assert message in result.stderr

    def test_the_bundled_ranker_is_no_folder(self, refuse, pools):
        refuse("train", "calibrate", "bundled", pools, message="There is no folder bundled; `blend train ranker` makes")


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
        summary = json.loads(result.stdout)
        better = rate == 1e-3
        assert (summary["output"], summary["init"], summary["current"]) == ("new", "current", "current")
        assert summary["learnt"]["instructions"] + summary["held_out"]["instructions"] == 64
        assert summary["fitted"] == {"instructions": 0, "votes": 0}
        assert summary["better"] is better
        assert summary["replaced"] == ("current" if better else None)
        assert summary["reason"] in result.stderr
        assert summary["reason"] in Path("new/README.md").read_text()
        after = (current / "model.safetensors").read_bytes()
        if better:
            assert Path(summary["former"], "model.safetensors").read_bytes() == before
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
            (["--votes", "votes.jsonl", "--blind-only"], "votes on 0 instructions"),
            (["--blind-only"], "--blind-only needs --votes"),
            (["--votes", "few.jsonl"], "Vote on 49 more"),
            (["--votes", "votes.jsonl", "--replace", "bundled"], "blend export bundled my-ranker"),
            (["--votes", "votes.jsonl", "votes.jsonl", "--dev", "votes.jsonl"], "leave out FILE, --dev"),
            (["--votes", "votes.jsonl", "--init", "longest"], "No ranker 'longest'"),
            (["votes.jsonl", "--replace", "current"], "--replace needs --votes"),
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
    @pytest.fixture(autouse=True)
    def _recipe(self, rows, tmp_path):
        (tmp_path / "fuser.toml").write_text(
            "max_length = 400\nanswer_max_length = 20\nsteps = 9\n"
            '[[sources]]\nfile = "train.jsonl"\nscore = "judge"\n[[dev_sources]]\nfile = "dev.jsonl"\n'
        )

    def test_a_recipe_makes_a_fuser_that_fuse_takes(self, blend, tiny_llama):
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

    def test_files_and_what_is_excluded(self, blend, tiny_llama, monkeypatch):
        from llm_blender.training import fuser as module

        given = {}
        monkeypatch.setattr(module, "new_fuser", lambda recipe, backbone: given.update(r=recipe, b=backbone) or 1 / 0)
        result = blend("train", "fuser", "train.jsonl", "--dev", "dev.jsonl", "--score", "judge", "--seed", 7,
                       "--epochs", 2, "--backbone", tiny_llama)  # fmt: skip
        assert isinstance(result.exception, ZeroDivisionError)
        (source,), (dev,) = given["r"].sources, given["r"].dev_sources
        assert source.file.endswith("train.jsonl")
        assert dev.file.endswith("dev.jsonl")
        assert source.score == dev.score == "judge"
        assert (given["r"].seed, given["r"].epochs, given["r"].backbone, given["b"]) == (7, 2, *[str(tiny_llama)] * 2)

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ([], "Nothing to learn from"),
            (["none.jsonl"], "no file"),
            (["train.jsonl", "--recipe", "fuser.toml"], "A recipe names its sources itself"),
            (["--recipe", "fuser.toml", "--dev", "dev.jsonl"], "A recipe names its sources itself"),
            (["--recipe", "none.toml"], "no recipe"),
            (["train.jsonl", "--dev", "none"], "no file or folder none"),
            (["train.jsonl", "--exclude", "none.jsonl"], "no file"),
            (["train.jsonl", "--exclude", "train.jsonl"], "no rows but those whose prompt is in a test file"),
        ],
    )
    def test_wrong_options(self, blend, args, message):
        result = blend("train", "fuser", *args)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""


def test_the_fusers_recipe_is_one():
    from llm_blender.training.recipes import FuserRecipe

    recipe = FuserRecipe.load(Path(__file__).parents[2] / "recipes" / "fuser.toml")
    assert recipe.lora_rank
    assert all(source.licence for source in recipe.sources)
