"""Backends of jobs: where the stages of a job work on its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from llm_blender.types import OnProgress

Row = Mapping[str, Any]


class Stage(Protocol):
    """Work on rows; see `llm_blender.stages.Stage`, which can be pickled."""

    def __call__(self, rows: Sequence[Row], progress: OnProgress | None = None, /) -> list[dict[str, Any]]:
        """Work on rows: one row out for each row in, in order; report the work done and expected."""

    def error(self, row: Row, /) -> str | None:
        """Return why a row that came out has failed; None if it has not."""

    def count(self, row: Row, /) -> Mapping[str, float]:
        """Count what a row that came out holds, by name; ``incomplete`` is a row to try again."""


class Backend(Protocol):
    """The place where a stage works."""

    def map(
        self, stage: Stage, chunks: Iterable[Sequence[Row]], count: int, progress: OnProgress | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield what the stage makes of chunks of rows, in their order.

        Few chunks are held at a time, so that memory does not grow with their number.

        Args:
            stage: the work, which can be pickled.
            chunks: rows.
            count: number of chunks; a backend in this process does not need it.
            progress: called with the work done and expected of the chunk at work, where that is known.
        """


class LocalBackend:
    """This process: a chunk is worked on when the one before has been taken."""

    def map(
        self, stage: Stage, chunks: Iterable[Sequence[Row]], count: int, progress: OnProgress | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield what the stage makes of chunks of rows, in their order; see `Backend`."""
        for rows in chunks:
            yield stage(rows, progress)
