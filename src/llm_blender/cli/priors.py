"""``blend priors``: fit and show the strengths of LLMs."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm_blender.cli._options import (
    BackendOptions,
    BlindOnlyOption,
    ComparisonsOption,
    ConfigOption,
    JsonOption,
    ModelsOption,
    RankerOption,
    SeedOption,
    StrategyOption,
    cached_ranker,
    split_names,
    with_options,
)
from llm_blender.cli._output import note, print_json, print_table
from llm_blender.cli._progress import progress
from llm_blender.cli._rows import keep_input
from llm_blender.errors import InputError, NotFoundError, unknown_name

if TYPE_CHECKING:
    from llm_blender.ranking import Priors
    from llm_blender.types import Example

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Fit and show the strengths of LLMs.")


@app.command()
@with_options
def fit(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE…", help="Rows; - is standard input. None for --from votes and --from record."),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Write the priors to FILE, as JSON.")],
    learn_from: Annotated[
        Literal["scores", "pairs", "ranker", "votes", "record"],
        typer.Option(
            "--from",
            help="Learn from scores (--score), from the rows' labelled pairs, from the ranker, from votes of the "
            "playground, or from the record of this machine's rankings.",
        ),
    ],
    score: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take this score of the candidates, for --from scores and for --dev."),
    ] = None,
    models: ModelsOption = "",
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read votes or record from this store [default: LLM_BLENDER_STORE]."),
    ] = None,
    blind_only: BlindOnlyOption = False,
    dev: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Fit the weight of the priors on these rows; without them it is 1."),
    ] = None,
    ranker: RankerOption = None,
    config: ConfigOption = None,
    strategy: StrategyOption = "full",
    comparisons: ComparisonsOption = None,
    seed: SeedOption = 0,
    backend: BackendOptions,
    as_json: JsonOption = False,
) -> None:
    """Fit the strength of each LLM, for --priors and `[ranker] priors`.

    A strength is in logits, relative to the mean of the LLMs, and shrunk towards it if an LLM has few comparisons. Ties
    are ignored. Votes and record lie in the store, which `blend ask`, `blend run` and `blend serve` fill; the record
    needs no judge. With --dev, the strengths get the weight, and the ranker's logits the temperature, that maximise the
    likelihood of those rows' labels.

    JSON: {strengths, games, weight, weight_ci95, source, ranker, temperature, rows, dev}, where dev is {weight, ci95,
    temperature, pairs, log_loss, log_loss_without} or null.
    """
    from llm_blender.bench import named_rows, priors_from_judgements, priors_from_ranker, voted_rows, weigh_priors
    from llm_blender.config import load_config
    from llm_blender.history import History
    from llm_blender.ranking import comparison_count
    from llm_blender.store import Store

    if learn_from == "scores" and score is None:
        raise InputError("--from scores needs --score NAME.")
    if learn_from != "scores" and score is not None and dev is None:
        raise InputError(f"--from {learn_from} reads no score: leave --score out, or give --dev, which reads it.")
    if blind_only and learn_from != "votes":
        raise InputError(f"--from {learn_from} reads no votes: leave --blind-only out.")
    if learn_from in ("votes", "record"):
        if files:
            raise InputError(f"--from {learn_from} reads the store and no files: leave {files[0]} out.")
        if store is not None and not store.is_file():
            raise NotFoundError(f"There is no file {store}: name a store, or leave --store out.")
    elif not files or store is not None:
        wrong = "no store: leave --store out" if files else "files of rows: name one"
        raise InputError(f"--from {learn_from} reads {wrong}.")
    if not out.parent.is_dir():
        raise InputError(f"There is no folder {out.parent} for {out.name}: make it first.")
    keep_input([*(files or []), *([dev] if dev else [])], str(out))
    comparison_count(strategy, 2)  # reject an unknown strategy before reading
    configured = load_config(config).ranker
    ranker = ranker or configured.name
    names = split_names(models)
    dev_rows = None if dev is None else named_rows(_read([dev]), names, score)
    load = functools.cache(lambda: cached_ranker(backend.load(ranker, configured), ranker, comparisons))

    if learn_from == "record":
        priors, count = _recorded(store, names)
    else:
        if learn_from == "votes":
            with Store(store) as opened:
                rows = voted_rows(History(opened).voted(blind_only=blind_only), names)
        else:
            rows = named_rows(_read(files or []), names, score if learn_from == "scores" else None)
        count = len(rows)
        if learn_from == "ranker":
            with progress("learning", "comparisons") as report:
                priors = priors_from_ranker(rows, load(), ranker, strategy=strategy, seed=seed, progress=report)
        else:
            if shared := {row.prompt for row in rows} & {row.prompt for row in dev_rows or []}:
                note(f"{len(shared):,} instructions of --dev are in the other rows too: the weight will be too large")
            priors = priors_from_judgements(rows, source=f"scores {score}" if learn_from == "scores" else learn_from)
    weighed = None
    if dev_rows is not None:
        with progress("weighing", "comparisons") as report:
            priors, weighed = weigh_priors(
                priors, dev_rows, load(), ranker, strategy=strategy, seed=seed, progress=report
            )
    priors.save(out)
    if as_json:
        print_json({**priors.to_dict(), "rows": count, "dev": None if weighed is None else asdict(weighed)})
        return
    _print(priors)
    if weighed is None:
        note("the weight is 1; --dev FILE fits it")
    else:
        note(
            f"{weighed.pairs:,} judged pairs of {dev}: log loss {weighed.log_loss:.3f} with the priors, "
            f"{weighed.log_loss_without:.3f} without them at the best temperature, {math.log(2):.3f} by chance"
        )
        if not weighed.weight:
            note("the weight is 0: the strengths do not improve this ranker")


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Priors from `blend priors fit`.")],
    as_json: JsonOption = False,
) -> None:
    """Show strengths and weight of a file of priors.

    JSON: {strengths, games, weight, weight_ci95, source, ranker, temperature}.
    """
    from llm_blender.ranking import Priors

    priors = Priors.load(file)
    if as_json:
        print_json(priors.to_dict())
    else:
        _print(priors)


def _print(priors: Priors) -> None:
    """Print strengths on standard output, and their source on standard error."""
    strengths = priors.to_dict()["strengths"]
    rows = [(name, f"{value:+.2f}", f"{priors.games.get(name, 0):,}") for name, value in strengths.items()]
    print_table(("LLM", "strength", "games"), rows)
    interval = "" if priors.weight_ci95 is None else " (95 %: {:.2f} to {:.2f})".format(*priors.weight_ci95)
    beside = "" if priors.ranker is None else f", beside the ranker {priors.ranker}"
    warm = "" if priors.temperature is None else f" at a temperature of {priors.temperature:.2f}"
    note(f"learned from {priors.source or 'an unknown source'}; weight {priors.weight:.2f}{interval}{beside}{warm}")


def _recorded(store: Path | None, names: Sequence[str]) -> tuple[Priors, int]:
    """Fit strengths to the record of a store, with the newest model of each LLM, and count the rankings."""
    from llm_blender.record import Record
    from llm_blender.store import Store

    with Store(store) as opened:
        record = Record(opened)
        models = record.models()
        if not models:
            raise InputError("The record is empty: `blend ask`, `blend run` and `blend serve` fill it.")
        for name in names:
            if name not in models:
                raise unknown_name("LLM", name, models)
        learned = record.learn({name: model for name, model in models.items() if not names or name in names})
    if learned.priors is None:
        raise InputError("The record holds no comparison of two of these LLMs.")
    return learned.priors, learned.rankings


def _read(files: list[str]) -> Iterator[Example]:
    from llm_blender.data import read_rows

    return (row for file in files for row in read_rows(file))
