from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from llm_blender.errors import InputError, NotFoundError
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
from llm_blender.training.groups import Preference, TrainingGroup
from llm_blender.training.recipes import Recipe

from .conftest import same

NAMES = ["sky", "sea", "sun", "moon", "tree", "bird", "air", "water"]
PAIRS = [  # the good one is better
    TrainingGroup(f"why is the {one}", (f"the {other} is good", f"the {other} is bad"), (Preference(0, 1, 1.0),))
    for one, other in itertools.product(NAMES, NAMES)
]
BASE = {
    "max_length": 64,
    "source_max_length": 16,
    "frozen_layers": -1,
    "learning_rate": 1e-3,
    "batch_tokens": 8 * 19,
    "save_every": 4,
    "alone": 0.0,
    "orders": "one",
}


@pytest.fixture
def train(tiny_encoder, tmp_path):
    """Return a function that trains on `PAIRS` and returns the log and the weights."""
    from llm_blender.training.checkpoints import new_pair_ranker
    from llm_blender.training.ranker import PairLearner

    def run(output: str = "run", pairs=PAIRS, dev=PAIRS[:16], **changes):
        recipe = Recipe.model_validate(BASE | changes)
        learner = PairLearner(recipe, *new_pair_ranker(recipe, str(tiny_encoder)))
        log = learner.train(pairs, dev, tmp_path / output)
        return log, {name: tensor.detach().clone() for name, tensor in learner.model.state_dict().items()}

    return run


def evaluations(log: list[dict]) -> list[dict]:
    return [entry for entry in log if "eval_loss" in entry]


class TestLearning:
    @pytest.mark.parametrize(("pooling", "epochs"), [("mean", 3), ("marker", 8)])
    def test_a_plain_rule_is_learnt(self, train, pooling, epochs):
        log, _ = train(pooling=pooling, epochs=epochs)
        first, *_, last = evaluations(log)
        assert last["eval_loss"] < 0.75 * first["eval_loss"]
        assert last["eval_agreement"] > 0.9

    def test_reading_alone_learns_too_and_goes_first(self, train):
        log, _ = train(alone=0.5, orders="both", epochs=2)
        assert [stage for stage, _ in itertools.groupby(entry["stage"] for entry in log)] == ["alone", "both"]
        alone = [entry for entry in evaluations(log) if entry["stage"] == "alone"]
        assert alone[-1]["eval_loss"] < alone[0]["eval_loss"]

    def test_orders_both_reads_every_pair_twice(self, train):
        steps = {orders: train(orders, PAIRS[:16], (), orders=orders)[0][-1]["step"] for orders in ("one", "both")}
        assert steps == {"one": 2, "both": 4}

    def test_the_seed_decides(self, train):
        one, two, other = (train(name, PAIRS[:16], seed=seed)[1] for name, seed in (("a", 1), ("b", 1), ("c", 2)))
        assert same(one, two)
        assert not same(one, other)

    def test_frozen_layers_stay_as_they_are(self, train, tiny_encoder):
        import torch

        from llm_blender.training.checkpoints import new_pair_ranker

        before = new_pair_ranker(Recipe.model_validate(BASE), str(tiny_encoder))[0].state_dict()
        _, after = train(frozen_layers=1, pairs=PAIRS[:16])
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert not [name for name in moved if ".embeddings." in name or ".layer.0." in name]
        assert {name.split(".")[0] for name in moved} == {"pretrained_model", "head_layer"}

    def test_a_late_ranker_learns_in_both_its_readings(self, train):
        log, weights = train(alone_layers=1, alone=0.5, epochs=4)
        assert [stage for stage, _ in itertools.groupby(entry["stage"] for entry in log)] == ["alone", "late"]
        assert evaluations(log)[-1]["eval_agreement"] > 0.9
        assert weights["other_key"].abs().max() > 0

    @pytest.mark.parametrize("loss", ["logistic", "bce", "open_instruct_bce", "mse"])
    def test_any_loss(self, train, loss):
        log, _ = train(loss, loss=loss, epochs=3)
        assert evaluations(log)[-1]["eval_agreement"] > 0.8

    def test_steps_count_whatever_the_number_of_groups(self, train):
        log, _ = train(alone=0.5, steps=6, epochs=9)
        assert [max(e["step"] for e in log if e["stage"] == stage) for stage in ("alone", "one")] == [3, 3]

    def test_fewer_can_be_compared_than_are_left(self, train):
        log, _ = train(alone=0.5, compared=0.125)
        assert log[-1]["stage"] == "one"
        assert log[-1]["step"] == 1

    def test_a_share_of_the_first_weights_can_be_kept(self, train, tiny_ranker):
        import torch

        from llm_blender.training.checkpoints import new_pair_ranker

        changes = {"init": str(tiny_ranker()), "pairs": PAIRS[:32]}
        trained, kept = (train(f"kept{share}", keep_init=share, **changes)[1] for share in (0, 0.25))
        first = new_pair_ranker(Recipe.model_validate(BASE | {"init": str(tiny_ranker())}), "")[0].state_dict()
        for name in ("head_layer.1.weight", "pretrained_model.encoder.layer.1.output.dense.weight"):
            assert not torch.equal(first[name], trained[name])
            expected = 0.25 * first[name] + 0.75 * trained[name]
            torch.testing.assert_close(kept[name], expected)

    def test_starting_from_another_ranker(self, tiny_ranker):
        import safetensors.torch
        import torch

        from llm_blender.training.checkpoints import new_pair_ranker

        recipe = Recipe.model_validate(BASE | {"init": str(tiny_ranker()), "alone_layers": 1})
        model, _, _ = new_pair_ranker(recipe, "")
        state = safetensors.torch.load_file(tiny_ranker() / "model.safetensors")
        found = model.state_dict()
        assert set(state) < set(found)
        assert all(torch.equal(tensor.float(), found[name]) for name, tensor in state.items())

    def test_no_pairs(self, train):
        with pytest.raises(InputError, match="No training pairs"):
            train(pairs=[])


