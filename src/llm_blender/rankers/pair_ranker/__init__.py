"""PairRanker: input format, checkpoints and backends."""

from llm_blender.rankers.checkpoints import BUNDLED
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.ranker import PairRanker

__all__ = ["BUNDLED", "PairRanker", "PairRankerConfig"]
