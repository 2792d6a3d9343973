"""``blend bench``: measure methods against baselines on the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import PlotOption, PriorsOption, with_options
from llm_blender.cli._output import note
from llm_blender.cli._progress import progress
from llm_blender.cli._rankers import (
    BenchOptions,
    FilesArgument,
    QualityOption,
    compared_models,
    first_rows,
    load_rankers,
    note_drawn,
    note_judges,
    note_seen,
    print_results,
)
from llm_blender.cli.bench_fuse import fuse
from llm_blender.cli.bench_pays import pays
from llm_blender.cli.bench_table import table
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.bench import Agreement, BenchRow, JudgedPairs, Selection

app = typer.Typer(
    name="bench", no_args_is_help=True, help="Measure rankers and fused answers against baselines on the same rows."
)
app.command()(fuse)
app.command()(table)
app.command()(pays)

_PairsOption = Annotated[
    str | None, typer.Option("--score", metavar="NAME", help="Take all pairs of a row that differ in this score.")
]
_SubsetsOption = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Measure each subset of this key too: `source`, `meta.subset`, or another key."),
]


@app.command()
@with_options
def pairs(
    files: FilesArgument,
    score: _PairsOption = None,
    by: _SubsetsOption = None,
    plot: PlotOption = None,
    *,
    options: BenchOptions,
) -> None:
    """Measure how often a ranker prefers the answer that a judge preferred.

    The pairs are those that the rows label (`pairs`), or with --score those that differ in a score; the judges' ties
    are left out and counted. Both orders are compared; equal logits are half right. Baselines on the same pairs are
    random (0.5 by definition), longest (by characters; equal lengths are half right), first and, where a row has three
    candidates or more, consensus (the answer closest to all others). All methods are compared with the first ranker in
    paired intervals, bootstrapped over instructions. `longer` is how often a method, and in the line `judges` the
    judges, prefer the longer answer; there, Brier is that of the constant base rate.

    JSON: [{file, subset, method, pairs, ties, accuracy, ci95, with_ties, undecided, longest, prefers_longer, flip_rate,
    ece, brier, brier_base_rate, versus: {method, accuracy, ci95}, bins: [{pairs, confidence, accuracy, ci95}]}], where
    `with_ties` counts the judges' ties as half right, `undecided` is how often the method prefers neither, `longest`
    how often the judges prefer the longer answer, `flip_rate` how often the other order changes the preference, and
    `bins` are the terms of `ece`.
    """
    from llm_blender import bench

    if plot is not None:
        bench.require_matplotlib()
    if score is None and (options.models or options.complete):
        raise InputError("--models and --complete choose among scores: name one with --score.")

    def judged_pairs(file: str) -> JudgedPairs:
        if score is None:
            return bench.labelled_pairs(file, first_rows(file, options.limit), by=by)
        return bench.implied_pairs(file, _scored(file, score, options, options.limit), by=by)

    judged = [judged_pairs(file) for file in files]  # all are checked before the work begins
    loaded = load_rankers(options)
    for part in judged:
        note_seen(part.file, [pair.prompt for pair in part.pairs], loaded.rankers)
    results: list[Agreement] = []
    for part in judged:
        methods = []
        baselines = {predictions.method: predictions for predictions in bench.baseline_predictions(part)}
        for name, ranker in loaded.rankers.items():
            if name in baselines:  # a baseline given as --ranker: the others are compared with it
                methods.append(baselines.pop(name))
                continue
            with progress(f"{name}, {part.file}", "comparisons") as report:
                methods.append(bench.ranker_predictions(part, ranker, name, progress=report))
        results += bench.agreements(part, [*methods, *baselines.values()], seed=options.seed)
    note_judges(loaded.judges)
    if plot is not None:
        note_drawn(bench.plot_agreements(results, plot))
    print_results(results, bench.agreement_table(results), options)


@app.command()
@with_options
def select(
    files: FilesArgument,
    score: QualityOption,
    strategies: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="Measure auto, full, single, bubble, knockout, top_k or active. Repeatable.",
            show_default="auto",
        ),
    ] = None,
    choose_on: Annotated[
        str | None, typer.Option("--choose-on", metavar="TRAIN", help="Choose the best single LLM on these rows.")
    ] = None,
    priors: PriorsOption = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Choose the best single LLM, and learn the LLMs' strengths, on other folds (cross-validation).",
        ),
    ] = None,
    *,
    options: BenchOptions,
) -> None:
    """Measure the quality of the answers that a ranker selects.

    The rows are those in which at least two candidates have the score. Baselines are random (the expectation of a
    draw), longest, consensus, first, the best single LLM (chosen with --choose-on), the best in hindsight, and the
    oracle, which takes the best answer of each row. Where an LLM has no answer, a draw among the others replaces it.
    With --priors, each ranker is measured alone, and with the strengths of the LLMs added to the same comparisons.
    With --folds, all that is learned is learned on other folds: the best single LLM, and the strengths, both from the
    scores and, without them, from the ranker's own rankings. FILE may be repeated then. Intervals are bootstrapped over
    instructions. Tables show scores from 0 to 1 in percent.

    JSON: [{method, rows, quality, ci95, vs_random_ci95, comparisons, vs_single, vs_single_ci95}], on the score's own
    scale.
    """
    from llm_blender.bench import baseline_selections, folded_selections, ranker_selections, selection_table
    from llm_blender.bench.methods import rank_rows
    from llm_blender.cli._rankers import load_priors, note_other_ranker, note_unknown
    from llm_blender.ranking import comparison_count

    strategies = strategies or ["auto"]
    for strategy in strategies:
        comparison_count(strategy, 2)  # refuses a wrong name before anything is read
    if folds and (choose_on or priors):
        raise InputError("--folds chooses and learns on the other folds: leave out --choose-on and --priors.")
    rows = [row for file in files for row in _scored(file, score, options, options.limit)]
    train = None if choose_on is None else _scored(choose_on, score, options)
    strengths = load_priors(priors)
    note_unknown(strengths, (model for row in rows for model in row.models))
    loaded = load_rankers(options)
    results: list[Selection] = []
    rankings = {}
    for name, ranker in loaded.rankers.items():
        note_other_ranker(strengths, name)
        for strategy in strategies:
            with progress(f"{name}, {strategy}", "comparisons") as report:
                if folds:
                    rankings[f"{name}, {strategy}"] = rank_rows(
                        rows, ranker, strategy=strategy, seed=options.seed, progress=report
                    )
                else:
                    results += ranker_selections(
                        rows,
                        ranker,
                        name,
                        strategy=strategy,
                        seed=options.seed,
                        priors=strengths,
                        train=train,
                        progress=report,
                    )
    note_judges(loaded.judges)
    if folds:
        results = folded_selections(rows, rankings, folds=folds, seed=options.seed)
    else:
        results += baseline_selections(rows, train, seed=options.seed)
    percent = all(0 <= quality <= 1 for row in rows for quality in row.qualities)
    print_results(results, selection_table(results, percent=percent), options)


def _scored(file: str, score: str, options: BenchOptions, limit: int | None = None) -> list[BenchRow]:
    from llm_blender.bench import scored_rows

    names = compared_models(options)
    rows = scored_rows(first_rows(file, limit), score, names, complete=options.complete)
    ragged = sum(len(set(row.models)) < len(names) for row in rows)
    if ragged:
        note(
            f"{file}: in {ragged:,} of {len(rows):,} rows not all of the {len(names)} LLMs have the score (--complete)"
        )
    return rows
