"""The prompts of a run: read again each time that they are needed, so that memory holds their ids alone."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice, zip_longest

from llm_blender.errors import WorkError
from llm_blender.types import Example


class Prompts:
    """Rows with unique ids, in a file or a list; iterating yields them.

    A repeated id gets the number of its row: each repetition of a prompt is answered.

    Args:
        read: returns the rows; called each time that they are needed.

    Attributes:
        ids: the unique id of each row.
        sha256: hash of ids and prompts, as hex, see `sha256_of`.

    Raises:
        WorkError: by iterating: the rows are not those of the first time.
    """

    def __init__(self, read: Callable[[], Iterable[Example]]) -> None:
        self._read = read
        self.ids: list[str] = []
        self._hashes = array("q")
        self.sha256 = _sha256(self._first(read()))

    def _first(self, rows: Iterable[Example]) -> Iterator[tuple[str, str]]:
        """Yield id and prompt of the rows, and keep what recognises them."""
        seen = set[str]()
        for number, row in enumerate(rows, 1):
            name, prompt = row.id or "", row.prompt
            if name in seen:
                name = f"{name}-{number}"
            seen.add(name)
            self.ids.append(name)
            self._hashes.append(hash(prompt))
            yield name, prompt

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Example]:
        for row, name, prompt in zip_longest(self._read(), self.ids, self._hashes):
            if row is None or name is None or hash(row.prompt) != prompt:
                raise WorkError(
                    "The prompts were changed during the run: restore them and run the same command again; finished "
                    "rows are kept."
                )
            yield replace(row, id=name)

    def sha256_of(self, n: int) -> str:
        """Return the sha256, as hex, of the JSON list [[id, prompt], …] of the first `n` rows."""
        return _sha256((row.id or "", row.prompt) for row in islice(self, n))


def _sha256(texts: Iterable[tuple[str, str]]) -> str:
    digest, comma = hashlib.sha256(b"["), b""
    for of_row in texts:
        name, prompt = map(json.dumps, of_row)  # each alone: an encoder is made for a list, not for a text
        digest.update(comma + f"[{name}, {prompt}]".encode("ascii"))
        comma = b", "
    digest.update(b"]")
    return digest.hexdigest()
