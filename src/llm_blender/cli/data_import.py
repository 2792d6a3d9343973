"""``blend data import``: convert data of other projects to rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import DatasetOptions, RequiredOutputOptions, split_names, with_options
from llm_blender.cli._output import counted, note
from llm_blender.cli._progress import progress
from llm_blender.cli._rows import keep_input

if TYPE_CHECKING:
    from llm_blender.datasets import Imported


@with_options
def import_data(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT…",
            help="Files of one format (JSON lists or lines, .gz and .zst too, CSV, Parquet), or a folder of "
            "AlpacaEval's results.",
        ),
    ],
    *,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Read alpaca_eval, chosen_rejected, labelled_pairs or scored_responses.",
            show_default="detected by the keys",
        ),
    ] = None,
    url: Annotated[str, typer.Option(metavar="TEXT", help="State the URL of the source, for the card.")] = "",
    models: Annotated[
        str, typer.Option(metavar="A,B,…", help="AlpacaEval: keep only these models, and baselines.")
    ] = "",
    annotators: Annotated[
        str, typer.Option(metavar="A,B,…", help="AlpacaEval: keep only judgements of these annotators.")
    ] = "",
    reference: Annotated[
        str, typer.Option(metavar="MODEL", help="AlpacaEval: take references from this model, e.g. the baseline.")
    ] = "",
    judge: Annotated[str, typer.Option(metavar="NAME", help="Pairs: name the judge, `by` of the rows' pairs.")] = "",
    labels: Annotated[
        str,
        typer.Option(
            metavar="A,B[,TIE]",
            help="Labelled pairs: name the file's labels for the first, the second, and neither.",
            show_default="1,2,0 and names like model_a",
        ),
    ] = "",
    options: DatasetOptions,
    output: RequiredOutputOptions,
) -> None:
    """Convert data that other projects publish to rows, for `blend train ranker` and `blend bench`.

    alpaca_eval: a folder with MODEL/model_outputs.json and MODEL/ANNOTATOR/annotations.json; one row per instruction,
    with the answers of all models, their scores ANNOTATOR_win_vs_BASELINE from 0 to 1, and pairs. chosen_rejected:
    {prompt, chosen, rejected}, or two conversations with the same beginning. labelled_pairs: {instruction, input?,
    response1, response2} or {input, output_1, output_2} with a label, or annotator1, annotator2, … scored_responses:
    {instruction, completions: [{model, response, overall_score}]}, or lists of generations and ratings.

    A record with missing or wrong keys stops the import, unless --skip-bad counts it. Each record or row that is left
    out is counted with the reason: failed judgements, identical answers, duplicates, prompts of --exclude. The split
    depends only on the seed and on the prompt, regardless of case and white space, so that a prompt is in one split
    only, whatever file it is in. The same input and options give the same bytes. Each FILE gets a card FILE.md: source,
    licence, counts, sha256 of all inputs.

    JSON, unless the rows go to standard output: {format, files, records, skipped: {reason: count}, first_bad, rows,
    left_out: {reason: count}, written: [{path, split, rows, candidates, pairs, ties, sha256, card}], remarks}.
    """
    from llm_blender.datasets import ImportPlan, import_rows

    keep_input(inputs, output.out)
    plan = ImportPlan(
        inputs=tuple(inputs),
        format=format,
        url=url,
        models=tuple(split_names(models)),
        annotators=tuple(split_names(annotators)),
        reference=reference,
        judge=judge,
        labels=tuple(split_names(labels)),
        **options.settings(),
    )
    with progress("reading", "records") as report:
        imported = import_rows(plan, output.out, progress=report)
    _remark(imported)
    output.print_summary(imported.to_dict())


def _remark(imported: Imported) -> None:
    files = counted(len(imported.inputs), "files")
    note(
        f"{imported.format}: {counted(imported.records, 'records')} in {files} became {counted(imported.rows, 'rows')}"
    )
    _note_left_out("records", imported.skipped)
    if imported.bad:
        note(f"the first bad one: {imported.bad}")
    _note_left_out("rows", imported.left_out)
    for remark in imported.remarks:
        note(remark)
    for file in imported.written:
        beside = f", and its card {file.card}" if file.card else ""
        note(f"{counted(file.rows, 'rows')} with {counted(file.pairs, 'judged pairs')} in {file.path}{beside}")


def _note_left_out(what: str, counts: Mapping[str, int]) -> None:
    if counts:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))
        note(f"{sum(counts.values()):,} {what} left out: {reasons}")
