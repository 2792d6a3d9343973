"""``blend rank``: rank the candidates of each row of a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._arguments import STDIO
from llm_blender.cli._options import BackendOption, DeviceOption, JsonOption, PrecisionOption, RankerOption
from llm_blender.cli._output import note, print_json
from llm_blender.cli._progress import Report, progress

if TYPE_CHECKING:
    from llm_blender.errors import RowError
    from llm_blender.types import OnProgress, Ranking

__all__ = ["RankSummary", "rank"]

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


def rank(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="Rows as .jsonl, .jsonl.gz, .jsonl.zst or .parquet; - is standard input."),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="Where the rows go, in the format of its name.")
    ] = STDIO,
    ranker: RankerOption = "bundled",
    strategy: Annotated[
        str,
        typer.Option(metavar="NAME", help="Pairs to compare: auto, full, single, bubble, knockout, top_k or active."),
    ] = "auto",
    budget: Annotated[int, typer.Option(min=2, help="Comparisons per row, for auto and active.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of what a strategy draws.")] = 0,
    models: Annotated[
        str, typer.Option(metavar="A,B,…", help="Only these LLMs' candidates; the others leave the rows.")
    ] = "",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out and count rows that are wrong.")] = False,
    backend: BackendOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "int8",
    as_json: JsonOption = False,
) -> None:
    """Rank the candidates of each row of FILE.

    A row is {instruction, input?, candidates: [{text, model?}] or [text], …}. It comes out with all its keys and
    `ranking`: {best, ranks, scores, strategy, comparisons}, where best counts from 0 and ranks from 1. The file is
    checked to its end before the work begins; OUT appears whole or not at all.

    JSON, where the rows do not go to standard output: {rows, skipped, comparisons, seconds, truncated}.
    """
    from llm_blender.cli._rankable import RankableRows
    from llm_blender.data import RowWriter
    from llm_blender.rankers import load_ranker
    from llm_blender.ranking import comparison_count

    comparison_count(strategy, 2, budget=budget)  # refuses a wrong name before anything is read
    wanted = [name for name in (part.strip() for part in models.split(",")) if name]
    summary, started = RankSummary(), time.monotonic()
    with RankableRows.open(file, models=wanted, skip_bad=skip_bad) as rows:
        summary.skipped = len(rows.bad)
        model = load_ranker(ranker, backend=backend, device=device, precision=precision)
        # On one terminal, a bar would stand between the rows.
        show = out != STDIO or not sys.stdout.isatty()
        with RowWriter(out) as writer, progress("ranking", "rows", show=show) as report:
            for chunk in rows.chunks(_CHUNK):
                rankings = model.rank_many(
                    [row.prompt for row in chunk],
                    [row.texts for row in chunk],
                    strategy=strategy,
                    seed=seed,
                    budget=budget,
                    progress=_within(report, summary.rows, len(chunk), rows.count),
                )
                for row, ranking in zip(chunk, rankings, strict=True):
                    writer.write({**row.record, "ranking": ranking.summary()})
                summary.add(rankings)
                report(summary.rows, rows.count)
        summary.seconds = round(time.monotonic() - started, 3)
    _remark(summary, rows.bad)
    if as_json and out != STDIO:
        print_json(asdict(summary))


def _within(report: Report, before: int, size: int, count: int) -> OnProgress:
    """Turns the comparisons of a chunk into rows of the file."""
    return lambda done, total: report(before + size * done / max(total, 1), count)


def _remark(summary: RankSummary, bad: Sequence[RowError]) -> None:
    note(f"{summary.rows:,} rows ranked with {summary.comparisons:,} comparisons in {summary.seconds:.1f} s")
    if summary.truncated:
        note(f"{summary.truncated:.1%} of the text was too long for the ranker to read")
    if bad:
        note(f"{len(bad):,} bad rows left out, the first: {bad[0]}")
