"""Read and write files of records: JSON Lines and JSON lists, compressed or not, Parquet, CSV, and prompts as lines."""

from __future__ import annotations

import codecs
import contextlib
import glob
import gzip
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self, cast

from llm_blender.data.tables import (
    CSVError,
    CSVWriter,
    ParquetWriter,
    TableWriter,
    import_parquet,
    read_csv,
    read_parquet,
)
from llm_blender.errors import InputError, NotFoundError, RowError, WorkError

STDIO = "-"
"""File name of standard input and standard output."""

_LFS = b"version https://git-lfs.github.com/spec/"
_OTHER_CONTENTS = (
    (b"PK\x03\x04", "an Excel workbook or a ZIP archive", "save its table as CSV UTF-8, or unpack it"),
    (b"\x1f\x8b", "compressed with gzip", "let its name end in .gz"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "let its name end in .zst"),
    (b"PAR1", "Parquet", "let its name end in .parquet"),
)
_LIST = re.compile(rb"\s*\[\s*(\{|\]|$)")
_KINDS = {
    ".jsonl": "JSON",
    ".ndjson": "JSON",
    ".json": "JSON",
    ".parquet": "Parquet",
    ".csv": "CSV",
    ".tsv": "CSV",
    ".txt": "lines of text",
}
_WRITABLE = (".jsonl", ".ndjson", ".csv", ".tsv")  # and Parquet, which is not compressed once more
_FAILURES = ".failed.jsonl"  # what `blend run` writes beside its rows
_PATTERN = re.compile(r"[*?[]")


def _uncompressed(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".zst")


def _kind(path: str) -> str:
    """Return the extension of a file, in lower case and without that of its compression."""
    return Path(_uncompressed(path)).suffix.lower()


def input_files(spec: str | Path) -> list[str]:
    """List the files of an input: a file or ``-``, the files of rows in a folder, or the matches of a glob pattern.

    Files of a folder are sorted by name; its subfolders, hidden files, unfinished files, and the ``.failed.jsonl`` of
    `blend run` are left out. A file whose name is a pattern is that file.

    Args:
        spec: path or pattern, such as ``rows/*.jsonl``.

    Raises:
        NotFoundError: there is no such file or folder, or no match.
        InputError: the folder holds no rows, or several kinds of files; or a match is no file of rows.
    """
    text, path = str(spec), Path(spec)
    if text == STDIO or path.is_file():
        return [text]
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir() if _is_shard(file))
        if not names:
            raise InputError(f"The folder {text} holds no file of rows: {', '.join(_KINDS)} (.gz, .zst) are read.")
        if len({_KINDS[_kind(name)] for name in names}) > 1:
            kinds = ", ".join(sorted({_kind(name) for name in names}))
            raise InputError(
                f"The folder {text} holds several kinds of files, {kinds}: give a pattern, '{path}/*{_kind(names[0])}'."
            )
        return [str(path / name) for name in names]
    if not _PATTERN.search(text):
        raise NotFoundError(f"There is no file {text} (looked in {Path.cwd()}).")
    found = sorted(name for name in glob.glob(text, recursive=True) if Path(name).is_file())  # noqa: PTH207 - absolute, too
    if not found:
        raise NotFoundError(f"No file matches {text} (looked in {Path.cwd()}).")
    for name in found:
        if _kind(name) not in _KINDS:
            raise InputError(f"{text} matches {name}, which is no file of rows: narrow the pattern.")
    return found


def _is_shard(file: Path) -> bool:
    hidden = file.name.startswith(".") or file.name.endswith((".part", _FAILURES))
    return not hidden and _kind(file.name) in _KINDS and file.is_file()


