"""Rank rows with the actors of a Ray cluster (in a clone: pip install '.[ray]').

`blend rank rows.jsonl -o ranked.jsonl --engine ray --actors 2` does the same, and resumes.
"""

from __future__ import annotations

import os

from llm_blender import RankRows
from llm_blender.jobs.backends import RayBackend

ROWS = [
    {"id": i, "instruction": f"What is {i} + {i}?", "candidates": ["I do not know.", f"{i} + {i} = {2 * i}."]}
    for i in range(64)
]


def main() -> None:
    """Hand out chunks of 16 rows to two actors; the results come in the order of the rows."""
    # RAY_ADDRESS=auto: the cluster that this machine belongs to. Without it, one starts here and ends with the program.
    backend = RayBackend(actors=2, address=os.environ.get("RAY_ADDRESS"))
    stage = RankRows(os.environ.get("RANKER", "bundled"))
    chunks = [ROWS[start : start + 16] for start in range(0, len(ROWS), 16)]
    for ranked in backend.map(stage, chunks, len(chunks)):
        best = [row["candidates"][row["ranking"]["best"]] for row in ranked]
        print(f"rows {ranked[0]['id']} to {ranked[-1]['id']}: {best[0]}")


if __name__ == "__main__":
    main()
