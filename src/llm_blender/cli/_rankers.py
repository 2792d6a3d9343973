"""Rankers, judges and priors of the benches, and the options of all benches of rankers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import (
    BackendOptions,
    ComparisonsOption,
    ConfigOption,
    JsonOption,
    LimitOption,
    MarkdownOption,
    ModelsOption,
    SeedOption,
    cached_ranker,
    split_names,
)
from llm_blender.cli._output import counted, note, print_json, print_table
from llm_blender.errors import InputError, describe_failures, unknown_name

if TYPE_CHECKING:
    from llm_blender.bench import Table
    from llm_blender.bench.report import Result
    from llm_blender.config import Config
    from llm_blender.ensemble import Judge
    from llm_blender.rankers.llm_judge import LLMJudge
    from llm_blender.ranking import CloseCalls, Priors
    from llm_blender.stages import RankableRow
    from llm_blender.types import Candidate, Example, Ranker, Ranking

FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="Rows; - is standard input.")]
FilesArgument = Annotated[list[str], typer.Argument(metavar="FILE…", help="Rows; - is standard input.")]
QualityOption = Annotated[
    str, typer.Option("--score", metavar="NAME", help="Measure quality by this score of the candidates.")
]

JUDGE = "judge:"
"""Prefix of the name of an LLM that judges."""

_CONCURRENCY = 32  # an LLM's own `concurrency` is the limit


def load_judges(names: Sequence[str], config: Path | None) -> dict[str, LLMJudge]:
    """Load the LLM judges of names like ``judge:LLM``; the user's store keeps their replies."""
    if not names:
        return {}
    from llm_blender.config import load_config
    from llm_blender.ensemble import Ensemble
    from llm_blender.rankers.llm_judge import LLMJudge
    from llm_blender.store import Store

    llms = {member.llm.name: member.llm for member in Ensemble.from_config(load_config(config)).members}
    judges = {}
    for name in names:
        llm = name.removeprefix(JUDGE)
        if llm not in llms:
            raise unknown_name("LLM", llm, llms)
        judges[name] = LLMJudge(llms[llm], concurrency=_CONCURRENCY, store=Store())
    return judges


def load_close_judge(config: Config) -> Judge | None:
    """Load the judge of close calls, and no other LLM, of a configuration; None if it names none."""
    if config.ranker.judge is None:
        return None
    from llm_blender.cli.ask import fetch_model
    from llm_blender.config import EmbeddedConfig
    from llm_blender.ensemble import Judge, load_judge
    from llm_blender.llms import load_llm
    from llm_blender.store import Store

    entries = [entry for entry in config.llm if entry.name == config.ranker.judge.removeprefix(JUDGE)]
    for entry in entries:
        if isinstance(entry, EmbeddedConfig):
            fetch_model(entry.model)
    judge = load_judge(
        config.ranker.judge, [load_llm(entry, config.folder) for entry in entries], Store(), config.ranker.on_torch
    )
    models = [entry.model for entry in entries]
    alike = [entry.name for entry in config.llm if entry.model in models]  # the same model under other names
    return Judge(judge.name, judge.ranker, {*judge.writers, *alike})


def close_calls(config: Config) -> CloseCalls:
    """Return which pairs the judge of a configuration compares."""
    from llm_blender.ranking import CloseCalls

    return CloseCalls(config.ranker.judge_margin, config.ranker.judge_pairs)


def judge_rows(
    judge: Judge,
    rankings: Sequence[Ranking],
    rows: Sequence[RankableRow],
    models: Sequence[Sequence[str | None]],
    config: Config,
    on_paid: Callable[[Candidate], object],
) -> list[Ranking]:
    """Add the verdicts of a judge to the rankings of rows, within the maximum cost of each.

    `on_paid` gets each reply that was paid for.
    """
    from llm_blender.calls import Budget, run_to_end
    from llm_blender.store import Store

    limits, rule = config.limits, close_calls(config)
    return run_to_end(
        lambda: judge.judge(
            rankings,
            [row.prompt for row in rows],
            [row.texts for row in rows],
            rule,
            models=models,
            budgets=[Budget(limits.max_cost, allow_unpriced=limits.allow_unpriced, on_paid=on_paid) for _ in rows],
            store=Store(),
        )
    )