def input_sha256(spec: str | Path) -> str:
    """Return the sha256 of the bytes of `input_files`, one file after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for file in input_files(spec):
        with Path(file).open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def output_files(inputs: Sequence[str | Path], out: str | Path) -> list[str]:
    """List the outputs of `input_files`: one for each, in the folder `out`; or `out` itself.

    `out` is a folder if it ends with ``/`` or is one; it is not made here. An output has the name of its input, and
    so its format; ``.jsonl`` replaces or follows an extension that names no format that is written.

    Raises:
        InputError: two outputs have one name, an output is an input (one file may replace itself), or `out` ends with
            ``/`` and is a file.
    """
    if str(out) == STDIO or not is_folder(out):
        if len(inputs) > 1 and Path(out).resolve() in (Path(given).resolve() for given in inputs):
            raise InputError(
                f"{out} is one of its {len(inputs):,} inputs, so that its rows would be read again: write it to "
                f"another folder, or give a pattern that does not match it."
            )
        return [str(out)]
    if Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"{out} is a file, and a folder is wanted: leave out the `/`, or give another name.")
    outputs: dict[str, str | Path] = {}
    for given in inputs:
        output = str(Path(out) / _output_name("stdin.jsonl" if str(given) == STDIO else Path(given).name))
        if output in outputs:
            raise InputError(f"{outputs[output]} and {given} would both be written to {output}: write them one by one.")
        if Path(output).resolve() == Path(given).resolve():
            raise InputError(f"{output} would replace its input: give another folder.")
        outputs[output] = given
    return [*outputs]


def is_folder(out: str | Path) -> bool:
    """Return whether an output is a folder: it ends with ``/``, or is one."""
    return str(out).endswith(("/", os.sep)) or Path(out).is_dir()


def _output_name(name: str) -> str:
    plain = _uncompressed(name)
    if name.endswith(".parquet") or Path(plain).suffix in ("", *_WRITABLE):
        return name
    stem = Path(plain).stem if _kind(plain) in _KINDS else plain
    return f"{stem}.jsonl{name.removeprefix(plain)}"


class Records:
    """Iterable over the records of files, as (1-based line or row, record or `RowError`); see `read_records`.

    Attributes:
        path: path of the file that is being read, or ``-``.
        unit: what the numbers count, ``line`` or ``row``; of a JSON list known once it is read.

    Raises:
        NotFoundError: there is no such file.
        InputError: Git LFS has not downloaded a file, or as for `input_files`.
    """

    def __init__(self, path: str | Path) -> None:
        self._files = input_files(path)
        self.path, self.unit, self._prompts = self._files[0], "line", False
        for file in self._files:
            if file != STDIO:
                _check_content(file)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
        """Yield the 1-based line or row of its file, and its record or error.

        Raises:
            InputError: a file is not readable in the format of its extension.
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
            InputError: a file is not readable in the format of its extension.
            MissingExtraError: Parquet without pyarrow.
        """
        for file in self._files:
            kind = _kind(file)
            self.path, self.unit, self._prompts = file, "line", kind == ".txt"
            with reading(self.path):
                if kind == ".parquet":
                    self.unit = "row"
                    yield from enumerate(read_parquet(self.path), 1)
                elif kind in (".csv", ".tsv"):
                    yield from self._table(tabs=kind == ".tsv")
                else:
                    yield from self._lines()

    def parse(self, number: int, line: bytes) -> dict[str, Any] | RowError:
        """Parse a line of `raw`."""
        return self._prompt(number, line) if self._prompts else self._json(number, line)

    def _table(self, *, tabs: bool) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
        with open_plain(self.path) as lines:
            try:
                for number, record in read_csv(lines, tabs=tabs):
                    wrong = isinstance(record, CSVError)
                    yield number, self.error(number, str(record)) if wrong else self._checked(number, record, True)
            except CSVError as error:
                raise self.error(error.line, str(error)) from error

    def _lines(self) -> Iterator[tuple[int, bytes | dict[str, Any] | RowError]]:
        begun = False
        with open_plain(self.path) as lines:
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if not line.strip():
                    continue
                if not begun and not self._prompts and _LIST.match(line):
                    yield from self._list(line + lines.read())
                    return
                begun = True
                yield number, line

    def _prompt(self, number: int, line: bytes) -> dict[str, Any] | RowError:
        try:
            return {"instruction": line.decode().strip()}
        except UnicodeDecodeError as error:
            return self.error(number, f"not UTF-8 (byte {error.start}); convert the file")

    def _json(self, number: int, line: bytes) -> dict[str, Any] | RowError:
        try:
            record = json.loads(line.decode().rstrip())  # else the fault of an open bracket is on the next line
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
    """Yield the records of a file: JSON Lines or a JSON list of objects, CSV, ``.txt`` (``.gz``, ``.zst``), or Parquet.

    A line of ``.txt`` is the record {instruction}. JSON Lines from standard input are yielded as they arrive.

    Args:
        path: a file, or several as `input_files` lists them: a folder, or a glob pattern.

    Yields:
        The 1-based line (Parquet, JSON list: row) in its file and the record, or the `RowError` of a malformed one.

    Raises:
        NotFoundError: there is no such file.
        InputError: a file is not readable in the format of its extension.
        MissingExtraError: Parquet without pyarrow.
    """
    yield from Records(path)


def _check_content(path: str) -> None:
    with reading(path), Path(path).open("rb") as file:
        begin = file.read(len(_LFS))
    if begin == _LFS:
        raise InputError(f"{path} is a pointer of Git LFS in the file's place: run `git lfs pull` there.")
    for magic, what, fix in _OTHER_CONTENTS:
        if begin.startswith(magic) and not path.endswith((".gz", ".zst", ".parquet")):
            raise InputError(f"{path} is {what}: {fix}.")


@contextlib.contextmanager
def open_plain(path: str) -> Iterator[IO[bytes]]:
    """Open a file, or standard input, for reading; decompress it by its extension.

    UTF-16 with a byte order mark, which Excel and PowerShell write, is converted to UTF-8.
    """
    with contextlib.ExitStack() as stack:
        file: Any
        if path == STDIO:
            file = sys.stdin.buffer
        elif path.endswith(".gz"):
            file = stack.enter_context(gzip.open(path, "rb"))
        elif path.endswith(".zst"):
            file = io.BufferedReader(_ZstdReader(stack.enter_context(Path(path).open("rb"))))
        else:
            file = stack.enter_context(Path(path).open("rb"))
        if not (hasattr(file, "peek") and file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            yield file
            return
        try:
            text = file.read().decode("utf-16")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-16, as its byte order mark says: {error.reason}.") from error
        yield io.BytesIO(text.encode(errors="replace"))


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


def _zstd_error() -> type[Exception]:
    import zstandard

    error: type[Exception] = zstandard.ZstdError
    return error


def is_table(path: str | Path) -> bool:
    """Return whether a file's format has columns: Parquet or CSV."""
    return _kind(str(path)) in (".parquet", ".csv", ".tsv")


