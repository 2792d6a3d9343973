"""Whole runs on tiny random models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm_blender.errors import CheckpointError, InputError, MissingExtraError, NotFoundError
from llm_blender.fusers.gen_fuser import GenFuser, Lengths
from llm_blender.training.fuser_rows import load_rows

from .conftest import make_recipe, make_row, same, write_rows

if TYPE_CHECKING:
    import torch

    from llm_blender.training.fuser import FuserRecipe, FuserRun


ROWS = [make_row(i) for i in range(40)]
DEV = {"dev_sources": [{"file": "dev.jsonl", "score": "judge"}]}
LORA = {"lora_rank": 4, "lora_alpha": 8, "bf16": True}


@pytest.fixture
def train(request: pytest.FixtureRequest, tmp_path: Path, data: Callable[..., Path]) -> Callable[..., FuserRun]:
    """Return a function that trains a tiny model on `ROWS`."""
    from llm_blender.training.fuser import train_fuser

    def run(kind: str = "llama", output: str = "run", *, rows: Any = ROWS, dev: Any = ROWS[:4], **changes: Any) -> Any:
        folder = data(rows, dev)
        options = {name: changes.pop(name) for name in ("exclude", "progress", "note") if name in changes}
        backbone = str(request.getfixturevalue(f"tiny_{kind}"))
        return train_fuser(make_recipe(**changes), folder, folder, tmp_path / output, backbone=backbone, **options)

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    import safetensors.torch

    (path,) = folder.glob("*model.safetensors")
    return safetensors.torch.load_file(path)


def loss_of(folder: Path, recipe: FuserRecipe, data: Path) -> float:
    """Compute the loss per token of the development rows, with the model that `GenFuser` loads."""
    import torch

    from llm_blender.fusers.gen_fuser.loading import load
    from llm_blender.training.fuser import FuserLearner

    learner = FuserLearner(load(folder, dtype="float32", device="cpu"), recipe, "")
    rows, _ = load_rows(recipe.dev_sources, data, frozenset(), recipe.top_k, recipe.seed)
    batches = learner.batches(learner.fit(rows), evaluation=True)
    with torch.inference_mode():
        outputs = [learner.step(batches[i]) for i in range(len(batches))]
    return float(sum(out.predictions.sum() for out in outputs) / sum(out.targets.sum() for out in outputs))


@pytest.mark.parametrize(
    ("kind", "changes", "share", "tolerance"),
    [
        ("t5", {"learning_rate": 3e-2}, 0.7, 1e-3),
        ("llama", {}, 0.7, 1e-3),
        ("llama", LORA, 0.9, 0.03),
        ("t5", {"lora_rank": 4}, 0.9, 1e-3),
    ],
)
def test_it_learns_and_a_genfuser_loads_it(train, tmp_path, kind, changes, share, tolerance):
    steps: list[tuple[int, int]] = []
    notes: list[str] = []
    run = train(kind, epochs=6, progress=lambda *n: steps.append(n), note=notes.append, **DEV, **changes)
    first, last = run.evaluations[0], run.evaluations[-1]
    assert (first["step"], last["step"], run.resumed) == (0, run.steps, 0)
    assert last["loss"] < share * first["loss"]
    assert last["loss_low"] <= last["loss"] <= last["loss_high"]
    assert last["rows"] == 4
    assert steps[-1] == (run.steps, run.steps)
    assert notes[-1].startswith(f"fuser, step {run.steps} of {run.steps}: loss ")

    recipe = make_recipe(**DEV, **changes)
    assert loss_of(tmp_path / "run", recipe, tmp_path) == pytest.approx(last["loss"], rel=tolerance)
    fusion = GenFuser.from_pretrained(tmp_path / "run", device="cpu").fuse("Why?", ["a", "b"])
    assert fusion.used == (0, 1)


class TestAdapter:
    def test_it_names_its_base_and_is_all_that_is_kept(self, train, tmp_path, tiny_llama):
        import torch

        before = weights(tiny_llama)
        train(steps=2, **LORA)
        folder = tmp_path / "run"
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(tiny_llama.resolve())
        assert (config["r"], config["lora_alpha"]) == (4, 8)
        assert {path.name for path in folder.iterdir()} == {
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "fuser.json",
            "trainer",
        }
        kept = weights(folder)
        assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
        assert not [name for name in kept if "lora" not in name]
        assert len({name.split(".")[-3] for name in kept}) == 7  # q, k, v, o, gate, up, down
        assert same(before, weights(tiny_llama))

    def test_of_some_layers(self, train, tmp_path):
        train(steps=1, lora_rank=2, lora_targets=["q_proj", "v_proj"])
        assert {name.split(".")[-3] for name in weights(tmp_path / "run")} == {"q_proj", "v_proj"}

    def test_of_the_upper_layers(self, train, tmp_path):
        train(steps=1, lora_rank=2, frozen_layers=1)
        assert {name.split(".layers.")[1][0] for name in weights(tmp_path / "run")} == {"1"}

    def test_layers_that_are_not_there(self, train):
        with pytest.raises(InputError, match="lora_targets query are no layers"):
            train(lora_rank=2, lora_targets=["query"])

    def test_without_peft(self, train, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "peft", None)
        with pytest.raises(MissingExtraError, match=r"llm-blender\[lora\]"):
            train(lora_rank=2)


class TestResuming:
    @pytest.mark.parametrize("changes", [{}, LORA])
    def test_ends_at_the_same_weights(self, train, tmp_path, monkeypatch, changes):
        from transformers import Trainer

        from llm_blender.training.loop import checkpoints

        settings = {"steps": 4, "save_every": 2, "accumulate": 2, "batch_tokens": 800, **DEV, **changes}
        whole = train(output="whole", **settings)
        real = Trainer.training_step

        def fall(self: Any, *args: Any, **options: Any) -> Any:
            if self.state.global_step == 3:
                raise KeyboardInterrupt
            return real(self, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "training_step", fall)
            with pytest.raises(KeyboardInterrupt):
                train(output="cut", **settings)
        assert [path.name for path in checkpoints(tmp_path / "cut/trainer/fuser")] == ["checkpoint-2"]
        run = train(output="cut", **settings)
        assert run.resumed == 2
        assert run.evaluations == whole.evaluations
        assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
        assert "from step 2 on, where it was resumed" in (tmp_path / "cut" / "README.md").read_text()

    def test_another_run_does_not_go_on_from_its_checkpoints(self, train):
        train(steps=1, save_every=1)
        for changes in ({"seed": 1}, {"rows": ROWS[:20]}):
            with pytest.raises(InputError, match="belongs to a run with another recipe or other data"):
                train(**{"steps": 1, "save_every": 1, **changes})


def test_the_seed_decides(train, tmp_path):
    for output, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(output=output, seed=seed, steps=2)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_embeddings_stay_as_they_are(train, tmp_path, tiny_llama):
    import torch

    train(steps=2, frozen_layers=1)
    before, after = weights(tiny_llama), weights(tmp_path / "run")
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved
    assert not [name for name in moved if "embed_tokens" in name or ".layers.0." in name]


def test_the_loss_of_a_step_is_the_mean_over_its_tokens(train):
    rows = [make_row(0, output="the sky"), make_row(9, output="the sea is good and so is the sun and the moon")]
    settings = {"rows": rows, "steps": 1, "answer_max_length": 60, "max_length": 400}
    one, two = (
        train(output=f"run{accumulate}", batch_tokens=batch, accumulate=accumulate, **settings).log[-1]["train_loss"]
        for batch, accumulate in ((800, 1), (400, 2))
    )
    assert one == pytest.approx(two, rel=1e-5)


def test_the_development_loss_is_the_mean_over_tokens_in_however_many_batches(train, tmp_path):
    dev = [make_row(0), make_row(9, output="the sea is good and so is the sun and the moon")]
    changes = {"answer_max_length": 60, "max_length": 400, "batch_tokens": 300, **DEV}
    run = train(dev=dev, steps=1, **changes)
    expected = loss_of(tmp_path / "run", make_recipe(**changes), tmp_path)
    assert run.evaluations[-1]["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_card_is_written_from_the_run(train, tmp_path):
    test = write_rows(tmp_path / "test.jsonl", [make_row(0), make_row(9)])
    run = train(exclude=[test], steps=2, rows=[*ROWS, make_row(0, output=None, instruction="Else?")], **DEV)
    (count,) = run.sources
    assert (count.rows, count.excluded, count.without_reference, count.used) == (41, 2, 1, 38)
    card = (tmp_path / "run" / "README.md").read_text()
    digest = hashlib.sha256((tmp_path / "train.jsonl").read_bytes()).hexdigest()
    source = "[Copies](https://example.org/copies) | CC0-1.0 | 41 | 2 | 1 | 0 | 38 | chance (38) | the rows'"
    assert f"| {source} | `{digest}` |" in card
    assert "| dev.jsonl | not named | 4 | 1 | 0 | 0 | 3 | score (3) | the rows' |" in card
    assert "is in a test file: `test.jsonl`" in card
    assert "| learning_rate | 0.01 |" in card
    lengths = Lengths(max_length=308, candidate_max_length=16, max_new_tokens=12)
    assert Lengths.of_training(tmp_path / "run") == lengths
    last = run.evaluations[-1]
    assert f"| 2 | {last['loss']:.4f} | {last['loss_low']:.4f} to {last['loss_high']:.4f} |" in card
    assert "Steps: 2, in " in card
    assert str(tmp_path) not in card


def test_without_development_rows(train, tmp_path):
    run = train(steps=1, dev=None)
    assert run.evaluations == []
    assert "There were no development rows." in (tmp_path / "run" / "README.md").read_text()


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"sources": []}, "Nothing to learn from"),
            ({"rows": [make_row(1, output=None)]}, "has a reference"),
            ({"rows": [make_row(1, candidates=[])]}, "has a reference and candidates"),
            ({"max_length": 64}, "max_length 64 leaves no room for two candidates"),
            ({"max_length": 1024}, "reads 512 tokens: max_length cannot be 1024"),
        ],
    )
    def test_errors_say_what_to_do(self, train, changes, message):
        with pytest.raises(InputError, match=message):
            train(**changes)

    def test_an_adapter_is_no_backbone(self, train):
        with pytest.raises(InputError, match="is an adapter: train from the model"):
            train("adapter")

    def test_no_model(self, data, tmp_path):
        from llm_blender.training.fuser import train_fuser

        folder = data(ROWS)
        with pytest.raises(NotFoundError, match="No model"):
            train_fuser(make_recipe(backbone=str(tmp_path / "none")), folder, folder, tmp_path / "run")
        (tmp_path / "empty").mkdir()
        with pytest.raises(CheckpointError, match="is no fuser"):
            train_fuser(make_recipe(backbone=str(tmp_path / "empty")), folder, folder, tmp_path / "run")
