"""Speed of the bundled ranker, against ONNX Runtime on the same model.

``rank_many`` from texts to rankings (tokenising, batching, padding, strategies, results) is timed in turns with the
bare model on perfectly packed batches: the same number of tokens in arrays made beforehand, all rows equally long, no
padding. Their ratio hardly depends on how busy the machine is.

    python benchmarks/ranker_speed.py
    python benchmarks/ranker_speed.py --max-tokens 1024 2048 4096 8192 --rounds 7
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from llm_blender import PairRanker
from llm_blender.rankers.pair_ranker.input_format import PairBatch

WORDS = """
the answer depends on how many people are asked because light from the sun is scattered in air and water while a good
night of sleep needs a dark room, no coffee after lunch and the same hour every day; however, this is only one of
several explanations that have been given by those who study it
"""


def texts(rng: np.random.Generator, count: int, median: float, spread: float) -> list[str]:
    """Draw texts with the lengths of chat answers: log-normal, in words."""
    lengths = np.exp(rng.normal(np.log(median), spread, count)).astype(int) + 1
    return [" ".join(rng.choice(WORDS.split(), length)) for length in lengths]


def realistic(prompts: int, candidates: int) -> tuple[list[str], list[list[str]]]:
    """Draw instructions of about 20 words with answers of about 60, some of 500."""
    rng = np.random.default_rng(0)
    return texts(rng, prompts, 20, 0.9), [texts(rng, candidates, 60, 1.0) for _ in range(prompts)]


class Recorded:
    """A ranker's backend that notes the lengths and sizes of what it runs."""

    def __init__(self, ranker: PairRanker) -> None:
        self._run = ranker.backend
        self.lengths: list[int] = []
        self.computed = 0

    def __call__(self, batch: PairBatch) -> np.ndarray:
        """Return the logits of a batch."""
        self.lengths += batch.attention_mask.sum(axis=1).tolist()
        self.computed += batch.input_ids.size
        return self._run(batch)


def packed(lengths: list[int], max_tokens: int, vocabulary: int) -> list[PairBatch]:
    """Make batches of the same number of tokens, in rows of the mean length, without padding."""
    length = round(sum(lengths) / len(lengths))
    rows = max(1, max_tokens // length)
    ids = np.random.default_rng(0).integers(1_000, vocabulary, (len(lengths), length))
    ids[:, 0] = 101
    segments = np.repeat([1, 2, 3], [length // 3, length // 3, length - 2 * (length // 3)])
    return [
        PairBatch(part, np.ones_like(part), np.tile(segments, (len(part), 1)))
        for part in (ids[start : start + rows] for start in range(0, len(ids), rows))
    ]


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(max_tokens: int, prompts: int, candidates: int, rounds: int) -> str:
    ranker = PairRanker.from_pretrained(max_tokens=max_tokens)
    instructions, answers = realistic(prompts, candidates)
    bare, recorded = ranker.backend, Recorded(ranker)
    ranker.backend = recorded
    ranker.rank_many(instructions, answers, strategy="full")  # warm-up, and what the batches are
    ranker.backend = bare
    batches = packed(recorded.lengths, max_tokens, ranker.config.backbone["vocab_size"] - 3)
    pairs = len(recorded.lengths)
    ours, perfect = [], []
    for _ in range(rounds):
        perfect.append(seconds(lambda: [bare(batch) for batch in batches]))
        ours.append(seconds(lambda: ranker.rank_many(instructions, answers, strategy="full")))
    efficiency = sum(recorded.lengths) / recorded.computed
    ratio = statistics.median(p / o for p, o in zip(perfect, ours, strict=True))
    speeds = (pairs / statistics.median(ours), pairs / statistics.median(perfect))
    tokens = sum(recorded.lengths) / pairs
    return (
        f"{max_tokens:>10} {pairs:>6} {tokens:>12.0f} {efficiency:>18.3f} {speeds[0]:>10.1f} {speeds[1]:>16.1f} "
        f"{ratio:>6.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--max-tokens", type=int, nargs="+", default=[2_048])
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("max_tokens  pairs  tokens/pair padding efficiency rank_many/s perfect batches/s  ratio")
    for max_tokens in options.max_tokens:
        print(measure(max_tokens, options.prompts, options.candidates, options.rounds), flush=True)


if __name__ == "__main__":
    main()
