"""Training a PairRanker with `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from llm_blender.errors import InputError
from llm_blender.rankers.pair_ranker.input_format import InputFormat, PairBatch, PairSequence
from llm_blender.rankers.pair_ranker.modeling import PairRankerModel
from llm_blender.training.pairs import TrainingPair
from llm_blender.training.recipe import Recipe

__all__ = ["PairDataset", "train_pair_ranker"]


class PairDataset(Dataset[dict[str, Any]]):
    """Ordered pairs, tokenised: each text once.

    Args:
        pairs: what to learn from.
        input_format: the ranker's.
        orders: ``both``: 2P items; ``one``: P items, alternately with the better candidate left and right (the
            sampler's order is random, so a batch holds both kinds).
    """

    def __init__(self, pairs: Sequence[TrainingPair], input_format: InputFormat, orders: str) -> None:
        texts = list(dict.fromkeys(text for p in pairs for text in (p.prompt, p.better, p.worse)))
        self._ids = dict(zip(texts, input_format.tokenize(texts), strict=True))
        self._format = input_format
        self._items = [
            (pair, better_left)
            for index, pair in enumerate(pairs)
            for better_left in ((True, False) if orders == "both" else (index % 2 == 0,))
        ]

    def __len__(self) -> int:
        return len(self._items)

    def _sequence(self, pair: TrainingPair, better_left: bool) -> PairSequence:
        source = self._format.fit_source(self._ids[pair.prompt])
        better, worse = (
            self._format.fit_candidate(self._ids[text], len(source)) for text in (pair.better, pair.worse)
        )
        return self._format.join(source, better, worse) if better_left else self._format.join(source, worse, better)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair, better_left = self._items[index]
        sequence = self._sequence(pair, better_left)
        return {
            "input_ids": sequence.ids,  # the trainer's length sampler looks for this name
            "segment_ids": sequence.segments,
            "labels": 1.0 if better_left else -1.0,
        }


@dataclass(frozen=True)
class _Collator:
    pad_id: int

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        sequences = [PairSequence(item["input_ids"], item["segment_ids"]) for item in items]
        batch = PairBatch.pad(sequences, self.pad_id)
        return {
            "input_ids": torch.from_numpy(batch.input_ids),
            "attention_mask": torch.from_numpy(batch.attention_mask),
            "segment_ids": torch.from_numpy(batch.segment_ids),
            "labels": torch.tensor([item["labels"] for item in items]),
        }


class _PairTrainer(Trainer):
    """The logistic loss on ordered pairs, ``-log sigmoid(sign * l(left, right))`` (arXiv 2306.02561, section 3.2,
    in the form of the released model): a batch holds as many pairs with the better one left as right.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        signs = inputs["labels"]
        logits = model(inputs["input_ids"], inputs["attention_mask"], inputs["segment_ids"])
        loss = torch.nn.functional.softplus(-signs.unsqueeze(-1) * logits).mean()
        return (loss, {"logits": logits}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = self._prepare_inputs(inputs)
        with torch.inference_mode():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        return loss, outputs["logits"].mean(-1), inputs["labels"]


def _agreement(prediction: Any) -> dict[str, float]:
    """Share of pairs that are ordered as labelled, and the share of left answers preferred (0.5 is unbiased)."""
    logits, signs = (np.asarray(values) for values in (prediction.predictions, prediction.label_ids))
    return {"agreement": float(np.mean(logits * signs > 0)), "prefers_left": float(np.mean(logits > 0))}


def train_pair_ranker(
    recipe: Recipe,
    model: PairRankerModel,
    input_format: InputFormat,
    train: Sequence[TrainingPair],
    dev: Sequence[TrainingPair],
    output: Path,
) -> dict[str, Any]:
    """Train until the recipe's epochs are done; goes on from the last checkpoint in `output`, if there is one.

    Returns:
        The trainer's log: loss, agreement and seconds by step.

    Raises:
        InputError: there are no pairs.
    """
    if not train:
        raise InputError("No training pairs: do the rows hold `pairs`, or `scores` that differ by at least min_gap?")
    set_seed(recipe.seed)
    freeze(model, recipe.frozen_layers)
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        train_sampling_strategy="group_by_length",
        seed=recipe.seed,
        data_seed=recipe.seed,
        eval_strategy="steps" if dev else "no",
        eval_steps=recipe.save_every,
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=2,
        logging_steps=10,
        report_to="none",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = _PairTrainer(
        model=model,
        args=arguments,
        train_dataset=PairDataset(train, input_format, recipe.orders),
        eval_dataset=PairDataset(dev, input_format, "one") if dev else None,
        data_collator=_Collator(input_format.pad_id),
        compute_metrics=_agreement,
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(output)) if output.is_dir() else None)
    return {"log": trainer.state.log_history, "steps": trainer.state.global_step}


def freeze(model: PairRankerModel, layers: int) -> None:
    """Freeze the embeddings and the `layers` lowest encoder layers; -1 freezes nothing."""
    if layers < 0:
        return
    backbone: Any = model.pretrained_model
    for module in (backbone.embeddings, *backbone.encoder.layer[:layers]):
        module.requires_grad_(False)
