"""The temperature and the evidence weights in the bundled ranker's config.json, fitted on development rows.

    python benchmarks/calibration.py $DATA/dev

The two pools and the tasks with a final answer, with 3 to 11 of their LLMs drawn for each row, and what people and
GPT-4 labelled: `blend train calibrate` does the same with rows of your own. Prints what each part is worth; with
``--write``, the weights are in config.json afterwards.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from ranker_quality import POOLS, rows_of

from llm_blender._hub import file_sha256
from llm_blender.bench import (
    CachedRanker,
    JudgedPairs,
    draw_candidates,
    evidence_table,
    implied_pairs,
    labelled_pairs,
    ranker_predictions,
    scored_rows,
)
from llm_blender.cli._progress import progress
from llm_blender.data import read_rows
from llm_blender.rankers.checkpoints import weights_hash
from llm_blender.rankers.pair_ranker import PairRanker, PairRankerConfig
from llm_blender.ranking import fit_evidence

FINAL_ANSWERS = ("zeroeval_gsm", "zeroeval_math_l5")
LABELLED = (
    "hh_harmless",
    "hh_helpful_base",
    "hh_helpful_rejection_sampled",
    "rmb_helpful",
    "rmb_harmless",
    "ultrafeedback_sample",
    "finegrained_qa",
    "qa_eval",
)
COUNTS = (3, 5, 8, 11)  # candidates drawn of each row
DRAWN = 8  # LLMs kept of those that solve the tasks with a final answer


def main() -> None:
    """Fit, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the development files")
    parser.add_argument("--ranker", default="bundled", help="`bundled`, or a folder")
    parser.add_argument("--write", action="store_true", help="change its config.json")
    parser.add_argument("--json", action="store_true", help="print the fit as JSON")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/calibration"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    ranker = PairRanker.from_pretrained(options.ranker, evidence=False)
    recorded = CachedRanker(ranker, options.output / "comparisons.db", file_sha256(ranker.folder / "model.safetensors"))
    judged = []
    for part in judged_pairs(options.data):
        with progress(part.file, "comparisons") as report:
            logits = ranker_predictions(part, recorded, options.ranker, progress=report).logits
        judged.append(part.features(logits))
    fit = fit_evidence(judged)
    if options.json:
        print(json.dumps(fit.to_dict(), indent=1))
    else:
        print(f"temperature {fit.temperature:.4f}, weights sha256 {weights_hash(ranker.folder)[:16]}\n")
        print(evidence_table(fit).markdown())
    if options.write:
        config = PairRankerConfig.load(ranker.folder)
        replace(config, temperature=round(fit.temperature, 4), evidence_weights=fit.weights.rounded()).save(
            ranker.folder
        )


def judged_pairs(folder: Path) -> list[JudgedPairs]:
    """Collect the pairs of all files."""
    found = []
    for pool in POOLS:
        rows = rows_of(pool, folder)
        found += [implied_pairs(f"{pool.name}, {count}", draw_candidates(rows, count)) for count in COUNTS]
    for name in FINAL_ANSWERS:
        rows = draw_candidates(scored_rows(list(read_rows(folder / f"{name}.jsonl.zst")), "correct"), DRAWN)
        found += [implied_pairs(f"{name}, {count}", draw_candidates(rows, count)) for count in (3, 5, DRAWN)]
    found += [labelled_pairs(name, read_rows(folder / f"{name}.jsonl.zst")) for name in LABELLED]
    return found


if __name__ == "__main__":
    main()
