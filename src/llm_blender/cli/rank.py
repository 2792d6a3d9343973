"""``blend rank``: rank the candidates of each row of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import (
    BackendOptions,
    ConfigOption,
    OutputOptions,
    PriorsOption,
    RankerOption,
    RowJobOptions,
    StrategyOptions,
    StrictOption,
    split_names,
    with_options,
)
from llm_blender.cli._output import DEGRADED, counted, note, note_unread
from llm_blender.cli._rows import RowOptions, keep_input, work_on_rows
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.calls import Budget
    from llm_blender.config import Config
    from llm_blender.ranking import Priors
    from llm_blender.stages import RankableRow, RankedForm, RankRows
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
    job: RowJobOptions,
    strict: StrictOption = False,
    output: OutputOptions,
) -> None:
    """Rank the candidates of each row of FILE.

    FILE is a file, a folder of files, or a quoted pattern such as 'rows/*.jsonl'; OUT then is a file for all rows, or a
    folder (out/) for a file each. A row is {instruction, input?, candidates: [{text, model?}] or [text], …}, where
    prompt, question or messages may stand for instruction. It comes out with all its keys and `ranking`: {best, ranks,
    scores, strategy, comparisons, lead, truncated?, evidence?}, where best counts from 0 and ranks from 1, lead is the
    probability that the best is better than the next one (null where that is not known), and truncated the share of the
    text that the ranker did not read. Options that are not given are those of [ranker] in the configuration; its judge
    compares the candidates that the evidence does not tell apart. A comparison is an unordered pair, or each order of
    it if the ranker has a position bias.

    Files are checked to their ends before the work begins; standard input is ranked as it comes. OUT appears whole or
    not at all. The work can be interrupted at any time, and the same command resumes it: OUT.job holds what is done,
    and new rows may be appended to FILE. A row that cannot be ranked is left out, and is in OUT.failed.jsonl with the
    reason. With --engine ray, actors of a Ray cluster do the work; the result is the same.

    With --sorted, `candidates` and all that refers to them (`ranking`, `pairs`) follow the ranking. With --best-of-n,
    a row is {id?, instruction, input?, output, model?, ranking}: output is the text of the best candidate, model
    who wrote it, and ranking counts the candidates that FILE has; the strategy auto finds only the best then.

    JSON, where the rows do not go to standard output: {rows, skipped, resumed, failed, comparisons, truncated,
    seconds}; with --best-of-n also cut_off, the chosen answers that were cut off at max_tokens; with a judge that is an
    LLM also cost, the dollars paid in all runs of the job, null if a price is unknown.
    """
    from llm_blender.cli._rankers import (
        close_calls,
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
    from llm_blender.rankers.checkpoints import ranker_identity
    from llm_blender.rankers.llm_judge import LLMJudge

    if best_first and best_of_n:
        raise InputError("Choose one of --sorted and --best-of-n.")
    if best_of_n:
        keep_input([source.file], output.out)
    loaded = load_config(config)
    ranker = ranker or loaded.ranker.name
    strengths = load_priors(priors or loaded.priors_path)
    note_other_ranker(strengths, ranker)
    judge, failures = load_close_judge(loaded), list[str]()
    if judge is not None and job.engine != "local":
        raise InputError(f"The calls of the judge {judge.name} stay in one process: use --engine local, or no judge.")
    form: RankedForm = "sorted" if best_first else "best_of_n" if best_of_n else "ranked"
    stage = rank_stage(loaded, ranker, source, form, strengths, backend, options)
    budgets: list[Budget] = []  # of the job, once it is open
    if judge is not None:

        def add_verdicts(rankings: list[Ranking], rows: Sequence[RankableRow]) -> list[Ranking]:
            judged = judge_rows(judge, rankings, rows, [row.models for row in rows], loaded, budgets[0].paid)
            failures.extend(judge_failures(judged))
            return judged

        stage.then(add_verdicts)
    if job.engine == "local":
        stage.load()
    judging = None if judge is None else {"name": judge.name, **vars(close_calls(loaded))}
    settings = {**stage.settings, "judge": judging, "checkpoint": ranker_identity(ranker), "skip_bad": source.skip_bad}
    pay_from = None if judge is None else budgets.append
    worked = work_on_rows(source, stage, settings, output, job, kind="rank", label="ranking", pay_from=pay_from)
    comparisons, unread = int(worked.tally.counts.get("comparisons", 0)), worked.mean("truncated")
    worked.remark(f"ranked with {counted(comparisons, 'comparisons')}")
    note_unread(unread)
    note_unknown(strengths, worked.models)
    note_judge(judge, worked.models)
    cost = {}
    if judge is not None and isinstance(judge.ranker, LLMJudge):
        note_judges({judge.name: judge.ranker})
        cost = {"cost": worked.cost}
    note_failed_judge(failures)
    if unjudged := int(worked.tally.counts.get("incomplete", 0)):
        note(f"{unjudged:,} rows lack a verdict of the judge; --retry-failed asks it again")
    chosen = {"cut_off": int(worked.tally.counts.get("cut_off", 0))} if best_of_n else {}
    if any(chosen.values()):
        note(f"{counted(chosen['cut_off'], 'chosen answers')} cut off at max_tokens; raise it, and sample again")
    output.print_summary(worked.summary(comparisons=comparisons, truncated=unread, **chosen, **cost))
    if strict and worked.tally.failed:
        raise typer.Exit(DEGRADED)


def rank_stage(
    config: Config,
    ranker: str,
    source: RowOptions,
    form: RankedForm,
    priors: Priors | None,
    backend: BackendOptions,
    options: StrategyOptions,
) -> RankRows:
    """Make the work of `blend rank` from its options, for the job and for its plan."""
    from llm_blender.stages import RankRows

    return RankRows(
        ranker,
        form=form,
        models=split_names(source.models),
        priors=priors,
        whole=config.ranker.judge is not None,
        loading=backend.arguments(ranker, config.ranker),
        **options.settings(config.ranker),
    )
