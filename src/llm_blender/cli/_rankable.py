"""Rows that can be ranked: the whole file is checked first, then read again as the work goes on."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

from llm_blender.data import STDIO, keep_candidates, parse_row, parse_rows
from llm_blender.errors import InputError, RowError, unknown_name
from llm_blender.types import Example

__all__ = ["RankableRow", "RankableRows"]


@dataclass(frozen=True)
class RankableRow:
    """A row as it is written again, what it says, and what the ranker reads of it."""

    record: Mapping[str, Any]
    example: Example
    prompt: str
    texts: Sequence[str]


class RankableRows:
    """The rows of a file that can be ranked.

    Attributes:
        count: how many there are.
        bad: what is wrong with each of the others.
    """

    def __init__(self, path: str, models: Sequence[str], check: Callable[[Example], object] | None) -> None:
        self.count = 0
        self.bad: list[RowError] = []
        self._path, self._check_example = path, check
        self._models, self._seen = models, dict[str, None]()

    @classmethod
    @contextmanager
    def open(
        cls,
        file: str,
        *,
        models: Sequence[str] = (),
        skip_bad: bool = False,
        check: Callable[[Example], object] | None = None,
    ) -> Iterator[Self]:
        """Check a file, so that nothing can be wrong with it once the work has begun.

        Args:
            file: as for `llm_blender.data.read_rows`; standard input is copied to a temporary file.
            models: only these LLMs' candidates stay in the rows; empty keeps all.
            skip_bad: leave bad rows out instead of raising.
            check: raises ValueError with what else is wrong with a row.

        Raises:
            RowError: the first bad row.
            InputError: all rows are bad, or none has a candidate by one of the models.
        """
        with _rereadable(file) as path:
            rows = cls(path, models, check)
            rows._check(file, skip_bad)
            yield rows

    def chunks(self, size: int) -> Iterator[list[RankableRow]]:
        """The rows, `size` at a time."""
        rows = parse_rows(self._path, self._parse, on_bad=lambda error: None)
        while chunk := list(islice(rows, size)):
            yield chunk

    def _check(self, file: str, skip_bad: bool) -> None:
        def note_bad(error: RowError) -> None:
            error = RowError(file, error.line, error.reason)  # not the copy's name
            if not skip_bad:
                raise error
            self.bad.append(error)

        self.count = sum(1 for _ in parse_rows(self._path, self._parse, on_bad=note_bad))
        for model in self._models:
            if model not in self._seen:
                raise unknown_name("model", model, self._seen)
        if self.bad and not self.count:
            raise InputError(f"No row of {file} can be ranked. The first: {self.bad[0]}")

    def _parse(self, record: dict[str, Any]) -> RankableRow:
        example = parse_row(record)
        self._seen.update((candidate.model, None) for candidate in example.candidates if candidate.model)
        if not example.prompt.strip():
            raise ValueError("`instruction` is empty")
        if not example.candidates:
            raise ValueError("`candidates` is empty: give at least one")
        if self._models:
            kept = [i for i, candidate in enumerate(example.candidates) if candidate.model in self._models]
            if not kept:
                raise ValueError(f"no candidate is by {' or '.join(self._models)}")
            record = keep_candidates(record, kept)
            example = parse_row(record)
        if self._check_example:
            self._check_example(example)
        return RankableRow(record, example, example.prompt, [candidate.text for candidate in example.candidates])


@contextmanager
def _rereadable(file: str) -> Iterator[str]:
    if file != STDIO:
        yield file
        return
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield copy.name
