"""Training a PairRanker with `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from llm_blender.errors import InputError
from llm_blender.rankers.pair_ranker.input_format import InputFormat, PairBatch, PairSequence
from llm_blender.rankers.pair_ranker.modeling import PairRankerModel
from llm_blender.training.pairs import TrainingPair
from llm_blender.training.recipe import Recipe
from llm_blender.types import OnProgress

__all__ = ["PairDataset", "train_pair_ranker"]


class PairDataset(Dataset[dict[str, Any]]):
    """Labelled pairs, tokenised: each text once.

    Args:
        pairs: what to learn from.
        input_format: the ranker's.
        reading: ``both``: each pair in both orders, 2P items; ``one``: P items, in turn with the better candidate
            left and right; ``alone``: P items, each candidate in a sequence of its own.
    """

    def __init__(
        self,
        pairs: Sequence[TrainingPair],
        input_format: InputFormat,
        reading: Literal["both", "one", "alone"],
    ) -> None:
        texts = list(dict.fromkeys(text for p in pairs for text in (p.prompt, p.better, p.worse)))
        self._ids = dict(zip(texts, input_format.tokenize(texts), strict=True))
        self._format, self._alone = input_format, reading == "alone"
        self._items = [
            (pair, better_left)
            for index, pair in enumerate(pairs)
            for better_left in ((True, False) if reading == "both" else (index % 2 == 0,))
        ]
        self.lengths = [max(map(len, self._sequences(*item))) for item in self._items]

    def __len__(self) -> int:
        return len(self._items)

    def _sequences(self, pair: TrainingPair, better_left: bool) -> list[PairSequence]:
        source = self._format.fit_source(self._ids[pair.prompt])
        left, right = (
            self._format.fit_candidate(self._ids[text], len(source))
            for text in ((pair.better, pair.worse) if better_left else (pair.worse, pair.better))
        )
        if self._alone:
            return [self._format.join(source, left, None), self._format.join(source, None, right)]
        return [self._format.join(source, left, right)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair, better_left = self._items[index]
        return {"sequences": self._sequences(pair, better_left), "labels": 1.0 if better_left else -1.0}


@dataclass(frozen=True)
class _Collator:
    pad_id: int

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        columns = zip(*(item["sequences"] for item in items), strict=True)  # all left ones, then all right ones
        batch = PairBatch.pad([sequence for column in columns for sequence in column], self.pad_id)
        return {
            "input_ids": torch.from_numpy(batch.input_ids),
            "attention_mask": torch.from_numpy(batch.attention_mask),
            "segment_ids": torch.from_numpy(batch.segment_ids),
            "labels": torch.tensor([item["labels"] for item in items]),
        }


class _PairTrainer(Trainer):
    """The logistic loss, ``-log sigmoid(sign * logit)``, of the released PairRM (arXiv 2306.02561, section 3.2).

    A pair read in one sequence has the logit l(left, right); candidates that are read alone, the difference of their
    scores (Bradley-Terry). Over an epoch as many better candidates stand left as right, so that the place itself
    carries no information.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        generator = torch.Generator().manual_seed(self.args.seed)
        lengths = cast(PairDataset, self.train_dataset).lengths
        return LengthGroupedSampler(self.args.train_batch_size, lengths=lengths, generator=generator)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        signs = inputs["labels"]
        left, right = model.scores(inputs["input_ids"], inputs["attention_mask"], inputs["segment_ids"])
        logits = left[: len(signs)] - right[-len(signs) :]  # the same rows, unless candidates are read alone
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
    *,
    progress: OnProgress | None = None,
    note: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Train in the recipe's two stages; goes on from the last checkpoint in `output`, if there is one.

    `progress` is told the steps done and known of, `note` each evaluation, in a line.

    First the candidates of the first `recipe.alone` of the pairs are read alone, from which a small encoder learns
    what a good answer is several times faster; then the other pairs are compared, each in one sequence.

    Returns:
        The trainer's log: stage, step, loss, agreement.

    Raises:
        InputError: there are no pairs.
    """
    if not train:
        raise InputError("No training pairs: do the rows hold `pairs`, or `scores` that differ by at least min_gap?")
    freeze(model, recipe.frozen_layers)
    cut = round(len(train) * recipe.alone)
    log: list[dict[str, Any]] = []
    done = 0
    for reading, pairs in (("alone", train[:cut]), (recipe.orders, train[cut:])):
        if pairs:
            trainer = _trainer(recipe, model, input_format, reading, pairs, dev, output / reading)
            trainer.add_callback(_Told(reading, done, progress, note))
            trainer.train(resume_from_checkpoint=_last_checkpoint(output / reading))
            done += trainer.state.max_steps
            log += [{"stage": reading, **entry} for entry in trainer.state.log_history]
    return log


def _last_checkpoint(folder: Path) -> str | None:
    # The trainer writes its state last: without it, the checkpoint is half of one.
    checkpoints = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]))) if checkpoints else None


def _trainer(
    recipe: Recipe,
    model: PairRankerModel,
    input_format: InputFormat,
    reading: Any,
    train: Sequence[TrainingPair],
    dev: Sequence[TrainingPair],
    output: Path,
) -> Trainer:
    output.mkdir(parents=True, exist_ok=True)
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
        train_dataset=PairDataset(train, input_format, reading),
        eval_dataset=PairDataset(dev, input_format, "alone" if reading == "alone" else "one") if dev else None,
        data_collator=_Collator(input_format.pad_id),
        compute_metrics=_agreement,
    )
    for callback in (PrinterCallback, ProgressCallback):  # they write to standard output
        trainer.remove_callback(callback)
    return trainer


class _Told(TrainerCallback):
    """Passes steps and evaluations on."""

    def __init__(
        self, stage: str, before: int, progress: OnProgress | None, note: Callable[[str], None] | None
    ) -> None:
        self._stage, self._before, self._progress, self._note = stage, before, progress, note

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._progress:
            self._progress(self._before + state.global_step, self._before + state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        if self._note and metrics:
            self._note(
                f"{self._stage}, step {state.global_step} of {state.max_steps}: "
                f"loss {metrics['eval_loss']:.3f}, agreement {metrics['eval_agreement']:.3f}"
            )


def freeze(model: PairRankerModel, layers: int) -> None:
    """Freeze the embeddings and the `layers` lowest encoder layers; -1 freezes nothing."""
    if layers < 0:
        return
    backbone: Any = model.pretrained_model
    stack = next(module for module in backbone.modules() if isinstance(module, torch.nn.ModuleList))  # of its layers
    for module in (backbone.embeddings, *stack[:layers]):
        module.requires_grad_(False)
