r"""The guard of fused texts with and without the other candidates in view.

    python benchmarks/guard.py $DATA/dev/alpacaeval_v1.jsonl.zst --models vicuna-13b,wizardlm-13b,… --fused consensus \
      --fused gpt35_turbo_instruct --fused minichat-3b --metric rougeL --metric bertscore=DIR

The candidates are those of `--models`. A fused text is that of the consensus fuser, or the recorded text of an LLM that
is none of them, in the place of a fuser that writes its own. A row counts if the text differs from the best
candidate. `rank` is the share of the pairs (a text that gains, one that loses) in which the guard gives the first one
the higher probability: 0.5 knows nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench import Table
from llm_blender.cli._options import metric_settings
from llm_blender.cli._progress import progress
from llm_blender.data import read_rows
from llm_blender.fusers import CONSENSUS, ConsensusFuser
from llm_blender.metrics import evaluate
from llm_blender.rankers import load_ranker
from llm_blender.ranking import DUEL, bootstrap_interval
from llm_blender.types import Example, Ranker

Floats = NDArray[np.float64]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", help="rows with references and recorded candidates")
    parser.add_argument("--models", required=True, help="LLMs of the candidates")
    parser.add_argument("--fused", action="append", help="consensus, or an LLM")
    parser.add_argument("--ranker", default="bundled")
    parser.add_argument("--metric", action="append", help="as for `blend bench fuse`")
    parser.add_argument("--prefer", type=float, nargs="+", default=[0.5])
    parser.add_argument("--rows", type=int, help="of each file")
    options = parser.parse_args()
    models, names = options.models.split(","), options.fused or [CONSENSUS]
    needed = {*models, *names} - {CONSENSUS}
    rows = [
        row
        for file in options.files
        for row in list(read_rows(str(file)))[: options.rows]
        if needed <= texts(row).keys()
    ]
    ranker = load_ranker(options.ranker)
    prompts = [row.prompt for row in rows]
    candidates = [[texts(row)[model] for model in models] for row in rows]
    with progress("ranking", "comparisons") as report:
        rankings = ranker.rank_many(prompts, candidates, strategy="full", progress=report)
    ordered = [[of_row[i] for i in ranking.order] for of_row, ranking in zip(candidates, rankings, strict=True)]
    lines: list[tuple[str, ...]] = []
    for name in names:
        fused = fused_texts(name, rows, ordered)
        kept = [i for i, text in enumerate(fused) if text.strip() != ordered[i][0].strip()]
        pairs = [[ordered[i][0], fused[i]] for i in kept]
        gains = {
            metric: of_pairs[:, 1] - of_pairs[:, 0]
            for metric, of_pairs in measured(pairs, [rows[i].reference or "" for i in kept], options.metric)
        }
        in_view = {"best": pairs, "all": [[*pair, *ordered[i][1:]] for pair, i in zip(pairs, kept, strict=True)]}
        for view, given in in_view.items():
            probabilities = duels(ranker, [prompts[i] for i in kept], given)
            for prefer in options.prefer:
                cells = [name, view, f"{prefer:g}", f"{(probabilities > prefer).sum()} of {len(kept)}"]
                for of_metric in gains.values():
                    cells += columns(of_metric, probabilities, prefer, len(rows))
                lines.append(tuple(cells))
    measures = [f"{metric}, {what}" for metric in gains for what in ("let through", "all answers", "rank")]
    print(Table(("fused", "in view", "prefer", "let through", *measures), tuple(lines), names=3).markdown())


def texts(row: Example) -> dict[str | None, str]:
    """Return the texts of a row by LLM."""
    return {candidate.model: candidate.text for candidate in row.candidates}


def fused_texts(name: str, rows: Sequence[Example], ordered: Sequence[Sequence[str]]) -> list[str]:
    """Return the fused text of each row."""
    if name != CONSENSUS:
        return [texts(row)[name] for row in rows]
    return [fusion.text for fusion in ConsensusFuser().fuse_many([row.prompt for row in rows], ordered)]


def measured(
    pairs: Sequence[Sequence[str]], references: Sequence[str], metrics: Sequence[str] | None
) -> list[tuple[str, Floats]]:
    """Return by metric ``[pairs, 2]``, the scores of both texts."""
    both = [text for pair in pairs for text in pair]
    with progress("measuring", "texts") as report:
        settings = metric_settings(list(metrics or ["rougeL"]), None)
        lines = list(evaluate(both, [text for text in references for _ in range(2)], settings, progress=report))
    for line in lines:
        if line.scores is None:
            raise SystemExit(f"{line.metric}: {line.status}")
    return [(line.metric, np.reshape(line.scores.values, (-1, 2))) for line in lines if line.scores is not None]


def duels(ranker: Ranker, prompts: Sequence[str], given: Sequence[Sequence[str]]) -> Floats:
    """Return the probability that the second text is better than the first."""
    with progress("comparing", "comparisons") as report:
        rankings = ranker.rank_many(prompts, given, strategy=DUEL, progress=report)
    return np.array([ranking.probability(1, 0) for ranking in rankings])


def columns(gains: Floats, probabilities: Floats, prefer: float, rows: int) -> list[str]:
    """Return gain of the texts let through, gain over all rows, and the share of pairs in the right order."""
    through = probabilities > prefer
    kept = np.concatenate([np.where(through, gains, 0.0), np.zeros(rows - len(gains))])
    better, worse = probabilities[gains > 0], probabilities[gains < 0]
    order = (np.sign(better[:, None] - worse) + 1).mean() / 2 if len(better) and len(worse) else np.nan
    cells = [with_interval(gains[through]) if through.sum() > 1 else "", with_interval(kept)]
    return [*cells, f"{order:.2f}"]


def with_interval(values: Floats) -> str:
    """Return a mean with its interval."""
    low, high = bootstrap_interval(values)
    return f"{values.mean():+.4f} ({low:+.4f} to {high:+.4f})"


if __name__ == "__main__":
    main()
