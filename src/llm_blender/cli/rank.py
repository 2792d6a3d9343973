"""``blend rank``: rank the candidates of each row of a file."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_blender.cli._options import (
    BackendOptions,
    ConfigOption,
    OutputOptions,
    PriorsOption,
    RankerOption,
    StrategyOptions,
    with_options,
)
from llm_blender.cli._progress import progress
from llm_blender.cli._rows import RankSummary, RowOptions, rank_rows, ranking_by, remark
from llm_blender.conversations import prompt_key
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.cli._rows import RankableRow
    from llm_blender.types import Ranking


@with_options
def rank(
    *,
    source: RowOptions,
    ranker: RankerOption = None,
    backend: BackendOptions,
    options: StrategyOptions,
    priors: PriorsOption = None,
    config: ConfigOption = None,
    best_first: Annotated[
        bool, typer.Option("--sorted", help="Sort each row's candidates by rank, best first.")
    ] = False,
    best_of_n: Annotated[
        bool, typer.Option("--best-of-n", help="Write only the best candidate, as the row's `output`.")
    ] = False,
    output: OutputOptions,
) -> None:
    """Rank the candidates of each row of FILE.

    A row is {instruction, input?, candidates: [{text, model?}] or [text], …}, where prompt, question or messages may
    stand for instruction. It comes out with all its keys and `ranking`: {best, ranks, scores, strategy, comparisons,
    lead, truncated?, evidence?}, where best counts from 0 and ranks from 1, lead is the probability that the best is
    better than the next one (null where that is not known), and truncated the share of the text that the ranker did not
    read. The file is checked to its end before the work begins; OUT appears whole or not at all. Options that are not
    given are those of [ranker] in the configuration; its judge compares the candidates that the evidence does not tell
    apart. A comparison is an unordered pair, or each order of it if the ranker has a position bias.

    With --sorted, `candidates` and all that refers to them (`ranking`, `pairs`) follow the ranking. With --best-of-n,
    a row is {id?, instruction, input?, output, model?, ranking}: output is the text of the best candidate, model
    who wrote it, and ranking counts the candidates that FILE has; the strategy auto finds only the best then.

    JSON, where the rows do not go to standard output: {rows, skipped, comparisons, seconds, truncated}.
    """
    from llm_blender.cli._rankers import (
        judge_failures,
        judge_rows,
        load_close_judge,
        load_priors,
        note_failed_judge,
        note_judge,
        note_judges,
        note_other_ranker,
        note_unknown,
    )
    from llm_blender.config import load_config
    from llm_blender.data import RowWriter
    from llm_blender.rankers.llm_judge import LLMJudge

    if best_first and best_of_n:
        raise InputError("Choose one of --sorted and --best-of-n.")
    shape = _sorted if best_first else _best_of_n if best_of_n else _ranked
    loaded = load_config(config)
    ranker = ranker or loaded.ranker.name
    strengths, seen = load_priors(priors or loaded.priors_path), set[str | None]()
    note_other_ranker(strengths, ranker)
    judge, failures = load_close_judge(loaded), list[str]()
    summary, started = RankSummary(), time.monotonic()
    with source.open() as rows:
        summary.skipped = len(rows.bad)
        later = strengths is not None or judge is not None  # they can lift any candidate
        by_model = ranking_by(
            backend.load(ranker, loaded.ranker), options.settings(loaded.ranker), 1 if best_of_n and not later else None
        )
        with RowWriter(output.out) as writer, progress("ranking", "rows", show=output.show_progress) as report:
            for chunk, rankings in rank_rows(rows, by_model, report):
                models = [[candidate.model for candidate in row.example.candidates] for row in chunk]
                seen.update(*models)
                if strengths is not None:
                    rankings = list(map(strengths.apply, rankings, models))
                if judge is not None:
                    rankings = judge_rows(judge, rankings, chunk, models, loaded)
                    failures += judge_failures(rankings)
                for row, ranking in zip(chunk, rankings, strict=True):
                    writer.write(shape(row, ranking))
                summary.add(rankings)
        summary.seconds = round(time.monotonic() - started, 3)
    remark(summary, rows.bad)
    note_unknown(strengths, seen)
    note_judge(judge, seen)
    if judge is not None and isinstance(judge.ranker, LLMJudge):
        note_judges({judge.name: judge.ranker})
    note_failed_judge(failures)
    output.print_summary(asdict(summary))


def _ranked(row: RankableRow, ranking: Ranking) -> dict[str, Any]:
    return {**row.record, "ranking": ranking.summary()}


def _sorted(row: RankableRow, ranking: Ranking) -> dict[str, Any]:
    from llm_blender.data import keep_candidates

    followed = {"best": 0, "ranks": ranking.sorted(ranking.ranks), "scores": ranking.sorted(ranking.scores)}
    return {**keep_candidates(row.record, ranking.order), "ranking": {**ranking.summary(), **followed}}


def _best_of_n(row: RankableRow, ranking: Ranking) -> dict[str, Any]:
    prompt = prompt_key(row.record, "instruction") or "instruction"
    kept = {key: row.record[key] for key in ("id", prompt, "input") if key in row.record}
    best = row.example.candidates[ranking.best]
    model = {} if best.model is None else {"model": best.model}
    return {**kept, "output": best.text, **model, "ranking": ranking.summary()}
