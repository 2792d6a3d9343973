"""``blend data import``: rows out of what other projects publish."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import STDIO, JsonOption
from llm_blender.cli._output import note, print_json
from llm_blender.cli._progress import progress
from llm_blender.cli._rows import SkipBadOption, split_names

if TYPE_CHECKING:
    from llm_blender.datasets import Imported

__all__ = ["import_data"]


def import_data(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT…",
            help="Files of one format (JSON lists or lines, .gz and .zst too, Parquet), or a folder of AlpacaEval's "
            "results.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where the rows go, in the format of its name; - is standard output."
        ),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="alpaca_eval, chosen_rejected, labelled_pairs or scored_responses.",
            show_default="told by the keys",
        ),
    ] = None,
    name: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Of the source; in the rows' `source` and `id` too.", show_default="INPUT"),
    ] = "",
    url: Annotated[str, typer.Option(metavar="TEXT", help="Of the source, for the card.")] = "",
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Of the source, for the card.")] = "",
    models: Annotated[str, typer.Option(metavar="A,B,…", help="AlpacaEval: only these models, and baselines.")] = "",
    annotators: Annotated[str, typer.Option(metavar="A,B,…", help="AlpacaEval: only what these judged.")] = "",
    reference: Annotated[
        str, typer.Option(metavar="MODEL", help="AlpacaEval: whose answers are the references, e.g. the baseline.")
    ] = "",
    judge: Annotated[str, typer.Option(metavar="NAME", help="Pairs: who judged; `by` of the rows' pairs.")] = "",
    labels: Annotated[
        str,
        typer.Option(
            metavar="A,B[,TIE]",
            help="Labelled pairs: how the file calls the first, the second, and neither.",
            show_default="1,2,0 and names like model_a",
        ),
    ] = "",
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME=SHARE,…", help="Write several files, such as train=0.8,dev=0.1,test=0.1; FILE holds {split}."
        ),
    ] = "",
    exclude: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Leave out what asks the same as a row of this file. Repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, and of which answer stands first.")] = 0,
    skip_bad: SkipBadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make rows of what other projects publish, for `blend train ranker` and `blend bench`.

    alpaca_eval: a folder with MODEL/model_outputs.json and MODEL/ANNOTATOR/annotations.json; one row an instruction,
    with the answers of all models, their scores ANNOTATOR_win_vs_BASELINE from 0 to 1, and pairs. chosen_rejected:
    {prompt, chosen, rejected}, or two conversations with the same beginning. labelled_pairs: {instruction, input?,
    response1, response2} or {input, output_1, output_2} with a label, or annotator1, annotator2, … scored_responses:
    {instruction, completions: [{model, response, overall_score}]}, or lists of generations and ratings.

    A record with missing or wrong keys stops the import, unless --skip-bad counts it. Each record or row that is left
    out is counted with the reason: failed judgements, answers that read the same, duplicates, what --exclude names.
    The split depends on the prompt, regardless of case and white space, and the seed alone, so that an instruction
    stands in one split only, whatever file it is in. The same input and options give the same bytes. Beside each FILE
    comes its card FILE.md: source, licence, counts, sha256 of all that was read.

    JSON, where the rows do not go to standard output: {format, files, records, skipped: {reason: count}, first_bad,
    rows, left_out: {reason: count}, written: [{path, split, rows, candidates, pairs, ties, sha256, card}], remarks}.
    """
    from llm_blender.datasets import ImportPlan, import_rows, parse_split

    plan = ImportPlan(
        inputs=tuple(inputs),
        format=format,
        name=name,
        url=url,
        licence=licence,
        models=tuple(split_names(models)),
        annotators=tuple(split_names(annotators)),
        reference=reference,
        judge=judge,
        labels=tuple(split_names(labels)),
        exclude=tuple(exclude or ()),
        split=parse_split(split) if split else {},
        seed=seed,
        skip_bad=skip_bad,
    )
    with progress("reading", "records") as report:
        imported = import_rows(plan, out, progress=report)
    _remark(imported)
    if as_json and out != STDIO:
        print_json(imported.to_dict())


def _remark(imported: Imported) -> None:
    files = f"{len(imported.inputs):,} file{'s' if len(imported.inputs) > 1 else ''}"
    note(f"{imported.format}: {imported.records:,} records in {files} came to {imported.rows:,} rows")
    if imported.skipped:
        note(f"{_counted(imported.skipped, 'records')} left out: {_reasons(imported.skipped)}")
    if imported.bad:
        note(f"the first bad one: {imported.bad}")
    if imported.left_out:
        note(f"{_counted(imported.left_out, 'rows')} left out: {_reasons(imported.left_out)}")
    for remark in imported.remarks:
        note(remark)
    for file in imported.written:
        beside = f", and its card {file.card}" if file.card else ""
        note(f"{file.rows:,} rows with {file.pairs:,} judged pairs in {file.path}{beside}")


def _counted(counts: Mapping[str, int], what: str) -> str:
    return f"{sum(counts.values()):,} {what}"


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))
