"""``blend fuse``: fuse the best candidates of each row of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm_blender.cli._options import (
    BackendOptions,
    ConfigOption,
    DeviceOption,
    EnsembleOptions,
    FuserOption,
    OrderOption,
    OutputOptions,
    RowJobOptions,
    StrategyOptions,
    StrictOption,
    split_names,
    with_options,
)
from llm_blender.cli._output import DEGRADED, note
from llm_blender.cli._rows import RowOptions, Worked, work_on_rows
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.calls import Budget
    from llm_blender.config import Config
    from llm_blender.ensemble import Ensemble
    from llm_blender.fusers.guard import Order
    from llm_blender.stages import FuseRows


@with_options
def fuse(
    *,
    source: RowOptions,
    fuser: FuserOption = None,
    mode: Annotated[
        Literal["fuse", "auto"], typer.Option(help="Fuse every row, or only where it is likely to help.")
    ] = "fuse",
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Fuse at most K candidates; 1 rewrites the best [default: as configured; 3]."),
    ] = None,
    order: OrderOption = "best_first",
    guard: Annotated[
        bool | None,
        typer.Option(
            "--guard/--no-guard",
            help="Return a fused text only if the ranker prefers it [default: as configured; guard].",
        ),
    ] = None,
    ranker: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Rank all rows with this ranker; without it, rows keep the ranking that they hold."
        ),
    ] = None,
    options: StrategyOptions,
    config: ConfigOption = None,
    device: DeviceOption = None,
    job: RowJobOptions,
    strict: StrictOption = False,
    output: OutputOptions,
) -> None:
    """Fuse the best candidates of each row of FILE into one answer.

    FILE is a file, a folder of files, or a quoted pattern such as 'rows/*.jsonl'; OUT then is a file for all rows, or a
    folder (out/) for a file each. A row is {instruction, input?, candidates: [{text, model?}] or [text], ranking?, …}.
    Its output has all its keys, `ranking`, and `fusion`: {answer, returned, reason, probability?, text?, fuser?, used?,
    …}. answer is the fused text, or the best candidate if that is better or the fused text is unusable; text is what
    the fuser wrote, and used are the candidates that it read.

    Files are checked to their ends before the work begins; standard input is fused as it comes. OUT appears whole or
    not at all. The work can be interrupted at any time, and the same command resumes it: OUT.job holds what is done,
    and new rows may be appended to FILE. Answers of an LLM are stored, and not paid for twice. With --retry-failed, the
    fuser is called again for chunks of rows in which it failed. With --engine ray, actors of a Ray cluster run a
    model of one's own; calls of an LLM stay in this process.

    JSON, unless the rows go to standard output: {rows, skipped, resumed, failed, fused, reasons, usage, cost,
    truncated, seconds}. usage is that of the texts in OUT, and cost the dollars paid in all runs of the job, also for
    answers that are not in OUT.
    """
    from llm_blender.ensemble import fuser_name
    from llm_blender.fusers import CHAT
    from llm_blender.fusers.chat_fuser import within_budget
    from llm_blender.rankers.checkpoints import ranker_identity

    loaded = EnsembleOptions(fuser=fuser, device=device, config=config).load_config()
    name, judge = fuser_name(loaded), ranker or loaded.ranker.name
    stage = fuse_stage(loaded, ranker, source, mode, top_k, order, guard, device, options)
    calls_llm = name.partition(":")[0] == CHAT
    if calls_llm and job.engine != "local":
        raise InputError(f"The calls of the fuser {name} stay in one process: use --engine local, or another fuser.")
    llms = None
    if job.engine == "local":
        llms = use_fuser(stage, loaded)
        stage.load()
    identity = None if llms is None else {member.llm.name: dict(member.llm.identity) for member in llms.members}
    folder = name.removeprefix("embedded:")
    settings = {
        **stage.settings,
        "llms": identity,
        "checkpoint": ranker_identity(judge),
        "fuser_checkpoint": ranker_identity(folder) if Path(folder).is_dir() else None,
        "skip_bad": source.skip_bad,
    }

    def pay_from(budget: Budget) -> None:
        stage.guarded.fuser = within_budget(stage.guarded.fuser, budget)

    worked = work_on_rows(
        source, stage, settings, output, job, kind="fuse", label="fusing", pay_from=pay_from if calls_llm else None
    )
    summary = _summary(worked)
    _remark(worked, summary, stage.guarded.fuser.name if job.engine == "local" else name)
    output.print_summary(summary)
    if strict and (worked.tally.failed or worked.tally.counts.get("incomplete")):
        raise typer.Exit(DEGRADED)


def fuse_stage(
    config: Config,
    ranker: str | None,
    source: RowOptions,
    mode: Literal["fuse", "auto"],
    top_k: int | None,
    order: Order,
    guard: bool | None,
    device: str | None,
    options: StrategyOptions,
) -> FuseRows:
    """Make the work of `blend fuse` from its options, for the job and for its plan."""
    from llm_blender.ensemble import fuser_name
    from llm_blender.stages import FuseRows

    judge = ranker or config.ranker.name
    return FuseRows(
        fuser_name(config),
        judge,
        rerank=ranker is not None,
        mode=mode,
        top_k=top_k or config.fuser.top_k,
        order=order,
        guard=config.fuser.guard if guard is None else guard,
        rule=config.fuser.thresholds,
        models=split_names(source.models),
        device=device,
        loading=BackendOptions().arguments(judge, config.ranker),
        **options.settings(config.ranker),
    )


def use_fuser(stage: FuseRows, config: Config) -> Ensemble | None:
    """Let a stage load its fuser in this process; return the ensemble whose LLM it calls, if it calls one."""
    from llm_blender.cli.ask import fetch_model, load_ensemble
    from llm_blender.fusers import CHAT, load_fuser
    from llm_blender.llms import EmbeddedLLM

    name, device = stage.name, stage.device
    if name.partition(":")[0] == CHAT and device is None:
        llms = load_ensemble(config)
        stage.using(lambda: llms.fuser)
        return llms
    stage.using(lambda: load_fuser(name, device=device, run=lambda model: EmbeddedLLM(model, fetch_model(model))))
    return None


def _summary(worked: Worked) -> dict[str, Any]:
    counts, reason = worked.tally.counts, "reason "
    reasons = {name.removeprefix(reason): int(n) for name, n in counts.items() if name.startswith(reason)}
    return worked.summary(
        fused=int(counts.get("fused", 0)),
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])),
        usage={name: int(counts.get(name, 0)) for name in ("prompt_tokens", "completion_tokens")},
        cost=worked.cost,
        truncated=worked.mean("truncated", counts.get("fusions", 0)),
    )


def _remark(worked: Worked, summary: dict[str, Any], fuser: str) -> None:
    """Print the summary of the fusions to standard error."""
    from llm_blender.stages import FAILURE

    reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary["reasons"].items())
    worked.remark("fused", f": {summary['fused']:,} fused answers by {fuser} returned ({reasons})")
    if failed := worked.tally.counts.get("incomplete"):
        first = next(name.removeprefix(FAILURE) for name in worked.tally.counts if name.startswith(FAILURE))
        note(f"the fuser failed in {int(failed):,} rows, the first failure: {first}; --retry-failed calls it again")
    if summary["truncated"]:
        note(f"{summary['truncated']:.1%} of the text was too long for the fuser to read")
