"""The paper's baselines, trained on what the PairRanker is trained on."""

from llm_blender.training.baselines.run import train_baseline

__all__ = ["train_baseline"]
