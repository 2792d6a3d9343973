"""``blend votes``: export what users of the playground preferred."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from llm_blender.cli._options import BlindOnlyOption, OutputOptions, with_options
from llm_blender.cli._output import note
from llm_blender.errors import NotFoundError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Export votes of the playground.")


@app.callback()
def _votes() -> None:
    """Keep `export` a subcommand; typer makes an only command the group itself."""


@app.command()
@with_options
def export(
    *,
    format: Annotated[
        Literal["rows", "conversational", "standard"],
        typer.Option(help="Write rows with labelled pairs; or prompt, chosen, rejected, as messages or as texts."),
    ] = "rows",
    store: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read this store of `blend serve` [default: LLM_BLENDER_STORE].")
    ] = None,
    blind_only: BlindOnlyOption = False,
    output: OutputOptions,
) -> None:
    """Export all votes of the playground of `blend serve` as training data.

    A row is {id, instruction, candidates: [{text, model}], pairs: [{a, b, label, by}]}, for `blend train ranker --pairs
    labelled` and `blend bench pairs`; `by` is human-blind for a blind vote, else human. The other formats are those of
    `blend data preferences`, without ties; margin is 0 and probability null. OUT is written whole or not at all.

    JSON, unless the records go to standard output: {answers, votes, records}.
    """
    from llm_blender.data import RowWriter, vote_records
    from llm_blender.history import History
    from llm_blender.store import Store

    if store is not None and not store.is_file():
        raise NotFoundError(f"There is no file {store}; `blend serve` writes to the one of LLM_BLENDER_STORE.")
    summary = {"answers": 0, "votes": 0, "records": 0}
    with Store(store) as opened, RowWriter(output.out) as writer:
        for answer in History(opened).voted(blind_only=blind_only):
            summary["answers"] += 1
            summary["votes"] += len(answer.votes)
            for record in vote_records([answer.example], format):
                writer.write(record)
                summary["records"] += 1
    note("{records:,} records of {votes:,} votes on {answers:,} answers".format(**summary))
    output.print_summary(summary)
