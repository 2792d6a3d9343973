"""``blend plan``: estimate a job on a file before it begins; a job compares itself with its plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm_blender.cli._options import (
    STDIO,
    BackendOptions,
    EnsembleOptions,
    JsonOption,
    OrderOption,
    PriorsOption,
    RankerOption,
    StrategyOptions,
    with_options,
)
from llm_blender.cli._output import counted, note, print_json, print_table
from llm_blender.cli._progress import dollars, job_progress, progress
from llm_blender.cli._rows import RowOptions, note_bad
from llm_blender.errors import InputError, RowError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_blender.config import Config
    from llm_blender.jobs.plan import Measured, Plan, Range, SampledRow
    from llm_blender.stages import RankableRow, RankedForm, Stage
    from llm_blender.types import Example

_ROWS, _SECONDS = 1024, 20.0  # of a sample that costs nothing, at most
_CHUNK = 64  # rows of a job's chunk
_HOUR = 3600.0
_NOT_MEASURED = "nothing was measured: --sample N works on N rows"
_NOT_CALLED = "no LLM was called: --sample N works on N rows, which may cost money"


@dataclass(frozen=True)
class ShapeOptions:
    """Options of `blend rank` and `blend fuse` on which their work depends."""

    priors: PriorsOption = None
    best_first: Annotated[bool, typer.Option("--sorted", help="Plan `blend rank --sorted`.")] = False
    best_of_n: Annotated[bool, typer.Option("--best-of-n", help="Plan `blend rank --best-of-n`.")] = False
    top_k: Annotated[int | None, typer.Option(min=1, help="Fuse at most K candidates [default: as configured; 3].")] = (
        None
    )
    order: OrderOption = "best_first"
    guard: Annotated[
        bool | None,
        typer.Option(
            "--guard/--no-guard", help="Compare fused texts with the best candidate [default: as configured]."
        ),
    ] = None

    @property
    def form(self) -> RankedForm:
        """Form of ranked rows."""
        if self.best_first and self.best_of_n:
            raise InputError("Choose one of --sorted and --best-of-n.")
        return "sorted" if self.best_first else "best_of_n" if self.best_of_n else "ranked"


@with_options
def plan(
    *,
    source: RowOptions,
    work: Annotated[
        Literal["rank", "fuse", "run"] | None,
        typer.Option(
            "--for", help="Plan this command.", show_default="rank where the first row holds candidates, else run"
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Work on N rows, drawn from all, and measure. Where an LLM behind an API is called, this costs money, "
            "and its answers are stored for the job.",
            show_default="1024, as far as 20 seconds reach, where no LLM is called, else 0",
        ),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, metavar="DOLLARS", help="Limit what the sample of `run` costs.")
    ] = None,
    ranker: RankerOption = None,
    backend: BackendOptions,
    strategy: StrategyOptions,
    shape: ShapeOptions,
    options: EnsembleOptions,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="Keep the plan in OUT.plan: the job with the output OUT prints it beside what it took.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate what `blend rank`, `fuse` or `run` will take for FILE: work, dollars and hours.

    Give the options of the job. All rows are read and counted, in constant memory. A sample of them is worked on and
    measured: its totals are extended to all rows by a regression on their characters and maximum comparisons, with a
    95 % interval for the draw of the sample; the load of the machine adds an error of its own. Rows are ranked, and
    fused without an LLM, for 20 seconds at most. LLMs are called only with --sample N. Without it, calls, completion
    tokens and dollars have maxima, as --max-cost computes them, and prompt tokens are a quarter of the characters.
    Answers that the store holds already are counted, and not paid for again by the job.

    Hours are those of this machine with these options, without the time to load the models: cpu of all threads
    together, wall with one process, gpu with one accelerator. With --actors N, the job takes the hours of N actors if
    each has what this process had.

    JSON: {work, rows, skipped, candidates, characters, calls: {LLM: n}, tokens: {prompt, completion}, comparisons,
    dollars, hours: {cpu, wall, gpu}, actors: {N: hours}, sample: {rows, seconds, dollars}, unknown: {name: reason}},
    where tokens, comparisons, dollars and hours are {expected, low, high, maximum}, and what is unknown is null.
    """
    from llm_blender.data import input_files

    files = input_files(source.file)
    work, loaded = work or _work_for(files), options.load_config()
    if work == "rank":
        made = _plan_rank(files, source, loaded, sample, ranker, backend, strategy, shape)
    elif work == "fuse":
        made = _plan_fuse(files, source, loaded, sample, ranker, strategy, shape, backend.device, options.mode)
    else:
        made = _plan_run(files, source, loaded, sample, max_cost, strategy.seed, options)
    if out is not None:
        path = plan_path(out)
        made.save(path)
        note(f"kept in {path}")
    if as_json:
        print_json({name: value for name, value in made.to_dict().items() if name != "settings_sha256"})
    else:
        _show(made)


