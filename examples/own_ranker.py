"""Train a ranker on 200 pairs of your own and use it (in a clone: pip install '.[train]').

The taste in this example: an answer that gives a number is better. Replace `make_rows` by your own judgements.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from llm_blender import PairRanker

THINGS = ["the sky", "the sun", "the moon", "a tree", "a bird", "the water", "the sea", "a light"]


def make_rows(count: int) -> list[dict[str, object]]:
    """Make one labelled pair a row; the better answer is at a random place."""
    draw = random.Random(0)
    rows: list[dict[str, object]] = []
    for _ in range(count):
        thing = draw.choice(THINGS)
        texts = [f"{thing} is {draw.randint(2, 99)} years old.", f"{thing} is {draw.choice(['old', 'new', 'blue'])}."]
        better = draw.randrange(2)
        candidates = texts if better == 0 else texts[::-1]
        pair = {"a": 0, "b": 1, "label": "ab"[better]}
        rows.append({"instruction": f"How old is {thing}?", "candidates": candidates, "pairs": [pair]})
    return rows


def main(folder: str = "own-ranker") -> None:
    """Train on the pairs, and compare two answers before and after."""
    ranker = PairRanker.from_pretrained()
    question, texts = "How old is the sea?", ("the sea is blue.", "the sea is 30 years old.")
    before = 1 - ranker.compare(question, *texts).probability
    ranker.fit(make_rows(200), output=Path(folder) / "ranker", licence="MIT")
    after = 1 - ranker.compare(question, *texts).probability
    print(f"P(the answer with a number is better) (before training: {before:.2f}) = {after:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