def check_parent(path: str | Path) -> None:
    """Check that the folder of a file to write is there.

    Raises:
        NotFoundError: it is not.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise NotFoundError(f"There is no folder {target.parent} to write {target.name} to.")


def check_output(path: str | Path) -> None:
    """Check that rows can be written in the format that the extension of a file names.

    Raises:
        InputError: they cannot: it is another format.
    """
    target = Path(path)
    if str(path) == STDIO or is_folder(path) or (target.exists() and not target.is_file()):
        return
    plain = _uncompressed(target.name)
    if target.suffix != ".parquet" and Path(plain).suffix not in ("", *_WRITABLE):
        raise InputError(
            f"Rows cannot be written to {target.name}, as {Path(plain).suffix}: name the file .jsonl, .jsonl.gz, "
            f".jsonl.zst, .parquet or .csv."
        )


class RowWriter:
    """Writer of a file of records that appears whole or not at all.

    The records go to a temporary file in the target's folder, renamed when the ``with`` block succeeds. The extension
    decides the format, as in `read_records`. Standard output gets each record at once. Memory holds a few megabytes of
    records in every format.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._stack = contextlib.ExitStack()
        self._write: Callable[[Mapping[str, Any]], object]
        self._write_line: Callable[[bytes], object] | None = None
        self._finish: Callable[[], None] = lambda: None
        self._part: Path | None = None

    def __enter__(self) -> Self:
        if self.path == STDIO:
            self._write = _to_stdout
            return self
        target = Path(self.path)
        if target.is_dir():
            raise InputError(f"{target} is a folder: give the name of a file.")
        check_parent(target)
        check_output(target)
        if target.suffix == ".parquet":
            import_parquet()  # it may be missing
        try:
            file = self._stack.enter_context(self._open(target))
            self._write, self._finish = self._sink(target, file)
        except OSError as error:
            raise InputError(f"Cannot write to {target.parent}: {error.strerror}.") from error
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
                with self._stack:
                    if kind is None:
                        self._finish()
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

    def _sink(self, target: Path, file: IO[bytes]) -> tuple[Callable[[Mapping[str, Any]], object], Callable[[], None]]:
        """Return what writes a record, and what writes the rest."""
        if target.name.endswith(".gz"):
            file = cast(IO[bytes], self._stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0)))
        elif target.name.endswith(".zst"):
            import zstandard

            file = self._stack.enter_context(zstandard.ZstdCompressor(level=10).stream_writer(file))
        if not is_table(target.name):
            self._write_line = file.write
            return lambda record: file.write(row_line(record)), lambda: None
        kind = _kind(target.name)
        table: TableWriter
        if kind == ".parquet":
            table = ParquetWriter(file, target.parent)
        else:
            table = CSVWriter(file, target.parent, "\t" if kind == ".tsv" else ",")
        self._stack.callback(table.close)
        return table.write, table.finish


def row_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line of JSON Lines."""
    return json.dumps(record, ensure_ascii=False, default=str).encode() + b"\n"


def _to_stdout(record: Mapping[str, Any]) -> None:
    sys.stdout.write(row_line(record).decode())
    sys.stdout.flush()