def _work_for(files: Sequence[str]) -> Literal["rank", "run"]:
    """Return the command that the first row is for."""
    from llm_blender.data import read_records

    if files == [STDIO]:
        raise InputError("Standard input is read once: name the command with --for.")
    first = next((record for _, record in read_records(files[0]) if not isinstance(record, RowError)), {})
    return "rank" if first.get("candidates") else "run"


@dataclass(frozen=True)
class _Work:
    """The work on rows, and its bounds for each.

    Attributes:
        stage: the work.
        most_comparisons: maximum comparisons of a row.
        most_cost: maximum cost in dollars; None if it is unknown.
    """

    stage: Stage[Any]
    most_comparisons: Callable[[RankableRow], int]
    most_cost: Callable[[RankableRow], float | None] = lambda row: 0.0


@dataclass
class _Counted:
    """Counts of all rows of the files.

    Attributes:
        rows: well-formed rows.
        candidates: their candidates.
        characters: of their prompts and candidates; at least one a row.
        comparisons: maximum comparisons.
        dollars: maximum cost; None if it is unknown.
        bad: errors of the malformed rows.
        sample: rows drawn from all, in random order.
        reading: seconds of processor and clock that a job takes to read the rows: once to check them, once to work.
    """

    rows: int = 0
    candidates: int = 0
    characters: int = 0
    comparisons: int = 0
    dollars: float | None = 0.0
    bad: list[RowError] = field(default_factory=list)
    sample: list[SampledRow] = field(default_factory=list)
    reading: tuple[float, float] = (0.0, 0.0)

    @property
    def whole(self) -> tuple[float, ...]:
        """Sizes of all rows together: their number, characters and comparisons."""
        return self.rows, self.characters, self.comparisons

    def plan(self, work: str, stage: Stage[Any], measured: Measured, *, on_gpu: bool = False) -> Plan:
        """Make the plan of a job that calls no LLM."""
        from llm_blender.jobs import settings_digest
        from llm_blender.jobs.plan import ACTORS, Plan, Range

        cpu, wall = (
            seconds.plus(reading).times(1 / _HOUR)
            for seconds, reading in zip(measured.seconds(self.whole), self.reading, strict=True)
        )
        actors, alone = None, self.reading[1] / _HOUR
        if wall.expected is not None:
            actors = {str(n): alone + (wall.expected - alone) / n for n in ACTORS}
        return Plan(
            work,
            settings_digest(stage.settings),
            self.rows,
            len(self.bad),
            self.candidates,
            self.characters,
            tokens={"prompt": Range.exactly(0), "completion": Range.exactly(0)},
            dollars=Range.exactly(0),
            hours={"cpu": cpu, "wall": wall, "gpu": wall if on_gpu else Range.exactly(0)},
            actors=actors,
            sample={"rows": len(measured.rows), "seconds": sum(measured.wall), "dollars": measured.counted("paid")},
        )

    def check(self, file: str) -> None:
        """Refuse files without a row."""
        note_bad(self.bad)
        if not self.rows:
            raise InputError(f"{file} holds no row to plan for." + (f" The first: {self.bad[0]}" if self.bad else ""))


def _clocks() -> NDArray[np.float64]:
    """Return processor seconds of this process, and seconds."""
    import numpy as np

    return np.array([time.process_time(), time.perf_counter()])


