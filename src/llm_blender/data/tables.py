"""Read and write the formats of files whose columns hold for all rows: Parquet, and CSV for spreadsheets.

A column may first appear in the last row. The writers therefore keep the rows in a temporary file until the columns are
known, and memory holds one batch of rows.

The cells of CSV: a text is plain; numbers, booleans, lists and objects are JSON; null and an empty text are an empty
cell, which is read as an absent key. A text that reads as JSON is quoted as JSON; columns of texts, such as ``output``,
are never read as JSON, but for conversations. Candidates have a column each: ``candidate:MODEL``, or ``candidate_1``
with ``candidate_1.model`` and further keys; or they are one JSON list, ``candidates``.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import pickle
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from llm_blender.conversations import PROMPT_KEYS
from llm_blender.errors import InputError, MissingExtraError, WorkError

_BATCH = 4 << 20
"""Bytes of pickled rows in a batch."""


class TableWriter(ABC):
    """Writer of rows whose columns are known after the last one; until then they are in an unnamed temporary file.

    Args:
        file: the file.
        folder: folder for the temporary file.
    """

    def __init__(self, file: IO[bytes], folder: Path) -> None:
        import zstandard

        self._file, self._zstd = file, zstandard
        self._rows = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `close` closes it
        self._pickles = zstandard.ZstdCompressor(level=1).stream_writer(self._rows, closefd=False)
        self._batch: list[Mapping[str, Any]] = []
        self._bytes, self._sizes = 0, list[int]()

    def write(self, record: Mapping[str, Any]) -> None:
        """Take a row."""
        pickled = pickle.dumps(record, pickle.HIGHEST_PROTOCOL)  # rows read from Parquet hold more than JSON does
        self._pickles.write(pickled)
        self._batch.append(record)
        self._bytes += len(pickled)
        if self._bytes >= _BATCH:
            self._end_batch()

    def finish(self) -> None:
        """Write the file."""
        self._end_batch()
        self._pickles.flush(self._zstd.FLUSH_FRAME)
        self._rows.seek(0)
        pickles = io.BufferedReader(self._zstd.ZstdDecompressor().stream_reader(self._rows))
        self._write_all([pickle.load(pickles) for _ in range(size)] for size in self._sizes)

    def close(self) -> None:
        """Remove the temporary file."""
        self._rows.close()

    def _end_batch(self) -> None:
        if self._batch:
            self._note(self._batch)
            self._sizes.append(len(self._batch))
        self._batch, self._bytes = [], 0

    @abstractmethod
    def _note(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Note the columns of a batch."""

    @abstractmethod
    def _write_all(self, batches: Iterable[Sequence[Mapping[str, Any]]]) -> None:
        """Write all rows, whose columns are noted."""


def import_parquet() -> Any:
    """Import pyarrow's module of Parquet.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("Parquet", "parquet") from error
    return pyarrow.parquet


def read_parquet(path: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file; memory holds a part of a row group.

    Raises:
        InputError: it is no Parquet file.
        MissingExtraError: pyarrow is not installed.
    """
    parquet = import_parquet()
    try:
        file = parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    except ValueError as error:  # pyarrow's ArrowInvalid
        raise InputError(f"{path} is not a Parquet file: {error}") from error
    with file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        size = _BATCH * file.metadata.num_rows // (sum(group.total_byte_size for group in groups) or 1)
        for batch in file.iter_batches(batch_size=min(max(size, 1), 256), use_threads=False):
            yield from batch.to_pylist()


