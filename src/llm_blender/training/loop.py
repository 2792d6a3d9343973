"""The training loop of every model, on `transformers.Trainer`.

Each kind of model brings a `Learner`. `train` packs examples into its batches, minimises its loss, evaluates on
development examples, and saves checkpoints; an interrupted run resumes from the last one, to the same weights.

Several processes share a run as one process would do it alone: the batches of each step are the same, dealt to the
processes in turn, and so are the loss and what evaluation reads.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import EvalLoopOutput

from llm_blender._torch import without_bars
from llm_blender.errors import InputError, WorkError
from llm_blender.training.processes import check_processes, is_main_process, number_of_processes, on_cpu
from llm_blender.training.recipes import Optimisation
from llm_blender.types import OnProgress

Batch = dict[str, Any]
"""Inputs of one forward pass by name; ``input_ids`` is always among them."""
_Example = TypeVar("_Example")


class Reports(TypedDict, total=False):
    """Callbacks of a training run.

    Attributes:
        progress: called with steps done and steps known of.
        note: called with one line per evaluation.
    """

    progress: OnProgress | None
    note: Callable[[str], None] | None


class StepOutput(NamedTuple):
    """Result of a forward pass over one batch.

    Attributes:
        loss: scalar to minimise.
        predictions: ``[P]``, for `Learner.evaluate`.
        targets: ``[P]``, for `Learner.evaluate`.
    """

    loss: Tensor
    predictions: Tensor
    targets: Tensor


class Learner(ABC, Generic[_Example]):
    """A model to train, with the batches, the loss and the evaluation that belong to it.

    Attributes:
        name: of the training stage, in logs and notes.
        model: module whose parameters are trained.
        draws: whether `batches` holds every pass of the run, each drawn anew; else the loop repeats one pass.
        ordered: whether batches are read in the order of `batches`; else the loop shuffles them.
    """

    name: str
    model: Any
    draws: bool = False
    ordered: bool = False

    @abstractmethod
    def batches(self, examples: Sequence[_Example], *, evaluation: bool = False) -> Dataset[Batch]:
        """Pack examples into batches, for training or, in one pass, for evaluation."""

    @abstractmethod
    def step(self, batch: Batch) -> StepOutput:
        """Compute the loss of one batch, an item of `batches` on the model's device."""

    def weight(self, batch: Batch) -> int:
        """Weigh a batch's loss in the mean over all batches of an optimisation step."""
        return 1

    @abstractmethod
    def evaluate(self, predictions: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
        """Compute figures by name from all development predictions and targets.

        A figure named ``loss`` replaces the mean of the batches' losses.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write a checkpoint that the package loads."""


class _Step(nn.Module):
    """The loss as a forward pass, so that what wraps this module averages the gradients over processes."""

    def __init__(self, learner: Learner[Any]) -> None:
        super().__init__()
        self.model, self._learner = learner.model, learner

    def forward(self, batch: Batch) -> Tensor:
        """Compute the loss of a batch."""
        return self._learner.step(batch).loss


class _LearnerTrainer(Trainer):
    learner: Learner[Any]
    bfloat16: bool

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        share = inputs.pop("share")
        with self._precision(inputs):
            return model(inputs) * share

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Batch], Tensor]:
        batches = list(itertools.islice(epoch_iterator, num_batches))
        weights = [self.learner.weight(batch) for batch in batches]
        processes, ended = self.args.world_size, self.accelerator.gradient_state.end_of_dataloader
        if ended and 0 < len(self.train_dataset) % processes <= self.args.process_index:  # type: ignore[arg-type]
            weights[-1] = 0  # no batch was left for this process, and it was dealt one from the beginning again
        total = self.accelerator.reduce(torch.tensor(sum(weights), device=device), "sum")
        # The shares of all processes add up to their number, by which the average of the gradients divides them.
        shares = [weight * processes / int(total) for weight in weights]
        return [{**batch, "share": share} for batch, share in zip(batches, shares, strict=True)], total

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: Any = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        # The trainer's own loop gathers rows of one width, and an item here is a whole batch of any size.
        self.learner.model.eval()
        own = []
        for batch in map(self._prepare_inputs, dataloader):
            with torch.inference_mode(), self._precision(batch):
                output = self.learner.step(batch)
            predictions, targets = output.predictions.float(), output.targets
            own.append((output.loss.item(), predictions.cpu().numpy(), targets.cpu().numpy()))
        # Batches are dealt in turn; the first ones come again where none are left.
        dealt = itertools.chain.from_iterable(zip(*gather_object([own]), strict=True))
        count = len(dataloader.dataset)
        losses, *others = zip(*itertools.islice(dealt, count), strict=True)
        every = tuple(np.concatenate(arrays) for arrays in others)
        found = {"loss": float(np.mean(losses)), **self.learner.evaluate(*every)}
        figures = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        return EvalLoopOutput(every[0], every[1], figures, count)

    def _precision(self, batch: Batch) -> torch.autocast:
        return torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=self.bfloat16)

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        return self.accelerator.prepare(_Step(self.learner)) if training else model

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.learner.ordered:
            return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]
        return super()._get_train_sampler(train_dataset)


