"""Sample candidates from one LLM, rank them, and write preference pairs for DPO.

The file has TRL's columns prompt, chosen and rejected; load it with

    datasets.load_dataset("json", data_files="preferences.jsonl", split="train")

and hand it to `trl.DPOTrainer`.
"""

from __future__ import annotations

import asyncio
import os
import sys

from llm_blender import Candidate, Example, OpenAICompatibleLLM, Sampling, load_ranker
from llm_blender.data import RowWriter, make_preferences

URL = os.environ.get("OLLAMA_URL", "http://localhost:11434/v1")
MODEL = os.environ.get("OLLAMA_MODELS", "llama3.2:3b").split(",")[0]
QUESTIONS = ["How do I keep bread fresh?", "Why is the sky blue?", "Give one tip for sleeping better."]
N = 4


async def sample(llm: OpenAICompatibleLLM, question: str) -> tuple[Candidate, ...]:
    """Generate N candidates at once, each with a seed of its own."""
    messages = [{"role": "user", "content": question}]
    calls = [llm.generate(messages, Sampling(temperature=1.0, seed=seed)) for seed in range(N)]
    return tuple(await asyncio.gather(*calls))


def main(out: str = "preferences.jsonl") -> None:
    """Write one pair of the best and the worst candidate for each question."""
    llm = OpenAICompatibleLLM("sampled", MODEL, URL)
    ranker = load_ranker("bundled")
    with RowWriter(out) as writer:
        for question in QUESTIONS:
            example = Example(question, candidates=asyncio.run(sample(llm, question)))
            ranking = ranker.rank(question, [candidate.text for candidate in example.candidates], strategy="full")
            preferences = make_preferences(example, ranking, "best_worst", min_confidence=0.6)
            for preference in preferences.records:
                writer.write(preference.to_dict())
            print(f"{question} {len(preferences.records)} pair, left out: {', '.join(preferences.dropped) or 'none'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