class ParquetWriter(TableWriter):
    """Writer of a Parquet file, a row group for each batch of rows.

    Where some candidates are texts and others objects, the texts become objects with a ``text``. Of a key whose objects
    are all empty, which Parquet cannot hold, they become nulls.

    Raises:
        MissingExtraError: pyarrow is not installed.
        WorkError: by `write` and `finish`: a key has values of different types.
    """

    def __init__(self, file: IO[bytes], folder: Path) -> None:
        self._parquet = import_parquet()
        import pyarrow

        self._arrow, self._schema = pyarrow, pyarrow.schema([])
        self._objects = False
        """Some candidate is an object. While this is not known, all are noted as objects."""
        super().__init__(file, folder)

    def _note(self, records: Sequence[Mapping[str, Any]]) -> None:
        keys = dict.fromkeys(key for record in records for key in record)
        try:
            found = self._table([_with_objects(record) for record in records], keys).schema
            self._objects |= any(isinstance(one, Mapping) for record in records for one in _candidates(record))
            self._schema = self._arrow.unify_schemas([self._schema, found], promote_options="permissive")
        except (self._arrow.ArrowException, OverflowError) as error:
            raise self._unfit(error) from error

    def _write_all(self, batches: Iterable[Sequence[Mapping[str, Any]]]) -> None:
        place = -1 if self._objects else self._schema.get_field_index("candidates")
        if place >= 0 and self._schema.field(place).type == _arrow_texts(self._arrow, objects=True):
            texts = self._arrow.field("candidates", _arrow_texts(self._arrow, objects=False))
            self._schema = self._schema.set(place, texts)
        fields = [field.with_type(_without_empty(self._arrow, field.type)) for field in self._schema]
        empty, self._schema = fields != list(self._schema), self._arrow.schema(fields)
        try:
            with self._parquet.ParquetWriter(self._file, self._schema) as writer:
                for records in batches:
                    rows = [_with_objects(record) for record in records] if self._objects else records
                    rows = [_with_nulls(row) for row in rows] if empty else rows
                    writer.write_table(self._table(rows, self._schema.names, self._schema))
        except (self._arrow.ArrowException, OverflowError) as error:
            raise self._unfit(error) from error

    def _table(self, records: Sequence[Mapping[str, Any]], keys: Iterable[str], schema: Any = None) -> Any:
        columns = {key: [record.get(key) for record in records] for key in keys}
        return self._arrow.Table.from_pydict(columns, schema=schema)

    @staticmethod
    def _unfit(error: Exception) -> WorkError:
        return WorkError(f"These rows do not fit into Parquet: {error}. Write JSON Lines instead.")


def _candidates(record: Mapping[str, Any]) -> list[Any]:
    found = record.get("candidates")
    return found if isinstance(found, list) else []


