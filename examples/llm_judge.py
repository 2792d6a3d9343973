"""Rank answers with an LLM as the judge, by criteria of your own, in both orders of each pair."""

from __future__ import annotations

import os

from llm_blender import LLMJudge, OpenAICompatibleLLM

URL = os.environ.get("OLLAMA_URL", "http://localhost:11434/v1")
MODEL = os.environ.get("OLLAMA_MODELS", "llama3.2:3b").split(",")[0]
ANSWERS = ["Because.", "Air scatters blue light more than red light.", "The sky mirrors the sea."]


def main() -> None:
    """Rank three answers, and print what the judge used."""
    judge = LLMJudge(
        OpenAICompatibleLLM("judge", MODEL, URL),
        criteria="The better answer is correct, and explains the cause.",
    )
    ranking = judge.rank("Why is the sky blue?", ANSWERS, strategy="full")
    for i in ranking.order:
        print(f"{ranking.ranks[i]}. {ANSWERS[i]}")
    totals = judge.totals  # a reply without a verdict counts as a tie, and is counted here
    print(f"{totals.calls} calls, {totals.unreadable} without a verdict, {totals.usage.prompt_tokens} prompt tokens")


if __name__ == "__main__":
    main()
