"""SummaReranker, a baseline of the paper: is this candidate the best one, by this metric and by that?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel

from llm_blender.rankers.pointwise import Reading
from llm_blender.rankers.summa_reranker import SummaInput, SummaRerankerModel
from llm_blender.training.baselines.backbone import load_backbone
from llm_blender.training.baselines.learner import Batch, GroupLearner
from llm_blender.training.baselines.pointwise import pointwise_config, write_pointwise, write_reader
from llm_blender.training.baselines.scored import ScoredGroup
from llm_blender.training.losses import best_per_metric
from llm_blender.training.recipe import Recipe

__all__ = ["SummaRerankerLearner", "labels"]

_SPECIAL = 3  # tokens around the two texts


class SummaRerankerLearner(GroupLearner):
    """A cross-encoder with a mixture of experts and one output for each task (arXiv 2203.06569).

    The loss is `losses.summareranker`, the binary cross entropy against "is best by this metric", over the candidates
    and metrics of which something is known (see `labels`), and the term that keeps the experts in balance.

    Args:
        recipe: lengths, seed.
        backbone: Hub name or folder.
        workspace: for the files that the reader of texts needs.
        tasks: the metrics.

    Raises:
        NotFoundError: there is no such backbone.
        CheckpointError: its tokenizer has no fast form.
        InputError: it reads fewer tokens than `recipe.max_length`.
    """

    name = "summa_reranker"
    scored = True

    def __init__(self, recipe: Recipe, backbone: str, workspace: Path, tasks: Sequence[str]) -> None:
        encoder, self._tokenizer = load_backbone(backbone, AutoModel, recipe)
        self._config = pointwise_config("summareranker", recipe, encoder, room=_SPECIAL, tasks=tuple(tasks))
        self.model = self._summa = SummaRerankerModel(self._config, encoder)
        self.encoder = encoder
        write_reader(self._config, self._tokenizer, workspace)
        self._format = SummaInput(workspace, self._config)
        super().__init__(recipe, self._format.special.pad)

    def read(self, groups: Sequence[ScoredGroup]) -> Iterable[Sequence[Reading]]:
        """A sequence for each text, with the prompt before it."""
        readings = iter(self._format.read([(s.group.prompt, text) for s in groups for text in s.group.texts]))
        return [list(itertools.islice(readings, len(scored.group.texts))) for scored in groups]

    def score(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """See `GroupLearner`; the score of a text is the mean of its logits, as in the ranker."""
        logits, balance = self._summa.logits(batch["input_ids"], batch["attention_mask"])
        wanted = np.concatenate([labels(scored.targets(self._config.tasks)) for scored in batch["groups"]])
        targets = torch.from_numpy(wanted).to(logits.device, torch.float32)
        known = ~targets.isnan()
        loss = functional.binary_cross_entropy_with_logits(logits.float()[known], targets[known])
        return loss + balance.float(), list(torch.split(logits.float().mean(-1), batch["sizes"]))

    def save(self, folder: Path, temperature: float = 1.0) -> None:
        """See `Learner`."""
        write_pointwise(self.model, self._config, self._tokenizer, folder, temperature)


def labels(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[texts, tasks]``, 1 for the best known by a task, 0 for the others, NaN where it does not tell.

    It does not where a text has no score by it, and where all that have one share it.

    Args:
        targets: scores ``[texts, tasks]``, NaN where unknown.
    """
    known = ~np.isnan(targets)
    lowest = np.where(known, targets, -np.inf)
    best = best_per_metric(torch.from_numpy(lowest)[None])[0].numpy()
    differ = lowest.max(0) > np.where(known, targets, np.inf).min(0)
    return np.where(known & differ, best, np.nan)
