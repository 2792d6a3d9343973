"""Train a ranker on 200 pairs of your own and use it (pip install 'llm-blender[train]').

The taste in this example: an answer that gives a number is better. Replace `make_rows` by your own judgements.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from llm_blender import PairRanker
from llm_blender.data import RowWriter
from llm_blender.training.recipes import Recipe, Source
from llm_blender.training.run import train_ranker

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
    """Write the pairs, train on them, and compare two answers with the result."""
    out = Path(folder)
    out.mkdir(exist_ok=True)
    with RowWriter(out / "pairs.jsonl") as writer:
        for row in make_rows(200):
            writer.write(row)
    # From the bundled ranker's weights; `backbone=NAME` in place of `init` trains a fresh one on an encoder of the Hub.
    source = Source(file="pairs.jsonl", pairs="labelled")
    recipe = Recipe(sources=(source,), init="bundled", alone=0, epochs=2)
    train_ranker(recipe, out, out, out / "ranker")
    ranker = PairRanker.from_pretrained(out / "ranker", evidence=False)
    comparison = ranker.compare("How old is the sea?", "the sea is blue.", "the sea is 30 years old.")
    print(f"P(the answer with a number is better) = {1 - comparison.probability:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