def _count(files: Sequence[str], source: RowOptions, work: _Work, size: int, seed: int) -> _Counted:
    """Read all rows of files, count, and draw a sample of `size`."""
    import numpy as np

    from llm_blender.data.chunks import read_chunks
    from llm_blender.jobs.plan import Reservoir, SampledRow

    counted, sample = _Counted(), Reservoir[SampledRow](size, seed)
    began, parsing = _clocks(), np.zeros(2)
    for chunk in (chunk for file in files for chunk in read_chunks(file, _CHUNK)):
        records, before = chunk.records(), _clocks()
        for number, record in records:
            try:
                if isinstance(record, RowError):
                    raise record
                row = work.stage.parse(record)
            except ValueError as error:
                wrong = error if isinstance(error, RowError) else chunk.error(number, str(error))
                if not source.skip_bad:
                    raise wrong from None
                counted.bad.append(wrong)
                continue
            characters = max(len(row.prompt) + sum(map(len, row.texts)), 1)
            comparisons = work.most_comparisons(row)
            sample.add(SampledRow(record, characters, comparisons))
            counted.rows += 1
            counted.candidates += len(row.texts)
            counted.characters += characters
            counted.comparisons += comparisons
            if counted.dollars is not None:
                cost = work.most_cost(row)
                counted.dollars = None if cost is None else counted.dollars + cost
        parsing += _clocks() - before
    cpu, wall = 2 * (_clocks() - began) - parsing  # a job's stage parses the second time
    counted.reading = float(cpu), float(wall)
    counted.sample = sample.items()
    counted.check(source.file)
    return counted


def _plan_rank(
    files: Sequence[str],
    source: RowOptions,
    loaded: Config,
    size: int | None,
    ranker: str | None,
    backend: BackendOptions,
    strategy: StrategyOptions,
    shape: ShapeOptions,
) -> Plan:
    from llm_blender.cli._rankers import load_priors
    from llm_blender.cli.rank import rank_stage
    from llm_blender.ensemble.plan import most_comparisons
    from llm_blender.jobs.plan import Range, measure

    priors, options = load_priors(shape.priors or loaded.priors_path), strategy.settings(loaded.ranker)
    judge, form = loaded.ranker.judge, shape.form
    stage = rank_stage(loaded, ranker or loaded.ranker.name, source, form, priors, backend, strategy)
    stage.load()
    counting = {"strategy": options["strategy"], "budget": options["budget"]}
    k = 1 if form == "best_of_n" and priors is None and judge is None else None
    on_gpu = not str(stage.loading.get("device") or "cpu").startswith("cpu")
    work = _Work(stage, lambda row: most_comparisons(stage.ranker, len(row.texts), k, **counting))
    counted = _count(files, source, work, _ROWS if size is None else size, strategy.seed)
    limit = _SECONDS if size is None else None
    with progress("measuring", "rows") as report:
        measured = measure(stage, counted.sample, seconds=limit, progress=report)
    made = counted.plan("rank", stage, measured, on_gpu=on_gpu)
    made = replace(made, comparisons=measured.comparisons(counted.comparisons))
    if judge is None:
        return made.without(_NOT_MEASURED)
    made, reason = made.without(_NOT_MEASURED), f"the judge {judge} is not measured, nor in the hours"
    if (llm := judge.removeprefix("judge:")) not in [entry.name for entry in loaded.llm]:
        return made.without(reason, "judge")  # a ranker, which costs time only
    calls, tokens = {llm: 2 * loaded.ranker.judge_pairs * made.rows}, {"prompt": Range(), "completion": Range()}
    return replace(made, calls=calls, dollars=Range(), tokens=tokens).without(reason)


