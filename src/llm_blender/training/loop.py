"""What every training loop on `transformers.Trainer` shares: its arguments, its checkpoints, what it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.utils import logging

from llm_blender.training.recipe import Recipe
from llm_blender.types import OnProgress

__all__ = ["Told", "arguments", "average_weights", "checkpoints", "last_checkpoint", "silence", "without_bars"]


def arguments(recipe: Recipe, output: Path, *, evaluate: bool, steps: int | None = None) -> TrainingArguments:
    """Those of a recipe, for data sets whose items are whole batches; evaluated are its ``targets``."""
    output.mkdir(parents=True, exist_ok=True)
    return TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        num_train_epochs=recipe.epochs,
        max_steps=steps or -1,  # what is not -1 counts instead of the epochs
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        seed=recipe.seed,
        data_seed=recipe.seed,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=recipe.save_every,
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=max(2, recipe.average),
        logging_steps=10,
        report_to="none",
        remove_unused_columns=False,
        label_names=["targets"],
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def silence(trainer: Trainer) -> None:
    """Without the callbacks that write to standard output."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)


@contextmanager
def without_bars() -> Iterator[None]:
    """Without transformers' progress bars of loading and writing weights."""
    log: Any = logging  # has no types
    shown = log.is_progress_bar_enabled()
    log.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            log.enable_progress_bar()


def checkpoints(folder: Path) -> list[Path]:
    """The trainer's checkpoints in a folder, the last one last."""
    # The trainer writes its state last: without it, the checkpoint is half of one.
    found = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def last_checkpoint(folder: Path) -> str | None:
    """The checkpoint to go on from, if there is one."""
    found = checkpoints(folder)
    return str(found[-1]) if found else None


def average_weights(folders: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of several checkpoints' weights (arXiv 1803.05407, 2203.05482)."""
    states = [safetensors.torch.load_file(folder / "model.safetensors") for folder in folders]
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


class Told(TrainerCallback):
    """Passes steps and evaluations on.

    Args:
        stage: name of what is trained, for `note`.
        before: steps done in earlier stages.
        progress: told the steps done and known of.
        note: told each evaluation, in a line.
    """

    def __init__(
        self, stage: str, before: int, progress: OnProgress | None, note: Callable[[str], None] | None
    ) -> None:
        self._stage, self._before, self._progress, self._note = stage, before, progress, note

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After each step."""
        if self._progress:
            self._progress(self._before + state.global_step, self._before + state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """After each evaluation."""
        if self._note and metrics:
            names = [name for name in ("loss", "agreement", "accuracy") if f"eval_{name}" in metrics]
            found = ", ".join(f"{name} {metrics[f'eval_{name}']:.3f}" for name in names)
            self._note(f"{self._stage}, step {state.global_step} of {state.max_steps}: {found}")
