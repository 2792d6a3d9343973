"""``blend rank``: rank the candidates of each row of a file."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_blender.cli._options import (
    STDIO,
    BackendOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    PriorsOption,
    RankerOption,
)
from llm_blender.cli._output import print_json
from llm_blender.cli._progress import progress
from llm_blender.cli._rows import (
    BudgetOption,
    FileArgument,
    ModelsOption,
    OutOption,
    RankSummary,
    SeedOption,
    SkipBadOption,
    StrategyOption,
    rank_rows,
    ranking_by,
    remark,
    split_names,
)
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.cli._rows import RankableRow
    from llm_blender.types import Ranking

__all__ = ["rank"]


def rank(
    file: FileArgument,
    out: OutOption = STDIO,
    ranker: RankerOption = "bundled",
    strategy: StrategyOption = "auto",
    budget: BudgetOption = 40,
    seed: SeedOption = 0,
    models: ModelsOption = "",
    priors: PriorsOption = None,
    best_first: Annotated[
        bool, typer.Option("--sorted", help="Put each row's candidates in order, best first.")
    ] = False,
    best_of_n: Annotated[
        bool, typer.Option("--best-of-n", help="Write the best candidate alone, as the row's `output`.")
    ] = False,
    skip_bad: SkipBadOption = False,
    backend: BackendOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "int8",
    as_json: JsonOption = False,
) -> None:
    """Rank the candidates of each row of FILE.

    A row is {instruction, input?, candidates: [{text, model?}] or [text], …}. It comes out with all its keys and
    `ranking`: {best, ranks, scores, strategy, comparisons, lead}, where best counts from 0 and ranks from 1, and lead
    is the probability that the best is better than the next one (null where that is not known). The file is checked to
    its end before the work begins; OUT appears whole or not at all.

    With --sorted, `candidates` and all that refers to them (`ranking`, `pairs`) follow the ranking. With --best-of-n,
    a row is {id?, instruction, input?, output, model?, ranking}: output is the text of the best candidate, model
    who wrote it, and ranking counts the candidates as they stand in FILE.

    JSON, where the rows do not go to standard output: {rows, skipped, comparisons, seconds, truncated}.
    """
    from llm_blender.cli._rankers import load_priors, note_other_ranker, note_unknown
    from llm_blender.cli._rows import RankableRows
    from llm_blender.data import RowWriter
    from llm_blender.rankers import load_ranker
    from llm_blender.ranking import comparison_count

    if best_first and best_of_n:
        raise InputError("Choose one of --sorted and --best-of-n.")
    shape = _sorted if best_first else _best_of_n if best_of_n else _ranked
    comparison_count(strategy, 2, budget=budget)  # refuses a wrong name before anything is read
    strengths, seen = load_priors(priors), set[str | None]()
    note_other_ranker(strengths, ranker)
    summary, started = RankSummary(), time.monotonic()
    with RankableRows.open(file, models=split_names(models), skip_bad=skip_bad) as rows:
        summary.skipped = len(rows.bad)
        model = load_ranker(ranker, backend=backend, device=device, precision=precision)
        by_model = ranking_by(model, strategy=strategy, seed=seed, budget=budget)
        # On one terminal, a bar would stand between the rows.
        show = out != STDIO or not sys.stdout.isatty()
        with RowWriter(out) as writer, progress("ranking", "rows", show=show) as report:
            for chunk, rankings in rank_rows(rows, by_model, report):
                if strengths is not None:
                    wrote = [[candidate.model for candidate in row.example.candidates] for row in chunk]
                    seen.update(*wrote)
                    rankings = list(map(strengths.apply, rankings, wrote))
                for row, ranking in zip(chunk, rankings, strict=True):
                    writer.write(shape(row, ranking))
                summary.add(rankings)
        summary.seconds = round(time.monotonic() - started, 3)
    remark(summary, rows.bad)
    note_unknown(strengths, seen)
    if as_json and out != STDIO:
        print_json(asdict(summary))


def _ranked(row: RankableRow, ranking: Ranking) -> dict[str, Any]:
    return {**row.record, "ranking": ranking.summary()}


def _sorted(row: RankableRow, ranking: Ranking) -> dict[str, Any]:
    from llm_blender.data import keep_candidates

    followed = {"best": 0, "ranks": ranking.sorted(ranking.ranks), "scores": ranking.sorted(ranking.scores)}
    return {**keep_candidates(row.record, ranking.order), "ranking": {**ranking.summary(), **followed}}


def _best_of_n(row: RankableRow, ranking: Ranking) -> dict[str, Any]:
    asked = {key: row.record[key] for key in ("id", "instruction", "input") if key in row.record}
    best = row.example.candidates[ranking.best]
    wrote = {} if best.model is None else {"model": best.model}
    return {**asked, "output": best.text, **wrote, "ranking": ranking.summary()}
