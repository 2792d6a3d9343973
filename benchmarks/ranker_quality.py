"""Quality of rankers: every test file, every ranker, every baseline, in one table.

    python benchmarks/ranker_quality.py $DATA/test --ranker bundled --ranker runs/reward_model -o runs/quality

Comparisons of PairRankers, and with ``--rows`` of all, are stored in OUTPUT/comparisons.db, so that an interrupted run
continues and another strategy costs nothing.
Writes OUTPUT/quality.json and quality.md. ``--priors`` is learned on the rows that are given, never on these.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from llm_blender.bench import (
    Agreement,
    BenchRow,
    CachedRanker,
    JudgedPairs,
    Selection,
    agreement_table,
    agreements,
    baseline_predictions,
    baseline_selections,
    implied_pairs,
    labelled_pairs,
    ranker_predictions,
    ranker_selections,
    scored_rows,
    selection_table,
)
from llm_blender.cli._progress import progress
from llm_blender.data import read_rows
from llm_blender.rankers import load_ranker
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.ranking import Priors
from llm_blender.types import Ranker


class Pool(NamedTuple):
    """Candidates of comparable LLMs, and the score of their quality."""

    name: str
    file: str
    score: str
    models: tuple[str, ...]


CLAUDE = Pool(
    "pool-claude",
    "alpacaeval_v1",
    "claude_win_vs_text_davinci_003",
    (
        "vicuna-13b",
        "guanaco-65b",
        "nous-hermes-13b",
        "guanaco-33b",
        "oasst-rlhf-llama-33b",
        "vicuna-7b",
        "guanaco-13b",
        "oasst-sft-llama-33b",
        "guanaco-7b",
        "falcon-40b-instruct",
        "pythia-12b-mix-sft",
    ),
)
GPT4_TURBO = Pool(
    "pool-gpt4turbo",
    "alpacaeval_v2",
    "gpt-4-turbo(logprob)_win_vs_gpt4_1106_preview",
    (
        "vicuna-13b",
        "minotaur-13b",
        "nous-hermes-13b",
        "ultralm-13b",
        "oasst-sft-llama-33b",
        "baize-v2-13b",
        "falcon-40b-instruct",
        "chatglm2-6b",
        "alpaca-7b",
        "pythia-12b-mix-sft",
        "oasst-sft-pythia-12b",
    ),
)
POOLS = (CLAUDE, GPT4_TURBO)
LABELLED = (
    "lfqa_expert",
    "oasst_en100",
    "hhh_alignment",
    "pandalm_test",
    "llmbar",
    "rm_bench",
    "hh_harmless",
    "finegrained_qa",
    "prometheus_vicuna",
)
BY_SUBSET = ("llmbar", "hhh_alignment", "rm_bench")


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the test files")
    parser.add_argument("--ranker", action="append", dest="rankers", help="as for `blend bench` [default: bundled]")
    parser.add_argument("--choose-on", type=Path, help="folder in which the best single LLM is chosen")
    parser.add_argument("--priors", type=Path, help="strengths of pool-claude's LLMs, by `blend priors fit`")
    parser.add_argument(
        "--strategy", action="append", dest="strategies", help="as for `blend bench` [default: full, auto]"
    )
    parser.add_argument("--model-only", action="store_true", help="without what counts beside a PairRanker's model")
    parser.add_argument("--file", action="append", dest="files", help="only this pool, or labelled file [default: all]")
    parser.add_argument("--rows", type=int, help="the first so many rows of each file alone")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/quality"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rankers = {
        name: loaded(name, options.output / "comparisons.db", not options.model_only, sampled=options.rows is not None)
        for name in options.rankers or ["bundled"]
    }
    files = options.files or [*(pool.name for pool in POOLS), *LABELLED]
    found = pair_agreements(options.data, rankers, files, options.rows)
    strategies = options.strategies or ["full", "auto"]
    priors = None if options.priors is None else Priors.load(options.priors)
    selections = {
        pool.name: pool_selections(
            pool, rows_of(pool, options.data)[: options.rows], rankers, strategies, options.choose_on, priors
        )
        for pool in POOLS
        if pool.name in files
    }
    write(options.output, found, selections)


def loaded(name: str, record: Path, evidence: bool, *, sampled: bool) -> Ranker:
    """Load a ranker by name, with a cache if its comparisons are slow."""
    ranker = load_ranker(name, evidence=evidence)
    slow = isinstance(ranker, PairRanker) or sampled
    return CachedRanker(ranker, record, name) if slow else ranker


def pair_agreements(
    folder: Path, rankers: dict[str, Ranker], files: Sequence[str], limit: int | None = None
) -> list[Agreement]:
    """Agreement on all files, the labelled ones by their parts too."""
    parts: list[JudgedPairs] = []
    for pool in (pool for pool in POOLS if pool.name in files):
        parts.append(implied_pairs(pool.name, rows_of(pool, folder)[:limit]))
    for name in (name for name in LABELLED if name in files):
        rows = islice(read_rows(folder / f"{name}.jsonl.zst"), limit)
        parts.append(labelled_pairs(name, rows, by="meta.subset" if name in BY_SUBSET else None))
    results: list[Agreement] = []
    for part in parts:
        methods = []
        for name, ranker in rankers.items():
            with progress(f"{name}, {part.file}", "comparisons") as report:
                methods.append(ranker_predictions(part, ranker, name, progress=report))
        results += agreements(part, [*methods, *baseline_predictions(part)])
    return results


def pool_selections(
    pool: Pool,
    rows: list[BenchRow],
    rankers: dict[str, Ranker],
    strategies: Sequence[str],
    choose_on: Path | None,
    priors: Priors | None,
) -> list[Selection]:
    """Measure the picks of each ranker in a pool, by each strategy."""
    results: list[Selection] = []
    for name, ranker in rankers.items():
        pairwise = isinstance(ranker, CachedRanker)
        for strategy in strategies if pairwise else strategies[:1]:
            with progress(f"{name}, {pool.name}, {strategy}", "comparisons") as report:
                own = priors if pool is CLAUDE else None
                results += ranker_selections(rows, ranker, name, strategy=strategy, priors=own, progress=report)
    train = None if choose_on is None else rows_of(pool, choose_on)
    return results + baseline_selections(rows, train)


def rows_of(pool: Pool, folder: Path) -> list[BenchRow]:
    """Read a pool's rows from a folder."""
    return list(scored_rows(read_rows(folder / f"{pool.file}.jsonl.zst"), pool.score, pool.models))


def write(folder: Path, found: Sequence[Agreement], selections: dict[str, list[Selection]]) -> None:
    """JSON for machines, Markdown for people."""
    values = {
        "pairs": [result.to_dict() for result in found],
        "select": {name: [result.to_dict() for result in results] for name, results in selections.items()},
    }
    (folder / "quality.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    tables = ["## Agreement on pairs\n", agreement_table(found).markdown()]
    for name, results in selections.items():
        tables += [f"\n## What is selected in {name}\n", selection_table(results, percent=True).markdown()]
    (folder / "quality.md").write_text("\n".join(tables) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
