"""Training of a GenFuser."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

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
    Batch,
    Learner,
    Reports,
    StepOutput,
    check_fingerprint,
    checkpoints,
    freeze,
    lower_layers,
    train,
)
from llm_blender.training.processes import check_processes, is_main_process
from llm_blender.training.recipes import FuserRecipe


class _SizedRow(NamedTuple):
    row: FuserRow
    length: int
    """Tokens of prompt and answer, with all candidates."""


class FuserLearner(Learner[_SizedRow]):
    """A sequence-to-sequence model or a causal LLM that learns to write a row's answer from its candidates.

    The loss is the mean over the answer tokens of an optimisation step, in however many batches they come.

    Args:
        loaded: model and tokenizer.
        recipe: lengths, draws, batches.
        backbone: name or folder of the model, which an adapter names as its base.
    """

    name = "fuser"
    draws = True
    ordered = True

    def __init__(self, loaded: Loaded, recipe: FuserRecipe, backbone: str) -> None:
        self.model, self._loaded, self._recipe, self._backbone = loaded.model, loaded, recipe, backbone
        self._reader = Reader(loaded.tokenizer, loaded.seq2seq, recipe)

    def fit(self, rows: Sequence[FuserRow]) -> list[_SizedRow]:
        """Measure rows, and leave out those that do not fit into `FuserRecipe.max_length`.

        Raises:
            InputError: none fits.
        """
        fitting = [
            _SizedRow(row, len(tokens.prompt) + len(tokens.answer))
            for row in rows
            if (tokens := self._reader.fits(row))
        ]
        if rows and not fitting:
            raise InputError(
                f"max_length {self._recipe.max_length} leaves no room for two candidates and an answer: raise it, "
                "or lower answer_max_length."
            )
        return fitting

    def batches(self, examples: Sequence[_SizedRow], *, evaluation: bool = False) -> FuserBatches:
        """See `Learner`; evaluation reads all candidates of a row, best first."""
        return FuserBatches(
            [example.row for example in examples],
            [example.length for example in examples],
            self._reader,
            seq2seq=self._loaded.seq2seq,
            pad_id=self.model.generation_config.pad_token_id,
            recipe=self._recipe,
            fixed=evaluation,
        )

    def step(self, batch: Batch) -> StepOutput:
        """See `Learner`; predictions are the sums of each answer's losses, targets its numbers of tokens."""
        losses = answer_losses(self.model, batch, self._loaded.seq2seq)
        counts = (batch["labels"] != IGNORED).sum(1)
        return StepOutput(losses.sum() / counts.sum(), losses.sum(1), counts)

    def weight(self, batch: Batch) -> int:
        """See `Learner`: the number of answer tokens."""
        return int((batch["labels"] != IGNORED).sum())

    def evaluate(self, predictions: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
        """See `Learner`: mean loss of an answer token, with its interval over rows."""
        sums, counts = predictions.astype(np.float64), targets
        rows = np.repeat(np.arange(len(sums)), counts)
        interval = bootstrap_interval(np.repeat(sums / counts, counts), rows)
        return {
            "loss": float(sums.sum() / counts.sum()),
            "loss_low": interval.low,
            "loss_high": interval.high,
            "rows": len(sums),
            "tokens": int(counts.sum()),
        }

    def save(self, folder: Path) -> None:
        """Write a folder that `GenFuser.from_pretrained` loads, with the lengths of the training.

        It holds a whole model, or an adapter that names its base.
        """
        loaded, recipe = self._loaded, self._recipe
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
            place = Path(self._backbone).expanduser()
            name = str(place.resolve()) if place.is_dir() else self._backbone
            loaded.model.peft_config["default"].base_model_name_or_path = name
            # The embeddings are not trained; without this, peft would query the Hub for their size.
            loaded.model.save_pretrained(str(folder), save_embedding_layers=False)


def answer_losses(model: Any, batch: Batch, seq2seq: bool) -> Tensor:
    """Compute -log p of each token of the answers, ``[B, A]``; 0 where there is none.

    A vocabulary is large, and most of what a causal LLM reads is the prompt: only the answer's logits are computed.
    """
    labels = batch["labels"]
    read = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
    if seq2seq:
        logits = model(**read, decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels)).logits
    else:
        width = labels.shape[1]
        output = model(**read, position_ids=batch["position_ids"], logits_to_keep=width)
        # Logits at a position predict the next token.
        logits, labels = output.logits[:, -width:-1], labels[:, 1:]
    losses = functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view_as(labels)


