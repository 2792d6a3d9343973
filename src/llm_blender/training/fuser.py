"""Training a fuser with `transformers.Trainer`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer

from llm_blender._hub import find_folder
from llm_blender._torch import quiet_loading
from llm_blender.errors import CheckpointError, InputError, MissingExtraError
from llm_blender.fusers.gen_fuser import Lengths
from llm_blender.fusers.gen_fuser.loading import ADAPTER, Loaded, load
from llm_blender.ranking import bootstrap_interval
from llm_blender.training.card import FuserRun, fuser_card
from llm_blender.training.fuser_batches import IGNORED, FuserBatches
from llm_blender.training.fuser_rows import FuserRow, Reader, load_rows
from llm_blender.training.groups import excluded_keys
from llm_blender.training.loop import (
    Told,
    arguments,
    checkpoints,
    claim,
    freeze,
    last_checkpoint,
    lower_layers,
    silence,
    without_bars,
)
from llm_blender.training.recipes import FuserRecipe, FuserSource
from llm_blender.types import OnProgress

__all__ = [
    "FuserRecipe",
    "FuserRun",
    "FuserSource",
    "answer_losses",
    "new_fuser",
    "save_fuser",
    "train_fuser",
    "train_loaded",
]

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


def new_fuser(recipe: FuserRecipe, backbone: str) -> Loaded:
    """A sequence-to-sequence model or a causal LLM, ready to be trained: under a fresh adapter, or partly frozen.

    Raises:
        NotFoundError: there is no such model.
        CheckpointError: it is no model that writes, or its tokenizer has no token that ends an answer.
        InputError: it is an adapter, reads fewer tokens than `recipe.max_length`, or has no layers of
            `recipe.lora_targets`.
        MissingExtraError: ``lora`` is wanted and not installed.
    """
    folder = find_folder("model", backbone)
    if (folder / ADAPTER).is_file():
        raise InputError(f"{backbone!r} is an adapter: train from the model that it names.")
    half = recipe.bf16 and recipe.lora_rank > 0  # what is trained stays float32
    loaded = load(folder, dtype="bfloat16" if half else "float32", device="cpu")
    if loaded.tokenizer.eos_token_id is None:
        raise CheckpointError(f"The tokenizer of {backbone!r} has no `eos_token`, which would end an answer.")
    if loaded.context is not None and loaded.context < recipe.max_length:
        raise InputError(f"{backbone!r} reads {loaded.context} tokens: max_length cannot be {recipe.max_length}.")
    if recipe.lora_rank:
        return replace(loaded, model=_adapted(loaded, recipe, folder))
    freeze(loaded.model, recipe.frozen_layers)
    return loaded


def _adapted(loaded: Loaded, recipe: FuserRecipe, folder: Path) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("Training an adapter", "lora") from error
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        target_modules=list(recipe.lora_targets) or "all-linear",
        exclude_modules=lower_layers(loaded.model, recipe.frozen_layers),
        task_type="SEQ_2_SEQ_LM" if loaded.seq2seq else "CAUSAL_LM",
    )
    torch.manual_seed(recipe.seed)
    with quiet_loading():
        try:
            model: Any = get_peft_model(loaded.model, config)
        except ValueError as error:
            raise InputError(f"lora_targets {', '.join(recipe.lora_targets)} are no layers of the model.") from error
    model.peft_config["default"].base_model_name_or_path = str(folder)
    return model


def save_fuser(loaded: Loaded, recipe: FuserRecipe, backbone: str, folder: Path) -> None:
    """Write a folder that `GenFuser.from_pretrained` loads: a whole model, or an adapter that names its base.

    With the lengths of its training, which it keeps to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    Lengths(
        max_length=recipe.max_length - recipe.answer_max_length,
        candidate_max_length=recipe.candidate_max_length,
        max_new_tokens=recipe.answer_max_length,
    ).save(folder)
    with quiet_loading():
        if not recipe.lora_rank:
            loaded.model.save_pretrained(folder)
            loaded.tokenizer.save_pretrained(folder)
            return
        place = Path(backbone).expanduser()
        name = str(place.resolve()) if place.is_dir() else backbone
        loaded.model.peft_config["default"].base_model_name_or_path = name
        # Embeddings are not trained, and asking whether they were would ask the Hub.
        loaded.model.save_pretrained(str(folder), save_embedding_layers=False)