def _plan_fuse(
    files: Sequence[str],
    source: RowOptions,
    loaded: Config,
    size: int | None,
    ranker: str | None,
    strategy: StrategyOptions,
    shape: ShapeOptions,
    device: str | None,
    mode: str | None,
) -> Plan:
    from llm_blender.cli.fuse import fuse_stage, use_fuser
    from llm_blender.ensemble.plan import (
        fusion_counts,
        guard_comparisons,
        most_comparisons,
        most_fusing_cost,
        most_tokens,
    )
    from llm_blender.fusers.chat_fuser import ChatFuser
    from llm_blender.jobs.plan import Range, measure

    if mode == "pick":
        raise InputError("The mode pick fuses nothing: plan `blend rank`, or use fuse or auto.")
    options = strategy.settings(loaded.ranker)
    fusing: Literal["fuse", "auto"] = "auto" if mode == "auto" else "fuse"
    stage = fuse_stage(loaded, ranker, source, fusing, shape.top_k, shape.order, shape.guard, device, strategy)
    use_fuser(stage, loaded)
    guarded, counting = stage.guarded, {"strategy": options["strategy"], "budget": options["budget"]}
    guard = guard_comparisons(guarded.ranker) if stage.settings["guard"] else 0
    fuser = guarded.fuser if isinstance(guarded.fuser, ChatFuser) else None

    def comparisons(row: RankableRow) -> int:
        ranked = bool(stage.stored([row])) and ranker is None
        return guard + (0 if ranked else most_comparisons(guarded.ranker, len(row.texts), guarded.top_k, **counting))

    def cost(row: RankableRow) -> float | None:
        return 0.0 if fuser is None else most_fusing_cost(fuser, row.prompt, row.texts, guarded.top_k)

    free = _ROWS if fuser is None else 0
    counted = _count(files, source, _Work(stage, comparisons, cost), free if size is None else size, strategy.seed)
    with progress("measuring", "rows") as report:
        measured = measure(
            stage,
            counted.sample,
            group=None if fuser is None else _CHUNK,  # calls of an LLM are made together
            seconds=_SECONDS if size is None else None,
            count=fusion_counts,
            progress=report,
        )
    made = replace(counted.plan("fuse", stage, measured), comparisons=Range(maximum=counted.comparisons))
    made = made.without("rows of `blend fuse` do not count them", "comparisons")
    if fuser is None:
        return made.without(_NOT_MEASURED)
    tokens = {part: measured.count(f"{part}_tokens", counted.whole) for part in ("prompt", "completion")}
    if (longest := most_tokens(fuser.llm)) is not None:
        tokens["completion"] = tokens["completion"].within(longest * counted.rows)
    priced = not measured.counted("unpriced")
    dollars = measured.count("cost", counted.whole).within(counted.dollars) if priced else Range()
    made = replace(made, calls={fuser.llm.name: counted.rows}, tokens=tokens, dollars=dollars, actors=None)
    if counted.dollars is None:
        made = made.without(f"{fuser.llm.name} has no price, or no max_tokens", "dollars.maximum")
    return made.without("LLMs are called from one process", "actors").without(_NOT_CALLED)


def _plan_run(
    files: Sequence[str],
    source: RowOptions,
    loaded: Config,
    size: int | None,
    max_cost: float | None,
    seed: int,
    options: EnsembleOptions,
) -> Plan:
    from llm_blender.cli.ask import learned_priors, load_ensemble
    from llm_blender.data import read_instructions
    from llm_blender.ensemble import fuser_name
    from llm_blender.ensemble.plan import CHARACTERS_A_TOKEN, RunCalls, SampleCosts, ask_sample
    from llm_blender.ensemble.run import run_settings
    from llm_blender.jobs import settings_digest
    from llm_blender.jobs.plan import Plan, Range, Reservoir

    ensemble = load_ensemble(loaded, options)
    learned_priors(ensemble)
    calls, counted = RunCalls(ensemble), _Counted()
    drawn: Reservoir[Example] = Reservoir(size or 0, seed)
    for file in files:
        for row in read_instructions(file, "row", on_bad=counted.bad.append if source.skip_bad else None):
            counted.rows += 1
            counted.characters += len(row.prompt)
            counted.dollars = (counted.dollars or 0.0) + calls.most_cost(row)
            drawn.add(replace(row, id=str(counted.rows)))
    counted.check(source.file)
    rows, sample = counted.rows, drawn.items()
    answered: SampleCosts | None = None
    if sample:
        with job_progress("asking", "rows") as report:
            answered = ask_sample(
                ensemble, sample, seed=seed, max_cost=max_cost, allow_unpriced=max_cost is None, on_rows=report
            )
    whole = counted.whole[:2]

    def total(name: str) -> Range:
        return Range() if answered is None else answered.total(name, whole)

    prompt, completion, most = total("prompt"), total("completion"), calls.most_tokens
    if answered is None and not calls.reads_answers:
        prompt = Range(counted.characters * calls.count / CHARACTERS_A_TOKEN)
    at_once, cpu = (1, None) if answered is None else (answered.at_once, answered.cpu * rows / _HOUR)
    made = Plan(
        "run",
        settings_digest(run_settings(ensemble, [], ranker=loaded.ranker.name, fuser=fuser_name(loaded), seed=seed)),
        rows,
        len(counted.bad),
        None,
        counted.characters,
        {name: count * rows for name, count in calls.calls.items()},
        {"prompt": prompt, "completion": completion.within(None if most is None else most * rows)},
        total("comparisons").within(calls.most_comparisons() * rows),
        total("cost").within(None if calls.unpriced else counted.dollars),
        {"cpu": Range(cpu), "wall": total("seconds").times(1 / (at_once * _HOUR)), "gpu": Range.exactly(0)},
        None,
        {"rows": len(sample), **({"seconds": 0.0, "dollars": 0.0} if answered is None else answered.spent)},
    )
    if calls.unpriced:
        made = made.without(f"{calls.unpriced} has no price, or no max_tokens", "dollars.maximum")
    return made.without("LLMs are called from one process", "actors").without(_NOT_CALLED)


