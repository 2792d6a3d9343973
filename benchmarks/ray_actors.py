"""Rows a second of Ray actors that rank with the bundled ranker, for several numbers of actors, without start-up.

Each number of actors has its turn in each round, on a cluster of its own; the clock starts when each actor has done two
chunks, and so has loaded its model. The machine should be idle, with a processor for each actor.

    python benchmarks/ray_actors.py --actors 1 2 --rounds 3
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from llm_blender.jobs.backends import RayBackend
from llm_blender.stages import RankRows

_WORDS = [
    "because",
    "water",
    "light",
    "number",
    "energy",
    "people",
    "answer",
    "reason",
    "often",
    "system",
    "small",
    "large",
    "time",
    "value",
    "year",
    "point",
]
_ROWS = 16  # of a chunk


def make_chunks(count: int, words: int, seed: int = 0) -> list[list[dict[str, object]]]:
    """Make chunks of rows with five candidates of about `words` words."""
    draw = random.Random(seed)

    def text(length: int) -> str:
        return " ".join(draw.choices(_WORDS, k=length))

    def row() -> dict[str, object]:
        lengths = [draw.randint(words * 2 // 3, words * 4 // 3) for _ in range(5)]
        return {"instruction": text(20), "candidates": list(map(text, lengths))}

    return [[row() for _ in range(_ROWS)] for _ in range(count)]


def measure(actors: int, chunks: list[list[dict[str, object]]]) -> float:
    """Return the rows a second of the chunks after each actor's first two."""
    made = RayBackend(actors).map(RankRows("bundled", form="best_of_n"), chunks, len(chunks))
    for _ in range(2 * actors):
        next(made)
    started = time.monotonic()
    return sum(map(len, made)) / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--chunks", type=int, default=40, help=f"of {_ROWS} rows")
    parser.add_argument("--words", type=int, default=115, help="of a candidate, on average")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    chunks = make_chunks(options.chunks, options.words)
    rates: dict[int, list[float]] = {actors: [] for actors in options.actors}
    for _ in range(options.rounds):
        for actors in options.actors:
            rates[actors].append(measure(actors, chunks))
            print(f"{actors} actors: {rates[actors][-1]:.2f} rows/s", flush=True)
    print("| actors | rows/s, median | range | speed-up |\n|---:|---:|---|---:|")
    first = statistics.median(rates[options.actors[0]])
    for actors, found in rates.items():
        median = statistics.median(found)
        print(f"| {actors} | {median:.2f} | {min(found):.2f} to {max(found):.2f} | {median / first:.2f} |")


if __name__ == "__main__":
    main()