def _with_objects(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row whose candidates are no texts, but objects with a ``text``."""
    if not any(isinstance(one, str) for one in _candidates(record)):
        return record
    objects = [{"text": one} if isinstance(one, str) else one for one in _candidates(record)]
    return {**record, "candidates": objects}


def _without_empty(arrow: Any, kind: Any) -> Any:
    """Return a type of Arrow with nulls for objects that have no key."""
    if arrow.types.is_list(kind):
        return arrow.list_(_without_empty(arrow, kind.value_type))
    if not arrow.types.is_struct(kind):
        return kind
    fields = [field.with_type(_without_empty(arrow, field.type)) for field in kind]
    return arrow.struct(fields) if fields else arrow.null()


def _with_nulls(value: Any) -> Any:
    """Return a value of JSON with nulls for empty objects."""
    if isinstance(value, Mapping):
        return {key: _with_nulls(inner) if inner != {} else None for key, inner in value.items()}
    return [None if inner == {} else _with_nulls(inner) for inner in value] if isinstance(value, list) else value


def _arrow_texts(arrow: Any, *, objects: bool) -> Any:
    """Return the type of candidates that are all texts: as objects with a ``text``, or as they are."""
    text = arrow.string()
    return arrow.list_(arrow.struct([("text", text)]) if objects else text)


_TEXTS = re.compile(
    rf"({'|'.join(PROMPT_KEYS)}|id|(chosen_|rejected_)?model|system|input|output|reference|chosen|rejected|text|answer|response)_?\d*"
)
"""Keys whose values are texts, even where they look like numbers."""
_CONVERSATIONS = {*PROMPT_KEYS, "chosen", "rejected"}  # which may be messages, too

_CANDIDATE = re.compile(r"candidate(?:[ _]?(?P<number>\d+)(?:\.(?P<key>.+))?|:\s*(?P<model>.+))", re.IGNORECASE)
_OWN_NAMES = {*PROMPT_KEYS, "id", "input", "output", "reference", "candidates"}
_BEST, _BEST_MODEL = "best answer", "best model"
"""Columns beside ``ranking`` that say in words what it says by index; they are left out when read."""

_DELIMITERS = ",;\t"
_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)
_MOST_MODELS = 100  # with a column each


class CSVError(ValueError):
    """A malformed row of CSV, with the line where it begins; internal to data."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def read_csv(lines: Iterable[bytes], *, tabs: bool = False) -> Iterator[tuple[int, dict[str, Any] | CSVError]]:
    """Yield the rows of CSV with a header, separated by commas, semicolons or tabs, as the header is.

    Args:
        lines: lines of the file, in UTF-8.
        tabs: whether tabs alone separate.

    Yields:
        The 1-based line where a row begins, and the row, or what is wrong with it.

    Raises:
        CSVError: the rest of the file cannot be read: a column twice, another encoding, a quote that is not closed.
    """
    csv.field_size_limit(2**31 - 1)
    texts = _decoded(lines)
    skipped, first = _first_of(texts, 0)
    named = _SEPARATOR.fullmatch(first.strip())
    if named:  # Excel reads and hides this line
        skipped, first = _first_of(texts, skipped + 1)
    marks = named[1] if named else "\t" if tabs else _DELIMITERS
    counts = {mark: len(next(csv.reader([first], delimiter=mark), [])) for mark in marks}
    rows = csv.reader(chain([first], texts), delimiter=max(counts, key=lambda mark: counts[mark]), strict=True)
    line, columns = skipped + 1, None
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise CSVError(line, f"not CSV ({error}); is a quote not doubled, or not closed?") from error
        if cells is None:
            return
        if any(cells):
            if columns is None:
                columns = _columns(line, cells)
            else:
                try:
                    yield line, _record(columns, cells)
                except ValueError as error:
                    yield line, CSVError(line, str(error))
        line = skipped + rows.line_num + 1


def _first_of(texts: Iterator[str], skipped: int) -> tuple[int, str]:
    """Return the number of lines before the first one with text, and that line."""
    return next(((n, text) for n, text in enumerate(texts, skipped) if text.strip(" ,;\t\r\n")), (0, ""))


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    """Decode lines, which may also end with a carriage return alone, as Excel for Mac writes them."""
    parts = chain.from_iterable(line.splitlines(keepends=True) for line in lines)
    for number, line in enumerate(parts, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            reason = f"not UTF-8 (byte {error.start}); save the table as CSV UTF-8"
            raise CSVError(number, reason) from error


@dataclass(frozen=True)
class _Column:
    """Column of a table: a key of the row, or a key of one of its candidates."""

    key: str
    candidate: str = ""
    model: str = ""


def _columns(line: int, header: Sequence[str]) -> list[_Column | None]:
    """Read the names of the columns; None is left out."""
    columns: list[_Column | None] = []
    for name in map(str.strip, header):
        if match := _CANDIDATE.fullmatch(name):
            number, key, model = match["number"], match["key"] or "text", match["model"] or ""
            columns.append(_Column(key, number or f":{model}", model))
        else:
            columns.append(_Column(name.lower() if name.lower() in _OWN_NAMES else name) if name else None)
    named = [column for column in columns if column]
    for column in named:
        if named.count(column) > 1:
            where = f"the candidate {column.candidate.removeprefix(':')}" if column.candidate else f"`{column.key}`"
            raise CSVError(line, f"two columns are {where}")
    if _Column("ranking") in named:
        return [None if column in (_Column(_BEST), _Column(_BEST_MODEL)) else column for column in columns]
    return columns


def _record(columns: Sequence[_Column | None], cells: Sequence[str]) -> dict[str, Any]:
    if any(cells[len(columns) :]):
        raise ValueError(f"{len(cells)} cells for {len(columns)} columns; quote cells that contain the separator")
    record: dict[str, Any] = {}
    candidates: dict[str, dict[str, Any]] = {}
    for column, cell in zip(columns, cells, strict=False):
        if not cell or column is None:
            continue
        if column.candidate:
            record.setdefault("candidates", candidates)
            candidate = candidates.setdefault(column.candidate, {"model": column.model} if column.model else {})
            candidate[column.key] = _value(column.key, cell)
        elif column.key == "candidates":
            if candidates:
                raise ValueError("`candidates` is given beside columns of candidates: give one of them")
            record[column.key] = _value(column.key, cell)
            if not isinstance(record[column.key], list):
                raise ValueError("`candidates` must be a JSON list; or use columns candidate_1, candidate_2, …")
        else:
            record[column.key] = _value(column.key, cell)
    if candidates:
        if record["candidates"] is not candidates:
            raise ValueError("`candidates` is given beside columns of candidates: give one of them")
        record["candidates"] = [
            {"text": candidate.pop("text"), **candidate} if len(candidate) > 1 else candidate["text"]
            for candidate in candidates.values()
            if "text" in candidate
        ]
    return record


def _value(key: str, cell: str) -> Any:
    """Read a cell that is not empty."""
    if cell[0] not in '[{"-0123456789tf':
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    if isinstance(value, str):
        return value if _cell(key, value) == cell else cell
    if key in _CONVERSATIONS and isinstance(value, list) and value:
        return value if all(isinstance(turn, dict) and "role" in turn for turn in value) else cell
    if _TEXTS.fullmatch(key):
        return cell
    # 007 and 1.50 are texts, since they are not what JSON writes.
    return value if isinstance(value, list | dict) or json.dumps(value) == cell else cell


def _cell(key: str, value: Any) -> str:
    """Write a value so that `_value` reads it."""
    if value is None or value == "" or value != value:  # null, empty, NaN
        return ""
    if isinstance(value, str):
        return value if _value(key, value) == value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float | list | Mapping):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)  # such as a time, in a column of Parquet


