"""What every bench of rankers asks: which rankers on which candidates, and how the results are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._options import BackendOption, DeviceOption, JsonOption, PrecisionOption
from llm_blender.cli._output import note
from llm_blender.errors import InputError, unknown_name

if TYPE_CHECKING:
    from llm_blender.rankers.llm_judge import LLMJudge
    from llm_blender.ranking import Priors
    from llm_blender.types import Ranker

__all__ = [
    "JUDGE",
    "BenchOptions",
    "LoadedRankers",
    "check_output",
    "load_judges",
    "load_priors",
    "load_rankers",
    "model_names",
    "note_judges",
    "note_other_ranker",
    "note_unknown",
]

JUDGE = "judge:"
"""Stands before the name of an LLM that compares."""

_CONCURRENCY = 32  # an LLM's own `concurrency` is the limit


def load_judges(names: Sequence[str], config: Path | None) -> dict[str, LLMJudge]:
    """The judges of these names, whose replies are kept in the user's store.

    Args:
        names: each ``judge:`` and the name of an LLM.
        config: None looks where ``blend ask`` does.

    Raises:
        InputError: there is no such LLM in the configuration, or something in it is wrong.
    """
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


def note_judges(judges: Mapping[str, LLMJudge]) -> None:
    """Say on standard error what they were asked and what it cost."""
    for name, judge in judges.items():
        totals = judge.totals
        cost = "cost unknown" if totals.cost is None else f"${totals.cost:.4f}"
        tokens = totals.usage.prompt_tokens + totals.usage.completion_tokens
        note(f"{name}: {totals.calls:,} calls, {totals.recalled:,} found in the store; {tokens:,} tokens, {cost}")
        if totals.unreadable:
            example = " ".join((totals.example or "").split())[:80]
            note(f"{name}: {totals.unreadable:,} replies held no verdict and count as ties, such as {example!r}")


@dataclass(frozen=True)
class BenchOptions:
    """The options of all of them."""

    rankers: Annotated[
        list[str] | None,
        typer.Option(
            "--ranker",
            metavar="NAME",
            help="`bundled`, a folder, or a Hub repository; `longest`, `shortest`, `consensus`, `first`, `random`; "
            "`mlm:` and a masked language model; `judge:` and an LLM of the configuration. May be given several times.",
            show_default="bundled",
        ),
    ] = None
    models: Annotated[str, typer.Option("--models", metavar="A,B,…", help="Only these LLMs' candidates.")] = ""
    consensus: Annotated[
        float | None,
        typer.Option(
            "--consensus",
            metavar="WEIGHT",
            min=0,
            help="Of what the candidates say of each other, in a PairRanker's logits; 0 lets the model alone decide.",
            show_default="the checkpoint's",
        ),
    ] = None
    complete: Annotated[
        bool, typer.Option("--complete", help="Only rows in which each of --models has the score, or was judged.")
    ] = False
    comparisons: Annotated[
        Path | None,
        typer.Option(
            "--comparisons",
            metavar="FILE",
            help="Keep the comparisons in this file and make none twice, whatever strategy or bench asks; an "
            "interrupted run goes on where it stopped.",
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Names the LLMs that judge.", show_default="blend.toml"),
    ] = None
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap, and of what a strategy draws.")] = 0
    backend: BackendOption = None
    device: DeviceOption = None
    precision: PrecisionOption = "int8"
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False
    as_json: JsonOption = False


def check_output(options: BenchOptions) -> None:
    """Refuse two formats at once.

    Raises:
        InputError: both are asked for.
    """
    if options.as_json and options.markdown:
        raise InputError("Choose one of --json and --markdown.")


def model_names(options: BenchOptions) -> list[str]:
    """The LLMs of ``--models``."""
    return [name for name in (part.strip() for part in options.models.split(",")) if name]


@dataclass(frozen=True)
class LoadedRankers:
    """Rankers by name, and those of them that are LLMs."""

    rankers: dict[str, Ranker]
    judges: dict[str, LLMJudge]


def load_rankers(options: BenchOptions) -> LoadedRankers:
    """The rankers of ``--ranker``, with the record of ``--comparisons`` before them where there is one."""
    from llm_blender.bench import RecordedRanker
    from llm_blender.rankers import load_ranker

    names = options.rankers or ["bundled"]
    judges = load_judges([name for name in names if name.startswith(JUDGE)], options.config)
    rankers: dict[str, Ranker] = {}
    for name in names:
        ranker = judges.get(name) or load_ranker(
            name,
            backend=options.backend,
            device=options.device,
            precision=options.precision,
            consensus=options.consensus,
        )
        rankers[name] = ranker if options.comparisons is None else RecordedRanker(ranker, options.comparisons, name)
    return LoadedRankers(rankers, judges)


def load_priors(path: Path | None) -> Priors | None:
    """The priors of a file, if one is given."""
    if path is None:
        return None
    from llm_blender.ranking import Priors

    return Priors.load(path)


def note_other_ranker(priors: Priors | None, ranker: str) -> None:
    """Tell where the weight was fitted beside another ranker."""
    if priors is not None and priors.ranker not in (None, ranker):
        note(f"the priors were fitted beside the ranker {priors.ranker}: their weight may not suit {ranker}")


def note_unknown(priors: Priors | None, models: Iterable[str | None]) -> None:
    """Tell which LLMs have no strength and count as the mean."""
    if priors is None:
        return
    named = {model for model in models if model is not None}
    unknown = sorted(named - set(priors.strengths))
    if not named & set(priors.strengths):
        note("the priors know none of the LLMs of these candidates: they change nothing")
    elif unknown:
        note(f"the priors do not know {', '.join(unknown)}: taken to be as good as the mean")
