"""``blend fuse``: fuse the best candidates of each row of a file."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm_blender.cli._options import STDIO, DeviceOption, FuserOption, JsonOption
from llm_blender.cli._output import note, print_json
from llm_blender.cli._progress import progress
from llm_blender.cli._rows import (
    BudgetOption,
    FileArgument,
    ModelsOption,
    OutOption,
    SeedOption,
    SkipBadOption,
    StrategyOption,
    split_names,
)
from llm_blender.cli.config import ConfigOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_blender.cli._rows import RankableRow
    from llm_blender.config import Config
    from llm_blender.llms import EmbeddedLLM
    from llm_blender.types import Fuser, FusionReport, Ranker, Ranking

__all__ = ["fuse"]

_CHUNK = 64  # rows fused together: enough to fill the batches, few enough to see how far it is


def fuse(
    file: FileArgument,
    out: OutOption = STDIO,
    fuser: FuserOption = None,
    mode: Annotated[
        Literal["fuse", "auto"], typer.Option("--mode", help="fuse every row, or where it may pay.")
    ] = "fuse",
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", min=1, help="Candidates to fuse, at most; 1 rewrites the best [default: as configured; 3]."
        ),
    ] = None,
    order: Annotated[
        Literal["best_first", "best_last", "shuffled"],
        typer.Option("--order", help="In which order the fuser reads them."),
    ] = "best_first",
    guard: Annotated[
        bool | None,
        typer.Option(
            "--guard/--no-guard",
            help="Give back a fused text only where the ranker prefers it [default: as configured; guard].",
        ),
    ] = None,
    ranker: Annotated[
        str | None,
        typer.Option(
            "--ranker",
            metavar="NAME",
            help="Rank all rows with this one; without it, rows that `blend rank` has ranked keep their ranking.",
        ),
    ] = None,
    strategy: StrategyOption = "auto",
    budget: BudgetOption = 40,
    seed: SeedOption = 0,
    models: ModelsOption = "",
    config: ConfigOption = None,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fuse the best candidates of each row of FILE into one answer.

    A row is {instruction, input?, candidates: [{text, model?}] or [text], ranking?, …}. It comes out with all its keys,
    `ranking`, and `fusion`: {answer, returned, reason, probability?, text?, fuser?, used?, …}. There, answer is the
    fused text, or the best candidate where the fused one is worse or no answer at all; text is what the fuser wrote in
    either case, and used are the candidates that it read. The file is checked to its end before the work begins; OUT
    appears whole or not at all. Answers of an LLM are kept, and found again the next time.

    JSON, where the rows do not go to standard output: {rows, skipped, fused, reasons, usage, cost, truncated, seconds}.
    """
    from llm_blender.cli._rows import RankableRows
    from llm_blender.config import load_config
    from llm_blender.data import RowWriter
    from llm_blender.fusers import FusionRule, GuardedFuser
    from llm_blender.rankers import load_ranker
    from llm_blender.ranking import comparison_count

    comparison_count(strategy, 2, budget=budget)  # refuses a wrong name before anything is read
    loaded, started = load_config(config), time.monotonic()
    settings = loaded.fuser
    with RankableRows.open(file, models=split_names(models), skip_bad=skip_bad) as rows:
        judge = load_ranker(ranker or loaded.ranker.name)
        guarded = GuardedFuser(
            _load(fuser, device, loaded),
            judge,
            mode=mode,
            top_k=top_k or settings.top_k,
            order=order,
            guard=settings.guard if guard is None else guard,
            rule=FusionRule(**settings.thresholds),
        )
        reports: list[FusionReport] = []
        show = out != STDIO or not sys.stdout.isatty()
        with RowWriter(out) as writer, progress("fusing", "rows", show=show) as tell:
            for chunk in rows.chunks(_CHUNK):
                known = {} if ranker else _stored(chunk, with_lead=mode == "auto")
                rankings = _ranked(chunk, known, judge, strategy=strategy, seed=seed, budget=budget)
                before = len(reports)
                reports += guarded.fuse_many(
                    [row.example.instruction for row in chunk],
                    [row.texts for row in chunk],
                    rankings,
                    inputs=[row.example.input for row in chunk],
                    seed=seed,
                    progress=lambda done, total, before=before: tell(before + done, rows.count),  # type: ignore[misc]
                )
                tell(len(reports), rows.count)
                for i, (row, report) in enumerate(zip(chunk, reports[before:], strict=True)):
                    ranking = {} if i in known else {"ranking": rankings[i].summary()}
                    writer.write({**row.record, **ranking, "fusion": report.to_dict()})
    summary = _summary(reports, skipped=len(rows.bad), seconds=time.monotonic() - started)
    _remark(summary, reports, guarded.fuser)
    if rows.bad:
        note(f"{len(rows.bad):,} bad rows left out, the first: {rows.bad[0]}")
    if as_json and out != STDIO:
        print_json(summary)


def _load(name: str | None, device: str | None, config: Config) -> Fuser:
    """The fuser of that name, or the configuration's."""
    from llm_blender.cli.ask import make_ensemble
    from llm_blender.ensemble import fuser_name
    from llm_blender.fusers import CHAT, load_fuser

    if name is not None:
        config = config.model_copy(update={"fuser": config.fuser.model_copy(update={"name": name})})
    name = fuser_name(config)
    if name.partition(":")[0] != CHAT or device is not None:
        return load_fuser(name, device=device, run=_embedded)
    return make_ensemble(config, [], None).fuser


def _embedded(model: str) -> EmbeddedLLM:
    from llm_blender.cli.ask import fetch_model
    from llm_blender.llms import EmbeddedLLM

    return EmbeddedLLM(model, fetch_model(model))


def _stored(chunk: Sequence[RankableRow], *, with_lead: bool) -> dict[int, Ranking]:
    """The rankings that rows hold, where they can be used; on request only those whose lead is known."""
    from llm_blender.data import stored_ranking

    rankings = {}
    for i, row in enumerate(chunk):
        with suppress(ValueError):
            ranking = stored_ranking(row.example)
            if not with_lead or len(ranking) < 2 or ranking.lead is not None:
                rankings[i] = ranking
    return rankings


def _ranked(chunk: Sequence[RankableRow], known: dict[int, Ranking], ranker: Ranker, **options: Any) -> list[Ranking]:
    """The known rankings, and for the other rows the ranker's."""
    missing = [i for i in range(len(chunk)) if i not in known]
    ranked = ranker.rank_many([chunk[i].prompt for i in missing], [chunk[i].texts for i in missing], **options)
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
    """Say on standard error what the fusing came to."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary["reasons"].items())
    note(
        f"{summary['rows']:,} rows in {summary['seconds']:.1f} s: {summary['fused']:,} fused answers by {fuser.name} "
        f"given back ({reasons})"
    )
    failed = next((report for report in reports if report.fusion is not None and report.fusion.error is not None), None)
    if failed is not None:
        note(f"the first failure: {failed.message}")
    if summary["truncated"]:
        note(f"{summary['truncated']:.1%} of the text was too long for the fuser to read")
