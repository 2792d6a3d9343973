"""Work through files of rows, a chunk at a time; what is done is kept, so that a killed process loses one chunk."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from llm_blender.data.chunks import Chunk, read_chunks
from llm_blender.data.files import STDIO, RowWriter, row_line
from llm_blender.errors import InputError, RowError, WorkError
from llm_blender.jobs.backends import Backend, Stage
from llm_blender.jobs.job import Job
from llm_blender.jobs.journal import Entry, Status
from llm_blender.types import Record

Row = Mapping[str, Any]
INCOMPLETE = "incomplete"
"""Name of the count of rows that were written, but should be tried again, as what failed may work later."""


@dataclass(frozen=True)
class Part(Record):
    """A chunk that is done.

    Attributes:
        digest: of the chunk's rows.
        rows: number of rows written.
        start: position of their first byte in the file of the job.
        size: number of their bytes.
        crc32: of these bytes, so that a damaged file is noticed.
        failed: rows without a result, each with its ``error``.
        counts: what was counted, by name.
    """

    digest: str
    rows: int
    start: int
    size: int
    crc32: int = -1
    failed: Sequence[Row] = ()
    counts: Mapping[str, float] = field(default_factory=dict)


def parts_digest(parts: Iterable[Part]) -> str:
    """Return the sha256, as hex, of what a file of these parts, in this order, is written from."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.digest} {part.start} {part.size} {part.crc32}\n".encode())
    return digest.hexdigest()


_VALUES = {
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "zoneinfo": ("ZoneInfo",),
    "pytz": ("_p", "_UTC"),
    "pandas._libs.tslibs.timestamps": ("_unpickle",),  # of nanoseconds
    "pandas._libs.tslibs.timedeltas": ("_timedelta_unpickle",),
}
"""Classes of the values that a row of a table holds beside those of JSON, by module, and what makes them."""


def _pickled(rows: Sequence[Row]) -> bytes:
    from zoneinfo import ZoneInfo

    file = io.BytesIO()
    pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {ZoneInfo: lambda zone: (ZoneInfo, (zone.key,))}  # its own way needs `getattr`
    pickler.dump(list(rows))
    return file.getvalue()


