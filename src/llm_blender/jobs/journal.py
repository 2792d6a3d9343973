"""The journal of a job: a file with the result of each row, written at once, so that a killed process loses none."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

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


@dataclass(frozen=True)
class _Position:
    """Position of an entry in the file, with its status and reason."""

    start: int
    size: int
    status: Status
    reason: str


class Journal:
    """Entries in order of time, one per line; the last entry of a row counts.

    An entry is written whole or not at all: opening the file cuts off a line that a killed process left incomplete.
    Memory holds the keys, not the values. One process at a time may open a journal.

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
        self._positions: dict[str, _Position] = {}
        try:
            path.touch()
            self._file = path.open("r+b", buffering=0)
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

    def __len__(self) -> int:
        return len(self._positions)

    def status(self, key: str) -> Status | None:
        """Return the status of a row; None if it has no entry."""
        position = self._positions.get(key)
        return None if position is None else position.status

    def reason(self, key: str) -> str:
        """Return why a row is not done; empty if it is done or has no entry."""
        position = self._positions.get(key)
        return "" if position is None else position.reason

    def value(self, key: str) -> Any:
        """Return the result of a row; None if it has none. That of a failed row says how it failed."""
        position = self._positions.get(key)
        return None if position is None else self._entry(position).value

    def values(self, keys: Iterable[str]) -> Iterator[Any]:
        """Return the results of rows, in the order of the keys."""
        return map(self.value, keys)

    def entries(self) -> Iterator[Entry]:
        """Return the last entry of each row."""
        return map(self._entry, self._positions.values())

    def _entry(self, position: _Position) -> Entry:
        self._file.seek(position.start)
        return Entry.from_dict(json.loads(self._file.read(position.size)))

    def add(self, entry: Entry) -> None:
        """Write an entry; after this returns, a killed process does not lose it.

        A row keeps its earlier result if the new entry has none.

        Raises:
            WorkError: the file cannot be written, such as on a full disk; it is unchanged then.
        """
        old = self._positions.get(entry.key)
        if entry.status == "failed" and old is not None and old.status != "failed":
            entry = Entry(entry.key, old.status, self.value(entry.key), entry.reason, entry.cost)
        # `to_dict` would leave out a cost that is None.
        line = json.dumps(dict(vars(entry)), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        self._append(line)
        self._add_position(entry, self._size, len(line))
        self._size += len(line)
        if time.monotonic() - self._synced > _SYNC_EVERY:
            self._sync()

    def close(self) -> None:
        """Sync the file to the disk and close it."""
        if not self._file.closed:
            self._sync()
            self._file.close()

    def _append(self, line: bytes) -> None:
        try:
            self._file.seek(self._size)
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
                entry = _parse(line)
                if entry is None:
                    if lines.read(1):
                        raise WorkError(
                            f"{self.path}, line {number}: this is not an entry of a job; start again with --restart: "
                            f"paid answers are kept in the store."
                        )
                    break
                self._add_position(entry, whole, len(line))
                whole += len(line)
        self._file.truncate(whole)
        return whole

    def _add_position(self, entry: Entry, start: int, size: int) -> None:
        self._positions[entry.key] = _Position(start, size, entry.status, entry.reason)
        if entry.cost is None:
            self.unpriced += 1
        else:
            self.cost += entry.cost


def _parse(line: bytes) -> Entry | None:
    """Return the entry of a line; None if it is incomplete or not an entry."""
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
        entry = Entry.from_dict(values)
    except (ValueError, TypeError, AttributeError):
        return None
    return entry if isinstance(entry.key, str) and entry.status in get_args(Status) else None
