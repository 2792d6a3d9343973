"""``blend run``: run an ensemble over a file of prompts; resumable."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import (
    STDIO,
    EnsembleOptions,
    JobOptions,
    RequiredOutputOptions,
    SeedOption,
    SkipBadOption,
    StrictOption,
    with_options,
)
from llm_blender.cli._output import DEGRADED, counted, note, note_unread
from llm_blender.cli._progress import dollars, job_progress, rounded, stopping
from llm_blender.cli._rows import keep_input, note_bad, of_file, rereadable
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.ensemble.prompts import Prompts
    from llm_blender.ensemble.run import Ran
    from llm_blender.errors import RowError


@with_options
def run(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Prompts: .jsonl, .json, .csv (.gz, .zst), .parquet, .txt with one a line, a folder of such files, "
            "or a quoted pattern; - is JSON Lines.",
        ),
    ],
    *,
    options: EnsembleOptions,
    seed: SeedOption = 0,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Limit the prompts in flight.", show_default="as the LLMs' own concurrency allows"),
    ] = None,
    skip_bad: SkipBadOption = False,
    limits: JobOptions,
    strict: StrictOption = False,
    output: RequiredOutputOptions,
) -> None:
    """Generate, rank, and pick or fuse for every prompt of FILE.

    A row of FILE holds instruction (or prompt, question, messages) and optionally input, a reference and an id. A row
    of OUT is {id, instruction, input?, output?} and what `blend ask --json` prints, in the order of FILE; other keys of
    FILE are left out. OUT is written whole, after every row was tried. The work can be interrupted at any time, and the
    same command resumes it: OUT.job holds the finished rows, and no answer is paid for twice. Resuming retries rows in
    which something failed, unless a quorum of LLMs had answered, and answers rows that were appended to FILE.
    OUT.failed.jsonl holds those without any answer, with the reason. With --strict, the exit status is 3 if a row
    failed, or an LLM or the fuser in one, quorum or not.

    JSON, unless the rows go to standard output: {rows, resumed, fused, failed, partial, degraded, cut_off, cost,
    unpriced_rows, truncated, seconds, llms: {NAME: {answers, failed, reasons, usage, cost, seconds}}}. partial rows are
    the degraded ones to retry; cost counts every answer that was paid for in all runs of the job; truncated is the
    share of the text that the ranker did not read; the seconds of an LLM are the mean of an answer. Where `[ranker]
    priors` is "auto", also priors: {used, rankings, missing}.
    """
    from llm_blender.cli._rankers import note_judge
    from llm_blender.cli.ask import learned_priors, load_ensemble
    from llm_blender.cli.plan import Took, note_planned
    from llm_blender.ensemble import fuser_name
    from llm_blender.ensemble.run import run_prompts, run_settings, settings_before
    from llm_blender.jobs import Job

    loaded, out, cpu = options.load_config(), output.out, time.process_time()
    if out != STDIO and not Path(out).parent.is_dir():
        raise InputError(f"There is no folder {Path(out).parent} to write {Path(out).name} to.")
    keep_input([file], out)
    with contextlib.ExitStack() as stack:
        prompts, bad = stack.enter_context(_prompts(file, skip_bad))
        ensemble = load_ensemble(loaded, options, max_cost=limits.max_cost)
        note_judge(ensemble.judge, (member.llm.name for member in ensemble.members))
        learned = learned_priors(ensemble)
        settings = run_settings(ensemble, prompts, ranker=loaded.ranker.name, fuser=fuser_name(loaded), seed=seed)
        folder = stack.enter_context(_job_folder(out))
        before = partial(settings_before, settings, prompts=prompts)
        job = stack.enter_context(Job(folder, "run", settings, restart=limits.restart, before=before))
        report = stack.enter_context(job_progress("running", "rows", show=output.show_progress))
        ran = run_prompts(
            ensemble,
            prompts,
            out,
            job,
            seed=seed,
            concurrency=concurrency,
            max_cost=limits.max_cost,
            allow_unpriced=limits.allow_unpriced,
            on_rows=report,
            on_stopping=stopping,
        )
    _remark(ran, bad, out)
    shape = run_settings(ensemble, [], ranker=loaded.ranker.name, fuser=fuser_name(loaded), seed=seed)
    took = Took(
        ran.rows.total - ran.rows.resumed,
        ran.rows.seconds,
        time.process_time() - cpu,
        None if ran.unpriced else ran.cost,
    )
    note_planned(out, "run", shape, ran.rows.total, took)
    output.print_summary({**ran.to_dict(), **({} if learned is None else {"priors": learned.to_dict()})})
    if strict and not ran.complete:
        raise typer.Exit(DEGRADED)


@contextlib.contextmanager
def _prompts(file: str, skip_bad: bool) -> Iterator[tuple[Prompts, list[RowError]]]:
    """Check all prompts, and yield them and the errors of malformed rows."""
    from llm_blender.data import read_instructions
    from llm_blender.ensemble.prompts import Prompts

    bad: dict[int, RowError] = {}  # by line, as the file is read several times

    def on_bad(error: RowError) -> None:
        bad[error.line] = of_file(error, file)

    with rereadable(file) as path:
        name = "row" if file == STDIO else ""
        prompts = Prompts(lambda: read_instructions(path, name, on_bad=on_bad if skip_bad else None))
        errors = list(bad.values())
        if not prompts.ids:
            raise InputError(f"{file} holds no prompt." + (f" The first bad row: {errors[0]}" if errors else ""))
        yield prompts, errors


@contextlib.contextmanager
def _job_folder(out: str) -> Iterator[Path]:
    """Yield the folder of the job: beside the output, or a temporary one for standard output, which cannot resume."""
    if out != STDIO:
        yield Path(f"{out}.job")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "run"


def _remark(ran: Ran, bad: list[RowError], out: str) -> None:
    from llm_blender.cli._rankers import note_failed_judge

    rows = ran.rows
    resumed = f", {rows.resumed:,} of them by earlier runs" if rows.resumed else ""
    fused = f", {counted(ran.fused, 'answers')} fused" if ran.fused else ""
    note(
        f"{counted(rows.total - len(ran.failures), 'rows')}{resumed}{fused}; {rows.seconds:.1f} s, "
        f"{rounded(rows.rate)} rows/s, {dollars(ran.cost, ran.unpriced)}"
    )
    note_bad(bad)
    for tally in ran.llms.values():
        if tally.failed:
            note(tally.describe())
    for state, reasons in (("without an answer", ran.failures), ("degraded", ran.partial)):
        if reasons:
            first = next(filter(None, reasons.values()), "not tried")
            note(f"{counted(len(reasons), 'rows')} {state}, the first: {first}; the same command retries them")
    if quorum := ran.degraded - len(ran.partial):
        note(f"{counted(quorum, 'rows')} degraded and not retried, as the quorum of LLMs had answered")
    if ran.cut_off:
        note(f"{counted(ran.cut_off, 'answers')} cut off; raise the LLMs' max_tokens")
    note_failed_judge(list(ran.unjudged.values()))
    note_unread(ran.truncated)
    if ran.failures and out != STDIO:
        note(f"rows without an answer are in {out}.failed.jsonl")
