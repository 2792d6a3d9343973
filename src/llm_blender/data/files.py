"""Read and write files of records: JSON Lines and JSON lists, compressed or not, Parquet, and prompts as lines."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self, cast

from llm_blender.errors import InputError, MissingExtraError, NotFoundError, RowError, WorkError

STDIO = "-"
"""File name of standard input and standard output."""

_LFS = b"version https://git-lfs.github.com/spec/"
_LIST = re.compile(rb"\s*\[\s*(\{|\]|$)")
_CSV_TO_JSON = (
    "python -c 'import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(sys.stdin)]' "
    "<rows.csv >rows.jsonl"
)


class Records:
    """Iterable over the records of a file, as (1-based line or row, record or `RowError`); see `read_records`.

    Attributes:
        path: path of the file, or ``-``.
        unit: what the numbers count, ``line`` or ``row``; of a JSON list known once it is read.

    Raises:
        NotFoundError: there is no such file.
        InputError: it is CSV, or Git LFS has not downloaded it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        if self.path != STDIO and not Path(path).is_file():
            raise NotFoundError(f"There is no file {self.path} (looked in {Path.cwd()}).")
        self._kind = Path(self.path.removesuffix(".gz").removesuffix(".zst")).suffix.lower()
        if self._kind in (".csv", ".tsv"):
            raise InputError(f"{self.path}: CSV is not read. Make JSON Lines of it: {_CSV_TO_JSON}")
        self.unit = "line"
        if self.path != STDIO:
            with reading(self.path), Path(path).open("rb") as file:
                if file.read(len(_LFS)) == _LFS:
                    raise InputError(
                        f"{self.path} is a pointer of Git LFS in the file's place: run `git lfs pull` there."
                    )

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
        """Yield the 1-based line or row, and its record or error.

        Raises:
            InputError: the file is not readable in the format of its extension.
            MissingExtraError: Parquet without pyarrow.
        """
        for number, row in self.raw():
            yield number, self.parse(number, row) if isinstance(row, bytes) else row

    def error(self, number: int, reason: str) -> RowError:
        """Make the error of a record of this file."""
        return RowError(self.path, number, reason, unit=self.unit)

    def raw(self) -> Iterator[tuple[int, bytes | dict[str, Any] | RowError]]:
        """Yield the same as by iteration, but lines as they are in the file, for `parse`.

        Raises:
            InputError: the file is not readable in the format of its extension.
            MissingExtraError: Parquet without pyarrow.
        """
        with reading(self.path):
            if self._kind == ".parquet":
                self.unit = "row"
                yield from _parquet(self.path)
                return
            begun = False
            with open_plain(self.path) as lines:
                for number, line in enumerate(lines, 1):
                    if number == 1:
                        line = line.removeprefix(codecs.BOM_UTF8)
                    if not line.strip():
                        continue
                    if not begun and self._kind != ".txt" and _LIST.match(line):
                        yield from self._list(line + lines.read())
                        return
                    begun = True
                    yield number, line

    def parse(self, number: int, line: bytes) -> dict[str, Any] | RowError:
        """Parse a line of `raw`."""
        return self._prompt(number, line) if self._kind == ".txt" else self._json(number, line)

    def _prompt(self, number: int, line: bytes) -> dict[str, Any] | RowError:
        try:
            return {"instruction": line.decode().strip()}
        except UnicodeDecodeError as error:
            return self.error(number, f"not UTF-8 (byte {error.start}); convert the file")

    def _json(self, number: int, line: bytes) -> dict[str, Any] | RowError:
        try:
            record = json.loads(line.decode())
        except UnicodeDecodeError as error:
            return self.error(number, f"not UTF-8 (byte {error.start}); convert the file, e.g. with iconv")
        except json.JSONDecodeError as error:
            return self.error(number, f"not JSON ({error.msg}, column {error.colno}); one object a line is wanted")
        except (ValueError, RecursionError) as error:  # thousands of digits or of nested brackets
            return self.error(number, f"JSON beyond what can be read ({error})")
        return self._checked(number, record, b"\\ud" in line.lower())

    def _list(self, data: bytes) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
        self.unit = "row"
        try:
            records = json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path} is not JSON: {error}. Is it complete?") from error
        halves = b"\\ud" in data.lower()
        del data
        for number, record in enumerate(records, 1):
            yield number, self._checked(number, record, halves)

    def _checked(self, number: int, record: Any, halves: bool) -> dict[str, Any] | RowError:
        if not isinstance(record, dict):
            return self.error(number, f"a JSON object is wanted, not {type(record).__name__}")
        if halves and _holds_half_a_character(record):
            return self.error(number, "a lone surrogate (such as \\ud83d), which is not a character")
        return record


