"""A cache of every answer of an LLM, by the key of its call, in one SQLite file.

The file also holds the tables of `llm_blender.history`, questions and answers of the playground and votes, and that of
`llm_blender.record`, the outcomes of rankings. Several processes and threads may use it at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import platformdirs

from llm_blender.errors import StoreError
from llm_blender.types import Candidate, Message, Sampling

__all__ = ["Store", "StoredCall", "call_key", "default_store_path"]

# Each runs once, in order, and is never edited; `PRAGMA user_version` counts them.
_MIGRATIONS = (
    """
    CREATE TABLE calls (
        key TEXT PRIMARY KEY,
        candidate TEXT NOT NULL,
        created_at TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE answers (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        created_at TEXT NOT NULL,
        messages TEXT NOT NULL,
        text TEXT NOT NULL,
        report TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE votes (
        answer INTEGER NOT NULL REFERENCES answers (number) ON DELETE CASCADE,
        a INTEGER NOT NULL,
        b INTEGER NOT NULL CHECK (a < b),
        label TEXT NOT NULL CHECK (label IN ('a', 'b', 'tie')),
        created_at TEXT NOT NULL,
        PRIMARY KEY (answer, a, b)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE rankings (
        number INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        llms TEXT NOT NULL,
        best INTEGER NOT NULL,
        wins BLOB NOT NULL
    )
    """,
    "ALTER TABLE votes ADD COLUMN blind INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE votes ADD COLUMN bad INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE answers ADD COLUMN settings TEXT NOT NULL DEFAULT '{}'",
    """
    CREATE TABLE deleted (
        answer INTEGER PRIMARY KEY REFERENCES answers (number) ON DELETE CASCADE,
        deleted_at TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE search_texts (
        answer INTEGER PRIMARY KEY REFERENCES answers (number) ON DELETE CASCADE,
        folded TEXT NOT NULL
    )
    """,
    "INSERT INTO search_texts SELECT number, search_text(messages, text, report) FROM answers",
)


def call_key(identity: Mapping[str, Any], messages: Sequence[Message], sampling: Sampling) -> str:
    """Return the sha256, as hex, of everything that an answer depends on.

    Args:
        identity: the LLM's model, server and own settings, as plain JSON values; not its name, so that a renamed LLM
            keeps its answers.
        messages: the conversation.
        sampling: options with the seed and the index of the sample.
    """
    call = [identity, list(messages), sampling.to_dict()]
    text = json.dumps(call, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def search_text(messages: str, text: str, report: str) -> str:
    """Return all texts of a row of ``answers`` without case, for `History.search`; of a damaged one, its answer."""
    texts: list[Any] = [text]
    with suppress(ValueError, TypeError, LookupError, AttributeError):
        details = json.loads(report)
        texts += [turn["content"] for turn in json.loads(messages)]
        texts += [candidate["text"] for candidate in details["candidates"]]
        texts.append((details.get("fusion") or {}).get("text"))
    found = "\n".join(dict.fromkeys(each for each in texts if isinstance(each, str)))
    return found.casefold().encode("utf-8", "replace").decode()


def default_store_path() -> Path:
    """Return ``$LLM_BLENDER_STORE``, or else ``blend.db`` in the user's data folder."""
    named = os.environ.get("LLM_BLENDER_STORE")
    return Path(named).expanduser() if named else platformdirs.user_data_path("llm-blender") / "blend.db"


@dataclass(frozen=True)
class StoredCall:
    """An answer in the store, with its key and its time (UTC)."""

    key: str
    candidate: Candidate
    created_at: datetime


class Store:
    """Answers of LLMs, by the keys of their calls.

    The first use opens the file, or creates it. An object may be shared between threads, but not with a forked
    process.

    Args:
        path: the SQLite file; None is `default_store_path`.
        patience: maximum seconds to wait for another process that writes.

    Raises:
        StoreError: by every method: the file cannot be opened, read or written.
    """

    def __init__(self, path: str | Path | None = None, *, patience: float = 30.0) -> None:
        self.path = default_store_path() if path is None else Path(path).expanduser()
        self._patience = patience
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None
        self._finalizer: weakref.finalize[..., Store] | None = None  # closes it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Return the number of answers."""
        with self.connection() as connection:
            (count,) = connection.execute("SELECT count(*) FROM calls").fetchone()
        return int(count)

    def __iter__(self) -> Iterator[StoredCall]:
        """Yield all answers, oldest first; answers stored meanwhile may be missing."""
        with self.connection() as connection:
            rows = connection.execute("SELECT key, candidate, created_at FROM calls ORDER BY created_at, key")
            calls = rows.fetchall()
        for key, candidate, created_at in calls:
            yield StoredCall(key, self._candidate(key, candidate), datetime.fromisoformat(created_at))

    def get(self, key: str) -> Candidate | None:
        """Return the answer to a call; None if the call is new."""
        with self.connection() as connection:
            row = connection.execute("SELECT candidate FROM calls WHERE key = ?", (key,)).fetchone()
        return None if row is None else self._candidate(key, row[0])

    def put(self, key: str, candidate: Candidate) -> None:
        """Keep an answer, instead of an older one of the same key; other processes see it when this returns."""
        row = (key, json.dumps(candidate.to_dict()), datetime.now(UTC).isoformat())
        with self.connection() as connection:
            connection.execute("INSERT OR REPLACE INTO calls VALUES (?, ?, ?)", row)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._finalizer is not None:
                self._finalizer()
                self._opened = self._finalizer = None

    def _candidate(self, key: str, text: str) -> Candidate:
        try:
            return Candidate.from_dict(json.loads(text))
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"{self.path}: the answer {key} is damaged ({error}); delete that row.") from error

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Give one thread at a time the open file.

        Raises:
            StoreError: the file cannot be opened, or the ``with`` block cannot read or write it.
        """
        with self._lock:
            try:
                if self._opened is None:
                    self._opened = self._open()
                yield self._opened
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{self.path}: {_fix(error)} ({error}).") from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch(mode=0o600)  # prompts and answers are private
        connection = sqlite3.connect(self.path, timeout=self._patience, isolation_level=None, check_same_thread=False)
        try:
            _migrate(connection, self._patience)
        except BaseException:
            connection.close()
            raise
        self._finalizer = weakref.finalize(self, connection.close)
        return connection


def _migrate(connection: sqlite3.Connection, patience: float) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")  # overwrite what is deleted: prompts and answers are private
    if _version(connection) < len(_MIGRATIONS):
        until = time.monotonic() + patience
        while True:  # SQLite does not wait here for another process that makes the file
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > until:
                    raise
                time.sleep(0.02)
        connection.create_function("search_text", 3, search_text)
        connection.execute("BEGIN IMMEDIATE")  # read the version again: another process may have been faster
        for number in range(_version(connection), len(_MIGRATIONS)):
            connection.execute(_MIGRATIONS[number])
            connection.execute(f"PRAGMA user_version = {number + 1}")
        connection.execute("COMMIT")
    if _version(connection) > len(_MIGRATIONS):
        raise sqlite3.DatabaseError("written by a newer llm-blender")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _fix(error: sqlite3.Error | OSError) -> str:
    elsewhere = "or name another file in LLM_BLENDER_STORE"
    match getattr(error, "sqlite_errorname", "").split("_")[1:2]:
        case ["FULL"]:
            return f"the disk is full; make room, {elsewhere}"
        case ["BUSY" | "LOCKED"]:
            return "another process holds the file; end it, or wait for it"
        case ["CANTOPEN" | "READONLY" | "PERM" | "IOERR"]:
            return f"the file cannot be written; check its folder and permissions, {elsewhere}"
        case ["CORRUPT" | "NOTADB"]:
            return f"this is no store, or a damaged one; move it away, {elsewhere}"
    if isinstance(error, OSError):
        return f"the file cannot be written; check its folder and permissions, {elsewhere}"
    return f"this version cannot use the file; upgrade llm-blender, {elsewhere}"