def train(
    learner: Learner[_Example],
    recipe: Optimisation,
    examples: Sequence[_Example],
    dev: Sequence[_Example],
    output: Path,
    *,
    steps: int | None = None,
    evaluate_first: bool = False,
    keep_best: bool = False,
    done: int = 0,
    **reports: Unpack[Reports],
) -> list[dict[str, Any]]:
    """Train one stage, from the last checkpoint in `output` if there is one; resuming ends at the same weights.

    Args:
        learner: holds the trained weights afterwards.
        recipe: optimisation settings; the processes of the run share its `accumulate` batches per step.
        examples: training examples.
        dev: development examples; empty for no evaluation.
        output: folder of the trainer's checkpoints.
        steps: optimisation steps, in place of the recipe's epochs.
        evaluate_first: evaluate before the first step as well.
        keep_best: end with the weights of the checkpoint that has the least development loss, and not the last ones.
        done: steps of earlier stages, added to the reported progress.
        **reports: see `Reports`; the main process alone reports.

    Returns:
        The trainer's log: stage, step, loss, and figures of `Learner.evaluate` as ``eval_NAME``.

    Raises:
        InputError: the run cannot be shared by its processes, see `check_processes`, or they do not see the same
            checkpoints.
        WorkError: another process of the run ended early.
    """
    check_processes(recipe.accumulate)
    saved = checkpoints(output)
    trainer = _LearnerTrainer(
        model=learner.model,
        args=_arguments(
            recipe,
            output,
            # What is not -1 counts in place of the epochs.
            max_steps=steps or -1,
            num_train_epochs=1 if learner.draws else recipe.epochs,
            gradient_accumulation_steps=recipe.accumulate // number_of_processes(),
            eval_strategy="steps" if dev else "no",
            eval_on_start=bool(dev) and evaluate_first and not saved,
            load_best_model_at_end=bool(dev) and keep_best,
            metric_for_best_model="eval_loss" if keep_best else None,
            greater_is_better=False if keep_best else None,
        ),
        train_dataset=learner.batches(examples),
        eval_dataset=learner.batches(dev, evaluation=True) if dev else None,
        data_collator=itemgetter(0),  # an item is a whole batch
    )
    trainer.learner, trainer.bfloat16 = learner, recipe.bf16
    # Losses have their share in the step already; the trainer must not divide them by the batches.
    trainer.model_accepts_loss_kwargs = True
    if len(set(gather_object([saved[-1].name if saved else None]))) > 1:
        raise InputError(f"{output} is not the same folder for all processes: share it between the machines.")
    if trainer.args.process_index:
        set_seed(recipe.seed + trainer.args.process_index)  # dropout of its own
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    trainer.add_callback(_Reporter(learner.name, done, **reports))
    try:
        with without_bars():
            trainer.train(resume_from_checkpoint=str(saved[-1]) if saved else None)
    except RuntimeError as error:
        if number_of_processes() > 1 and "by peer" in str(error):  # closed or reset
            raise WorkError("Another process of the run ended early; its own error says why.") from error
        raise
    learner.model.eval()
    return [{"stage": learner.name, **entry} for entry in trainer.state.log_history]