def train_fuser(
    recipe: FuserRecipe,
    data: Path,
    dev_data: Path,
    output: Path,
    *,
    exclude: Sequence[Path] = (),
    backbone: str | None = None,
    progress: OnProgress | None = None,
    note: Callable[[str], None] | None = None,
) -> FuserRun:
    """Train a GenFuser and write it with its model card (arXiv 2306.02561).

    It learns to write the reference of a row from the row's instruction and best candidates; only the answer's tokens
    count. Goes on from the last checkpoint in ``output/trainer``, if an earlier run of the same recipe was cut short;
    one of another recipe, or on other rows, is refused.

    Args:
        recipe: what to do.
        data: folder of the recipe's sources.
        dev_data: folder of its dev sources.
        output: folder of the fuser, for `GenFuser.from_pretrained`.
        exclude: files of rows whose prompts must not stand in the training rows.
        backbone: where the recipe's model is found, if not under its own name; an adapter names this place.
        progress: called with steps done and to do.
        note: called with a line for each evaluation.

    Raises:
        NotFoundError: a file or the model is not there.
        RowError: a row cannot be used.
        CheckpointError: the model is none that writes.
        InputError: there are no rows with reference and candidates, none fits into `recipe.max_length`, the model reads
            less than that, or `output` holds another run.
        MissingExtraError: an adapter is wanted and ``lora`` is not installed.
    """
    if not recipe.sources:
        raise InputError("Nothing to learn from: the recipe names no [[sources]].")
    keys = excluded_keys(exclude)
    train, counts = load_rows(recipe.sources, data, keys, recipe.top_k, recipe.seed)
    dev, dev_counts = load_rows(recipe.dev_sources, dev_data, keys, recipe.top_k, recipe.seed)
    claim(output / "trainer", recipe, backbone, train)
    loaded = new_fuser(recipe, backbone or recipe.backbone)
    batches, too_long = _batches(train, loaded, recipe)
    measured = _batches(dev, loaded, recipe, fixed=True)[0] if dev else None
    folder = output / "trainer" / "fuser"
    resumed = checkpoints(folder)[-1:]
    started = time.perf_counter()
    log = train_loaded(loaded, recipe, batches, measured, folder, progress=progress, note=note)
    run = FuserRun(
        recipe,
        tuple(counts),
        tuple(dev_counts),
        tuple(exclude),
        too_long=too_long,
        log=tuple(log),
        seconds=time.perf_counter() - started,
        resumed=int(resumed[0].name.rpartition("-")[2]) if resumed else 0,
    )
    save_fuser(loaded, recipe, backbone or recipe.backbone, output)
    (output / "README.md").write_text(fuser_card(run, output), encoding="utf-8")
    return run


def _batches(
    rows: Sequence[FuserRow], loaded: Loaded, recipe: FuserRecipe, *, fixed: bool = False
) -> tuple[FuserBatches, int]:
    """The batches of the rows that fit, and how many do not."""
    reader = Reader(loaded.tokenizer, loaded.seq2seq, recipe)
    read = [(row, len(tokens.prompt) + len(tokens.answer)) for row in rows if (tokens := reader.fits(row))]
    if not read:
        raise InputError(
            f"max_length {recipe.max_length} leaves no room for two candidates beside an answer: raise it, or lower "
            f"answer_max_length."
        )
    batches = FuserBatches(
        [row for row, _ in read],
        [length for _, length in read],
        reader,
        seq2seq=loaded.seq2seq,
        pad_id=loaded.model.generation_config.pad_token_id,
        recipe=recipe,
        fixed=fixed,
    )
    return batches, len(rows) - len(read)
