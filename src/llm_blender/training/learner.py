"""How the paper's baselines are trained: what they share, and what each must bring."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import safetensors.torch
import torch
from tokenizers import processors
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoTokenizer, Trainer

from llm_blender._torch import quiet_loading
from llm_blender.errors import CheckpointError, InputError, NotFoundError
from llm_blender.rankers.encoder_ranker import PointwiseConfig
from llm_blender.rankers.mlm_scoring import longest_input
from llm_blender.rankers.pointwise import Reading
from llm_blender.training.batches import PackedGroups
from llm_blender.training.groups import ScoredGroup
from llm_blender.training.loop import (
    Told,
    arguments,
    freeze,
    last_checkpoint,
    silence,
    without_bars,
)
from llm_blender.training.recipes import Recipe
from llm_blender.types import OnProgress

__all__ = [
    "GroupLearner",
    "Learned",
    "Learner",
    "load_backbone",
    "pointwise_config",
    "train_learner",
    "write_pointwise",
    "write_reader",
]

Batch = dict[str, Any]


class Learned(NamedTuple):
    """What a batch came to.

    Attributes:
        loss: a scalar.
        predictions: what is measured on development rows, ``[P]``.
        targets: what it is measured against, ``[P]``.
    """

    loss: Tensor
    predictions: Tensor
    targets: Tensor


class Learner(ABC):
    """A model to train.

    Attributes:
        name: as in `Recipe.ranker`.
        scored: whether it learns from scores and references, beside preferences.
        draws: whether each pass over the groups is another one; then its data set holds them all.
        model: what is trained.
        encoder: the part of it that `Recipe.frozen_layers` freezes.
    """

    name: ClassVar[str]
    scored: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    model: nn.Module
    encoder: nn.Module

    @abstractmethod
    def dataset(self, groups: Sequence[ScoredGroup], *, epochs: int = 1) -> Dataset[Batch]:
        """Batches of groups, of so many passes over them."""

    @abstractmethod
    def learn(self, batch: Batch) -> Learned:
        """Loss and predictions of one batch."""

    @abstractmethod
    def measure(self, prediction: Any) -> dict[str, float]:
        """From transformers' `EvalPrediction` of all predictions and targets to figures by name."""

    @abstractmethod
    def save(self, folder: Path, temperature: float = 1.0) -> None:
        """Write a checkpoint that `load_ranker` loads."""


