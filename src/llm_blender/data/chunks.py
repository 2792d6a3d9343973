"""Chunks of a file of rows: what a job works on and records at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from llm_blender.data.files import Records
from llm_blender.errors import RowError

Numbered = tuple[int, "dict[str, Any] | RowError"]
"""Line or row of a file, counted from 1, and its record or error."""


@dataclass(frozen=True)
class Chunk:
    """Successive rows of a file, parsed when they are needed.

    Attributes:
        key: its place: the name of the file and its first row, counted from 0.
        size: number of its rows, malformed ones included.
        digest: sha256 of their content, as hex.
        error: makes the error of a row from its number and a reason.
        records: parses the rows.
    """

    key: str
    size: int
    digest: str
    error: Callable[[int, str], RowError] = field(repr=False, compare=False)
    records: Callable[[], Sequence[Numbered]] = field(repr=False, compare=False)


def read_chunks(path: str, size: int, *, first: int | None = None, name: str = "") -> Iterator[Chunk]:
    """Yield the rows of a file in chunks; JSON Lines are read without being parsed.

    Args:
        path: a file that `read_records` reads, or ``-``.
        size: maximum number of rows of a chunk.
        first: rows of the first chunk; each chunk has twice as many as the one before, up to `size`, so that a stream
            begins at once. None takes `size`.
        name: of the file in the keys.

    Raises:
        NotFoundError: there is no such file.
        InputError: the file is not readable in the format of its extension.
    """
    records, start, wanted = Records(path), 0, first or size
    rows = records.raw()
    while found := list(islice(rows, wanted)):
        digest = hashlib.sha256()
        for _, row in found:
            digest.update(row if isinstance(row, bytes) else _canonical(row))

        def read(found: list[tuple[int, Any]] = found) -> list[Numbered]:
            return [(number, records.parse(number, row) if isinstance(row, bytes) else row) for number, row in found]

        yield Chunk(f"{name}:{start}", len(found), digest.hexdigest(), records.error, read)
        start += len(found)
        wanted = min(2 * wanted, size)


_encoder = json.JSONEncoder(sort_keys=True, default=str)


def _canonical(row: dict[str, Any] | RowError) -> bytes:
    return (str(row) if isinstance(row, RowError) else _encoder.encode(row)).encode()
