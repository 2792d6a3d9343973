"""The SummaReranker as a torch module (arXiv 2203.06569; as a baseline of arXiv 2306.02561, section 5)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from llm_blender.rankers._torch import first_states
from llm_blender.rankers.encoders import make_encoder
from llm_blender.rankers.pointwise_config import PointwiseConfig
from llm_blender.rankers.summa_reranker.mixture_of_experts import MixtureOfExperts

__all__ = ["SummaRerankerModel"]


class SummaRerankerModel(nn.Module):
    """An encoder, a layer that all tasks share, a mixture of experts, and a tower for each task.

    A task is a metric; its logit says whether the candidate is the best one by it. Parameters have the names of
    llm-blender 0.0.2 (``pretrained_model.*``, ``fc1``, ``fc2``, ``moe.*``, ``towers.T``).

    Args:
        config: names the encoder and the tasks.
        backbone: an encoder to train; None makes the config's, with random weights.
    """

    def __init__(self, config: PointwiseConfig, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.pretrained_model = make_encoder(config.backbone) if backbone is None else backbone
        if getattr(self.pretrained_model, "pooler", None) is not None:
            cast(Any, self.pretrained_model).pooler = None  # its output is not read
        width, tasks = int(cast(Any, self.pretrained_model).config.hidden_size), len(config.tasks)
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)
        self.moe = MixtureOfExperts(width, experts=2 * tasks, tasks=tasks, k=tasks)
        self.towers = nn.ModuleList(nn.Linear(width, 1) for _ in range(tasks))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores ``[B]`` between 0 and 1 of ids and mask ``[B, T]``: sigmoid of the mean of the tasks' logits."""
        logits, _ = self.logits(input_ids, attention_mask)
        return logits.mean(-1).sigmoid()

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of the tasks ``[B, tasks]``, and the auxiliary loss of the mixture, a scalar."""
        first = first_states(self.pretrained_model, input_ids, attention_mask)
        shared = self.fc2(functional.relu(self.fc1(first)))
        mixed, balance = self.moe(shared)
        return torch.cat([tower(mixed[:, task]) for task, tower in enumerate(self.towers)], -1), balance
