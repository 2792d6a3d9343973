"""``blend votes``: what people preferred in the playground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from llm_blender.cli._options import STDIO, JsonOption
from llm_blender.cli._output import note, print_json
from llm_blender.cli._rows import OutOption
from llm_blender.errors import NotFoundError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Votes from the playground: export them.")


@app.callback()
def _votes() -> None:
    """Keeps `export` a subcommand; typer would make an only command the group itself."""


@app.command()
def export(
    out: OutOption = STDIO,
    format: Annotated[
        Literal["rows", "conversational", "standard"],
        typer.Option(help="Rows with labelled pairs; or prompt, chosen, rejected, as messages or as texts."),
    ] = "rows",
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file that `blend serve` keeps them in [default: LLM_BLENDER_STORE]."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the votes of the playground of `blend serve`, everybody's, to a file that others train from.

    A row is {id, instruction, candidates: [{text, model}], pairs: [{a, b, label, by}]}: `blend train ranker --pairs
    labelled` and `blend bench pairs` read it. The other formats are those of `blend data preferences`, without ties;
    margin is 0 and probability null. OUT appears whole or not at all.

    JSON, where the records do not go to standard output: {answers, votes, records}.
    """
    from llm_blender.data import RowWriter, vote_records
    from llm_blender.history import History
    from llm_blender.store import Store

    if store is not None and not store.is_file():
        raise NotFoundError(f"There is no file {store}; LLM_BLENDER_STORE of `blend serve` says where it is.")
    summary = {"answers": 0, "votes": 0, "records": 0}
    with Store(store) as opened, RowWriter(out) as writer:
        for answer in History(opened).voted():
            summary["answers"] += 1
            summary["votes"] += len(answer.votes)
            for record in vote_records([answer.example], format):
                writer.write(record)
                summary["records"] += 1
    note("{records:,} records of {votes:,} votes on {answers:,} answers".format(**summary))
    if as_json and out != STDIO:
        print_json(summary)
