"""A file that remembers which rows of a job are done, whatever happens to the process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from llm_blender.errors import WorkError
from llm_blender.types import Record

__all__ = ["Entry", "Journal", "Status"]

Status = Literal["done", "partial", "failed"]
"""Of a row: ``partial`` and ``failed`` ones are tried again by the next run."""

_SYNC_EVERY = 1.0  # seconds; a process that is killed loses nothing, a machine that loses its power this much


@dataclass(frozen=True)
class Entry(Record):
    """What came of a row.

    Attributes:
        key: of the row.
        status: see there.
        value: the result as plain JSON values; None where the row failed.
        reason: why it is not done; empty where it is.
        cost: dollars that were paid for it just now; None where a price is unknown.
    """

    key: str
    status: Status
    value: Any = None
    reason: str = ""
    cost: float | None = 0.0


@dataclass(frozen=True)
class _Place:
    """Where an entry stands, and what has to be known of it without reading it again."""

    start: int
    size: int
    status: Status
    reason: str


class Journal:
    """Entries in the order in which they came, one a line; of a row that comes again, the last one counts.

    An entry is there whole or not at all: what a killed process left of a line is cut off when the file is opened.
    Memory holds the keys, not the values. One process at a time may have it open.

    Args:
        path: of the file, which is made if need be.

    Attributes:
        cost: dollars of all entries, those that were replaced among them, as far as prices are known.
        unpriced: entries whose cost is unknown.

    Raises:
        WorkError: the file cannot be opened, or is damaged elsewhere than at its end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cost, self.unpriced = 0.0, 0
        self._places: dict[str, _Place] = {}
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places)

    def status(self, key: str) -> Status | None:
        """Of a row; None if it has no entry."""
        place = self._places.get(key)
        return None if place is None else place.status

    def reason(self, key: str) -> str:
        """Why a row is not done; empty where it is, or has no entry."""
        place = self._places.get(key)
        return "" if place is None else place.reason

    def value(self, key: str) -> Any:
        """The result of a row; None where it has none."""
        place = self._places.get(key)
        if place is None:
            return None
        self._file.seek(place.start)
        return json.loads(self._file.read(place.size)).get("value")

    def values(self, keys: Iterable[str]) -> Iterator[Any]:
        """The results of rows, in the order of the keys."""
        return map(self.value, keys)

    def add(self, entry: Entry) -> None:
        """Write an entry; when this returns, a killed process loses it no more.

        A row that has a result keeps it where the new entry has none.

        Raises:
            WorkError: the disk is full, or the like; the file is as before.
        """
        old = self._places.get(entry.key)
        if entry.status == "failed" and old is not None and old.status != "failed":
            entry = Entry(entry.key, old.status, self.value(entry.key), entry.reason, entry.cost)
        # Not `to_dict`, which leaves out a cost that is None.
        line = json.dumps(dict(vars(entry)), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        self._append(line)
        self._learn(entry, self._size, len(line))
        self._size += len(line)
        if time.monotonic() - self._synced > _SYNC_EVERY:
            self._sync()

    def close(self) -> None:
        """Bring all to the disk and close the file."""
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
                f"{self.path} cannot be written: {error.strerror}; make room and run the same command again."
            ) from error

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _recover(self) -> int:
        """Read what is there, cut off half a line at the end, and return the size."""
        whole, number = 0, 0
        with self.path.open("rb") as lines:
            for line in lines:
                number += 1
                entry = _parse(line)
                if entry is None:
                    if lines.read(1):
                        raise WorkError(
                            f"{self.path}, line {number}: this is no entry of a job; start it anew (--restart), which "
                            f"finds answers that were paid for in the store."
                        )
                    break
                self._learn(entry, whole, len(line))
                whole += len(line)
        self._file.truncate(whole)
        return whole

    def _learn(self, entry: Entry, start: int, size: int) -> None:
        self._places[entry.key] = _Place(start, size, entry.status, entry.reason)
        if entry.cost is None:
            self.unpriced += 1
        else:
            self.cost += entry.cost


def _parse(line: bytes) -> Entry | None:
    """The entry of a line; None where it is none, or half of one."""
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
        entry = Entry.from_dict(values)
    except (ValueError, TypeError, AttributeError):
        return None
    return entry if isinstance(entry.key, str) and entry.status in get_args(Status) else None