def new_fuser(recipe: FuserRecipe, backbone: str) -> Loaded:
    """Load a sequence-to-sequence model or a causal LLM to train: under a fresh adapter, or partly frozen.

    Raises:
        NotFoundError: there is no such model.
        CheckpointError: it is no model that writes, or its tokenizer has no token that ends an answer.
        InputError: it is an adapter, reads fewer tokens than `recipe.max_length`, or has no layers of
            `recipe.lora_targets`.
        MissingExtraError: the recipe has an adapter and ``lora`` is not installed.
    """
    folder = find_folder("model", backbone)
    if (folder / ADAPTER).is_file():
        raise InputError(f"{backbone!r} is an adapter: train from the model that it names.")
    half = recipe.bf16 and recipe.lora_rank > 0  # trained weights stay float32
    loaded = load(folder, dtype="bfloat16" if half else "float32", device="cpu")
    if loaded.tokenizer.eos_token_id is None:
        raise CheckpointError(f"The tokenizer of {backbone!r} has no `eos_token`, which would end an answer.")
    if loaded.context is not None and loaded.context < recipe.max_length:
        raise InputError(f"{backbone!r} reads {loaded.context} tokens: max_length cannot be {recipe.max_length}.")
    if recipe.lora_rank:
        return replace(loaded, model=_add_adapter(loaded, recipe, folder))
    freeze(loaded.model, recipe.frozen_layers)
    return loaded


def _add_adapter(loaded: Loaded, recipe: FuserRecipe, folder: Path) -> Any:
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


def train_fuser(
    recipe: FuserRecipe,
    data: Path,
    dev_data: Path,
    output: Path,
    *,
    exclude: Sequence[str | Path] = (),
    backbone: str | None = None,
    **reports: Unpack[Reports],
) -> FuserRun:
    """Train a GenFuser and write it with its model card (arXiv 2306.02561).

    It learns to write the reference of a row from the row's instruction and best candidates; only the answer's tokens
    count. An interrupted run of the same recipe on the same rows resumes from its last checkpoint in
    ``output/trainer``; checkpoints of another run are refused. Of several processes that share the run, the main one
    writes.

    Args:
        recipe: settings of the run.
        data: folder of the recipe's sources.
        dev_data: folder of its dev sources.
        output: folder of the fuser, for `GenFuser.from_pretrained`.
        exclude: test files; training rows with their prompts are left out.
        backbone: where to find the recipe's model, if not under its own name; an adapter names this place.
        **reports: see `Reports`.

    Raises:
        NotFoundError: a file or the model is missing.
        RowError: a row cannot be used.
        CheckpointError: the model is none that writes.
        InputError: no rows have reference and candidates, none fits into `recipe.max_length`, the model reads fewer
            tokens than that, `output` holds another run, or the processes cannot share this one.
        MissingExtraError: the recipe has an adapter and ``lora`` is not installed.
    """
    check_processes(recipe.accumulate)
    if not recipe.sources:
        raise InputError("Nothing to learn from: the recipe names no [[sources]].")
    keys = excluded_keys(exclude)
    rows, counts = load_rows(recipe.sources, data, keys, recipe.top_k, recipe.seed)
    dev, dev_counts = load_rows(recipe.dev_sources, dev_data, keys, recipe.top_k, recipe.seed)
    check_fingerprint(output / "trainer", recipe, backbone, rows)
    name = backbone or recipe.backbone
    learner = FuserLearner(new_fuser(recipe, name), recipe, name)
    fitting = learner.fit(rows)
    folder = output / "trainer" / "fuser"
    resumed = checkpoints(folder)[-1:]
    started = time.perf_counter()
    log = train(learner, recipe, fitting, learner.fit(dev), folder, evaluate_first=True, **reports)
    run = FuserRun(
        recipe,
        tuple(counts),
        tuple(dev_counts),
        tuple(map(Path, exclude)),
        tuple(log),
        too_long=len(rows) - len(fitting),
        seconds=time.perf_counter() - started,
        resumed=int(resumed[0].name.rpartition("-")[2]) if resumed else 0,
    )
    if is_main_process():
        learner.save(output)
        (output / "README.md").write_text(fuser_card(run, output), encoding="utf-8")
    return run