def _arguments(recipe: Optimisation, output: Path, **settings: Any) -> TrainingArguments:
    """Translate a recipe, for data sets whose items are whole batches."""
    output.mkdir(parents=True, exist_ok=True)
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        seed=recipe.seed,
        data_seed=recipe.seed,
        eval_steps=recipe.save_every,
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=2,
        logging_steps=10,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=on_cpu(),
        ddp_backend="gloo" if on_cpu() else None,
        ddp_find_unused_parameters=True,
        **settings,
    )
    # A process trains on one GPU: several would make the trainer deal it as many batches at a time.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


_ESTIMATE = 2  # steps after the first one, by which the time of a stage is estimated


class _Reporter(TrainerCallback):
    """Passes steps to `progress` and evaluations to `note`."""

    def __init__(
        self, stage: str, done: int, progress: OnProgress | None = None, note: Callable[[str], None] | None = None
    ) -> None:
        self._stage, self._done, self._progress, self._note = stage, done, progress, note
        self._first = (0, 0.0)  # step, and when it ended

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, since = self._first
        if not step:
            self._first = (state.global_step, time.monotonic())
        elif step + _ESTIMATE == state.global_step and self._note and state.is_world_process_zero:
            left = (time.monotonic() - since) / _ESTIMATE * (state.max_steps - state.global_step)
            if left >= 30:
                self._note(f"{self._stage}, {state.max_steps:,} steps: about {left / 60:.1f} minutes")
        if self._progress and state.is_world_process_zero:
            self._progress(self._done + state.global_step, self._done + state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        if self._note and metrics and state.is_world_process_zero:
            names = [name for name in ("loss", "agreement", "accuracy") if f"eval_{name}" in metrics]
            found = ", ".join(f"{name} {metrics[f'eval_{name}']:.3f}" for name in names)
            self._note(f"{self._stage}, step {state.global_step} of {state.max_steps}: {found}")


def checkpoints(folder: Path) -> list[Path]:
    """List the trainer's complete checkpoints in a folder, by step."""
    # The trainer writes its state last: without that file, a checkpoint is incomplete.
    found = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def check_fingerprint(folder: Path, *parts: Any) -> None:
    """Write the fingerprint of a run, so that no other run resumes from its checkpoints.

    Args:
        folder: holds a folder of checkpoints per stage.
        *parts: recipe and data of the run, identified by their ``repr``.

    Raises:
        InputError: the folder holds checkpoints of a run with another fingerprint.
    """
    fingerprint = hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()
    path = folder / "run.sha256"
    known = path.read_text() if path.is_file() else None
    if any(folder.glob("*/checkpoint-*")) and known not in (None, fingerprint):
        raise InputError(
            f"{folder} belongs to a run with another recipe or other data: remove it, or choose another output."
        )
    if is_main_process() and known != fingerprint:  # another process may be reading it
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(fingerprint)


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
    """Build a regular expression for the names of all modules in the `layers` lowest layers; None for no layers."""
    name, _ = _layers(backbone)
    return rf"{re.escape(name)}\.({'|'.join(map(str, range(layers)))})\..*" if layers > 0 else None


def _layers(backbone: nn.Module) -> tuple[str, nn.ModuleList]:
    """Find a model's stack of layers and its name; in an encoder-decoder model, the encoder's."""
    return next((name, module) for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList))
