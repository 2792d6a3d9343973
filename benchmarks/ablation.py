"""Effect of each choice in training a PairRanker: one change at a time, the same number of steps for all.

    python benchmarks/ablation.py recipes/ablation.toml --data $DATA -o runs/ablation

The file is a recipe with a table ``[ablation]`` beside it: ``seeds``, and ``[ablation.options.NAME]`` with the keys of
a recipe that this option changes; ``[ablation.options.NAME.sources]`` changes keys of all sources, where they are set.
Every cell takes the recipe's ``steps`` of its ``batch_tokens``, is measured on the development pools and pairs without
consensus, and is stored, so that an interrupted run continues with the next one. ``--seed`` and ``--option`` train a
part, so that two processes share the work; the run without them joins the cells.

Writes OUTPUT/ablation.json and ablation.md: agreement of each option, and its difference from the base, paired over
instructions, the seeds averaged.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ranker_quality import POOLS, rows_of

from llm_blender.bench import JudgedPairs, Table, implied_pairs, labelled_pairs, ranker_predictions
from llm_blender.cli._output import note
from llm_blender.cli._progress import progress
from llm_blender.data import read_rows
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.ranking import bootstrap_interval
from llm_blender.training.recipes import Recipe
from llm_blender.training.run import train_ranker

BASE = "base"
LABELLED = ("hh_harmless", "finegrained_qa")
HELD_OUT = ("pandalm_test", "prometheus_vicuna")  # test files whose prompts are left out of the training rows
ROWS = 40  # of each pool
PAIRS = 400  # of each pool


def main() -> None:
    """Train the cells that are missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with train, dev and test")
    parser.add_argument("--backbone", help="where the recipe's encoder is found, if not under its own name")
    parser.add_argument("--seed", type=int, action="append", help="train these alone of the recipe's seeds")
    parser.add_argument("--option", action="append", help="train these alone of the recipe's options, or `base`")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/ablation"))
    options = parser.parse_args()
    values = tomllib.loads(options.recipe.read_text(encoding="utf-8"))
    plan = values.pop("ablation")
    judged = development_pairs(options.data / "dev")
    cells: dict[str, list[dict[str, Any]]] = {}
    plans = {BASE: {}, **plan["options"]}
    for seed in options.seed or plan["seeds"]:  # all options with one seed, before any has a second
        for name in options.option or plans:
            recipe = Recipe.model_validate({**changed(values, plans[name]), "seed": seed, "dev_sources": []})
            cell = options.output / f"{name}-{seed}"
            cells.setdefault(name, []).append(run_cell(recipe, cell, judged, options.data, options.backbone))
            if BASE in cells:
                write(options.output, cells, judged)


def changed(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Merge an option into the recipe's values."""
    own = dict(change)
    of_sources = own.pop("sources", {})
    sources = [source | {key: new for key, new in of_sources.items() if key in source} for source in values["sources"]]
    return {**values, **own, "sources": sources}


def development_pairs(folder: Path) -> list[JudgedPairs]:
    """Return the pairs of both pools, and those labelled by people."""
    pools = [sampled(implied_pairs(pool.name, rows_of(pool, folder)[:ROWS]), PAIRS) for pool in POOLS]
    return pools + [labelled_pairs(name, read_rows(folder / f"{name}.jsonl.zst")) for name in LABELLED]


def sampled(judged: JudgedPairs, size: int) -> JudgedPairs:
    """Draw at most ``size`` of the pairs, always the same ones."""
    places = sorted(random.Random(0).sample(range(len(judged.pairs)), min(size, len(judged.pairs))))
    return judged.take(places)


def run_cell(
    recipe: Recipe, folder: Path, judged: Sequence[JudgedPairs], data: Path, backbone: str | None
) -> dict[str, Any]:
    """Return the hits on each file's pairs and the seconds of training, from an earlier run if there was one."""
    done = folder / "cell.json"
    if done.exists():
        kept: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return kept
    start = time.monotonic()
    with progress(folder.name, "steps") as report:
        train_ranker(
            recipe,
            data / "train",
            data / "dev",
            folder,
            exclude=[data / "test" / f"{name}.jsonl.zst" for name in HELD_OUT],
            backbone=backbone,
            progress=report,
            note=note,
        )
    seconds = time.monotonic() - start
    ranker = PairRanker.from_pretrained(folder, precision="fp32", evidence=False)
    hits = {}
    for part in judged:
        with progress(f"{folder.name}, {part.file}", "comparisons") as report:
            logits = ranker_predictions(part, ranker, folder.name, progress=report).logits
        hits[part.file] = ((1 + np.sign(logits) * part.sides) / 2).tolist()
    cell = {"seconds": seconds, "hits": hits}
    done.write_text(json.dumps(cell), encoding="utf-8")
    return cell


def write(folder: Path, cells: dict[str, list[dict[str, Any]]], judged: Sequence[JudgedPairs]) -> None:
    """Write the table of the cells so far."""
    columns = ["option", "seeds", "minutes", *(column for part in judged for column in (part.file, "against base"))]
    rows, summary = [], {}
    for name, seeds in cells.items():
        minutes = float(np.mean([cell["seconds"] for cell in seeds])) / 60
        row, values = [name, str(len(seeds)), f"{minutes:.1f}"], {}
        for part in judged:
            hits, reference = mean_hits(seeds, part.file), mean_hits(cells[BASE][: len(seeds)], part.file)
            low, high = bootstrap_interval(hits, part.groups)
            gain = bootstrap_interval(hits - reference, part.groups)
            values[part.file] = {
                "agreement": float(hits.mean()),
                "ci95": [low, high],
                "gain": float((hits - reference).mean()),
                "gain_ci95": list(gain),
                "by_seed": [float(np.mean(cell["hits"][part.file])) for cell in seeds],
            }
            row.append(f"{100 * hits.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})")
            row.append("–" if name == BASE else f"{100 * gain[0]:+.1f} to {100 * gain[1]:+.1f}")
        rows.append(tuple(row))
        summary[name] = {"minutes": minutes, "files": values}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ablation.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (folder / "ablation.md").write_text(Table(tuple(columns), tuple(rows), names=1).markdown() + "\n", encoding="utf-8")


def mean_hits(seeds: Sequence[dict[str, Any]], file: str) -> NDArray[np.float64]:
    """Return ``[n]``: share of the seeds that order a pair as the judge did."""
    return np.asarray(np.mean([cell["hits"][file] for cell in seeds], axis=0))


if __name__ == "__main__":
    main()