def note_judges(judges: Mapping[str, LLMJudge]) -> None:
    """Print the calls of the judges and their cost to standard error."""
    for name, judge in judges.items():
        totals = judge.totals
        cost = "cost unknown" if totals.cost is None else f"${totals.cost:.4f}"
        tokens = totals.usage.prompt_tokens + totals.usage.completion_tokens
        calls = f"{counted(totals.calls, 'calls')}, {totals.recalled:,} found in the store"
        note(f"{name}: {calls}; {counted(tokens, 'tokens')}, {cost}")
        if totals.unreadable:
            example = " ".join((totals.example or "").split())[:80]
            note(f"{name}: {totals.unreadable:,} replies held no verdict and count as ties, such as {example!r}")


@dataclass(frozen=True)
class BenchOptions(BackendOptions):
    """Rankers and candidates of a bench, and the format of its results."""

    rankers: Annotated[
        list[str] | None,
        typer.Option(
            "--ranker",
            metavar="NAME",
            help="Measure `bundled`, a folder, or a Hub repository; `longest`, `shortest`, `consensus`, `first`, "
            "`random`; `mlm:` and a masked language model; `judge:` and an LLM of the configuration. Repeatable.",
            show_default="bundled",
        ),
    ] = None
    models: ModelsOption = ""
    model_only: Annotated[
        bool,
        typer.Option(
            "--model-only",
            help="Leave out what counts beside a PairRanker's model, such as consensus.",
        ),
    ] = False
    complete: Annotated[
        bool, typer.Option("--complete", help="Keep only rows in which each of --models has the score, or was judged.")
    ] = False
    comparisons: ComparisonsOption = None
    limit: LimitOption = None
    config: ConfigOption = None
    seed: SeedOption = 0
    markdown: MarkdownOption = False
    as_json: JsonOption = False

    def __post_init__(self) -> None:
        check_format(as_json=self.as_json, markdown=self.markdown)


def check_format(*, as_json: bool, markdown: bool) -> None:
    """Refuse two output formats at once."""
    if as_json and markdown:
        raise InputError("Choose one of --json and --markdown.")


def first_rows(file: str, limit: int | None) -> Iterable[Example]:
    """Read the rows of a file, with ``--limit`` only the first ones, and note that."""
    from llm_blender.data import read_rows

    if limit is None:
        return read_rows(file)
    rows = list(itertools.islice(read_rows(file), limit))
    note_limit(file, limit)
    return rows


def note_limit(file: str, limit: int | None) -> None:
    """Print that only the first rows of a file count."""
    if limit is not None:
        note(f"{file}: only the first {limit:,} rows count (--limit)")


def limited(limit: int | None) -> dict[str, int]:
    """Return what JSON says of ``--limit``; nothing without it."""
    return {} if limit is None else {"limit": limit}


def compared_models(options: BenchOptions) -> list[str]:
    """Split the LLMs of ``--models``, which a bench of scores needs for ``--complete``.

    Raises:
        InputError: there are none with ``--complete``.
    """
    names = split_names(options.models)
    if options.complete and not names:
        raise InputError("--complete needs --models: name the LLMs.")
    return names


def print_results(results: Sequence[Result], table: Table, options: BenchOptions) -> None:
    """Print results as JSON or as a table on standard output."""
    if options.as_json:
        print_json([result.to_dict() | limited(options.limit) for result in results])
    elif options.markdown:
        typer.echo(table.markdown())
    else:
        print_table(table.columns, table.rows)


def note_drawn(paths: Iterable[Path]) -> None:
    """Print the names of drawn files to standard error."""
    for path in paths:
        note(f"{path} drawn")


