"""Reward the completions of a policy by the ranker: GRPO with TRL (pip install trl datasets).

Without TRL, or without a model in MODEL, the program prints the rewards of a few completions.
"""

from __future__ import annotations

import os

from llm_blender.integrations.trl import WinProbabilityReward

QUESTION = "Why is the sky blue?"
COMPLETIONS = ["Because.", "Air scatters blue light more than red light, so blue comes from all sides.", "No idea."]


def train(model: str, reward: WinProbabilityReward) -> None:
    """Train a policy on two prompts; use your own prompts, and more of them."""
    from trl import GRPOConfig, GRPOTrainer

    from datasets import Dataset

    trainer = GRPOTrainer(
        model,
        reward_funcs=reward,
        args=GRPOConfig("policy", num_generations=4, per_device_train_batch_size=8, max_steps=10),
        train_dataset=Dataset.from_dict({"prompt": [QUESTION, "How do I keep bread fresh?"]}),
    )
    trainer.train()


def main() -> None:
    """Print rewards, which are probabilities to beat the other completions, and train if MODEL names a policy."""
    reward = WinProbabilityReward()
    rewards = reward([QUESTION] * len(COMPLETIONS), COMPLETIONS)
    for value, completion in sorted(zip(rewards, COMPLETIONS, strict=True), reverse=True):
        print(f"{value:.2f}  {completion}")
    if model := os.environ.get("MODEL"):
        train(model, reward)


if __name__ == "__main__":
    main()
