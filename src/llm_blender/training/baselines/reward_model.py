"""A reward model by Bradley and Terry: a sequence classifier whose score of each answer decides every preference."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from llm_blender.errors import InputError
from llm_blender.rankers.checkpoints import load_tokenizer
from llm_blender.rankers.pointwise import Reading
from llm_blender.rankers.reward_model import ChatFormat, ClassifierConfig, PairFormat
from llm_blender.training.baselines.backbone import load_backbone
from llm_blender.training.baselines.learner import Batch, GroupLearner, columns
from llm_blender.training.baselines.scored import ScoredGroup
from llm_blender.training.loop import without_bars
from llm_blender.training.losses import find_loss
from llm_blender.training.recipe import Recipe

__all__ = ["RewardModelLearner"]


class RewardModelLearner(GroupLearner):
    """A fresh output on an encoder (or decoder), or that of a reward model to train on.

    Each text is read once, whatever number of preferences it stands in; P(a better than b) = σ(score a − score b).
    The loss is `Recipe.loss` of the scores, its mean over each group, weighted by the root of how many preferences
    the group has, as for the PairRanker.

    Args:
        recipe: lengths, loss, seed.
        backbone: Hub name or folder.
        workspace: for the files that the reader of texts needs.

    Raises:
        NotFoundError: there is no such backbone.
        CheckpointError: its tokenizer has no fast form.
        InputError: it reads fewer tokens than `recipe.max_length`, or has no token to pad with.
    """

    name = "reward_model"

    def __init__(self, recipe: Recipe, backbone: str, workspace: Path) -> None:
        model, tokenizer = load_backbone(backbone, AutoModelForSequenceClassification, recipe, num_labels=1)
        self.model, self.encoder = model, model.base_model
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise InputError(f"The tokenizer of {backbone!r} has no token to pad with, nor one that ends a text.")
        model.config.pad_token_id = tokenizer.pad_token_id
        tokenizer.model_max_length = recipe.max_length
        self._files = tokenizer
        self._loss = find_loss(recipe.loss)
        super().__init__(recipe, tokenizer.pad_token_id)
        # Read as the checkpoint will be.
        self._save_reader(workspace)
        config, bare = ClassifierConfig.load(workspace), load_tokenizer(workspace)
        self._format = (
            ChatFormat.load(workspace, bare, config.max_length)
            if config.chat
            else PairFormat(bare, config.max_length, token_types=config.token_types)
        )

    def read(self, groups: Sequence[ScoredGroup]) -> Iterable[Sequence[Reading]]:
        """A sequence for each text, with the prompt before it."""
        readings = iter(self._format.read([(s.group.prompt, text) for s in groups for text in s.group.texts]))
        return [list(itertools.islice(readings, len(scored.group.texts))) for scored in groups]

    def score(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """See `GroupLearner`."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        scores = self.model(**inputs).logits[:, 0].float().split(batch["sizes"])
        losses, weights = [], []
        for scored, of_texts in zip(batch["groups"], scores, strict=True):
            a, b, targets = columns(scored, of_texts)
            if not self._recipe.soft_labels:
                targets = (targets > 0.5).float()
            left, right, wins = of_texts[a, None], of_texts[b, None], targets[:, None]
            losses.append(self._loss(left, right, wins, 1 - wins))
            weights.append(len(a) ** 0.5)
        weight = torch.tensor(weights, device=scores[0].device)
        return (weight * torch.stack(losses)).sum() / weight.sum(), list(scores)

    def save(self, folder: Path, temperature: float = 1.0) -> None:
        """In transformers' layout, which has no place for a temperature."""
        model: Any = self.model
        with without_bars():
            model.save_pretrained(folder)
        self._save_reader(folder)

    def _save_reader(self, folder: Path) -> None:
        model: Any = self.model
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        self._files.save_pretrained(folder)