class GroupLearner(Learner):
    """A model that gives each text of a group a score.

    Args:
        recipe: for the size of a batch.
        pad_id: fills up short sequences.
    """

    def __init__(self, recipe: Recipe, pad_id: int) -> None:
        self._recipe, self._pad_id = recipe, pad_id

    @abstractmethod
    def read(self, groups: Sequence[ScoredGroup]) -> Iterable[Sequence[Reading]]:
        """The sequences of each group."""

    @abstractmethod
    def score(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """The loss of a batch, and for each group the scores of its texts, ``[texts]``."""

    def dataset(self, groups: Sequence[ScoredGroup], *, epochs: int = 1) -> PackedGroups:
        """See `Learner`; of one pass."""
        return PackedGroups(groups, self.read, self._pad_id, self._recipe.batch_tokens)

    def learn(self, batch: Batch) -> Learned:
        """See `Learner`; predictions are logits of preferences, targets their probabilities."""
        loss, scores = self.score(batch)
        logits, targets = [], []
        for found, of_texts in zip(batch["groups"], scores, strict=True):
            a, b, probabilities = columns(found, of_texts)
            logits.append(of_texts[a] - of_texts[b])
            targets.append(probabilities)
        return Learned(loss, torch.cat(logits), torch.cat(targets))

    def measure(self, prediction: Any) -> dict[str, float]:
        """The share of preferences that are ordered as labelled."""
        logits, targets = (np.asarray(values) for values in (prediction.predictions, prediction.label_ids))
        return {"agreement": float(np.mean(logits * (targets - 0.5) > 0))}


def columns(scored: ScoredGroup, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The preferences of a group: indices of their texts and probabilities, ``[P]`` each."""
    a, b, probabilities = zip(*scored.group.preferences, strict=True)
    device = like.device
    return (
        torch.tensor(a, device=device),
        torch.tensor(b, device=device),
        torch.tensor(probabilities, dtype=torch.float32, device=device),
    )


class _LearnerTrainer(Trainer):
    learner: Learner
    bfloat16: bool

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        with torch.autocast(inputs["input_ids"].device.type, torch.bfloat16, enabled=self.bfloat16):
            learned = self.learner.learn(inputs)
        return (learned.loss, learned) if return_outputs else learned.loss

    def prediction_step(
        self, model: Any, inputs: Batch, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.inference_mode():
            loss, learned = self.compute_loss(model, self._prepare_inputs(inputs), return_outputs=True)
        return loss, learned.predictions.float(), learned.targets


def _collate(batches: Sequence[Batch]) -> Batch:
    (batch,) = batches
    return batch


def train_learner(
    learner: Learner,
    recipe: Recipe,
    train: Sequence[ScoredGroup],
    dev: Sequence[ScoredGroup],
    output: Path,
    *,
    progress: OnProgress | None = None,
    note: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Train; goes on from the last checkpoint in `output`, if there is one.

    Args:
        learner: what to train; it holds the trained weights afterwards.
        recipe: how.
        train: groups to learn from.
        dev: groups that measure it while it trains.
        output: folder of the trainer's checkpoints.
        progress: told the steps done and to do.
        note: told each evaluation, in a line.

    Returns:
        The trainer's log: stage, step, loss, and what `Learner.measure` found.

    Raises:
        InputError: there are no groups.
    """
    if not train:
        raise InputError("No training pairs: do the rows hold `pairs`, or `scores` that differ by at least min_gap?")
    freeze(learner.encoder, recipe.frozen_layers)
    settings = arguments(recipe, output, evaluate=bool(dev), steps=recipe.steps)
    if learner.draws:
        settings.num_train_epochs = 1
    trainer = _LearnerTrainer(
        model=learner.model,
        args=settings,
        train_dataset=learner.dataset(train, epochs=recipe.epochs if learner.draws else 1),
        eval_dataset=learner.dataset(dev) if dev else None,
        data_collator=_collate,
        compute_metrics=learner.measure,
    )
    trainer.learner, trainer.bfloat16 = learner, recipe.bf16
    silence(trainer)
    trainer.add_callback(Told(learner.name, 0, progress, note))
    with without_bars():
        trainer.train(resume_from_checkpoint=last_checkpoint(output))
    return [{"stage": learner.name, **entry} for entry in trainer.state.log_history]


def load_backbone(name: str, kind: Any, recipe: Recipe, **settings: Any) -> tuple[Any, Any]:
    """A model in float32 and its fast tokenizer, from the Hub or a folder; what the weights lack is random.

    Args:
        name: Hub name or folder.
        kind: the class of transformers that loads it, e.g. ``AutoModel``.
        recipe: for its seed and lengths.
        settings: of the model's configuration.

    Raises:
        NotFoundError: there is no such model.
        CheckpointError: its tokenizer has no fast form (``tokenizer.json``).
        InputError: it reads fewer tokens than `recipe.max_length`.
    """
    torch.manual_seed(recipe.seed)
    try:
        with quiet_loading():
            config = AutoConfig.from_pretrained(name, **settings)
            # Attention dropout would rule out the fused kernel: three times the step on a CPU.
            config.attention_probs_dropout_prob = 0.0
            model = kind.from_pretrained(name, config=config, dtype=torch.float32)
            fast = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:  # ValueError: files, but of no known model
        raise NotFoundError(f"No encoder {name!r}, neither as a folder nor on the Hub: {error}") from error
    tokenizer = getattr(fast, "backend_tokenizer", None)
    if tokenizer is None:
        raise CheckpointError(f"The tokenizer of {name!r} has no fast form (tokenizer.json).")
    around = len(tokenizer.encode("a", "a")) - len(tokenizer.encode("a", "a", add_special_tokens=False))
    sep, cls = ((token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]"))
    if not around and sep[1] is not None and cls[1] is not None:
        tokenizer.post_processor = processors.BertProcessing(sep, cls)  # it has them and puts none around a pair
    if (places := longest_input(model)) < recipe.max_length:
        raise InputError(f"{name!r} reads {places} tokens: max_length cannot be {recipe.max_length}.")
    return model, fast


def pointwise_config(
    kind: Literal["summareranker", "simcls"], recipe: Recipe, encoder: Any, *, room: int, tasks: tuple[str, ...]
) -> PointwiseConfig:
    """The configuration of a ranker on an encoder.

    Args:
        kind: of ranker.
        recipe: for the lengths: a candidate gets what a whole instruction leaves.
        encoder: of transformers.
        room: tokens of `recipe.max_length` that belong to neither text.
        tasks: outputs of the ranker.
    """
    return PointwiseConfig(
        kind,
        backbone=encoder.config.to_diff_dict() | {"model_type": encoder.config.model_type},
        source_max_length=recipe.source_max_length,
        candidate_max_length=recipe.max_length - recipe.source_max_length - room,
        tasks=tasks,
    )


def write_reader(config: PointwiseConfig, tokenizer: Any, folder: Path) -> None:
    """Write ``config.json`` and ``tokenizer.json``: what reading texts needs."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def write_pointwise(
    model: nn.Module, config: PointwiseConfig, tokenizer: Any, folder: Path, temperature: float
) -> None:
    """Write a whole checkpoint."""
    write_reader(dataclasses.replace(config, temperature=temperature), tokenizer, folder)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
