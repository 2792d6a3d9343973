"""What every training loop on `transformers.Trainer` shares: its arguments, its checkpoints, what it tells."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.utils import logging

from llm_blender.errors import InputError
from llm_blender.training.recipes import Optimisation
from llm_blender.types import OnProgress

__all__ = [
    "Told",
    "arguments",
    "checkpoints",
    "claim",
    "freeze",
    "last_checkpoint",
    "lower_layers",
    "silence",
    "without_bars",
]


def arguments(
    recipe: Optimisation, output: Path, *, evaluate: bool, steps: int | None = None, **others: Any
) -> TrainingArguments:
    """Those of a recipe, for data sets whose items are whole batches; evaluated are its ``targets``.

    Args:
        recipe: how to optimise.
        output: folder of the trainer's checkpoints.
        evaluate: whether there is anything to evaluate on.
        steps: in place of the recipe's epochs.
        **others: of ``TrainingArguments``, in place of those that all trainings have.
    """
    output.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
        "output_dir": str(output),
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "num_train_epochs": recipe.epochs,
        "max_steps": steps or -1,  # what is not -1 counts instead of the epochs
        "learning_rate": recipe.learning_rate,
        "warmup_steps": recipe.warmup,
        "weight_decay": recipe.weight_decay,
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch_fused",
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "eval_strategy": "steps" if evaluate else "no",
        "eval_steps": recipe.save_every,
        "save_strategy": "steps",
        "save_steps": recipe.save_every,
        "save_total_limit": 2,
        "logging_steps": 10,
        "report_to": "none",
        "remove_unused_columns": False,
        "label_names": ["targets"],
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    return TrainingArguments(**{**common, **others})


def claim(folder: Path, *parts: Any) -> None:
    """Leave a mark of this run's recipe and data, so that no other run goes on from its checkpoints.

    Args:
        folder: holds a folder of checkpoints for each stage.
        *parts: what makes a run this one, by their ``repr``.

    Raises:
        InputError: the folder belongs to another run.
    """
    mark = hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()
    path = folder / "run.sha256"
    if any(folder.glob("*/checkpoint-*")) and path.is_file() and path.read_text() != mark:
        raise InputError(
            f"{folder} belongs to a run with another recipe or other data: remove it, or choose another output."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(mark)


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


def freeze(backbone: nn.Module, layers: int) -> None:
    """Freeze the embeddings and the `layers` lowest layers; -1 freezes nothing."""
    if layers < 0:
        return
    _, stack = _layers(backbone)
    whole: Any = backbone
    embeddings = getattr(backbone, "embeddings", None) or whole.get_input_embeddings()
    for module in (embeddings, *stack[:layers]):
        module.requires_grad_(False)


def lower_layers(backbone: nn.Module, layers: int) -> str | None:
    """A regular expression for the names of all modules in the `layers` lowest layers; None for none."""
    name, _ = _layers(backbone)
    return rf"{re.escape(name)}\.({'|'.join(map(str, range(layers)))})\..*" if layers > 0 else None


def _layers(backbone: nn.Module) -> tuple[str, nn.ModuleList]:
    """A model's stack of layers, and its name; of an encoder and a decoder, the encoder's."""
    return next((name, module) for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList))
