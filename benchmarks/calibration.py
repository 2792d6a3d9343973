"""The temperature and the weights in the bundled ranker's config.json, fitted on development rows.

    python benchmarks/calibration.py $DATA/dev

The two pools, each with its own LLMs, and what people labelled: `blend train calibrate` does the same with one list of
LLMs. Prints the fit as JSON; with ``--write``, it is in config.json afterwards.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from ranker_quality import POOLS, rows_of

from llm_blender.bench import CachedRanker, implied_pairs, labelled_pairs, ranker_predictions
from llm_blender.cli._progress import progress
from llm_blender.data import read_rows
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
from llm_blender.ranking import LogitWeights, fit_evidence

LABELLED = "hh_harmless"


def main() -> None:
    """Fit, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the development files")
    parser.add_argument("--ranker", default="bundled", help="`bundled`, or a folder")
    parser.add_argument("--write", action="store_true", help="change its config.json")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/calibration"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    ranker = PairRanker.from_pretrained(options.ranker, consensus=0)
    recorded = CachedRanker(ranker, options.output / "comparisons.db", options.ranker)
    judged = [implied_pairs(pool.name, rows_of(pool, options.data)) for pool in POOLS]
    judged.append(labelled_pairs(LABELLED, read_rows(options.data / f"{LABELLED}.jsonl.zst")))
    logits = []
    for part in judged:
        with progress(part.file, "comparisons") as report:
            logits.append(ranker_predictions(part, recorded, options.ranker, progress=report).logits)
    fit = fit_evidence(
        logits,
        [np.array(part.consensus) for part in judged],
        [np.array(part.a_wins, np.float64) for part in judged],
        [np.array(part.groups) for part in judged],
    )
    print(json.dumps(asdict(fit), indent=1))
    if options.write:
        weights = LogitWeights(round(fit.weights.consensus, 4), round(fit.weights.model, 4))
        config = PairRankerConfig.load(ranker.folder)
        replace(config, temperature=round(fit.temperature, 4), evidence_weights=weights).save(ranker.folder)


if __name__ == "__main__":
    main()
