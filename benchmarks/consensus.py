"""Agreement of consensus with the judges, by the number of candidates.

python benchmarks/consensus.py $DATA/train $DATA/dev
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ranker_quality import POOLS, rows_of

from llm_blender.bench import Table, agreements, baseline_predictions, draw_candidates, implied_pairs

DRAWS = 3  # of the candidates of each row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    columns = ["candidates", *(f"{pool.name}: {method}" for pool in POOLS for method in ("consensus", "longest"))]
    pools = {pool.name: [row for folder in options.folders for row in rows_of(pool, folder)] for pool in POOLS}
    rows = []
    for count in (3, 4, 5, 8, 11):
        cells = [str(count)]
        for name, of_pool in pools.items():
            judged = implied_pairs(name, draw_candidates(of_pool, count, draws=DRAWS))
            found = {result.method: result for result in agreements(judged, baseline_predictions(judged))}
            for method in ("consensus", "longest"):
                low, high = found[method].ci95 or (np.nan, np.nan)
                cells.append(f"{100 * found[method].accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        rows.append(tuple(cells))
    print(Table(tuple(columns), tuple(rows), names=0).markdown())


if __name__ == "__main__":
    main()
