"""``blend data check``: what a file of rows holds, and what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import JsonOption
from llm_blender.cli._output import note, print_json, print_table
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.data import RowsReport
    from llm_blender.errors import RowError

__all__ = ["check"]

_SHOWN = 10


def check(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Rows in MixInstruct's format, or a data set on the Hub: llm-blender/mix-instruct."
        ),
    ],
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a data set on the Hub: train, val or test.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read rows in MixInstruct's format to their end, and say what is wrong with which row and what they lack.

    `cmp_results` may be an object or a JSON text. Rows without a candidate of some LLM, without a reference or without
    judgements are counted, and so are rows that ask the same. Memory does not grow with the texts. Exit status 2 if a
    row cannot be used.

    JSON: {rows, bad, first_bad, duplicates, models: {llm: candidates}, incomplete, without_reference, judged, pairs,
    outcomes, scores: {metric: candidates}, candidates}.
    """
    from llm_blender.data import read_mix_instruct, report_rows

    bad: list[RowError] = []
    report = report_rows(read_mix_instruct(file, split, on_bad=bad.append), bad)
    for error in bad[:_SHOWN]:
        note(str(error))
    if len(bad) > _SHOWN:
        note(f"and {len(bad) - _SHOWN:,} more rows that cannot be used")
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    if bad:
        raise InputError(f"{len(bad):,} of {len(bad) + report.rows:,} rows of {file} cannot be used.")


def _print(report: RowsReport) -> None:
    counts = {
        "rows": report.rows,
        "that ask what an earlier one asks": report.duplicates,
        "that lack an LLM's candidate": report.incomplete,
        "without a reference": report.without_reference,
        "judged": report.judged,
        "judged ordered pairs": report.pairs,
        **report.outcomes,
        "candidates": report.candidates,
        **{f"candidates by {model or 'nobody'}": count for model, count in report.models.items()},
        **{f"candidates with {score}": count for score, count in report.scores.items()},
    }
    print_table(("what", "count"), [(what, f"{count:,}") for what, count in counts.items()])
