"""``blend fuse``: fuse the best candidates of each row of a file."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm_blender.cli._options import (
    BackendOptions,
    ConfigOption,
    DeviceOption,
    EnsembleOptions,
    FuserOption,
    OutputOptions,
    StrategyOptions,
    with_options,
)
from llm_blender.cli._output import note
from llm_blender.cli._progress import progress
from llm_blender.cli._rows import RowOptions, note_bad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_blender.cli._rows import RankableRow
    from llm_blender.config import Config
    from llm_blender.types import Fuser, FusionReport, Ranker, Ranking

_CHUNK = 64  # rows fused together: enough to fill the batches, few enough to show progress


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
    order: Annotated[
        Literal["best_first", "best_last", "shuffled"],
        typer.Option(help="Show the candidates to the fuser in this order."),
    ] = "best_first",
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
    output: OutputOptions,
) -> None:
    """Fuse the best candidates of each row of FILE into one answer.

    A row is {instruction, input?, candidates: [{text, model?}] or [text], ranking?, …}. Its output has all its keys,
    `ranking`, and `fusion`: {answer, returned, reason, probability?, text?, fuser?, used?, …}. answer is the fused
    text, or the best candidate if that is better or the fused text is unusable; text is what the fuser wrote, and used
    are the candidates that it read. The whole file is checked before the work begins; OUT is written whole or not at
    all. Answers of an LLM are stored, so a second run costs nothing.

    JSON, unless the rows go to standard output: {rows, skipped, fused, reasons, usage, cost, truncated, seconds}.
    """
    from llm_blender.data import RowWriter
    from llm_blender.fusers import FusionRule, GuardedFuser

    loaded, started = EnsembleOptions(fuser=fuser, device=device, config=config).load_config(), time.monotonic()
    settings = loaded.fuser
    with source.open() as rows:
        judge = BackendOptions().load(ranker or loaded.ranker.name, loaded.ranker)
        guarded = GuardedFuser(
            _load(loaded, device),
            judge,
            mode=mode,
            top_k=top_k or settings.top_k,
            order=order,
            guard=settings.guard if guard is None else guard,
            rule=FusionRule(**settings.thresholds),
        )
        reports: list[FusionReport] = []
        with RowWriter(output.out) as writer, progress("fusing", "rows", show=output.show_progress) as show:
            for chunk in rows.chunks(_CHUNK):
                known = {} if ranker else _stored(chunk, with_lead=mode == "auto")
                rankings = _ranked(chunk, known, judge, guarded.top_k, **options.settings(loaded.ranker))
                before = len(reports)
                reports += guarded.fuse_many(
                    [row.example.instruction for row in chunk],
                    [row.texts for row in chunk],
                    rankings,
                    inputs=[row.example.input for row in chunk],
                    seed=options.seed,
                    progress=lambda done, total, before=before: show(before + done, rows.count),  # type: ignore[misc]
                )
                show(len(reports), rows.count)
                for i, (row, report) in enumerate(zip(chunk, reports[before:], strict=True)):
                    ranking = {} if i in known else {"ranking": rankings[i].summary()}
                    writer.write({**row.record, **ranking, "fusion": report.to_dict()})
    summary = _summary(reports, skipped=len(rows.bad), seconds=time.monotonic() - started)
    _remark(summary, reports, guarded.fuser)
    note_bad(rows.bad)
    output.print_summary(summary)


def _load(config: Config, device: str | None) -> Fuser:
    """Load the fuser of a configuration."""
    from llm_blender.cli.ask import fetch_model, load_ensemble
    from llm_blender.ensemble import fuser_name
    from llm_blender.fusers import CHAT, load_fuser
    from llm_blender.llms import EmbeddedLLM

    name = fuser_name(config)
    if name.partition(":")[0] != CHAT or device is not None:
        return load_fuser(name, device=device, run=lambda model: EmbeddedLLM(model, fetch_model(model)))
    return load_ensemble(config).fuser


def _stored(chunk: Sequence[RankableRow], *, with_lead: bool) -> dict[int, Ranking]:
    """Read the valid rankings that rows hold, by index; with `with_lead` only those whose lead is known."""
    from llm_blender.data import stored_ranking

    rankings = {}
    for i, row in enumerate(chunk):
        with suppress(ValueError):
            ranking = stored_ranking(row.example)
            if not with_lead or len(ranking) < 2 or ranking.lead is not None:
                rankings[i] = ranking
    return rankings


def _ranked(
    chunk: Sequence[RankableRow], known: dict[int, Ranking], ranker: Ranker, k: int, **options: Any
) -> list[Ranking]:
    """Rank the rows without a known ranking, where the k best are wanted, and return the rankings of all."""
    from llm_blender.ranking import rank_best

    missing = [i for i in range(len(chunk)) if i not in known]
    ranked = rank_best(ranker, [chunk[i].prompt for i in missing], [chunk[i].texts for i in missing], k, **options)
    rankings = {**known, **dict(zip(missing, ranked, strict=True))}
    return [rankings[i] for i in range(len(chunk))]


def _summary(reports: Sequence[FusionReport], *, skipped: int, seconds: float) -> dict[str, Any]:
    from llm_blender.types import Usage

    fusions = [report.fusion for report in reports if report.fusion is not None]
    new = [fusion for fusion in fusions if not fusion.stored]
    costs = [fusion.cost for fusion in new]
    return {
        "rows": len(reports),
        "skipped": skipped,
        "fused": sum(report.returned == "fuse" for report in reports),
        "reasons": dict(Counter(report.reason for report in reports).most_common()),
        "usage": sum((fusion.usage for fusion in new), Usage()).to_dict(),
        "cost": None if any(cost is None for cost in costs) else sum(cost for cost in costs if cost is not None),
        "truncated": sum(fusion.truncated for fusion in fusions) / max(len(fusions), 1),
        "seconds": round(seconds, 3),
    }


def _remark(summary: dict[str, Any], reports: Sequence[FusionReport], fuser: Fuser) -> None:
    """Print the summary of the fusions to standard error."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary["reasons"].items())
    note(
        f"{summary['rows']:,} rows in {summary['seconds']:.1f} s: {summary['fused']:,} fused answers by {fuser.name} "
        f"returned ({reasons})"
    )
    failed = next((report for report in reports if report.fusion is not None and report.fusion.error is not None), None)
    if failed is not None:
        note(f"the first failure: {failed.message}")
    if summary["truncated"]:
        note(f"{summary['truncated']:.1%} of the text was too long for the fuser to read")
