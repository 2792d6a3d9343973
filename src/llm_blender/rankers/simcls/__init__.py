"""SimCLS: its input format, module and checkpoints."""

from llm_blender.rankers.simcls.ranker import SimCLS

__all__ = ["SimCLS"]
