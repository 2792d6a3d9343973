"""Speed of the default ranker against another version of this package, in new processes that take turns.

    git worktree add ../before v1.0.0
    python benchmarks/versus_version.py $DATA/test/alpacaeval_v1.jsonl.zst --models pool-claude --against ../before/src

Each process ranks the same rows with the version's own bundled weights and defaults, after a warm-up: the best of all
candidates, as `blend ask` wants it. Seconds are processor time of one thread, or (``--threads 2``) elapsed time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from llm_blender.bench import Table
from ranking import read_texts

WORKER = """
import inspect, json, sys, time
from llm_blender import PairRanker
given = json.load(sys.stdin)
ranker = PairRanker.from_pretrained(threads=given["threads"])
best = {"k": 1} if "k" in inspect.getsource(ranker.rank_many.__func__) and given["best"] else {}
options = {"strategy": given["strategy"], **best}
clock = time.process_time if given["threads"] == 1 else time.perf_counter
ranker.rank(given["prompts"][0], given["candidates"][0], **options)
found = []
for prompt, texts in zip(given["prompts"], given["candidates"]):
    started = clock()
    ranking = ranker.rank(prompt, texts, **options)
    found.append((clock() - started, ranking.best, ranking.comparisons))
print(json.dumps(found))
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="rows; without, texts are made by a seed")
    parser.add_argument("--against", type=Path, required=True, help="src folder of the other version")
    parser.add_argument("--models", default="", help="LLMs, separated by commas, or a pool")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--candidates", type=int, default=11, help="of each prompt")
    parser.add_argument("--words", type=float, default=120, help="median of texts made by a seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--strategy", default="auto")
    args = parser.parse_args()
    prompts, candidates = read_texts(args)
    given = {"prompts": prompts, "candidates": candidates, "threads": args.threads, "strategy": args.strategy}
    sources = {"before": args.against.resolve(), "now": Path(__file__).resolve().parents[1] / "src"}
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    best, comparisons = {}, {}
    for number in range(args.rounds):
        for name in sorted(sources, reverse=bool(number % 2)):
            found = _run(sources[name], {**given, "best": args.strategy == "auto"})
            seconds[name].append(statistics.fmean(second for second, _, _ in found))
            best[name] = [winner for _, winner, _ in found]
            comparisons[name] = statistics.fmean(count for _, _, count in found)
    rows = []
    for name, times in seconds.items():
        ratio = statistics.median(before / now for before, now in zip(seconds["before"], times, strict=True))
        rows.append((name, f"{statistics.median(times):.3f}", f"{comparisons[name]:.1f}", f"{ratio:.2f}"))
    table = Table(("version", "s a prompt", "comparisons", "speed-up"), tuple(rows), names=1)
    same = statistics.fmean(a == b for a, b in zip(best["before"], best["now"], strict=True))
    print(table.markdown())
    print(f"\nThe same winner in {100 * same:.0f} % of {len(prompts)} prompts.")


def _run(source: Path, given: dict[str, object]) -> list[tuple[float, int, int]]:
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(given["threads"])}
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=json.dumps(given),
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return [tuple(row) for row in json.loads(done.stdout)]


if __name__ == "__main__":
    main()
