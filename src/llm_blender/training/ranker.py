"""Training of the PairRanker, in a pointwise and a pairwise stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from llm_blender.rankers.pair_ranker.input_format import InputFormat
from llm_blender.rankers.pair_ranker.modeling import AnyPairRanker, LatePairRankerModel, PairRankerModel
from llm_blender.training.batches import PairBatches, ReadingMode
from llm_blender.training.checkpoints import write_checkpoint
from llm_blender.training.groups import TrainingGroup, require_groups
from llm_blender.training.loop import Batch, Learner, Reports, StepOutput, freeze, train
from llm_blender.training.losses import agreement, find_loss, mean_over_groups
from llm_blender.training.recipes import Recipe


class PairLearner(Learner[TrainingGroup]):
    """A PairRanker to train, by the recipe's loss.

    Args:
        recipe: layers to freeze, loss, batches, stages.
        model: of the ranker.
        input_format: of the ranker.
        tokenizer: of the ranker.
    """

    def __init__(self, recipe: Recipe, model: AnyPairRanker, input_format: InputFormat, tokenizer: Tokenizer) -> None:
        self.model, self._format, self._tokenizer, self._recipe = model, input_format, tokenizer, recipe
        self._loss = find_loss(recipe.loss)
        self._reading: ReadingMode = "both"
        freeze(model.pretrained_model, recipe.frozen_layers)

    def train(
        self, groups: Sequence[TrainingGroup], dev: Sequence[TrainingGroup], output: Path, **reports: Unpack[Reports]
    ) -> list[dict[str, Any]]:
        """Train in the recipe's two stages, from the last checkpoint in `output` if there is one.

        The pointwise stage scores the candidates of the first `recipe.alone` of the groups one by one: so a small
        encoder learns what a good answer is several times faster. The pairwise stage compares those of other groups.

        Args:
            groups: training groups.
            dev: development groups; empty for no evaluation.
            output: folder of the checkpoints, with a subfolder per stage.
            **reports: see `Reports`.

        Returns:
            The trainer's log: stage, step, loss, agreement.

        Raises:
            InputError: there are no groups.
        """
        require_groups(groups)
        recipe = self._recipe
        first = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        pointwise = round(len(groups) * recipe.alone)
        pairwise = round(len(groups) * recipe.compared)
        stages: list[tuple[ReadingMode, float, Sequence[TrainingGroup]]] = [
            ("alone", recipe.alone, groups[:pointwise]),
            (
                "late" if recipe.alone_layers else recipe.orders,
                1 - recipe.alone,
                groups[pointwise : pointwise + pairwise],
            ),
        ]
        log: list[dict[str, Any]] = []
        done = 0
        for reading, share, part in stages:
            if part:
                self.name = self._reading = reading
                steps = recipe.steps and max(1, round(recipe.steps * share))
                log += train(
                    self,
                    recipe,
                    part,
                    dev,
                    output / reading,
                    steps=steps,
                    evaluate_first=bool(recipe.init),
                    keep_best=recipe.keep_best,
                    done=done,
                    **reports,
                )
                done += max(entry["step"] for entry in log if entry["stage"] == reading)
        if recipe.keep_init:
            trained = self.model.state_dict()
            kept = {name: torch.lerp(trained[name], first[name], recipe.keep_init) for name in first}
            self.model.load_state_dict(kept)
        return log

    def batches(self, examples: Sequence[TrainingGroup], *, evaluation: bool = False) -> PairBatches:
        """See `Learner`; evaluation reads each pair in one order."""
        reading: ReadingMode = "one" if evaluation and self._reading == "both" else self._reading
        return PairBatches(examples, self._format, reading, self._recipe.batch_tokens, self._recipe.soft_labels)

    def step(self, batch: Batch) -> StepOutput:
        """See `Learner`; predictions are logits of preferences, targets their probabilities."""
        left, right = (scores.float() for scores in pair_scores(self.model, batch, self._reading))
        targets = batch["targets"].unsqueeze(-1).expand_as(left)
        parts = [values.split(batch["sizes"]) for values in (left, right, targets, 1 - targets)]
        losses = [self._loss(*group) for group in zip(*parts, strict=True)]
        return StepOutput(mean_over_groups(losses, batch["sizes"]), (left - right).mean(-1), batch["targets"])

    def evaluate(self, predictions: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
        """See `Learner`: agreement, and the share of left answers preferred (0.5 is unbiased)."""
        return {"agreement": agreement(predictions, targets), "prefers_left": float(np.mean(predictions > 0))}

    def save(self, folder: Path) -> None:
        """See `Learner`."""
        write_checkpoint(self.model, self._format.config, self._tokenizer, folder)

    def save_temperature(self, folder: Path, temperature: float) -> None:
        """Write a fitted temperature to a checkpoint."""
        dataclasses.replace(self._format.config, temperature=temperature).save(folder)


def pair_scores(model: nn.Module, batch: Batch, reading: ReadingMode) -> tuple[Tensor, Tensor]:
    """Score the left and the right candidates of a batch's preferences, ``[P, tasks]`` each."""
    left, right = batch["left"], batch["right"]
    if isinstance(model, LatePairRankerModel):
        states = model.encode(batch["input_ids"], batch["attention_mask"])
        read = (states, batch["attention_mask"], batch["segment_ids"], batch["lengths"])
        if reading == "alone":
            scores = model.alone(*read)
            return scores[left], scores[right]
        both = torch.cat([left, right])
        return model.scores(*(values[both] for values in read))
    of_left, of_right = cast(PairRankerModel, model).scores(
        batch["input_ids"], batch["attention_mask"], batch["segment_ids"]
    )
    return of_left[left], (of_left if reading == "alone" else of_right)[right]
