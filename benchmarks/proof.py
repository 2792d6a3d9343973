"""The pick of the bundled ranker against the best single LLM, on two pools and two tasks with a final answer.

    python benchmarks/proof.py $DATA -o runs/proof --picture docs/pictures

All rows of train, dev and test, in five folds: the best single LLM is chosen on the other folds, and priors are learned
there, from the scores or, without them, from the ranker's own rankings. The ranker's model was trained on pairs of the
training rows, and its evidence weights on the development rows; the test rows are a fifth of all. Comparisons are
stored, so that an interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ranker_quality import POOLS, Pool

from llm_blender.bench import BenchRow, CachedRanker, Selection, folded_selections, scored_rows, selection_table
from llm_blender.bench.methods import rank_rows
from llm_blender.bench.plots import bar_axis, new_figure, save_figures
from llm_blender.bench.report import Theme
from llm_blender.cli._progress import progress
from llm_blender.data import read_rows
from llm_blender.rankers import load_ranker
from llm_blender.rankers.checkpoints import find_checkpoint, weights_hash

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS = (
    Pool(
        "GSM8K, 5 LLMs",
        "zeroeval_gsm",
        "correct",
        ("command-r", "gemma-2-2b-it", "Mixtral-8x7B-Instruct-v0.1", "reka-flash-20240226", "Yi-1.5-9B-Chat"),
    ),
    Pool(
        "MATH level 5, 8 LLMs",
        "zeroeval_math_l5",
        "correct",
        (
            "Phi-3.5-mini-instruct",
            "Yi-1.5-34B-Chat",
            "Yi-1.5-9B-Chat",
            "Meta-Llama-3.1-8B-Instruct",
            "Qwen2-7B-Instruct",
            "Meta-Llama-3-70B-Instruct",
            "gemma-2-27b-it",
            "Qwen2.5-3B-Instruct",
        ),
    ),
    POOLS[0]._replace(name="AlpacaEval, 11 LLMs, Claude judges"),
    POOLS[1]._replace(name="AlpacaEval, 11 LLMs, GPT-4 Turbo judges"),
)
SHOWN = {
    "": "the bundled ranker",
    " with priors without labels": "with priors from its own rankings",
    " with priors from scores": "with priors from scores",
}


def main() -> None:
    """Measure, print the tables, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with train, dev and test")
    parser.add_argument("--ranker", default="bundled")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--picture", type=Path, help="folder of proof.svg and proof.png")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/proof"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    weights = weights_hash(find_checkpoint(options.ranker))[:12]
    found = {}
    for task in TASKS:
        rows = [row for part in ("train", "dev", "test") for row in rows_of(task, options.data / part)]
        ranker = CachedRanker(load_ranker(options.ranker), options.output / f"{task.file}.db", options.ranker)
        with progress(task.name, "comparisons") as report:
            rankings = rank_rows(rows, ranker, strategy="auto", progress=report)
        found[task.name] = folded_selections(rows, {options.ranker: rankings}, folds=options.folds)
        print(f"\n{task.name} (weights {weights})\n")
        print(selection_table(found[task.name], percent=True).markdown())
    values = {name: [selection.to_dict() for selection in selections] for name, selections in found.items()}
    (options.output / "proof.json").write_text(json.dumps({"weights": weights, "tasks": values}, indent=1) + "\n")
    if options.picture is not None:
        save_figures({"proof": lambda theme: draw(found, options.ranker, weights, theme)}, options.picture)


def rows_of(task: Pool, folder: Path) -> list[BenchRow]:
    """Read the rows of a task."""
    return scored_rows(read_rows(folder / f"{task.file}.jsonl.zst"), task.score, task.models)


def draw(found: dict[str, list[Selection]], ranker: str, weights: str, theme: Theme) -> Figure:
    """Draw the difference to the best single LLM, with its interval, for each task."""
    figure = new_figure(8.4, 3.6)
    axis = figure.add_subplot()
    names = []
    for number, (task, selections) in enumerate(found.items()):
        of = {selection.method: selection for selection in selections}
        names.append(f"{task}\nbest single LLM {100 * of['best single LLM'].quality:.1f}")
        for place, (how, words) in enumerate(SHOWN.items()):
            selection = of[f"{ranker}{how}"]
            if selection.vs_single is None or selection.vs_single_ci95 is None:
                continue
            y, colour = number + (place - 1) * 0.24, theme.accents[place]
            low, high = (100 * end for end in selection.vs_single_ci95)
            axis.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
            axis.plot(100 * selection.vs_single, y, "o", color=colour, label=None if number else words)
            axis.annotate(f"{100 * selection.quality:.1f}", (high, y), (4, 0), textcoords="offset points", va="center",
                          fontsize=7, color=theme.quiet)  # fmt: skip
    bar_axis(axis, names, theme)
    axis.axvline(0, color=theme.ink, linewidth=1)
    axis.set_xlabel("points above the best single LLM, with 95 % interval")
    axis.set_title(f"Several LLMs and a pick, against the best single one (weights {weights})", loc="left", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    main()
