"""Training a fuser with `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer

from llm_blender.fusers.gen_fuser.loading import Loaded
from llm_blender.ranking import bootstrap_interval
from llm_blender.training.fuser.batches import IGNORED
from llm_blender.training.fuser.recipe import FuserRecipe
from llm_blender.training.loop import Told, arguments, last_checkpoint, silence, without_bars
from llm_blender.types import OnProgress

__all__ = ["answer_losses", "train_loaded"]

Batch = dict[str, Tensor]
Batches = Dataset[Batch]


def answer_losses(model: Any, batch: Batch, seq2seq: bool) -> Tensor:
    """``[B, A]``: how unlikely each token of the answers is, as -log p; 0 where there is none.

    A vocabulary is large, and most of what a causal LLM reads is the prompt: only the answer's logits are computed.
    """
    labels = batch["labels"]
    read = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
    if seq2seq:
        logits = model(**read, decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels)).logits
    else:
        width = labels.shape[1]
        output = model(**read, position_ids=batch["position_ids"], logits_to_keep=width)
        # The one before a token predicts it.
        logits, labels = output.logits[:, -width:-1], labels[:, 1:]
    losses = functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view_as(labels)


class _FuserTrainer(Trainer):
    """Minimises the mean loss of a step's answer tokens, in however many batches they come."""

    seq2seq: bool
    bfloat16: bool

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        losses = self._losses(model, inputs)
        count = (inputs["labels"] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        loss = losses.sum() / count
        return (loss, {"losses": losses}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Batch, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, Tensor, Tensor]:
        inputs = self._prepare_inputs(inputs)
        with torch.inference_mode():
            losses = self._losses(model, inputs)
        return None, losses.sum(1), (inputs["labels"] != IGNORED).sum(1)

    def _losses(self, model: Any, batch: Batch) -> Tensor:
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=self.bfloat16):
            return answer_losses(model, batch, self.seq2seq)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]  # its batches are in a drawn order


def _per_token(prediction: Any) -> dict[str, float]:
    """Mean loss of an answer's tokens, and the interval of that mean over other rows."""
    sums, counts = np.asarray(prediction.predictions, np.float64), np.asarray(prediction.label_ids)
    rows = np.repeat(np.arange(len(sums)), counts)
    interval = bootstrap_interval(np.repeat(sums / counts, counts), rows)
    return {
        "loss": float(sums.sum() / counts.sum()),
        "loss_low": interval.low,
        "loss_high": interval.high,
        "rows": len(sums),
        "tokens": int(counts.sum()),
    }


def _collate(batches: Sequence[Batch]) -> Batch:
    (batch,) = batches
    return batch


def train_loaded(
    loaded: Loaded,
    recipe: FuserRecipe,
    train: Batches,
    dev: Batches | None,
    output: Path,
    *,
    progress: OnProgress | None = None,
    note: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Train; goes on from the last checkpoint in `output`, if there is one, to the same weights.

    Args:
        loaded: what to train; it holds the trained weights afterwards.
        recipe: how.
        train: batches of all passes, in order.
        dev: measures it before, while and after it trains.
        output: folder of the trainer's checkpoints.
        progress: told the steps done and to do.
        note: told each evaluation, in a line.

    Returns:
        The trainer's log: step, loss of the steps, ``eval_loss`` per token with its interval.
    """
    before = last_checkpoint(output)
    trainer = _FuserTrainer(
        model=loaded.model,
        args=arguments(
            recipe,
            output,
            evaluate=dev is not None,
            num_train_epochs=1,
            gradient_accumulation_steps=recipe.accumulate,
            eval_on_start=dev is not None and before is None,
            label_names=["labels"],
        ),
        train_dataset=train,
        eval_dataset=dev,
        data_collator=_collate,
        compute_metrics=_per_token,
    )
    trainer.seq2seq, trainer.bfloat16 = loaded.seq2seq, recipe.bf16
    trainer.model_accepts_loss_kwargs = True  # the loss is a mean over the step already
    silence(trainer)
    trainer.add_callback(Told("fuser", 0, progress, note))
    with without_bars():
        trainer.train(resume_from_checkpoint=before)
    loaded.model.eval()
    return list(trainer.state.log_history)