def read_records(path: str | Path) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Yield the records of a file: JSON Lines or a JSON list of objects (``.gz``, ``.zst``), Parquet, or ``.txt``.

    A line of ``.txt`` is the record {instruction}.

    Yields:
        The 1-based line (Parquet, JSON list: row) and the record, or the `RowError` of a malformed one.

    Raises:
        NotFoundError: there is no such file.
        InputError: the file is not readable in the format of its extension.
        MissingExtraError: Parquet without pyarrow.
    """
    yield from Records(path)


@contextlib.contextmanager
def open_plain(path: str) -> Iterator[IO[bytes]]:
    """Open a file, or standard input, for reading; decompress it by its extension."""
    with contextlib.ExitStack() as stack:
        if path == STDIO:
            yield sys.stdin.buffer
        elif path.endswith(".gz"):
            yield cast(IO[bytes], stack.enter_context(gzip.open(path, "rb")))
        elif path.endswith(".zst"):
            yield io.BufferedReader(_ZstdReader(stack.enter_context(Path(path).open("rb"))))
        else:
            yield stack.enter_context(Path(path).open("rb"))


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Convert errors of reading a file, in the ``with`` block, to an `InputError`."""
    try:
        yield
    except (OSError, EOFError, zlib.error, _zstd_error()) as error:
        raise InputError(f"{path} cannot be read: {error}. Is it complete, and what its name says?") from error


class _ZstdReader(io.RawIOBase):
    """Zstandard reader that refuses a truncated file; zstandard's own reader accepts it."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame: Any = None
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._text and (data := self._raw.read(io.DEFAULT_BUFFER_SIZE)):
            self._text = memoryview(b"".join(self._frames(data)))
        if not self._text and self._frame is not None:
            raise EOFError("the last Zstandard frame is cut off")
        size = min(len(target), len(self._text))
        target[:size], self._text = self._text[:size], self._text[size:]
        return size

    def _frames(self, data: bytes) -> Iterator[bytes]:
        import zstandard

        while data:
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            yield self._frame.decompress(data)
            data = self._frame.unused_data
            if self._frame.eof:
                self._frame = None


def _holds_half_a_character(record: Mapping[str, Any]) -> bool:
    """Return whether a text of the record cannot be encoded as UTF-8."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _parquet(path: str) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    parquet = _pyarrow()
    try:
        file = parquet.ParquetFile(path)
    except ValueError as error:  # pyarrow's ArrowInvalid
        raise InputError(f"{path} is not a Parquet file: {error}") from error
    with file:
        records = (record for batch in file.iter_batches(batch_size=256) for record in batch.to_pylist())
        yield from enumerate(records, 1)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("Parquet", "parquet") from error
    return pyarrow.parquet


def _zstd_error() -> type[Exception]:
    import zstandard

    error: type[Exception] = zstandard.ZstdError
    return error


