"""What every bench of rankers asks: which rankers on which candidates, and how the results are shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_blender.cli._judges import JUDGE, load_judges
from llm_blender.cli._options import BackendOption, DeviceOption, JsonOption, PrecisionOption
from llm_blender.errors import InputError

if TYPE_CHECKING:
    from llm_blender.rankers.llm_judge import LLMJudge
    from llm_blender.types import Ranker

__all__ = ["BenchOptions", "LoadedRankers", "check_output", "load_rankers", "model_names"]


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
