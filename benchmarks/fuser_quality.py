"""A GenFuser under different numbers and orders of candidates: the files that `blend bench fuse` compares.

    blend rank $DATA/dev/alpacaeval_v1.jsonl.zst -o ranked.jsonl --models …
    python benchmarks/fuser_quality.py ranked.jsonl --fuser runs/fuser -o runs/fused --top-k 1 2 3 5
    blend bench fuse runs/fused/*.jsonl --metric rougeL --metric bertscore=DIR

`blend fuse` with `--top-k` and `--order` writes the same; here the fuser is loaded once, in bfloat16, and lengths can
be tried.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path
from typing import get_args

from llm_blender.cli._progress import progress
from llm_blender.data import RowWriter, parse_row, read_records, stored_ranking
from llm_blender.fusers import GuardedFuser, Order
from llm_blender.fusers.gen_fuser import GenFuser
from llm_blender.rankers import load_ranker


def main() -> None:
    """Fuse the rows once for each choice."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="rows from `blend rank`")
    parser.add_argument("--fuser", required=True, help="a folder")
    parser.add_argument("--base", help="of an adapter, if not the one it names")
    parser.add_argument("--top-k", type=int, nargs="+", default=[3])
    parser.add_argument("--order", choices=get_args(Order), nargs="+", default=["best_first"])
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--candidate-max-length", type=int)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--name", default="", help="begins the names of the files")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/fused"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    lengths = {name: getattr(options, name) for name in ("max_length", "candidate_max_length", "max_new_tokens")}
    fuser = GenFuser.from_pretrained(
        options.fuser, base=options.base, dtype=options.dtype, batch_size=options.batch_size, **lengths
    )
    ranker = load_ranker()
    records = [record for _, record in read_records(str(options.file))]
    rows = [parse_row(record) for record in records]
    rankings = [stored_ranking(row) for row in rows]
    for top_k, order in product(options.top_k, options.order):
        started = time.monotonic()
        guarded = GuardedFuser(fuser, ranker, top_k=top_k, order=order)
        with progress(f"top {top_k}, {order}", "rows") as report:
            reports = guarded.fuse_many(
                [row.instruction for row in rows],
                [[candidate.text for candidate in row.candidates] for row in rows],
                rankings,
                inputs=[row.input for row in rows],
                progress=report,
            )
        path = options.output / f"{options.name}k{top_k}{'' if order == 'best_first' else '_' + order}.jsonl"
        with RowWriter(str(path)) as writer:
            for record, fused in zip(records, reports, strict=True):
                writer.write({**record, "fusion": fused.to_dict()})
        print(f"{path}: {len(rows)} rows in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