class TestResuming:
    def test_ends_at_the_same_weights(self, train, monkeypatch):
        from transformers import Trainer

        _, whole = train("whole", alone=0.5, save_every=1)

        def fall(self, *args, **kwargs):
            if self.state.global_step == 2 and "one" in self.args.output_dir:
                raise KeyboardInterrupt
            return real(self, *args, **kwargs)

        real = Trainer.training_step
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "training_step", fall)
            with pytest.raises(KeyboardInterrupt):
                train("cut", alone=0.5, save_every=1)
        log, resumed = train("cut", alone=0.5, save_every=1)
        assert same(whole, resumed)
        assert log[-1]["step"] == 4

    def test_half_a_checkpoint_is_passed_over(self, tmp_path):
        from llm_blender.training.loop import checkpoints

        for step in (9, 10, 100):
            (tmp_path / f"checkpoint-{step}").mkdir()
        assert checkpoints(tmp_path) == []
        for step in (9, 10):
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").touch()
        assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]


class TestEncoders:
    def test_none(self, tmp_path):
        from llm_blender.training.checkpoints import new_pair_ranker

        with pytest.raises(NotFoundError, match="No encoder"):
            new_pair_ranker(Recipe(), str(tmp_path))

    def test_one_that_reads_fewer_tokens(self, tiny_encoder):
        from llm_blender.training.checkpoints import new_pair_ranker

        with pytest.raises(InputError, match="reads 160 tokens: max_length cannot be 384"):
            new_pair_ranker(Recipe(), str(tiny_encoder))

    def test_a_late_ranker_learns_more_positions(self, tiny_ranker):
        from llm_blender.training.checkpoints import new_pair_ranker

        def positions(**changes):
            recipe = Recipe.model_validate(BASE | {"init": str(tiny_ranker()), "alone_layers": 1} | changes)
            model, form, _ = new_pair_ranker(recipe, "")
            return model.pretrained_model.embeddings.position_embeddings.weight, form.config.backbone

        first, _ = positions()
        more, backbone = positions(max_length=len(first) + 100)
        assert more.shape[0] == backbone["max_position_embeddings"] == len(first) + 100
        assert (more[: len(first)] == first).all()
        assert (
            more[len(first) :] == first[len(first) // 2 :][[i % (len(first) - len(first) // 2) for i in range(100)]]
        ).all()

    @pytest.mark.parametrize("kind", ["distilbert", "electra", "roberta", "mpnet", "deberta-v2", "modernbert"])
    def test_freezing_knows_other_architectures(self, kind):
        import torch
        from transformers import AutoConfig, AutoModel

        from llm_blender.training.loop import freeze

        sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
        if kind == "distilbert":
            sizes = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 16}
        config = AutoConfig.for_model(kind, vocab_size=30, pad_token_id=0, **sizes)
        model = torch.nn.Module()
        model.pretrained_model = AutoModel.from_config(config)
        freeze(model.pretrained_model, 1)
        frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
        assert [name for name in frozen if "word_embeddings" in name or "tok_embeddings" in name]
        assert {layer for layer in "012" if any(f".{layer}." in name for name in frozen)} == {"0"}
        assert not {name for name, weight in model.named_parameters() if ".0." in name} - frozen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, pairs in (("train", PAIRS), ("dev", PAIRS[8::7]), ("test", PAIRS[:1])):
        rows = (
            {
                "instruction": pair.prompt,
                "candidates": [
                    {"text": pair.texts[0], "scores": {"s": 1}},
                    {"text": pair.texts[1], "scores": {"s": 0}},
                ],
            }
            for pair in pairs
        )
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def recipe():
    source = {"name": "Good and bad", "url": "https://example.org/good", "licence": "CC0-1.0"}
    return Recipe.model_validate(
        BASE
        | {
            "alone": 0.25,
            "sources": [{"file": "train.jsonl", **source}],
            "dev_sources": [{"file": "dev.jsonl"}],
            "frozen_layers": 0,
            "save_every": 100,
        }
    )


