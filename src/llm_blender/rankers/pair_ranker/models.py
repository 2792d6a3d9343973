"""The torch module that a PairRanker's configuration describes."""

from __future__ import annotations

from torch import nn

from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.late.modeling import LatePairRankerModel
from llm_blender.rankers.pair_ranker.modeling import PairRankerModel

__all__ = ["AnyPairRanker", "make_model"]

AnyPairRanker = PairRankerModel | LatePairRankerModel


def make_model(config: PairRankerConfig, backbone: nn.Module | None = None) -> AnyPairRanker:
    """A model with random weights.

    Args:
        config: says which; with `alone_layers`, the one that compares late.
        backbone: encoder of a model that reads both candidates in one sequence; None makes the configuration's.
    """
    return LatePairRankerModel(config) if config.alone_layers else PairRankerModel(config, backbone)
