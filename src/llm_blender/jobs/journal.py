"""The journal of a job: a file with the result of each row, written at once, so that a killed process loses none."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

from pydantic_core import from_json

from llm_blender.errors import WorkError
from llm_blender.types import Record

Status = Literal["done", "partial", "failed"]
"""Status of a row; the next run tries ``partial`` and ``failed`` rows again."""

_SYNC_EVERY = 1.0  # seconds; a killed process loses nothing, a power failure this much


@dataclass(frozen=True)
class Entry(Record):
    """The result of a row.

    Attributes:
        key: key of the row.
        status: ``done``, ``partial`` or ``failed``.
        value: the result as plain JSON values; where the row failed, None or what is known of it.
        reason: why the row is not done; empty where it is.
        cost: dollars paid for this entry; None where a price is unknown.
    """

    key: str
    status: Status
    value: Any = None
    reason: str = ""
    cost: float | None = 0.0


class _Head(NamedTuple):
    """An entry without its value, which is the JSON of `value`."""

    key: str
    status: Status
    reason: str
    cost: float | None
    value: bytes


class _Entries:
    """A file of entries in order of time, one per line.

    An entry is written whole or not at all: opening the file cuts off a line that a killed process left incomplete.
    One process at a time may open a file.

    Args:
        path: the file; created if missing.

    Attributes:
        cost: dollars of all entries, including replaced ones, as far as prices are known.
        unpriced: entries of unknown cost.

    Raises:
        WorkError: the file cannot be opened, or is damaged before its end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cost, self.unpriced = 0.0, 0
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise WorkError(f"{path} cannot be opened: {error.strerror}; check the folder's permissions.") from error
        try:
            self._size = self._recover()
        except BaseException:
            self._file.close()
            raise
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Sync the file to the disk and close it."""
        if not self._file.closed:
            self._sync()
            self._file.close()

    def _write(self, entry: Entry) -> None:
        """Write an entry; after this returns, a killed process does not lose it.

        Raises:
            WorkError: the file cannot be written, such as on a full disk; it is unchanged then.
        """
        # `to_dict` would leave out a cost that is None.
        line = json.dumps(dict(vars(entry)), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        self._append(line)
        self._count(entry.cost)
        self._size += len(line)
        if time.monotonic() - self._synced > _SYNC_EVERY:
            self._sync()

    def _append(self, line: bytes) -> None:
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.truncate(self._size)
            raise WorkError(
                f"{self.path} cannot be written: {error.strerror}; free disk space and run the same command again."
            ) from error

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _recover(self) -> int:
        """Read the entries, cut off an incomplete line at the end, and return the size."""
        whole, number = 0, 0
        with self.path.open("rb") as lines:
            for line in lines:
                number += 1
                head = self._parse(line)
                if head is None:
                    if lines.read(1):
                        raise self._damaged(f"line {number}")
                    break
                self._count(head.cost)
                self._recovered(head, whole)
                whole += len(line)
        self._file.truncate(whole)
        return whole

    def _parse(self, line: bytes) -> _Head | None:
        """Read an entry of an opened file; None if it is incomplete or not an entry."""
        return _parse(line)

    def _recovered(self, head: _Head, start: int) -> None:
        """Receive each entry of an opened file, and its position."""

    def _count(self, cost: float | None) -> None:
        if cost is None:
            self.unpriced += 1
        else:
            self.cost += cost

    def _damaged(self, where: str) -> WorkError:
        return WorkError(
            f"{self.path}, {where}: this is not an entry of a job; start again with --restart: paid answers are kept "
            f"in the store."
        )


class Journal(_Entries):
    """The results of rows; the last entry of a row counts.

    Memory holds the keys and where their entries begin, not the values. See `_Entries` for arguments and errors.
    """

    def __init__(self, path: Path) -> None:
        self._starts: dict[str, int] = {}
        self._unfinished: dict[str, tuple[Status, str]] = {}  # and the reasons
        super().__init__(path)
        self._lines = path.open("rb")

    def __len__(self) -> int:
        return len(self._starts)

    def status(self, key: str) -> Status | None:
        """Return the status of a row; None if it has no entry."""
        if key in self._unfinished:
            return self._unfinished[key][0]
        return "done" if key in self._starts else None

    def reason(self, key: str) -> str:
        """Return why a row is not done; empty if it is done or has no entry."""
        return self._unfinished[key][1] if key in self._unfinished else ""

    def value(self, key: str) -> Any:
        """Return the result of a row; None if it has none. That of a failed row says how it failed.

        Raises:
            WorkError: its entry is damaged.
        """
        return self.value_and_line(key)[0]

    def value_and_line(self, key: str) -> tuple[Any, bytes]:
        """Return the result of a row and, as it was written, its line of JSON; see `value`."""
        start = self._starts.get(key)
        if start is None:
            return None, b"null\n"
        self._lines.seek(start)
        head = _parse(self._lines.readline())
        try:
            if head is not None:
                return _read(head.value), head.value + b"\n"
        except ValueError:
            pass
        raise self._damaged(f"byte {start:,}")

    def values(self, keys: Iterable[str]) -> Iterator[Any]:
        """Return the results of rows, in the order of the keys."""
        return map(self.value, keys)

    def add(self, entry: Entry) -> None:
        """Write an entry; after this returns, a killed process does not lose it.

        A row keeps its earlier result if the new entry has none.

        Raises:
            WorkError: the file cannot be written, such as on a full disk; it is unchanged then.
        """
        if entry.status == "failed" and (old := self.status(entry.key)) not in (None, "failed"):
            entry = replace(entry, status=old, value=self.value(entry.key))
        start = self._size
        self._write(entry)
        self._place(entry.key, entry.status, entry.reason, start)

    def close(self) -> None:
        """Sync the file to the disk and close it."""
        super().close()
        self._lines.close()

    def _recovered(self, head: _Head, start: int) -> None:
        self._place(head.key, head.status, head.reason, start)

    def _place(self, key: str, status: Status, reason: str, start: int) -> None:
        self._starts[key] = start
        if status == "done":
            self._unfinished.pop(key, None)
        else:
            self._unfinished[key] = status, reason


class Payments(_Entries):
    """The answers that were paid for: memory holds their costs by LLM.

    Attributes:
        by_llm: dollars by the name of the LLM; None where a price is unknown.
    """

    def __init__(self, path: Path) -> None:
        self.by_llm: dict[str, float | None] = {}
        self._answers = 0
        self._llms: dict[bytes, str] = {}
        super().__init__(path)

    def add(self, llm: str, cost: float | None) -> None:
        """Write the cost of an answer in dollars; None if its price is unknown."""
        self._write(Entry(str(self._answers), "done", {"llm": llm}, cost=cost))
        self._add(llm, cost)

    def _parse(self, line: bytes) -> _Head | None:
        plain = _PAYMENT.fullmatch(line)  # as this class writes it: there are several for a row, and no key is needed
        if plain is None:
            return _parse(line)
        value, cost = plain.groups()
        return _Head("", "done", "", _cost(cost), value)

    def _recovered(self, head: _Head, start: int) -> None:
        if head.value not in self._llms:
            self._llms[head.value] = json.loads(head.value)["llm"] or ""
        self._add(self._llms[head.value], head.cost)

    def _add(self, llm: str, cost: float | None) -> None:
        self._answers += 1
        before = self.by_llm.get(llm, 0.0)
        self.by_llm[llm] = None if before is None or cost is None else before + cost


_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_BEGIN = re.compile(rb'\{"key": (' + _STRING + rb'), "status": "(done|partial|failed)", "value": ')
_REASON = b', "reason": '
_COST = rb', "cost": (null|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\}\n'
_END = re.compile(_REASON + b"(" + _STRING + b")" + _COST)
_PAYMENT = re.compile(
    rb'\{"key": "\d+", "status": "done", "value": (\{"llm": "[^"\\\0\n]*"\})' + _REASON + b'""' + _COST
)


def _parse(line: bytes) -> _Head | None:
    """Return what a line holds beside its value; None if it is incomplete or not an entry.

    A line of this module is not read whole: no string of JSON holds a quotation mark without a backslash, so that the
    last `_REASON` is that of the entry, and a value that is cut off has no end.
    """
    begin = _BEGIN.match(line)
    at = line.rfind(_REASON)
    end = _END.fullmatch(line, at) if at >= 0 else None
    try:
        if begin is None or end is None or b"\0" in line:
            return _parse_whole(line)
        reason, cost = end.groups()
        return _Head(
            _text(begin[1]),
            begin[2].decode(),  # type: ignore[arg-type]
            _text(reason),
            _cost(cost),
            line[begin.end() : at],
        )
    except (ValueError, TypeError, AttributeError):
        return None


def _cost(number: bytes) -> float | None:
    return None if number == b"null" else float(number)


def _text(string: bytes) -> str:
    """Decode a string of JSON."""
    return str(json.loads(string)) if b"\\" in string else string[1:-1].decode()


def _read(line: bytes) -> Any:
    """Read JSON: quickly, unless it is nested too deeply for that."""
    try:
        return from_json(line)
    except ValueError:
        return json.loads(line)


def _parse_whole(line: bytes) -> _Head | None:
    if not line.endswith(b"\n"):
        return None
    entry = Entry.from_dict(json.loads(line))
    if not isinstance(entry.key, str) or entry.status not in get_args(Status):
        return None
    return _Head(
        entry.key, entry.status, entry.reason, entry.cost, json.dumps(entry.value, ensure_ascii=False).encode()
    )