def check_output(path: str | Path) -> None:
    """Check that rows can be written in the format that the extension of a file names.

    Raises:
        InputError: they cannot: it is another format.
    """
    target = Path(path)
    if str(path) == STDIO or (target.exists() and not target.is_file()):
        return
    plain = target.name.removesuffix(".gz").removesuffix(".zst")
    if target.suffix != ".parquet" and Path(plain).suffix not in ("", ".jsonl", ".ndjson"):
        raise InputError(
            f"Rows cannot be written to {target.name}, as {Path(plain).suffix}: name the file .jsonl, .jsonl.gz, "
            f".jsonl.zst or .parquet."
        )


class RowWriter:
    """Writer of a file of records that appears whole or not at all.

    The records go to a temporary file in the target's folder, renamed when the ``with`` block succeeds. The extension
    decides the format, as in `read_records`. Standard output gets each record at once.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._stack = contextlib.ExitStack()
        self._write: Callable[[Mapping[str, Any]], object]
        self._write_line: Callable[[bytes], object] | None = None
        self._part: Path | None = None

    def __enter__(self) -> Self:
        if self.path == STDIO:
            self._write = _to_stdout
            return self
        target = Path(self.path)
        if not target.parent.is_dir():
            raise NotFoundError(f"There is no folder {target.parent} to write {target.name} to.")
        if target.is_dir():
            raise InputError(f"{target} is a folder: give the name of a file.")
        check_output(target)
        parquet = _pyarrow() if target.suffix == ".parquet" else None
        try:
            file = self._stack.enter_context(self._open(target))
        except OSError as error:
            raise InputError(f"Cannot write to {target.parent}: {error.strerror}.") from error
        self._write = self._parquet_sink(parquet, file) if parquet else self._json_sink(file)
        return self

    def _open(self, target: Path) -> IO[bytes]:
        if target.exists() and not target.is_file():
            return target.open("wb")  # write to /dev/null or a named pipe instead of replacing it
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        self._part = Path(name)
        return os.fdopen(handle, "wb")

    def write(self, record: Mapping[str, Any]) -> None:
        """Write one record."""
        with self._disk_errors():
            self._write(record)

    def write_line(self, line: bytes) -> None:
        """Write one record that is a line of JSON Lines already."""
        if self._write_line is None:
            self.write(json.loads(line))
            return
        with self._disk_errors():
            self._write_line(line)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._disk_errors():
                self._stack.close()
                if kind is None and self._part:
                    umask = os.umask(0)
                    os.umask(umask)
                    self._part.chmod(0o666 & ~umask)  # mkstemp makes private files
                    self._part.replace(self.path)
        finally:
            if self._part:
                self._part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise WorkError(f"Writing {self.path} failed: {error.strerror}. Nothing was left behind.") from error

    def _json_sink(self, file: IO[bytes]) -> Callable[[Mapping[str, Any]], object]:
        if self.path.endswith(".gz"):
            file = cast(IO[bytes], self._stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0)))
        elif self.path.endswith(".zst"):
            import zstandard

            file = self._stack.enter_context(zstandard.ZstdCompressor(level=10).stream_writer(file))
        self._write_line = file.write
        return lambda record: file.write(row_line(record))

    def _parquet_sink(self, parquet: Any, file: IO[bytes]) -> Callable[[Mapping[str, Any]], object]:
        import pyarrow

        records: list[Mapping[str, Any]] = []

        def flush() -> None:
            # One table: only all rows together determine the schema, as a key may first appear in the last one.
            keys = dict.fromkeys(key for record in records for key in record)
            try:
                columns = {key: [record.get(key) for record in records] for key in keys}
                parquet.write_table(pyarrow.Table.from_pydict(columns), file)
            except pyarrow.ArrowException as error:
                raise WorkError(f"These rows do not fit into Parquet: {error}. Write JSON Lines instead.") from error

        self._stack.callback(flush)
        return records.append


def row_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line of JSON Lines."""
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _to_stdout(record: Mapping[str, Any]) -> None:
    sys.stdout.write(row_line(record).decode())
    sys.stdout.flush()