@pytest.fixture(scope="module")
def run_recipe(folder, tiny_encoder):
    """Return a function that runs a recipe on the rows of `folder`."""
    from llm_blender.training.run import train_ranker

    def run(recipe, output, *, exclude=(folder / "test.jsonl",), **options):
        return train_ranker(recipe, folder, folder, output, exclude=exclude, backbone=str(tiny_encoder), **options)

    return run


@pytest.fixture(scope="module")
def made(run_recipe, recipe, tmp_path_factory):
    output = tmp_path_factory.mktemp("ranker")
    steps, notes = [], []
    run = run_recipe(recipe, output, progress=lambda *counts: steps.append(counts), note=notes.append)
    return output, run, steps, notes


class TestRun:
    def test_the_folder_is_a_whole_checkpoint(self, made):
        import safetensors.torch
        import torch

        output = made[0]
        files = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
        assert {file for file in files if not file.startswith("trainer/")} == {
            "README.md",
            "config.json",
            "model.safetensors",
            "onnx/model_fp32.onnx",
            "onnx/model_int8.onnx",
            "seen.json",
            "tokenizer.json",
        }
        assert {t.dtype for t in safetensors.torch.load_file(output / "model.safetensors").values()} == {torch.float16}

    def test_every_backend_reads_it_alike(self, made):
        texts = ["the sky is good", "the sky is bad", "the sea is not good"]
        rankers = [
            PairRanker.from_pretrained(made[0], **options)
            for options in ({"precision": "fp32"}, {"backend": "torch", "device": "cpu"})
        ]
        one, other = (ranker.rank("why is the sky", texts, strategy="full").logits for ranker in rankers)
        np.testing.assert_allclose(one, other, atol=2e-4)  # 1e-4, each rounded to 4 decimals

    def test_the_run_says_what_it_used_and_found(self, made):
        _, run, steps, notes = made
        (count,) = run.sources
        assert (count.rows, count.excluded, count.groups, count.pairs) == (64, 8, 56, 56)
        assert set(run.quality.dev) == {
            *("pairs", "agreement", "agreement_low", "agreement_high", "longest"),
            *("flip_rate", "ece", "brier", "log_loss"),
        }
        assert run.quality.dev["pairs"] == 8
        assert run.quality.dev["longest"] == 1  # "good" has a letter more than "bad"
        assert 0 <= run.quality.int8["same_decision"] <= 1
        assert steps[-1] == (9, 9)  # 14 pairs pointwise in 3 steps, 42 pairwise in 6
        assert notes[-1].startswith("one, step 6 of 6: loss ")

    def test_the_temperature_is_the_fitted_one(self, made):
        output, run, *_ = made
        assert PairRankerConfig.load(output).temperature == run.quality.temperature != 1

    def test_the_card_is_written_from_the_run(self, made, folder):
        import hashlib

        card = (made[0] / "README.md").read_text()
        digest = hashlib.sha256((folder / "train.jsonl").read_bytes()).hexdigest()
        assert f"| [Good and bad](https://example.org/good) | CC0-1.0 | 64 | 8 | 56 | 56 | `{digest}` |" in card
        assert "is in a test file: `test.jsonl`" in card
        assert "| learning_rate | 0.001 |" in card
        assert "| agreement | " in card
        assert "| one | 6 | " in card
        assert str(folder) not in card

    def test_again_it_trains_no_more(self, made, run_recipe, recipe):
        output, run, *_ = made
        before = (output / "model.safetensors").read_bytes()
        steps = []
        again = run_recipe(recipe, output, progress=lambda *counts: steps.append(counts))
        assert steps == []
        assert (output / "model.safetensors").read_bytes() == before
        assert again.quality == run.quality

    def test_another_run_does_not_go_on_from_its_checkpoints(self, made, run_recipe, recipe):
        for changed, options in ((recipe, {"exclude": []}), (recipe.model_copy(update={"seed": 5}), {})):
            with pytest.raises(InputError, match="belongs to a run with another recipe or other data"):
                run_recipe(changed, made[0], **options)

    def test_without_development_rows(self, run_recipe, recipe, tmp_path):
        recipe = recipe.model_copy(
            update={"dev_sources": (), "sources": (recipe.sources[0].model_copy(update={"max_groups": 8}),)}
        )
        run = run_recipe(recipe, tmp_path / "out", exclude=[])
        assert (run.quality.dev, run.quality.temperature) == ({}, 1.0)
        assert "There were no development pairs." in Path(tmp_path / "out" / "README.md").read_text()
