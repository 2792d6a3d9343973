"""The PairRanker that reads each candidate once, with its instruction, and compares what it has read."""

from llm_blender.rankers.pair_ranker.late.comparing import LateComparer

__all__ = ["LateComparer"]
