"""``blend bench``: methods measured on rows, every baseline on the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import BackendOption, DeviceOption, JsonOption, PrecisionOption
from llm_blender.cli._output import note, print_json, print_table
from llm_blender.cli._progress import progress
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_blender.bench import Agreement, JudgedPairs, ScoredRow, Selection, Table
    from llm_blender.types import Ranker

__all__ = ["app"]

app = typer.Typer(name="bench", no_args_is_help=True, help="Measure rankers, every baseline on the same rows.")

RankersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ranker",
        metavar="NAME",
        help="`bundled`, a folder, or a Hub repository; may be given several times.",
        show_default="bundled",
    ),
]
ModelsOption = Annotated[str, typer.Option("--models", metavar="A,B,…", help="Only these LLMs' candidates.")]
CompleteOption = Annotated[bool, typer.Option("--complete", help="Only rows in which each of --models has the score.")]
ComparisonsOption = Annotated[
    Path | None,
    typer.Option(
        "--comparisons",
        metavar="FILE",
        help="Keep the comparisons in this file and make none twice, whatever strategy or bench asks; an interrupted "
        "run goes on where it stopped.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap, and of what a strategy draws.")]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")]


@app.command()
def pairs(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Rows; - is standard input.")],
    rankers: RankersOption = None,
    score: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take all pairs of a row whose scores of that name differ.")
    ] = None,
    models: ModelsOption = "",
    complete: CompleteOption = False,
    comparisons: ComparisonsOption = None,
    seed: SeedOption = 0,
    backend: BackendOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "int8",
    markdown: MarkdownOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how often a ranker prefers the answer that a judge preferred.

    The pairs are those that the rows label (`pairs`), or with --score those that differ in a score; ties are left out
    and counted. Both orders are compared; equal evidence is half right. Beside the ranker stand random (0.5 by
    definition), longest (by characters; equally long is half right) and first. Intervals are bootstrapped over
    instructions.

    JSON: [{file, method, pairs, ties, accuracy, ci95, longest, flip_rate, ece, brier}], where `longest` is the accuracy
    of the longest answer and `flip_rate` how often the other order changes what is preferred.
    """
    from llm_blender.bench import (
        agreement_table,
        baseline_agreements,
        implied_pairs,
        labelled_pairs,
        ranker_agreement,
    )
    from llm_blender.data import read_rows

    _check_output(as_json, markdown)
    if score is None and (models or complete):
        raise InputError("--models and --complete choose among scores: name one with --score.")

    def judged_pairs(file: str) -> JudgedPairs:
        if score is None:
            return labelled_pairs(file, read_rows(file))
        return implied_pairs(file, _scored(file, score, models, complete))

    judged = [judged_pairs(file) for file in files]  # all are checked before the work begins
    loaded = _load(rankers, comparisons, backend=backend, device=device, precision=precision)
    results: list[Agreement] = []
    for part in judged:
        for name, ranker in loaded.items():
            with progress(f"{name}, {part.file}", "comparisons") as report:
                results.append(ranker_agreement(part, ranker, name, seed=seed, progress=report))
        results += baseline_agreements(part, seed=seed)
    _print(results, agreement_table(results), as_json=as_json, markdown=markdown)


@app.command()
def select(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Rows; - is standard input.")],
    score: Annotated[str, typer.Option(metavar="NAME", help="What quality is, among the candidates' scores.")],
    models: ModelsOption = "",
    complete: CompleteOption = False,
    rankers: RankersOption = None,
    strategies: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="auto, full, single, bubble, knockout, top_k or active; may be given several times.",
            show_default="auto",
        ),
    ] = None,
    choose_on: Annotated[
        str | None, typer.Option("--choose-on", metavar="TRAIN", help="Rows on which to choose the best single LLM.")
    ] = None,
    comparisons: ComparisonsOption = None,
    seed: SeedOption = 0,
    backend: BackendOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "int8",
    markdown: MarkdownOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the quality of the answers that a ranker selects.

    The rows are those in which at least two candidates have the score. Beside the ranker stand random (what is
    expected of a draw), longest, first, the best single LLM (chosen with --choose-on), the best in hindsight, and the
    oracle, which takes the best answer of each row. Where an LLM has no answer, a draw among the others takes its
    place. Intervals are bootstrapped over instructions. Tables show scores from 0 to 1 in percent.

    JSON: [{method, rows, quality, ci95, vs_random_ci95, comparisons}], on the score's own scale.
    """
    from llm_blender.bench import baseline_selections, ranker_selection, selection_table
    from llm_blender.ranking import comparison_count

    _check_output(as_json, markdown)
    strategies = strategies or ["auto"]
    for strategy in strategies:
        comparison_count(strategy, 2)  # refuses a wrong name before anything is read
    rows = _scored(file, score, models, complete)
    train = None if choose_on is None else _scored(choose_on, score, models, complete)
    loaded = _load(rankers, comparisons, backend=backend, device=device, precision=precision)
    results: list[Selection] = []
    for name, ranker in loaded.items():
        for strategy in strategies:
            with progress(f"{name}, {strategy}", "comparisons") as report:
                results.append(ranker_selection(rows, ranker, name, strategy=strategy, seed=seed, progress=report))
    results += baseline_selections(rows, train, seed=seed)
    percent = all(0 <= quality <= 1 for row in rows for quality in row.qualities)
    _print(results, selection_table(results, percent=percent), as_json=as_json, markdown=markdown)


def _scored(file: str, score: str, models: str, complete: bool) -> list[ScoredRow]:
    from llm_blender.bench import scored_rows
    from llm_blender.data import read_rows

    names = [name for name in (part.strip() for part in models.split(",")) if name]
    if complete and not names:
        raise InputError("--complete asks for rows with all of --models: name them.")
    rows = scored_rows(read_rows(file), score, names, complete=complete)
    ragged = sum(len(set(row.models)) < len(names) for row in rows)
    if ragged:
        note(
            f"{file}: in {ragged:,} of {len(rows):,} rows not all of the {len(names)} LLMs have the score (--complete)"
        )
    return rows


def _load(
    names: list[str] | None,
    comparisons: Path | None,
    *,
    backend: BackendOption,
    device: DeviceOption,
    precision: PrecisionOption,
) -> dict[str, Ranker]:
    from llm_blender.bench import RecordedRanker
    from llm_blender.rankers import load_ranker

    rankers: dict[str, Ranker] = {}
    for name in names or ["bundled"]:
        ranker = load_ranker(name, backend=backend, device=device, precision=precision)
        rankers[name] = ranker if comparisons is None else RecordedRanker(ranker, comparisons, name)
    return rankers


def _check_output(as_json: bool, markdown: bool) -> None:
    if as_json and markdown:
        raise InputError("Choose one of --json and --markdown.")


def _print(results: Sequence[Agreement | Selection], table: Table, *, as_json: bool, markdown: bool) -> None:
    if as_json:
        print_json([result.to_dict() for result in results])
    elif markdown:
        typer.echo(table.markdown())
    else:
        print_table(table.columns, table.rows)
