"""``blend run``: an ensemble over a file of prompts; resumable."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm_blender.cli._options import STDIO, FuserOption, JsonOption
from llm_blender.cli._output import DEGRADED, note, print_json
from llm_blender.cli._progress import MaxCostOption, RestartOption, UnknownPricesOption, dollars, job_progress, stopping
from llm_blender.cli.config import ConfigOption
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.ensemble.run import Ran
    from llm_blender.errors import RowError
    from llm_blender.types import Example

__all__ = ["run"]


def run(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Prompts: .jsonl, .json, .parquet (.gz, .zst), .txt with one a line; - is JSON Lines."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where the rows go; beside it FILE.job, which holds what was done."
        ),
    ],
    samples: Annotated[
        int | None, typer.Option("-n", min=1, max=200, help="Answers from each LLM [default: as configured; 5].")
    ] = None,
    llm: Annotated[list[str] | None, typer.Option(help="Ask this LLM only, as in `blend ask`. Repeatable.")] = None,
    mode: Annotated[
        Literal["pick", "fuse", "auto"] | None,
        typer.Option("--mode", help="pick, fuse, or fuse where it may pay [default: as configured; pick]."),
    ] = None,
    fuser: FuserOption = None,
    config: ConfigOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the LLMs, the ranking and the fuser.")] = 0,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Prompts under way at a time.", show_default="as the LLMs' own concurrency allows"),
    ] = None,
    max_cost: MaxCostOption = None,
    allow_unpriced: UnknownPricesOption = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out and count rows that are wrong.")] = False,
    restart: RestartOption = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if a row failed, or an LLM or the fuser in one.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Generate, rank, and pick or fuse for every prompt of FILE.

    A row of FILE holds instruction (or prompt, question, messages), and perhaps input, a reference and an id. A row of
    OUT is {id, instruction, input?, output?, …} and what `blend ask --json` prints, in the order of FILE; other
    commands read it. OUT appears whole when every row was tried. The work can be stopped at any moment and goes on with
    the same command: OUT.job holds what was done, no row is done twice and no answer paid for twice. Rows in which
    something failed are tried again then; those without any answer stand in OUT.failed.jsonl with the reason.

    JSON, where the rows do not go to standard output: {rows, resumed, fused, failed, partial, cost, unpriced_rows,
    seconds}.
    """
    from llm_blender.cli.ask import make_ensemble
    from llm_blender.config import load_config
    from llm_blender.ensemble import fuser_name
    from llm_blender.ensemble.run import run_prompts, run_settings
    from llm_blender.jobs import Job

    loaded = load_config(config)
    if mode is not None:
        loaded = loaded.model_copy(update={"ensemble": loaded.ensemble.model_copy(update={"mode": mode})})
    if fuser is not None:
        loaded = loaded.model_copy(update={"fuser": loaded.fuser.model_copy(update={"name": fuser})})
    if out != STDIO and not Path(out).parent.is_dir():
        raise InputError(f"There is no folder {Path(out).parent} to write {Path(out).name} to.")
    rows, bad = _read(file, skip_bad)
    ensemble = make_ensemble(loaded, llm or [], samples)
    settings = run_settings(ensemble, rows, ranker=loaded.ranker.name, fuser=fuser_name(loaded), seed=seed)
    show = out != STDIO or not sys.stdout.isatty()
    with (
        _job_folder(out) as folder,
        Job(folder, "run", settings, restart=restart) as job,
        job_progress("running", "rows", show=show) as tell,
    ):
        ran = run_prompts(
            ensemble,
            rows,
            out,
            job,
            seed=seed,
            concurrency=concurrency,
            max_cost=max_cost,
            allow_unpriced=allow_unpriced,
            on_rows=tell,
            on_stopping=stopping,
        )
    _remark(ran, bad, out)
    if as_json and out != STDIO:
        print_json(ran.to_dict())
    if strict and not ran.complete:
        raise typer.Exit(DEGRADED)


def _read(file: str, skip_bad: bool) -> tuple[list[Example], list[RowError]]:
    """The prompts, each with an id of its own, and what is wrong with the others."""
    from dataclasses import replace

    from llm_blender.data import read_instructions

    bad: list[RowError] = []
    with _rereadable(file) as path:
        found = read_instructions(path, "row" if file == STDIO else "", on_bad=bad.append if skip_bad else None)
        rows, seen = [], set[str]()
        for number, row in enumerate(found, 1):
            name = row.id or ""
            if name in seen:
                name = f"{name}-{number}"  # the same prompt may stand there twice, and is answered twice
            seen.add(name)
            rows.append(replace(row, id=name))
    if not rows:
        raise InputError(f"{file} holds no prompt." + (f" The first bad row: {bad[0]}" if bad else ""))
    return rows, bad


@contextlib.contextmanager
def _rereadable(file: str) -> Iterator[Path]:
    """Standard input as a file."""
    if file != STDIO:
        yield Path(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "stdin.jsonl"
        copy.write_bytes(sys.stdin.buffer.read())
        yield copy


@contextlib.contextmanager
def _job_folder(out: str) -> Iterator[Path]:
    """Beside the output; of standard output, which cannot be gone on with, a temporary one."""
    if out != STDIO:
        yield Path(f"{out}.job")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "run"


def _remark(ran: Ran, bad: list[RowError], out: str) -> None:
    rows = ran.rows
    resumed = f", {rows.resumed:,} of them by earlier runs" if rows.resumed else ""
    fused = f", {ran.fused:,} answers fused" if ran.fused else ""
    note(
        f"{rows.total - len(ran.failures):,} rows{resumed}{fused}; {rows.seconds:.1f} s, {rows.rate:.2g} rows/s, "
        f"{dollars(ran.cost, ran.unpriced)}"
    )
    if bad:
        note(f"{len(bad):,} bad rows left out, the first: {bad[0]}")
    for what, reasons in (("have no answer", ran.failures), ("rest on less than was asked for", ran.partial)):
        if reasons:
            first = next(filter(None, reasons.values()), "not tried")
            note(f"{len(reasons):,} rows {what}, the first: {first}; the same command tries them again")
    if ran.failures and out != STDIO:
        note(f"those without an answer stand in {out}.failed.jsonl")
