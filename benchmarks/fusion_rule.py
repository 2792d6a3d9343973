"""The thresholds of fusing (`llm_blender.FusionRule`), fitted on development rows.

    blend fuse ranked-dev.jsonl -o fused-dev.jsonl --fuser embedded:DIR
    python benchmarks/fusion_rule.py fused-dev.jsonl --metric rougeL --metric bertscore=DIR

The gain of a text over the best candidate is the mean of its gains by each metric, in standard deviations of the best
candidates. First the guard's threshold, the one with the highest mean gain unless one is given; then, under that
guard, those of ``auto``, for which the share of the gain that is kept exceeds the share of the rows that are fused by
most: a rule that knows nothing keeps as much as it fuses. Where the guard lets through what gains nothing, that is
printed: then nothing should be fused. The gain printed beside the thresholds is that of the rows they were fitted on,
which flatters it; other rows measure it.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench import FusedRow, fused_rows
from llm_blender.cli._options import metric_settings
from llm_blender.cli._progress import progress
from llm_blender.data import read_rows
from llm_blender.fusers import FusionRule
from llm_blender.metrics import evaluate
from llm_blender.ranking import bootstrap_interval

PREFER = np.round(np.arange(0.3, 0.96, 0.05), 2)
CLOSE = np.round(np.arange(0.5, 1.01, 0.05), 2)
OVERLAP = np.round(np.arange(0.0, 0.81, 0.05), 2)

_Floats = NDArray[np.float64]


def gains(rows: list[FusedRow], metrics: list[str], report: Any) -> _Floats:
    """Return ``[rows]``: gain of each written text over the best candidate."""
    texts = [text for row in rows for text in (row.written, row.chosen or "")]
    references = [row.reference for row in rows for _ in range(2)]
    columns = []
    for line in evaluate(texts, references, metric_settings(metrics, None), progress=report):
        if line.scores is None:
            raise SystemExit(f"{line.metric}: {line.status}")
        written, best = np.array(line.scores.values).reshape(-1, 2).T
        columns.append((written - best) / best.std())
    return np.asarray(np.mean(columns, axis=0))


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", help="rows from `blend fuse --mode fuse`, with references")
    parser.add_argument("--metric", action="append", help="as for `blend bench fuse`")
    parser.add_argument("--prefer", type=float, help="the guard's threshold, in place of the one that gains most")
    options = parser.parse_args()
    found = [row for file in options.files for row in fused_rows(file, read_rows(file))[0]]
    rows = [row for row in found if row.fusion.get("overlap") is not None and row.chosen is not None]
    compared = np.array([row.fusion.get("probability") is not None for row in rows])
    gain, probability = np.zeros(len(rows)), np.zeros(len(rows))  # of a copy or a flawed text
    with progress("measuring", "texts") as report:
        gain[compared] = gains([rows[i] for i in compared.nonzero()[0]], options.metric or ["rougeL"], report)
    probability[compared] = [rows[i].fusion["probability"] for i in compared.nonzero()[0]]
    kept = {float(prefer): np.where(probability > prefer, gain, 0.0) for prefer in PREFER}
    prefer = options.prefer
    if prefer is None:
        prefer = max(kept, key=lambda value: (round(kept[value].mean(), 6), -abs(value - 0.5)))
    kept.setdefault(prefer, np.where(probability > prefer, gain, 0.0))
    guarded = kept[prefer]
    pays = bool(guarded.mean() > 0)
    chosen = []
    for close, overlap in product(CLOSE.tolist(), OVERLAP.tolist()):
        rule = FusionRule(close, overlap, prefer)
        fused = np.array([rule.reason(row.fusion.get("lead"), row.fusion["overlap"]) != "clear" for row in rows])
        keeps = float(guarded[fused].sum() / guarded.sum()) if pays else 0.0
        chosen.append((round(keeps - float(fused.mean()), 6), -float(fused.mean()), close, overlap))
    more, share, close, overlap = max(chosen)
    print(
        json.dumps(
            {
                "rows": len(rows),
                "by_prefer": {f"{value:g}": round(float(values.mean()), 4) for value, values in kept.items()},
                "prefer": prefer,
                "let_through": int((probability > prefer).sum()),
                "gain": round(float(guarded.mean()), 4),
                "ci95": [round(value, 4) for value in bootstrap_interval(guarded)],
                "fusing_pays": pays,
                "close": close,
                "overlap": overlap,
                "auto_fuses": round(-share, 4),
                "auto_keeps": round(more - share, 4),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
