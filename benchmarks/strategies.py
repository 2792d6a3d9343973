"""How often each strategy finds the winner that the full matrix has, and for how many comparisons.

    python benchmarks/strategies.py $DATA/test/alpacaeval_v1.jsonl.zst --models vicuna-13b,guanaco-65b,… \
        --comparisons comparisons.db

The full matrix is compared once and stored in the file; all strategies read from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from llm_blender import Ranking, load_ranker
from llm_blender.bench import CachedRanker, Table
from llm_blender.data import read_rows
from llm_blender.ranking import bootstrap_interval
from llm_blender.types import Example

STRATEGIES = [
    ("knockout", 2),
    ("bubble", 2),
    ("single", 2),
    *(("active", budget) for budget in (12, 16, 20, 24, 30, 40, 60, 80)),
]


def candidates_of(row: Example, models: Sequence[str]) -> list[str]:
    """Return the texts of these LLMs, equal ones once."""
    wanted = [c.text for c in row.candidates if not models or c.model in models]
    return list(dict.fromkeys(wanted))


def lost(full: Ranking, other: Ranking) -> float:
    """Return the score that the other ranking's best lacks to the winner in the full matrix."""
    return full.scores[full.best] - full.scores[other.best]


def table(ranker: CachedRanker, rows: Sequence[Example], models: Sequence[str], seeds: int) -> Iterator[str]:
    """Yield one remark and a table with a line for each strategy."""
    prompts = [row.prompt for row in rows]
    texts = [candidates_of(row, models) for row in rows]
    fulls = ranker.rank_many(prompts, texts, strategy="full", progress=progress)
    gaps = [sorted(full.scores)[-1] - sorted(full.scores)[-2] for full in fulls if len(full) > 1]
    yield f"{len(rows)} rows; the winner leads by {np.median(gaps):.3f} in the median, by {np.quantile(gaps, 0.1):.3f} "
    yield "in one row of ten."
    yield ""
    lines = [("full", f"{np.mean([full.comparisons for full in fulls]):.1f}", "100", "", "0")]
    for name, budget in STRATEGIES:
        runs = [ranker.rank_many(prompts, texts, strategy=name, budget=budget, seed=seed) for seed in range(seeds)]
        same = np.array([[lost(*pair) == 0 for pair in zip(fulls, run, strict=True)] for run in runs]).mean(axis=0)
        low, high = bootstrap_interval(100 * same)
        loss = np.mean([lost(*pair) for run in runs for pair in zip(fulls, run, strict=True)])
        made = np.mean([ranking.comparisons for run in runs for ranking in run])
        label = f"{name}, budget {budget}" if name == "active" else name
        lines.append((label, f"{made:.1f}", f"{100 * same.mean():.1f}", f"{low:.1f} to {high:.1f}", f"{loss:.3f}"))
    columns = ("strategy", "comparisons", "same winner as full, %", "95 % interval", "score lost")
    yield Table(columns, tuple(lines), names=1).markdown()


def progress(done: int, total: int) -> None:
    print(f"\r{done:,}/{total:,} comparisons", end="" if done < total else "\n\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--models", default="", help="only these LLMs' candidates")
    parser.add_argument("--ranker", default="bundled")
    parser.add_argument("--comparisons", required=True, help="SQLite file that keeps them")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    models = [name for name in options.models.split(",") if name]
    rows = [row for row in read_rows(options.file) if len(candidates_of(row, models)) > 1]
    ranker = CachedRanker(load_ranker(options.ranker), options.comparisons, options.ranker)
    for line in table(ranker, rows, models, options.seeds):
        print(line)


if __name__ == "__main__":
    main()
