"""Training on: `PairRanker.fit`, ``init``, and what is held out."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_blender.errors import ConfigError, InputError
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
from llm_blender.training.recipes import Recipe, Source

NAMES = ["sky", "sea", "sun", "moon", "tree", "bird"]
PAIRS: list[dict[str, Any]] = [
    {"prompt": f"why {one} {other}", "chosen": f"the {one} is good", "rejected": f"the {other} is bad"}
    for one, other in itertools.product(NAMES, NAMES)
]
# A tiny ranker needs a high learning rate.
FAST: dict[str, Any] = {"learning_rate": 1e-3, "keep_init": 0.0, "batch_tokens": 300, "epochs": 2, "seed": 3}


@pytest.fixture(scope="module")
def fitted(tiny_ranker, tmp_path_factory):
    """Return a fitted ranker, the report of its training, and its folder."""
    output = tmp_path_factory.mktemp("fitted")
    ranker = PairRanker.from_pretrained(tiny_ranker(), truncation="left")
    notes: list[str] = []
    run = ranker.fit(PAIRS, output=output, licence="MIT", note=notes.append, **FAST)
    return ranker, run, output, notes


class TestFit:
    def test_the_ranker_is_ready_and_better(self, fitted, tiny_ranker, tmp_path):
        ranker, run, output, notes = fitted
        assert run.quality.dev["agreement"] > 0.9 > run.quality.before["agreement"]
        assert run.quality.before["gain"] > 0
        assert not run.quality.kept_first
        assert notes[0].startswith("Learning from 29 pairs, from ")
        assert notes[0].endswith("7 pairs held out of the same files are to measure on.")
        assert (ranker.folder, ranker.truncation) == (output, "left")
        assert ranker.rank("why sea", ["the moon is bad", "the moon is good"]).best == 1
        ranker.save_pretrained(tmp_path / "saved")
        saved = PairRanker.from_pretrained(tmp_path / "saved")
        assert saved.compare("why", "good", "bad") == ranker.compare("why", "good", "bad")
        assert not (tmp_path / "saved" / "rows").exists()
        assert "Licence of the data: MIT." in (tmp_path / "saved" / "README.md").read_text()

    def test_the_same_as_the_command(self, fitted, tiny_ranker, tmp_path, monkeypatch):
        from typer.testing import CliRunner

        from llm_blender.cli import app

        monkeypatch.chdir(tmp_path)
        Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
        settings = {"keep_init": 0.0, "batch_tokens": 300}
        from llm_blender.training import fitting

        monkeypatch.setattr(fitting, "TRAINING_ON", {**fitting.TRAINING_ON, **settings})
        options = ["--init", str(tiny_ranker()), "--learning-rate", "1e-3", "--epochs", "2", "--seed", "3"]
        result = CliRunner().invoke(app, ["train", "ranker", "pairs.jsonl", "-o", "made", *options, "--json"])
        assert result.exit_code == 0, result.output
        summary = json.loads(result.stdout)
        _, run, output, _ = fitted
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            assert Path("made", name).read_bytes() == (output / name).read_bytes()
        assert summary["dev"] == run.quality.dev
        assert summary["before"] == run.quality.before
        assert summary["remarks"] == run.remarks

    def test_a_temporary_folder_and_other_forms_of_rows(self, tiny_ranker):
        rows = [
            {
                "instruction": pair["prompt"],
                "candidates": [
                    {"text": pair["rejected"], "scores": {"judge": 0}},
                    {"text": pair["chosen"], "scores": {"judge": 1}},
                ],
            }
            for pair in PAIRS
        ]
        ranker = PairRanker.from_pretrained(tiny_ranker())
        run = ranker.fit(rows[:24], PAIRS[24:], epochs=1)
        assert [count.source.pairs for count in (*run.sources, *run.dev_sources)] == ["implied", "labelled"]
        assert run.quality.dev["pairs"] == 12
        folder = ranker.folder
        assert folder.is_dir()
        del ranker
        assert not folder.exists()

    def test_what_is_no_better_is_not_kept(self, tiny_ranker, fitted, tmp_path):
        _, _, good, _ = fitted
        ranker = PairRanker.from_pretrained(good)
        swapped = [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in PAIRS[:24]]
        run = ranker.fit(swapped, PAIRS[24:], output=tmp_path / "worse", **FAST)
        assert run.quality.kept_first
        assert run.quality.rejected["agreement"] < run.quality.before["agreement"] == run.quality.dev["agreement"]
        assert (tmp_path / "worse" / "model.safetensors").read_bytes() == (good / "model.safetensors").read_bytes()
        assert any("the weights of" in remark for remark in run.remarks)

    def test_logits_that_tell_nothing_are_not_kept(self, tiny_ranker, tmp_path, monkeypatch):
        start = tiny_ranker()
        monkeypatch.setattr("llm_blender.training.run.FEW", 1)
        monkeypatch.setattr(
            "llm_blender.training.run.recalibrate", lambda config, found: (replace(config, temperature=1000.0), 1.0)
        )
        run = PairRanker.from_pretrained(start).fit(PAIRS[:24], PAIRS[24:], output=tmp_path / "flat", **FAST)
        assert run.quality.rejected["log_loss"] < run.quality.before["log_loss"]  # it is kept but for the temperature
        assert run.quality.kept_first

    @pytest.mark.parametrize(
        ("rows", "settings", "kind", "message"),
        [
            ([{"prompt": "Why?", "chosen": "A."}], {}, InputError, r"^Row 0 of train: `candidates` is missing"),
            ([{"prompt": "Why?", "chosen": "A.", "rejected": 1}], {}, InputError, "^Row 0 of train: "),
            ([], {}, InputError, "No training pairs"),
            ("pairs.csv", {}, InputError, "not a path: .* `blend train ranker pairs.csv"),
            (PAIRS[:1], {"epoch": 1}, ConfigError, 'The settings: unknown key "epoch"; did you mean "epochs"?'),
            (PAIRS[:1], {"epochs": 0}, ConfigError, '"epochs" should be at least 1'),
        ],
    )
    def test_wrong_input(self, tiny_ranker, tmp_path, rows, settings, kind, message):
        ranker = PairRanker.from_pretrained(tiny_ranker())
        with pytest.raises(kind, match=message):
            ranker.fit(rows, output=tmp_path / "out", **settings)
        assert ranker.folder == tiny_ranker()


class TestInit:
    def test_the_structure_is_its_own(self):
        from llm_blender.rankers.checkpoints import find_checkpoint
        from llm_blender.training.checkpoints import follow_init, new_pair_ranker

        config = PairRankerConfig.load(find_checkpoint("bundled"))
        recipe = follow_init(Recipe(init="bundled"))
        for name in ("alone_layers", "pooling", "max_length", "source_max_length"):
            assert getattr(recipe, name) == getattr(config, name)
        assert recipe.alone_layers > 0
        _, form, _ = new_pair_ranker(Recipe(init="bundled"), "")
        assert form.config == config

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"alone_layers": 0}, "alone_layers = 0 contradicts bundled, which has 4"),
            ({"alone_layers": 2}, "alone_layers = 2 contradicts bundled"),
            ({"pooling": "marker"}, 'pooling = "marker" contradicts bundled'),
        ],
    )
    def test_a_contradiction(self, changes, message):
        from llm_blender.training.checkpoints import follow_init

        with pytest.raises(InputError, match=message):
            follow_init(Recipe.model_validate({"init": "bundled", **changes}))

    def test_a_baseline_has_none(self):
        from llm_blender.training.checkpoints import follow_init

        recipe = Recipe(init="bundled", ranker="simcls", alone_layers=0)
        assert follow_init(recipe) is recipe


class TestHoldOut:
    def test_no_instruction_is_on_both_sides(self, tmp_path):
        from llm_blender.training.groups import load_groups

        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(pair) + "\n" for pair in [*PAIRS, *PAIRS]))
        sources = [Source(file=path.name)]
        sides = [load_groups(sources, tmp_path, frozenset(), 1, part=part) for part in ((0, 0.25), (0.25, 1))]
        held_out, learnt = ({group.prompt for group in groups} for groups, _ in sides)
        assert held_out
        assert learnt
        assert not held_out & learnt
        assert len(held_out | learnt) == len(PAIRS)
        assert [count.held_out for _, (count,) in sides] == [2 * len(learnt), 2 * len(held_out)]
