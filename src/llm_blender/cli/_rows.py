"""Rows of a file that a command ranks: checked first, then ranked in chunks."""

from __future__ import annotations

import glob
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_blender.cli._options import (
    STDIO,
    ModelsOption,
    RequiredOutputOptions,
    RowJobOptions,
    SkipBadOption,
    split_names,
)
from llm_blender.cli._output import counted, note, note_unread
from llm_blender.cli._progress import Report, progress
from llm_blender.errors import InputError, RowError, WorkError, unknown_name

if TYPE_CHECKING:
    from llm_blender.calls import Budget
    from llm_blender.jobs import Part, Tally
    from llm_blender.stages import RankableRow, Stage
    from llm_blender.types import Example, OnProgress, Ranker, Ranking

Rank = Callable[["list[RankableRow]", "OnProgress"], "list[Ranking]"]
"""Function that ranks rows and reports progress as (comparisons done, expected)."""

_CHUNK = 256  # rows ranked together: enough to fill the batches, few enough to hold in memory


@dataclass
class RankSummary:
    """Counts of a ranked file.

    Attributes:
        rows: rows ranked.
        skipped: malformed rows left out.
        comparisons: pairs that went through the model.
        seconds: wall time, the check of the file included.
        truncated: mean share of a row's text that the ranker cut off.
    """

    rows: int = 0
    skipped: int = 0
    comparisons: int = 0
    seconds: float = 0.0
    truncated: float = 0.0

    def add(self, rankings: Sequence[Ranking]) -> None:
        """Count the rankings of a chunk."""
        truncated = self.truncated * self.rows + sum(ranking.truncated for ranking in rankings)
        self.rows += len(rankings)
        self.comparisons += sum(ranking.comparisons for ranking in rankings)
        self.truncated = truncated / self.rows

    def headline(self) -> str:
        """Summarise rows and work in one line."""
        comparisons = counted(self.comparisons, "comparisons")
        return f"{counted(self.rows, 'rows')} ranked with {comparisons} in {self.seconds:.1f} s"


def ranking_by(ranker: Ranker, settings: Mapping[str, Any], k: int | None = None) -> Rank:
    """Make the function that `rank_rows` takes from a ranker and arguments of `llm_blender.ranking.rank_best`."""
    from llm_blender.ranking import rank_best

    return lambda rows, report: rank_best(
        ranker, [row.full_instruction for row in rows], [row.texts for row in rows], k, progress=report, **settings
    )


def rank_rows(rows: RankableRows, rank: Rank, report: Report) -> Iterator[tuple[list[RankableRow], list[Ranking]]]:
    """Rank the rows of a file and yield them in chunks, with progress in rows."""
    done = 0
    for chunk in rows.chunks(_CHUNK):

        def within(comparisons: int, total: int, before: int = done, size: int = len(chunk)) -> None:
            report(before + size * comparisons / max(total, 1), rows.count)

        yield chunk, rank(chunk, within)
        done += len(chunk)
        report(done, rows.count)


def remark(summary: RankSummary, bad: Sequence[RowError]) -> None:
    """Print the summary of a ranked file to standard error."""
    note(summary.headline())
    note_unread(summary.truncated)
    note_bad(bad)


def note_bad(bad: Sequence[RowError]) -> None:
    """Print the number of malformed rows, and the first of them, to standard error."""
    if bad:
        note(f"{counted(len(bad), 'bad rows')} left out, the first: {bad[0]}")


class RankableRows:
    """Well-formed rows of a file; see `RowOptions.open`.

    Attributes:
        count: number of them.
        bad: errors of the malformed rows.
    """

    def __init__(self, path: Path, options: RowOptions, check: Callable[[Example], object] | None) -> None:
        self.count = 0
        self.bad: list[RowError] = []
        self._path, self._check_example = path, check
        self._models, self._seen = split_names(options.models), dict[str, None]()
        self._check(options.file, options.skip_bad)

    def chunks(self, size: int) -> Iterator[list[RankableRow]]:
        """Yield the rows in lists of `size`."""
        from llm_blender.data import parse_rows

        rows = parse_rows(self._path, self._parse, on_bad=lambda error: None)
        while chunk := list(islice(rows, size)):
            yield chunk

    def _check(self, file: str, skip_bad: bool) -> None:
        from llm_blender.data import parse_rows

        def on_bad(error: RowError) -> None:
            if file == STDIO:  # not the name of the copy
                error = RowError(file, error.line, error.reason, unit=error.unit)
            if not skip_bad:
                raise error
            self.bad.append(error)

        self.count = sum(1 for _ in parse_rows(self._path, self._parse, on_bad=on_bad))
        for model in self._models:
            if model not in self._seen:
                raise unknown_name("model", model, self._seen)
        if not self.count:
            first = f"No row of {file} can be ranked. The first: {self.bad[0]}" if self.bad else f"{file} holds no row."
            raise InputError(first)

    def _parse(self, record: dict[str, Any]) -> RankableRow:
        from llm_blender.stages import RankableRow

        row = RankableRow.parse(record, self._models)
        self._seen.update(dict.fromkeys(model for model in row.models if model))
        if self._check_example:
            self._check_example(row.example)
        return row


