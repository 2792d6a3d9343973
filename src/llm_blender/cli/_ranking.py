"""What the commands share that rank the rows of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._output import note
from llm_blender.cli._progress import Report

if TYPE_CHECKING:
    from llm_blender.cli._rankable import RankableRow, RankableRows
    from llm_blender.errors import RowError
    from llm_blender.types import OnProgress, Ranker, Ranking

__all__ = [
    "BudgetOption",
    "FileArgument",
    "ModelsOption",
    "OutOption",
    "Rank",
    "RankSummary",
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
