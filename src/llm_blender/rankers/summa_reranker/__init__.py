"""SummaReranker: its input format, module and checkpoints."""

from llm_blender.rankers.summa_reranker.ranker import SummaReranker

__all__ = ["SummaReranker"]