_COLUMNS = ("", "expected", "low", "high", "maximum")


def _show(plan: Plan) -> None:
    """Print a plan as a table, and what is unknown on standard error."""
    rows = [[name, f"{value:,}", "", "", ""] for name, value in _exact(plan)]
    for name, range_ in plan.ranges.items():
        words = _words(name)
        parts = (range_.expected, range_.low, range_.high, range_.maximum)
        if any(parts) or (name == "dollars" and range_.maximum == 0):  # notes name what is unknown
            rows.append([name, *("unknown" if part is None else words(part) for part in parts)])
    rows += [[counted(int(n), "actors"), _duration(hours), "", "", ""] for n, hours in (plan.actors or {}).items()]
    print_table(_COLUMNS, rows)
    for reason in dict.fromkeys(plan.unknown.values()):
        names = ", ".join(name for name, why in plan.unknown.items() if why == reason)
        note(f"{names} unknown: {reason}")


def _exact(plan: Plan) -> list[tuple[str, int]]:
    found = [("rows", plan.rows), ("rows of the sample", int(plan.sample["rows"]))]
    found += [] if plan.candidates is None else [("candidates", plan.candidates)]
    found += [(f"calls of {name}, at most", count) for name, count in plan.calls.items()]
    return found + [("calls of all, at most", sum(plan.calls.values()))] * (len(plan.calls) > 1)


def _words(name: str) -> Callable[[float], str]:
    if name.startswith("hours"):
        return _duration
    return dollars if name == "dollars" else lambda value: f"{value:,.0f}"


def _duration(hours: float) -> str:
    """Format hours in the largest unit that gives one or more."""
    for unit, factor in (("h", 1), ("min", 60)):
        if hours * factor >= 1:
            return f"{hours * factor:,.3g} {unit}"
    return f"{hours * _HOUR:.3g} s"


def plan_path(out: str) -> Path:
    """Return the file of the plan for a job's output."""
    return Path(f"{out.rstrip('/')}.plan")


@dataclass(frozen=True)
class Took:
    """Time and dollars of one run of a job.

    Attributes:
        rows: rows that it has worked on.
        wall: seconds.
        cpu: processor seconds of this process; None where others work, too.
        dollars: paid in all runs; None if it is unknown.
    """

    rows: int
    wall: float
    cpu: float | None = None
    dollars: float | None = None


def note_planned(out: str, work: str, settings: Mapping[str, Any], rows: int, took: Took) -> None:
    """Print what was estimated beside what a job has taken, if `blend plan` has made a plan for its output.

    Args:
        out: output of the job.
        work: kind of the job.
        settings: settings of the job, but for its rows.
        rows: its rows.
        took: what this run has taken; where earlier runs did some rows, the estimate is for the others.
    """
    path = plan_path(out)
    if out == STDIO or not path.is_file():
        return
    from llm_blender.jobs import settings_digest
    from llm_blender.jobs.plan import Plan

    plan = Plan.load(path)
    if plan is None or (plan.work, plan.settings_sha256, plan.rows) != (work, settings_digest(settings), rows):
        note(f"{path} was made for other rows or settings, and is not compared")
        return
    share = took.rows / rows
    name, spent = ("wall, one actor", took.wall) if took.cpu is None else ("cpu", took.cpu)
    pairs: list[tuple[str, Range, float, Callable[[float], str]]]
    pairs = [(f"hours.{name}", plan.hours[name.partition(",")[0]].times(share), spent / _HOUR, _duration)]
    if took.dollars is not None and plan.calls:
        pairs.append(("dollars", plan.dollars.plus(-plan.sample["dollars"]), took.dollars, dollars))  # paid by the plan
    for what, planned, actual, words in pairs if took.rows else ():
        known = [words(part) for part in (planned.low, planned.high) if part is not None]
        interval = f" ({' to '.join(known)})" if known else ""
        if planned.expected is not None:
            note(f"{what}: estimated {words(planned.expected)}{interval}, actual {words(actual)}")
        elif planned.maximum is not None:
            note(f"{what}: estimated at most {words(planned.maximum)}, actual {words(actual)}")
