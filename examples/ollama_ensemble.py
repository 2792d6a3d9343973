"""Ask two models of an Ollama server, rank their answers in pairs, print the best one."""

from __future__ import annotations

import os

from llm_blender import Ensemble, Member, OpenAICompatibleLLM, load_ranker

URL = os.environ.get("OLLAMA_URL", "http://localhost:11434/v1")
MODELS = os.environ.get("OLLAMA_MODELS", "llama3.2:3b,qwen2.5:3b").split(",")


def main() -> None:
    """Answer one question with all models, two samples of each."""
    members = [Member(OpenAICompatibleLLM(model, model, URL), samples=2) for model in MODELS]
    ensemble = Ensemble(members, load_ranker("bundled"))
    answer = ensemble.ask("How do I keep bread fresh for a week?")
    for i in answer.ranking.order:  # best first
        print(f"{answer.ranking.ranks[i]}. {answer.candidates[i].model}: {answer.candidates[i].text[:60]}")
    for failure in answer.failures:  # a model that fails costs only its own answers
        print(f"no answer: {failure}")
    print(f"\n{answer.text}")


if __name__ == "__main__":
    main()
