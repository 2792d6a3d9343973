"""Rows of a file that a command ranks: checked first, then ranked in chunks."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_blender.cli._options import STDIO, ModelsOption, SkipBadOption, split_names
from llm_blender.cli._output import note, note_unread
from llm_blender.cli._progress import Report
from llm_blender.conversations import prompt_key
from llm_blender.errors import InputError, RowError, unknown_name

if TYPE_CHECKING:
    from llm_blender.types import Example, OnProgress, Ranker, Ranking

Rank = Callable[["list[RankableRow]", "OnProgress"], "list[Ranking]"]
"""Function that ranks rows and reports progress as (comparisons done, expected)."""

_CHUNK = 256  # rows ranked together: enough to fill the batches, few enough to hold in memory


@dataclass
class RankSummary:
    """Counts of a ranked file.

    Attributes:
        rows: rows ranked.
        skipped: malformed rows left out.
        comparisons: pairs that went through the model.
        seconds: wall time, the check of the file included.
        truncated: mean share of a row's text that the ranker cut off.
    """

    rows: int = 0
    skipped: int = 0
    comparisons: int = 0
    seconds: float = 0.0
    truncated: float = 0.0

    def add(self, rankings: Sequence[Ranking]) -> None:
        """Count the rankings of a chunk."""
        truncated = self.truncated * self.rows + sum(ranking.truncated for ranking in rankings)
        self.rows += len(rankings)
        self.comparisons += sum(ranking.comparisons for ranking in rankings)
        self.truncated = truncated / self.rows

    def headline(self) -> str:
        """Summarise rows and work in one line."""
        return f"{self.rows:,} rows ranked with {self.comparisons:,} comparisons in {self.seconds:.1f} s"


def ranking_by(ranker: Ranker, settings: Mapping[str, Any], k: int | None = None) -> Rank:
    """Make the function that `rank_rows` takes from a ranker and arguments of `llm_blender.ranking.rank_best`."""
    from llm_blender.ranking import rank_best

    return lambda rows, report: rank_best(
        ranker, [row.prompt for row in rows], [row.texts for row in rows], k, progress=report, **settings
    )


def rank_rows(rows: RankableRows, rank: Rank, report: Report) -> Iterator[tuple[list[RankableRow], list[Ranking]]]:
    """Rank the rows of a file and yield them in chunks, with progress in rows."""
    done = 0
    for chunk in rows.chunks(_CHUNK):

        def within(comparisons: int, total: int, before: int = done, size: int = len(chunk)) -> None:
            report(before + size * comparisons / max(total, 1), rows.count)

        yield chunk, rank(chunk, within)
        done += len(chunk)
        report(done, rows.count)


def remark(summary: RankSummary, bad: Sequence[RowError]) -> None:
    """Print the summary of a ranked file to standard error."""
    note(summary.headline())
    note_unread(summary.truncated)
    note_bad(bad)


def note_bad(bad: Sequence[RowError]) -> None:
    """Print the number of malformed rows, and the first of them, to standard error."""
    if bad:
        note(f"{len(bad):,} bad rows left out, the first: {bad[0]}")


@dataclass(frozen=True)
class RankableRow:
    """Row of a file: the record to write back, its example, and the texts that the ranker reads."""

    record: Mapping[str, Any]
    example: Example
    prompt: str
    texts: Sequence[str]


class RankableRows:
    """Well-formed rows of a file; see `RowOptions.open`.

    Attributes:
        count: number of them.
        bad: errors of the malformed rows.
    """

    def __init__(self, path: Path, options: RowOptions, check: Callable[[Example], object] | None) -> None:
        self.count = 0
        self.bad: list[RowError] = []
        self._path, self._check_example = path, check
        self._models, self._seen = split_names(options.models), dict[str, None]()
        self._check(options.file, options.skip_bad)

    def chunks(self, size: int) -> Iterator[list[RankableRow]]:
        """Yield the rows in lists of `size`."""
        from llm_blender.data import parse_rows

        rows = parse_rows(self._path, self._parse, on_bad=lambda error: None)
        while chunk := list(islice(rows, size)):
            yield chunk

    def _check(self, file: str, skip_bad: bool) -> None:
        from llm_blender.data import parse_rows

        def on_bad(error: RowError) -> None:
            error = RowError(file, error.line, error.reason, unit=error.unit)  # the name of the input, not of the copy
            if not skip_bad:
                raise error
            self.bad.append(error)

        self.count = sum(1 for _ in parse_rows(self._path, self._parse, on_bad=on_bad))
        for model in self._models:
            if model not in self._seen:
                raise unknown_name("model", model, self._seen)
        if not self.count:
            first = f"No row of {file} can be ranked. The first: {self.bad[0]}" if self.bad else f"{file} holds no row."
            raise InputError(first)

    def _parse(self, record: dict[str, Any]) -> RankableRow:
        from llm_blender.data import keep_candidates, parse_row

        example = parse_row(record)
        self._seen.update((candidate.model, None) for candidate in example.candidates if candidate.model)
        if not example.prompt.strip():
            raise ValueError(f"`{prompt_key(record, 'instruction')}` is empty")
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


@dataclass(frozen=True)
class RowOptions:
    """File of rows to rank, and which of its rows and candidates."""

    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Rows: .jsonl, .json (.gz, .zst) or .parquet; - is JSON Lines from standard input."
        ),
    ]
    models: ModelsOption = ""
    skip_bad: SkipBadOption = False

    @contextmanager
    def open(self, check: Callable[[Example], object] | None = None) -> Iterator[RankableRows]:
        """Check the whole file before the work begins; standard input is copied to a temporary file.

        Args:
            check: further check of a row; raises ValueError.

        Raises:
            RowError: the first malformed row, unless they are skipped.
            InputError: there is no row, all rows are malformed, or no row has a candidate by one of the models.
        """
        with rereadable(self.file) as path:
            yield RankableRows(path, self, check)


@contextmanager
def rereadable(file: str) -> Iterator[Path]:
    """Yield a file that can be read twice: the file itself, or a temporary copy of standard input."""
    if file != STDIO:
        yield Path(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "stdin.jsonl"
        with copy.open("wb") as target:
            shutil.copyfileobj(sys.stdin.buffer, target)
        yield copy