class CSVWriter(TableWriter):
    """Writer of CSV for spreadsheets, with a byte order mark, so that they take it for UTF-8.

    Candidates are columns ``candidate:MODEL`` if all of them are a text and a model, and the models are in one order;
    else ``candidate_1``, ``candidate_1.model``, …. A row with an empty text among them has them as JSON in
    ``candidates``. A row with a ``ranking`` has the text and the model of the best candidate beside it.

    Args:
        delimiter: separator of the cells.
    """

    def __init__(self, file: IO[bytes], folder: Path, delimiter: str = ",") -> None:
        super().__init__(file, folder)
        self._delimiter = delimiter
        self._keys, self._best = dict[str, None](), dict[str, None]()
        self._keys_by_position: list[dict[str, None]] = []
        self._models: list[str] | None = []
        self._any_as_json = False

    def _note(self, records: Sequence[Mapping[str, Any]]) -> None:
        for record in records:
            self._keys.update(dict.fromkeys(record))
            self._best.update(dict.fromkeys(_best_cells(record)))
            candidates = _plain_candidates(record)
            self._any_as_json |= candidates is None and record.get("candidates") is not None
            for position, candidate in enumerate(candidates or ()):
                if position == len(self._keys_by_position):
                    self._keys_by_position.append({"text": None})
                self._keys_by_position[position].update(dict.fromkeys(candidate))
            if self._models is not None:
                self._models = _merged_models(self._models, candidates or ())

    def _write_all(self, batches: Iterable[Sequence[Mapping[str, Any]]]) -> None:
        self._file.write(codecs.BOM_UTF8)
        encoded = SimpleNamespace(write=lambda text: self._file.write(text.encode()))
        writer = csv.DictWriter(encoded, self._header(), delimiter=self._delimiter)
        writer.writeheader()
        for records in batches:
            writer.writerows(map(self._row, records))

    def _header(self) -> list[str]:
        columns: list[str] = []
        for key in self._keys:
            if key == "ranking":
                columns += self._best
            if key == "candidates":
                columns += [f"candidate:{model}" for model in self._models or ()] or [
                    _numbered(position, name) for position, names in enumerate(self._keys_by_position) for name in names
                ]
            if key != "candidates" or self._any_as_json:
                columns.append(key)
        return columns

    def _row(self, record: Mapping[str, Any]) -> dict[str, str]:
        candidates = _plain_candidates(record)
        kept = {key: value for key, value in record.items() if key != "candidates" or candidates is None}
        cells = {**_best_cells(record), **{key: _cell(key, value) for key, value in kept.items()}}
        for position, candidate in enumerate(candidates or ()):
            if self._models:
                cells[f"candidate:{candidate['model']}"] = candidate["text"]
            else:
                cells.update({_numbered(position, key): _cell(key, value) for key, value in candidate.items()})
        return cells


def _numbered(position: int, key: str) -> str:
    return f"candidate_{position + 1}" + (f".{key}" if key != "text" else "")


def _plain_candidates(record: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Return the candidates of a row as objects if each has a text, which is not empty; None otherwise."""
    given = record.get("candidates")
    objects = _objects(given) if isinstance(given, Sequence) else ()
    plain = all(isinstance(candidate.get("text"), str) and candidate["text"] for candidate in objects)
    return [*objects] if objects and plain else None


def _objects(candidates: Sequence[Any]) -> list[Mapping[str, Any]]:
    return [value if isinstance(value, Mapping) else {"text": value} for value in candidates]


def _merged_models(order: list[str], candidates: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """Insert the models of a row into the order of those before; None if a row has no place in one order of columns."""
    place = 0
    for candidate in candidates:
        model = candidate.get("model")
        if candidate.keys() != {"text", "model"} or not isinstance(model, str) or not model or model != model.strip():
            return None
        if model not in order:
            order.insert(place, model)
        if order.index(model) < place or len(order) > _MOST_MODELS:
            return None
        place = order.index(model) + 1
    return order


def _best_cells(record: Mapping[str, Any]) -> dict[str, str]:
    """Make the cells that name the best candidate of a ranked row."""
    ranking, candidates = record.get("ranking"), record.get("candidates")
    if not (isinstance(ranking, Mapping) and isinstance(candidates, Sequence)):
        return {}
    best = ranking.get("best")
    if not isinstance(best, int) or not 0 <= best < len(candidates):
        return {}
    (candidate,) = _objects([candidates[best]])
    columns = {_BEST: candidate.get("text"), _BEST_MODEL: candidate.get("model")}
    return {column: str(value) for column, value in columns.items() if value}
