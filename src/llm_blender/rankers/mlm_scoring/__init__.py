"""MLMScoring: how likely each answer is to a masked language model, a baseline of the paper."""

from llm_blender.rankers.mlm_scoring.ranker import MLMScoring

__all__ = ["MLMScoring"]