class _RowUnpickler(pickle.Unpickler):
    """An unpickler of rows that runs no code of theirs: a job's folder may come from another machine."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _VALUES.get(module, ()):
            raise InputError(f"The job's rows hold {module}.{name}, which is no value of a table: run with --restart.")
        return super().find_class(module, name)


class Parts(AbstractContextManager["Parts"]):
    """The rows that a job has made so far, a part for each chunk.

    The rows are in one file; a journal says which part is where. A part counts once both are written.

    Args:
        job: the open job.
        as_lines: keep rows as JSON Lines, which are written as they are; else pickled, as those of tables hold more.

    Raises:
        WorkError: by ``with``: the job's folder cannot be written to.
    """

    def __init__(self, job: Job, *, as_lines: bool = True) -> None:
        self._journal, self._as_lines = job.journal("chunks"), as_lines
        self._path = job.folder / ("rows.jsonl" if as_lines else "rows.pickle")

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("a+b", buffering=0)
        except OSError as error:
            raise WorkError(f"{self._path} cannot be written to: {error.strerror}.") from error
        if not len(self._journal):
            self._file.truncate(0)  # of a job that was restarted
        self._size = self._file.seek(0, os.SEEK_END)
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def find(self, chunk: Chunk, *, complete: bool = False) -> Part | None:
        """Return the part of a chunk; None if it is not done, its rows have changed, or what was made is damaged.

        Args:
            chunk: the chunk.
            complete: return only a part in which no row failed. A part in which all rows failed is never returned.
        """
        status = self._journal.status(chunk.key)
        if status is None or status == "failed" or (complete and status != "done"):
            return None
        part = self.get(chunk.key)
        if part.digest != chunk.digest or part.start + part.size > self._size:
            return None
        return part if zlib.crc32(self._read(part)) == part.crc32 else None

    def get(self, key: str) -> Part:
        """Return the part of a chunk that is done."""
        return Part.from_dict(self._journal.value(key))

    def add(self, chunk: Chunk, rows: Sequence[Row], stage: Stage) -> Part:
        """Keep the rows that a stage made of a chunk.

        Raises:
            WorkError: they cannot be written, such as on a full disk.
        """
        good: list[Row] = []
        failed: list[Row] = []
        counts: dict[str, float] = {}
        for row in rows:
            (good if stage.error(row) is None else failed).append(row)
        for row in good:
            _add(counts, stage.count(row))
        data = b"".join(map(row_line, good)) if self._as_lines else _pickled(good)
        part = Part(chunk.digest, len(good), self._size, len(data), zlib.crc32(data), failed, counts)
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            self._file.truncate(self._size)
            raise WorkError(
                f"{self._path} cannot be written: {error.strerror}; free disk space and run the same command again."
            ) from error
        self._size += len(data)
        status: Status = "done" if not (failed or counts.get(INCOMPLETE)) else "partial" if good else "failed"
        self._journal.add(Entry(chunk.key, status, part.to_dict()))
        return self.find(chunk) or part  # the earlier part, where the rows are the same and all fail now

    def copy(self, part: Part, writer: RowWriter) -> None:
        """Write the rows of a part."""
        data = self._read(part)
        if self._as_lines:
            for line in data.splitlines(keepends=True):
                writer.write_line(line)
        else:
            for row in _RowUnpickler(io.BytesIO(data)).load():
                writer.write(row)

    def _read(self, part: Part) -> bytes:
        self._file.seek(part.start)
        return self._file.read(part.size)


@dataclass
class Tally:
    """Totals of a job.

    Attributes:
        rows: rows written.
        resumed: those of them that earlier runs made.
        failed: rows without a result, each with its ``error``.
        counts: what was counted, by name.
    """

    rows: int = 0
    resumed: int = 0
    failed: list[Row] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, part: Part, *, resumed: bool = False) -> None:
        """Count a part."""
        self.rows += part.rows
        self.resumed += part.rows if resumed else 0
        self.failed += part.failed
        _add(self.counts, part.counts)


@dataclass(frozen=True)
class FileWork:
    """The work on files of rows.

    Attributes:
        stage: works on rows.
        parse: checks a row; raises ValueError if it is malformed.
        on_bad: called with the error of each malformed row, which is then left out, unless it raises.
        size: maximum rows of a chunk.
        retry_failed: work again on chunks in which a row failed.
        on_checked: called once with the number of rows, before the work begins; not for standard input.
    """

    stage: Stage
    parse: Callable[[Row], object]
    on_bad: Callable[[RowError], None]
    size: int = 64
    retry_failed: bool = False
    on_checked: Callable[[int], None] | None = None


def work_through_files(
    files: Sequence[str],
    work: FileWork,
    parts: Parts,
    backend: Backend,
    *,
    on_part: Callable[[str, Part], None] | None = None,
    on_rows: Callable[[float, float, float], None] | None = None,
) -> Tally:
    """Work on all rows of files that no earlier run has done.

    All files are checked before the work begins, and those with something left to do are read a second time; standard
    input is worked on as it comes. A chunk is done again if its rows have changed, so that rows may be appended to
    files, and files to the others.

    Args:
        files: the files, or ``-``.
        work: what to do.
        parts: keep what is done.
        backend: where it is done.
        on_part: called with the file and each of its parts, in order.
        on_rows: called with the rows done, of all (0 if unknown), and those of them that earlier runs did.

    Raises:
        RowError: the first malformed row, if `work.on_bad` raises it.
        InputError: a file has lost rows since it was checked.
    """
    tally, names = Tally(), _names(files)
    streams = list(files) == [STDIO]
    order: deque[tuple[str, str]] = deque()  # files and keys of the chunks that are checked, and not yet finished
    ready: set[str] = set()  # keys of chunks that earlier runs did
    pending: dict[str, str] = {}  # files of the other chunks, by key
    worked: dict[str, Chunk] = {}  # chunks at work, by key, without their rows
    bad: set[tuple[str, int]] = set()  # key and number of malformed rows
    total = resumed = done = 0
    size = 0  # of the chunk that was read last

    def chunks(wanted: Set[str]) -> Iterator[tuple[str, Chunk]]:
        for file, name in zip(files, names, strict=True):
            if file in wanted:
                for chunk in read_chunks(file, work.size, first=1 if streams else None, name=name):
                    yield file, chunk

    def check(file: str, chunk: Chunk) -> None:
        nonlocal total, resumed
        order.append((file, chunk.key))
        part = parts.find(chunk, complete=work.retry_failed)
        if part is None:
            pending[chunk.key] = file
        else:
            ready.add(chunk.key)
        good = chunk.size
        if part is None or part.rows + len(part.failed) < chunk.size:
            for number, record in chunk.records():
                if (error := _malformed(chunk, number, record, work.parse)) is not None:
                    good -= 1
                    bad.add((chunk.key, number))
                    work.on_bad(error)
        total += good
        resumed += 0 if part is None else good

    def rows_to_do() -> Iterator[list[Row]]:
        """Yield the rows of pending chunks; a file that has none is not read again."""
        nonlocal size
        found = 0
        for file, chunk in chunks({*files} if streams else {*pending.values()}):
            if streams:
                check(file, chunk)
            if chunk.key in pending:
                found, size, worked[chunk.key] = found + 1, chunk.size, replace(chunk, records=tuple)
                rows = chunk.records()
                yield [row for number, row in rows if not isinstance(row, RowError) and (chunk.key, number) not in bad]
        if found < len(pending):
            raise InputError("There are fewer rows than when they were checked: leave the files alone during the work.")

    def report(within: float = 0.0) -> None:
        if on_rows is not None:
            on_rows(done + within, 0 if streams else total, resumed)

    def finish(file: str, part: Part, *, earlier: bool) -> None:
        nonlocal done
        tally.add(part, resumed=earlier)
        done += part.rows + len(part.failed)
        if on_part is not None:
            on_part(file, part)
        report()

    def finish_ready() -> None:
        while order and order[0][1] in ready:
            file, key = order.popleft()
            finish(file, parts.get(key), earlier=True)

    def progress(units: int, all_units: int) -> None:
        report(size * units / max(all_units, 1))

    for file, chunk in () if streams else chunks({*files}):
        check(file, chunk)
    if work.on_checked is not None and not streams:
        work.on_checked(total)
    for made in backend.map(work.stage, rows_to_do(), len(pending), progress):
        finish_ready()
        file, key = order.popleft()
        finish(file, parts.add(worked.pop(key), made, work.stage), earlier=False)
    finish_ready()
    return tally


def _add(counts: dict[str, float], more: Mapping[str, float]) -> None:
    for name, count in more.items():
        if count:
            counts[name] = counts.get(name, 0) + count


def _malformed(chunk: Chunk, number: int, record: Row | RowError, parse: Callable[[Row], object]) -> RowError | None:
    if isinstance(record, RowError):
        return record
    try:
        parse(record)
    except ValueError as error:
        return chunk.error(number, str(error))
    return None


def _names(files: Sequence[str]) -> list[str]:
    """Return the paths of files from the folder that holds them all, so that it may be moved."""
    paths = [Path(file).resolve() for file in files]
    common = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(common).as_posix() for path in paths]
