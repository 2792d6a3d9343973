"""What the commands share that rank the rows of a file."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from llm_blender.cli._output import note
from llm_blender.cli._progress import Report
from llm_blender.data import STDIO, keep_candidates, parse_row, parse_rows
from llm_blender.errors import InputError, RowError, unknown_name
from llm_blender.types import Example

if TYPE_CHECKING:
    from llm_blender.errors import RowError
    from llm_blender.types import OnProgress, Ranker, Ranking

__all__ = [
    "BudgetOption",
    "FileArgument",
    "ModelsOption",
    "OutOption",
    "Rank",
    "RankSummary",
    "RankableRow",
    "RankableRows",
    "SeedOption",
    "SkipBadOption",
    "StrategyOption",
    "rank_rows",
    "ranking_by",
    "remark",
    "split_names",
]

FileArgument = Annotated[
    str,
    typer.Argument(metavar="FILE", help="Rows as .jsonl, .jsonl.gz, .jsonl.zst or .parquet; - is standard input."),
]
OutOption = Annotated[
    str, typer.Option("--out", "-o", metavar="FILE", help="Where the rows go, in the format of its name.")
]
StrategyOption = Annotated[
    str,
    typer.Option(metavar="NAME", help="Pairs to compare: auto, full, single, bubble, knockout, top_k or active."),
]
BudgetOption = Annotated[int, typer.Option(min=2, help="Comparisons per row, for auto and active.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of what a strategy draws.")]
ModelsOption = Annotated[
    str, typer.Option(metavar="A,B,…", help="Only these LLMs' candidates; the others leave the rows.")
]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Leave out and count rows that are wrong.")]

Rank = Callable[["list[RankableRow]", "OnProgress"], "list[Ranking]"]
"""Ranks rows, telling (comparisons done, expected)."""

_CHUNK = 256  # rows ranked together: enough to fill the batches, few enough to hold


@dataclass
class RankSummary:
    """What ranking a file came to.

    Attributes:
        rows: rows ranked.
        skipped: bad rows left out.
        comparisons: ordered pairs that went through the model.
        seconds: from the first look at the file to the last row.
        truncated: share of the text that was too long for the ranker to read, mean over rows.
    """

    rows: int = 0
    skipped: int = 0
    comparisons: int = 0
    seconds: float = 0.0
    truncated: float = 0.0

    def add(self, rankings: Sequence[Ranking]) -> None:
        """Count these rankings in."""
        truncated = self.truncated * self.rows + sum(ranking.truncated for ranking in rankings)
        self.rows += len(rankings)
        self.comparisons += sum(ranking.comparisons for ranking in rankings)
        self.truncated = truncated / self.rows

    def headline(self) -> str:
        """Rows and work in one line."""
        return f"{self.rows:,} rows ranked with {self.comparisons:,} comparisons in {self.seconds:.1f} s"


def split_names(names: str) -> list[str]:
    """The names in a list separated by commas."""
    return [name for name in (part.strip() for part in names.split(",")) if name]


def ranking_by(ranker: Ranker, *, strategy: str, seed: int, budget: int) -> Rank:
    """What `rank_rows` wants, by a ranker."""
    return lambda rows, tell: ranker.rank_many(
        [row.prompt for row in rows],
        [row.texts for row in rows],
        strategy=strategy,
        seed=seed,
        budget=budget,
        progress=tell,
    )


def rank_rows(rows: RankableRows, rank: Rank, report: Report) -> Iterator[tuple[list[RankableRow], list[Ranking]]]:
    """The rows of a file and their rankings, a chunk at a time, while `report` is told the rows that are done."""
    done = 0
    for chunk in rows.chunks(_CHUNK):
        yield chunk, rank(chunk, _within(report, done, len(chunk), rows.count))
        done += len(chunk)
        report(done, rows.count)


def _within(report: Report, before: int, size: int, count: int) -> OnProgress:
    """Turns the comparisons of a chunk into rows of the file."""
    return lambda done, total: report(before + size * done / max(total, 1), count)


def remark(summary: RankSummary, bad: Sequence[RowError]) -> None:
    """Say on standard error what the ranking came to."""
    note(summary.headline())
    if summary.truncated:
        note(f"{summary.truncated:.1%} of the text was too long for the ranker to read")
    if bad:
        note(f"{len(bad):,} bad rows left out, the first: {bad[0]}")


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