@dataclass(frozen=True)
class LoadedRankers:
    """Rankers by name, and the LLM judges among them."""

    rankers: dict[str, Ranker]
    judges: dict[str, LLMJudge]


def load_rankers(options: BenchOptions) -> LoadedRankers:
    """Load the rankers of ``--ranker``, with the cache of ``--comparisons`` if it is given."""
    from llm_blender.rankers import runs_model
    from llm_blender.rankers.checkpoints import weights_hash

    names = options.rankers or ["bundled"]
    modelless = [name for name in names if name.startswith(JUDGE) or not runs_model(name)]
    if options.given and modelless == names:
        raise InputError(f"{', '.join(names)}: no model runs here, so leave out {' and '.join(options.given)}.")
    if options.given and modelless:
        note(f"{' and '.join(options.given)}: not for {', '.join(modelless)}")
    judges = load_judges([name for name in names if name.startswith(JUDGE)], options.config)
    rankers: dict[str, Ranker] = {}
    for name in names:
        loading = BackendOptions() if name in modelless else options
        ranker = judges.get(name) or loading.load(name, evidence=not options.model_only)
        if isinstance(folder := getattr(ranker, "folder", None), Path):
            note(f"{name}: weights {weights_hash(folder)[:12]}")
        rankers[name] = cached_ranker(ranker, name, options.comparisons)
    return LoadedRankers(rankers, judges)


def note_seen(file: str, prompts: Iterable[str], rankers: Mapping[str, Ranker]) -> None:
    """Print a warning for each ranker that was trained on instructions of a file, whose figures flatter it."""
    from llm_blender.data import normalized_key
    from llm_blender.rankers.checkpoints import count_seen
    from llm_blender.types import Example

    keys = {normalized_key(Example(prompt)) for prompt in prompts}
    for name, ranker in rankers.items():
        folder = getattr(ranker, "folder", None) or getattr(getattr(ranker, "ranker", None), "folder", None)
        if isinstance(folder, Path) and (seen := count_seen(folder, keys)):
            note(
                f"warning: {name} was trained or calibrated on {seen:,} of the {len(keys):,} instructions of {file}: "
                "its figures flatter it there. Measure it on other rows."
            )


def load_priors(path: Path | None) -> Priors | None:
    """Load the priors of a file, if one is given."""
    from llm_blender.ranking import Priors

    return None if path is None else Priors.load(path)


def note_other_ranker(priors: Priors | None, ranker: str) -> None:
    """Print a warning if the priors' weight was fitted for another ranker."""
    if priors is not None and priors.ranker not in (None, ranker):
        note(f"the priors were fitted for the ranker {priors.ranker}: their weight may not suit {ranker}")


def note_judge(judge: Judge | None, models: Iterable[str | None]) -> None:
    """Print a warning if a judge of close calls is one of the LLMs that answer."""
    if judge is not None and judge.is_among(models):
        note(f"the judge {judge.name} is also one of the LLMs that answer: LLMs prefer their own answers")


def judge_failures(rankings: Iterable[Ranking]) -> list[str]:
    """Return why close calls of rankings have no verdict."""
    judgings = [ranking.evidence.judging for ranking in rankings if ranking.evidence is not None]
    return [describe_failures([judging.failure]) for judging in judgings if judging is not None and judging.failure]


def note_failed_judge(reasons: Sequence[str]) -> None:
    """Print how many close calls have no verdict because the judge failed, and the first reason."""
    if reasons:
        calls = "a close call has" if len(reasons) == 1 else f"{len(reasons):,} close calls have"
        note(f"{calls} no verdict of the judge: {reasons[0]}")


def note_unknown(priors: Priors | None, models: Iterable[str | None]) -> None:
    """Print which LLMs have no strength; they count as average."""
    if priors is None:
        return
    named = {model for model in models if model is not None}
    unknown = sorted(named - set(priors.strengths))
    if not named & set(priors.strengths):
        note("the priors know none of these LLMs and change nothing")
    elif unknown:
        note(f"the priors do not know {', '.join(unknown)}: they count as average")
