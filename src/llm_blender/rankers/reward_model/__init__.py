"""RewardModel: any sequence classifier of transformers that scores answers."""

from llm_blender.rankers.reward_model.ranker import RewardModel

__all__ = ["RewardModel"]
