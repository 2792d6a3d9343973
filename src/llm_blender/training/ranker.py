"""Training a PairRanker with `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Trainer

from llm_blender.errors import InputError
from llm_blender.rankers.pair_ranker.input_format import InputFormat
from llm_blender.rankers.pair_ranker.modeling import AnyPairRanker, LatePairRankerModel, PairRankerModel
from llm_blender.training.batches import Batches, ReadingMode, TrainingBatch
from llm_blender.training.groups import TrainingGroup
from llm_blender.training.loop import Told, arguments, freeze, last_checkpoint, silence
from llm_blender.training.losses import PairLoss, find_loss
from llm_blender.training.recipes import Recipe
from llm_blender.types import OnProgress

__all__ = ["train_pair_ranker"]


def _collate(batches: Sequence[TrainingBatch]) -> dict[str, Any]:
    (batch,) = batches
    return {field.name: getattr(batch, field.name) for field in fields(batch)}


def pair_scores(model: nn.Module, batch: dict[str, Any], reading: ReadingMode) -> tuple[Tensor, Tensor]:
    """Scores ``[P, tasks]`` of the left and the right candidates of a batch's preferences."""
    left, right = batch["left"], batch["right"]
    if isinstance(model, LatePairRankerModel):
        states = model.encode(batch["input_ids"], batch["attention_mask"])
        read = (states, batch["attention_mask"], batch["segment_ids"], batch["lengths"])
        if reading == "alone":
            alone = model.alone(*read)
            return alone[left], alone[right]
        both = torch.cat([left, right])
        return model.scores(*(values[both] for values in read))
    of_left, of_right = cast(PairRankerModel, model).scores(
        batch["input_ids"], batch["attention_mask"], batch["segment_ids"]
    )
    return of_left[left], (of_left if reading == "alone" else of_right)[right]


class _PairTrainer(Trainer):
    """Minimises the recipe's loss: its mean over each group, weighted by the root of how much the group says."""

    reading: ReadingMode
    loss: PairLoss
    bfloat16: bool

    def _read(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=self.bfloat16):
            left, right = pair_scores(model, batch, self.reading)
        return left.float(), right.float()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        left, right = self._read(model, inputs)
        targets = inputs["targets"].unsqueeze(-1).expand_as(left)
        parts = [values.split(inputs["sizes"]) for values in (left, right, targets, 1 - targets)]
        weights = torch.tensor(inputs["sizes"], device=left.device).sqrt()
        losses = torch.stack([self.loss(*group) for group in zip(*parts, strict=True)])
        loss = (weights * losses).sum() / weights.sum()
        return (loss, {"logits": left - right}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = self._prepare_inputs(inputs)
        with torch.inference_mode():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        return loss, outputs["logits"].mean(-1), inputs["targets"]


def _agreement(prediction: Any) -> dict[str, float]:
    """Share of pairs that are ordered as labelled, and the share of left answers preferred (0.5 is unbiased)."""
    logits, targets = (np.asarray(values) for values in (prediction.predictions, prediction.label_ids))
    return {"agreement": float(np.mean(logits * (targets - 0.5) > 0)), "prefers_left": float(np.mean(logits > 0))}


def train_pair_ranker(
    recipe: Recipe,
    model: AnyPairRanker,
    input_format: InputFormat,
    train: Sequence[TrainingGroup],
    dev: Sequence[TrainingGroup],
    output: Path,
    *,
    progress: OnProgress | None = None,
    note: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Train in the recipe's two stages; goes on from the last checkpoint in `output`, if there is one.

    `progress` is told the steps done and known of, `note` each evaluation, in a line.

    First the candidates of the first `recipe.alone` of the groups are read alone, from which a small encoder learns
    what a good answer is several times faster; then those of others are compared.

    Returns:
        The trainer's log: stage, step, loss, agreement.

    Raises:
        InputError: there are no groups, or the loss is unknown.
    """
    if not train:
        raise InputError("No training pairs: do the rows hold `pairs`, or `scores` that differ by at least min_gap?")
    freeze(model.pretrained_model, recipe.frozen_layers)
    first = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    cut = round(len(train) * recipe.alone)
    compared: ReadingMode = "late" if recipe.alone_layers else recipe.orders
    end = cut + round(len(train) * recipe.compared)
    stages: list[tuple[ReadingMode, float, Sequence[TrainingGroup]]] = [
        ("alone", recipe.alone, train[:cut]),
        (compared, 1 - recipe.alone, train[cut:end]),
    ]
    log: list[dict[str, Any]] = []
    done = 0
    for reading, share, groups in stages:
        if groups:
            steps = recipe.steps and max(1, round(recipe.steps * share))
            trainer = _trainer(recipe, model, input_format, reading, groups, dev, output / reading, steps)
            trainer.add_callback(Told(reading, done, progress, note))
            trainer.train(resume_from_checkpoint=last_checkpoint(output / reading))
            done += trainer.state.max_steps
            log += [{"stage": reading, **entry} for entry in trainer.state.log_history]
    if recipe.keep_init:
        trained = model.state_dict()
        model.load_state_dict({name: torch.lerp(trained[name], first[name], recipe.keep_init) for name in first})
    return log


def _trainer(
    recipe: Recipe,
    model: AnyPairRanker,
    input_format: InputFormat,
    reading: ReadingMode,
    train: Sequence[TrainingGroup],
    dev: Sequence[TrainingGroup],
    output: Path,
    steps: int | None,
) -> Trainer:
    def batches(groups: Sequence[TrainingGroup], as_read: ReadingMode) -> Batches:
        return Batches(groups, input_format, as_read, recipe.batch_tokens, recipe.soft_labels)

    trainer = _PairTrainer(
        model=model,
        args=arguments(recipe, output, evaluate=bool(dev), steps=steps),
        train_dataset=batches(train, reading),
        eval_dataset=batches(dev, "one" if reading == "both" else reading) if dev else None,
        data_collator=_collate,
        compute_metrics=_agreement,
    )
    trainer.reading, trainer.loss, trainer.bfloat16 = reading, find_loss(recipe.loss), recipe.bf16
    silence(trainer)
    return trainer