@dataclass(frozen=True)
class RowOptions:
    """File of rows to rank, and which of its rows and candidates."""

    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Rows: .jsonl, .json, .csv (.gz, .zst), .parquet, a folder of such files, or a quoted pattern; - is "
            "JSON Lines from standard input.",
        ),
    ]
    models: ModelsOption = ""
    skip_bad: SkipBadOption = False

    @contextmanager
    def open(self, check: Callable[[Example], object] | None = None) -> Iterator[RankableRows]:
        """Check the whole file before the work begins; standard input is copied to a temporary file.

        Args:
            check: further check of a row; raises ValueError.

        Raises:
            RowError: the first malformed row, unless they are skipped.
            InputError: there is no row, all rows are malformed, or no row has a candidate by one of the models.
        """
        with rereadable(self.file) as path:
            yield RankableRows(path, self, check)


def keep_input(files: Iterable[str | Path], out: str) -> None:
    """Refuse an output that is one of the files it is made from, where the output lacks some of what these hold.

    Raises:
        InputError: the output would replace a file that is read.
    """
    if out != STDIO and Path(out).resolve() in (Path(file).resolve() for file in files):
        raise InputError(f"{out} would replace its input, and hold less than it: give --out another name.")


@contextmanager
def rereadable(file: str) -> Iterator[Path]:
    """Yield a file that can be read twice: the file itself, or a temporary copy of standard input."""
    if file != STDIO:
        yield Path(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "stdin.jsonl"
        with copy.open("wb") as target:
            shutil.copyfileobj(sys.stdin.buffer, target)
        try:
            yield copy
        except RowError as error:
            raise of_file(error, file) from error


def of_file(error: RowError, file: str) -> RowError:
    """Return an error of `rereadable` as one of `file`, which is what the user knows."""
    return error if file != STDIO else RowError(STDIO, error.line, error.reason, unit=error.unit)


@dataclass
class Worked:
    """The work of a job on the rows of files.

    Attributes:
        tally: what was done.
        bad: errors of the malformed rows, which were left out.
        models: LLMs of the candidates that this run read.
        cost: dollars that all runs of the job have paid; None if a price is unknown.
        seconds: wall time.
    """

    tally: Tally
    bad: list[RowError]
    models: set[str | None]
    cost: float | None
    seconds: float

    def summary(self, **counts: Any) -> dict[str, Any]:
        """Return the JSON of the command, with its own counts."""
        return {
            "rows": self.tally.rows,
            "skipped": len(self.bad),
            "resumed": self.tally.resumed,
            "failed": len(self.tally.failed),
            **counts,
            "seconds": round(self.seconds, 3),
        }

    def mean(self, name: str, of: float | None = None) -> float:
        """Return the mean of a count over the rows, or over another number."""
        return self.tally.counts.get(name, 0.0) / max(self.tally.rows if of is None else of, 1)

    def remark(self, headline: str, result: str = "") -> None:
        """Print a line on the work, and others on rows that were left out or failed, to standard error."""
        resumed = f", {self.tally.resumed:,} of them by earlier runs" if self.tally.resumed else ""
        note(f"{counted(self.tally.rows, 'rows')} {headline} in {self.seconds:.1f} s{resumed}{result}")
        note_bad(self.bad)
        if failed := self.tally.failed:
            rows = counted(len(failed), "rows")
            note(f"{rows} failed, the first: {_failure(failed[0])}; --retry-failed tries them again")


def work_on_rows(
    source: RowOptions,
    stage: Stage[Any],
    settings: Mapping[str, Any],
    output: RequiredOutputOptions,
    job: RowJobOptions,
    *,
    kind: str,
    label: str,
    pay_from: Callable[[Budget], object] | None = None,
) -> Worked:
    """Work on the rows of files as a resumable job, and write what comes out, whole or not at all.

    The job is in the folder OUT.job. Rows on standard output are written as they come; such work cannot be resumed.

    Args:
        source: the files.
        stage: the work.
        settings: all that results depend on.
        output: where the rows go.
        job: whether to begin again, and where to work.
        kind: kind of the job.
        label: of the progress.
        pay_from: called with the budget of the job, which records what its calls cost; None is for work without calls.

    Raises:
        RowError: the first malformed row, unless they are skipped.
        InputError: there is no row, all rows are malformed, or no row has a candidate by one of the LLMs.
        WorkError: no row has a result.
    """
    from llm_blender.calls import Budget
    from llm_blender.cli.plan import Took, note_planned
    from llm_blender.data import RowWriter, check_parent, input_files, is_folder, is_table, output_files
    from llm_blender.jobs import FileWork, Job, Outputs, Parts, parts_digest, work_through_files

    started, models, bad = time.monotonic(), split_names(source.models), list[RowError]()
    cpu = time.process_time()
    cost: float | None = 0.0
    files = input_files(source.file)
    if job.engine != "local" and STDIO in files:
        raise InputError("A cluster needs the number of rows before the work: give a file, not standard input.")
    outs = dict(zip(files, output_files(files, output.out) * len(files), strict=False))  # one for all, or one each
    seen = dict[str | None, None]()
    written: dict[str, list[Part]] = {out: [] for out in outs.values()}
    if output.out != STDIO and not is_folder(output.out):
        check_parent(output.out)

    def parse(record: Mapping[str, Any]) -> None:
        found = stage.parse(record)
        given = record["candidates"] if models else ()  # also those of other LLMs, for "did you mean"
        seen.update(dict.fromkeys([*found.models, *(one.get("model") for one in given if isinstance(one, Mapping))]))

    def on_bad(error: RowError) -> None:
        if not source.skip_bad:
            raise error
        bad.append(error)

    def check(rows: int) -> None:
        if not rows:
            first = f" The first: {bad[0]}" if bad else ""
            raise InputError(f"{source.file} holds no {'well-formed ' if bad else ''}row.{first}")
        known = not seen or len(opened.journal("chunks"))  # by an earlier run, whose rows are not parsed again
        for model in () if known else models:
            if model not in seen:
                raise unknown_name("model", model, [name for name in seen if name])

    def on_part(file: str, part: Part) -> None:
        if output.out != STDIO:
            written[outs[file]].append(replace(part, failed=(), counts={}))
        else:
            with RowWriter(STDIO) as writer:
                parts.copy(part, writer)

    work = FileWork(stage, parse, on_bad, retry_failed=job.retry_failed, on_checked=check)
    with (
        _job_folder(output.out) as folder,
        Job(folder, kind, settings, restart=job.restart) as opened,
        _removed_if_unused(folder),
        Parts(opened, as_lines=not any(map(is_table, written))) as parts,
        progress(label, "rows", show=output.show_progress) as report,
    ):
        if pay_from is not None:
            pay_from(Budget(on_paid=opened.paid))
        tally = work_through_files(files, work, parts, job.backend(), on_part=on_part, on_rows=report)
        if not _is_stream(output.out):
            _write_failed(Path(f"{output.out.rstrip('/')}.failed.jsonl"), tally.failed)
        if not tally.rows:
            if not tally.failed:
                check(0)
            raise WorkError(f"No row has a result. The first: {_failure(tally.failed[0])}")
        if output.out != STDIO:
            outputs = Outputs(opened)
            for out, made in written.items():
                if is_folder(output.out):
                    Path(out).parent.mkdir(parents=True, exist_ok=True)
                for stale in Path(out).parent.glob(f".{glob.escape(Path(out).name)}.*.part"):
                    stale.unlink()  # of a run that was killed
                digest = parts_digest(made)
                if outputs.find(out, digest) is None:
                    with RowWriter(out) as writer:
                        for part in made:
                            parts.copy(part, writer)
                    outputs.add(out, digest, len(made))
        if pay_from is not None:
            cost = None if opened.unpriced else opened.cost
    worked = Worked(tally, bad, set(seen), cost, time.monotonic() - started)
    rows = tally.rows + len(tally.failed)
    took = Took(
        rows - tally.resumed,
        worked.seconds,
        time.process_time() - cpu if job.engine == "local" else None,
        cost,
    )
    note_planned(output.out, kind, stage.settings, rows, took)
    return worked


def _is_stream(out: str) -> bool:
    path = Path(out)
    return out == STDIO or (path.exists() and not path.is_file() and not path.is_dir())


@contextmanager
def _job_folder(out: str) -> Iterator[Path]:
    """Yield the folder of a job, which is temporary for what is no file, such as standard output or a named pipe."""
    if not _is_stream(out):
        yield Path(f"{out.rstrip('/')}.job")
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary) / "job"


@contextmanager
def _removed_if_unused(folder: Path) -> Iterator[None]:
    """Remove the folder of an open job that has kept nothing; another folder, or process, is not affected."""
    try:
        yield
    finally:
        if folder.is_dir() and not any(path.stat().st_size for path in folder.glob("*.jsonl")):
            shutil.rmtree(folder)


def _write_failed(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from llm_blender.data import RowWriter

    if not rows:
        path.unlink(missing_ok=True)
        return
    with RowWriter(path) as writer:
        for row in rows:
            writer.write(row)


def _failure(row: Mapping[str, Any]) -> str:
    """Return why a row failed, after its id."""
    results = (row.get(key) for key in ("fusion", "ranking"))  # a row to fuse may hold any ranking
    reasons = (result["error"] for result in results if isinstance(result, Mapping) and "error" in result)
    name = f"{row['id']}: " if row.get("id") is not None else ""
    return name + next(reasons, "unknown")
