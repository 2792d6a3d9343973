"""The PairRanker as a torch module (arXiv 2306.02561, section 3.2)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from llm_blender.rankers.encoders import DebertaEncoder, make_encoder
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import LEFT, RIGHT, SOURCE

__all__ = ["PairRankerModel", "make_head", "segment_mean"]


class PairRankerModel(nn.Module):
    """An encoder and one head that is shared by both candidates.

    With v_s, v_l, v_r the vectors of instruction, left and right candidate, the logits are
    ``head([v_s; v_l]) - head([v_s; v_r])``, one a task; above zero, the left one is better.
    Parameters have the names of the published checkpoints (``pretrained_model.*``, ``head_layer.*``).
    """

    def __init__(self, config: PairRankerConfig, backbone: nn.Module | None = None) -> None:
        super().__init__()
        if backbone is None:
            backbone = make_encoder(config.backbone)
        if getattr(backbone, "pooler", None) is not None:
            cast(Any, backbone).pooler = None  # its output is not read
        self.pretrained_model = backbone
        self._marked = config.pooling == "marker"
        width = int(cast(Any, backbone).config.hidden_size)
        self.head_layer = make_head(width, config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, segment_ids: Tensor) -> Tensor:
        """Logits ``[B, tasks]`` of ordered pairs, int64 ``[B, T]`` each (`PairBatch`)."""
        left, right = self.scores(input_ids, attention_mask, segment_ids)
        return left - right

    def scores(self, input_ids: Tensor, attention_mask: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The head's scores ``[B, tasks]`` of the left and the right candidate; that of a missing one is void."""
        if self._marked and isinstance(self.pretrained_model, DebertaEncoder):
            markers = torch.stack([(segment_ids == segment).int().argmax(-1) for segment in (SOURCE, LEFT, RIGHT)], -1)
            source, left, right = self.pretrained_model(input_ids, attention_mask, markers).last_hidden_state.unbind(1)
        else:
            states = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            source, left, right = (segment_mean(states, segment_ids == segment) for segment in (SOURCE, LEFT, RIGHT))
        return self.head_layer(torch.cat([source, left], -1)), self.head_layer(torch.cat([source, right], -1))


def make_head(width: int, config: PairRankerConfig) -> nn.Sequential:
    """From the vectors of instruction and candidate, ``[B, 2 * width]``, to scores ``[B, tasks]``."""
    return nn.Sequential(
        nn.Dropout(config.head_dropout),
        nn.Linear(2 * width, width),
        nn.Tanh(),
        nn.Dropout(config.head_dropout),
        nn.Linear(width, len(config.tasks)),
    )


def segment_mean(states: Tensor, chosen: Tensor) -> Tensor:
    """Mean ``[B, H]`` of the states ``[B, T, H]`` where `chosen` ``[B, T]``; 0 where there are none."""
    weights = chosen.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
