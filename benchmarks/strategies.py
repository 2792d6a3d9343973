"""How often each strategy finds the winner that all comparisons find, and how many comparisons it computes.

    python benchmarks/strategies.py $DATA/test/alpacaeval_v1.jsonl.zst --comparisons comparisons.db \
        --picture docs/pictures

The answers of twenty LLMs are compared once, all pairs, and stored in the file, so that an interrupted run continues.
For each number N up to eleven, N answers of a row are drawn from the eleven LLMs of the pool; the others come after
them, in their order. Every strategy reads from the matrix of these N, with the evidence as the ranker has it, and by
the ranker's model alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ranker_quality import CLAUDE

from llm_blender.bench import CachedRanker, Table
from llm_blender.bench.plots import new_figure, point_axis, save_figures
from llm_blender.bench.report import Theme
from llm_blender.cli._progress import progress
from llm_blender.data import read_rows
from llm_blender.rankers import load_ranker
from llm_blender.ranking import Advance, Interval, Pool, bootstrap_interval, model_alone, rank_with
from llm_blender.types import Example, Ranker, Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LLMS = (
    *CLAUDE.models,
    *("ultralm-13b", "minichat-3b", "zephyr-7b-alpha", "llama-2-13b-chat-hf", "alpaca-7b", "oasst-sft-pythia-12b"),
    *("tulu-2-dpo-7b", "phi-2-sft", "wizardlm-13b"),
)
STRATEGIES = {
    "knockout": ("knockout", 0),
    "bubble": ("bubble", 0),
    "top_k, 3 in order": ("top_k", 0),
    "active, 1.5 (N − 1)": ("active", 1.5),
    "active, 3 (N − 1)": ("active", 3.0),
}
"""Strategy and budget, in rounds of N − 1 comparisons, by the name of its line."""
_SHOWN = (3, 4, 5, 6, 8, 11, 16, 20)  # numbers of candidates in the table
_PODIUM = 3


@dataclass(frozen=True)
class Point:
    """A strategy with N candidates, compared with all pairs.

    Attributes:
        evidence: whether the evidence beside the ranker's model counts.
        candidates: N.
        strategy: name of its line.
        comparisons: mean number that are computed.
        pairs: mean number of all pairs.
        same: share of the rows and seeds with the same winner.
        ci95: its interval, resampled by row.
        podium: share with the same first three, in order.
        lost: mean score that the winner lacks to the winner of all pairs, on the scale of MaxLogits.
        lead: median lead in score of the winner of all pairs.
    """

    evidence: bool
    candidates: int
    strategy: str
    comparisons: float
    pairs: float
    same: float
    ci95: Interval
    podium: float
    lost: float
    lead: float


def drawn(rows: Sequence[Example], models: Sequence[str], n: int) -> list[list[str]]:
    """Return n different texts of each row: drawn from the LLMs of the pool, then those of the others."""
    found, pool, others = [], models[: len(CLAUDE.models)], models[len(CLAUDE.models) :]
    for number, row in enumerate(rows):
        written = {candidate.model: candidate.text for candidate in row.candidates}
        order = [*np.random.default_rng(number).permutation(pool).tolist(), *others]
        found.append(list(dict.fromkeys(written[model] for model in order if model in written))[:n])
    return found


def measure(
    ranker: Ranker, rows: Sequence[Example], texts: Sequence[Sequence[str]], n: int, seeds: int, *, evidence: bool
) -> list[Point]:
    """Measure all strategies on n candidates of each row."""
    with progress(f"{n} candidates", "comparisons") as report:
        wholes = ranker.rank_many([row.prompt for row in rows], texts, strategy="full", progress=report)
    biased = bool(getattr(ranker, "position_bias", True))

    def compare(pool: Pool, advance: Advance) -> list[float]:
        return [float(wholes[row].logits[left, right]) for row, left, right in pool]

    def lost(whole: Ranking, other: Ranking) -> float:
        return whole.scores[whole.best] - whole.scores[other.best]

    points = []
    lead = float(np.median([np.subtract(*sorted(whole.scores)[:-3:-1]) for whole in wholes]))
    for label, (name, budget) in STRATEGIES.items():
        runs = [
            rank_with(
                texts, compare, strategy=name, seed=seed, budget=max(2, round(budget * (n - 1))), position_bias=biased
            )
            for seed in range(seeds)
        ]
        pairs = [[(whole, run) for whole, run in zip(wholes, of_seed, strict=True)] for of_seed in runs]
        losses = np.array([[lost(*pair) for pair in of_seed] for of_seed in pairs])
        same = (losses == 0).mean(axis=0)
        podium = [whole.order[:_PODIUM] == run.order[:_PODIUM] for of_seed in pairs for whole, run in of_seed]
        made = np.mean([ranking.comparisons for run in runs for ranking in run])
        whole_pairs = float(np.mean([whole.comparisons for whole in wholes]))
        points.append(
            Point(
                evidence, n, label, float(made), whole_pairs, float(same.mean()), bootstrap_interval(same),
                float(np.mean(podium)), float(losses.mean()), lead,
            )
        )  # fmt: skip
    return points


def table(points: Sequence[Point]) -> Table:
    """Return a line for each number of candidates and strategy."""
    lines = [
        (
            f"{point.candidates}",
            point.strategy,
            f"{point.comparisons:.1f} of {point.pairs:.1f}",
            f"{100 * point.same:.1f}",
            f"{100 * point.ci95.low:.1f} to {100 * point.ci95.high:.1f}",
            f"{point.lost:.3f}",
            f"{100 * point.podium:.1f}",
        )
        for point in points
        if point.candidates in _SHOWN
    ]
    columns = ("N", "strategy", "comparisons", "same winner, %", "95 % interval", "score lost", "same first three, %")
    return Table(columns, tuple(lines), names=2)


def draw(points: Sequence[Point], theme: Theme) -> Figure:
    """Draw the share with the same winner over the comparisons, with a line for each strategy."""
    figure = new_figure(8.4, 3.8)
    axes = figure.subplots(1, 2, sharey=True)
    titles = {True: "with the evidence, as bundled", False: "model alone"}
    for axis, (evidence, title) in zip(axes, titles.items(), strict=True):
        for place, label in enumerate(label for label in STRATEGIES if label != "bubble"):  # which lies on the knockout
            own = [p for p in points if p.strategy == label and p.evidence == evidence]
            x, y = [p.comparisons for p in own], [100 * p.same for p in own]
            colour = theme.accents[place]
            axis.plot(x, y, color=colour, marker="o", markersize=3, linewidth=1.2, label=label)
            if not place:
                ends = [[100 * p.ci95[end] for p in own] for end in (0, 1)]
                axis.fill_between(x, *ends, color=colour, alpha=0.15, linewidth=0)
        point_axis(axis, theme)
        axis.axhline(98, color=theme.quiet, linewidth=1, dashes=(4, 3))
        axis.set(xscale="log", xlabel="comparisons computed for a prompt")
        axis.set_xticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
        axis.minorticks_off()
        axis.set_title(title, loc="left", fontsize=10)
    axes[0].set_ylabel("same winner as all pairs, %")
    sizes = [point.candidates for point in points]
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    what = f"{min(sizes)} to {max(sizes)} candidates, a point each, left to right"
    figure.suptitle(what, fontsize=9, x=0.01, ha="left")
    return figure


def main() -> None:
    """Measure, print the tables, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--models", default=",".join(LLMS), help="candidates of these LLMs [default: the twenty]")
    parser.add_argument("--ranker", default="bundled")
    parser.add_argument("--comparisons", required=True, help="SQLite file that keeps them")
    parser.add_argument("--most", type=int, default=20, help="largest number of candidates")
    parser.add_argument("--rows", type=int, help="only the first rows")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--picture", type=Path, help="folder of strategies.svg and strategies.png")
    parser.add_argument("--json", type=Path, help="file of all points")
    options = parser.parse_args()
    models = [name for name in options.models.split(",") if name]
    rows = list(read_rows(options.file))[: options.rows]
    ranker: Ranker = CachedRanker(load_ranker(options.ranker), options.comparisons, options.ranker)
    points: list[Point] = []
    for evidence in (True, False):
        used = ranker if evidence else model_alone(ranker)
        for n in range(3, options.most + 1):
            texts = drawn(rows, models, n)
            points += measure(used, rows, texts, n, options.seeds, evidence=evidence)
        print(f"\n{len(rows)} rows, {options.seeds} seeds, {'with the evidence' if evidence else 'model alone'}\n")
        print(table([point for point in points if point.evidence == evidence]).markdown())
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n")
    if options.picture is not None:
        save_figures({"strategies": lambda theme: draw(points, theme)}, options.picture)


if __name__ == "__main__":
    main()
