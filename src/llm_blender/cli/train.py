"""``blend train``: make a ranker, or a fuser, from rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_blender.cli._option_groups import with_options
from llm_blender.cli._options import JsonOption
from llm_blender.cli._output import note, print_json
from llm_blender.cli._progress import progress
from llm_blender.cli.calibrate import calibrate
from llm_blender.cli.train_fuser import fuser
from llm_blender.cli.train_votes import VotesOptions, train_on
from llm_blender.errors import InputError, MissingExtraError, NotFoundError, unknown_name

if TYPE_CHECKING:
    from llm_blender.training.recipes import Recipe

__all__ = ["app"]

app = typer.Typer(name="train", no_args_is_help=True, help="Train rankers and fusers.", rich_markup_mode=None)
app.command()(calibrate)
app.command()(fuser)


@app.callback()
def _train() -> None:
    """Train rankers and fusers."""


@app.command()
@with_options(VotesOptions)
def ranker(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE…]", help="Rows to learn from, when there is no --recipe.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the checkpoint.")] = Path(
        "ranker"
    ),
    kind: Annotated[
        str | None,
        typer.Option(
            "--ranker",
            help="pair_ranker, or a baseline: summa_reranker, simcls, reward_model, mlm_scoring "
            "[default: the recipe's, or pair_ranker].",
        ),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(metavar="TOML", help="Sources and settings of the run.")] = None,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the recipe's sources.")] = Path(),
    dev: Annotated[
        Path | None, typer.Option(metavar="DIR|FILE", help="Folder of the recipe's dev sources, or a file of rows.")
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Leave out training rows that ask what this test file asks. Repeatable."),
    ] = None,
    score: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Scores that imply pairs in FILE [default: all].")
    ] = None,
    pairs: Annotated[str, typer.Option(help="Pairs of FILE: implied (by scores) or labelled.")] = "implied",
    max_groups: Annotated[
        int | None, typer.Option(min=1, help="Groups of candidates drawn from each FILE [default: 2000].")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="The encoder: a Hub name or a folder [default: the recipe's].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the pairs.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything drawn.")] = None,
    as_json: JsonOption = False,
    *,
    options: VotesOptions,
) -> None:
    """Train a PairRanker, or a baseline; goes on where an earlier run with the same output stopped.

    With --votes, the new ranker is compared with the current one (that of --replace, else that of --init) on the votes
    that were held out. It is better if its log loss is lower, the whole 95 % interval of the difference below zero, and
    it agrees with no fewer votes; only then it replaces the folder, which is kept as DIR.1, DIR.2, …

    JSON: {output, pairs, steps, temperature, dev: {pairs, agreement, longest, flip_rate, ece, brier}, int8}; of a
    baseline, flip_rate is left out and int8 is empty. With --votes: {output, init, current, learnt:
    {instructions, votes}, held_out: {instructions, votes, current: {agreement: {value, ci95}, log_loss: {value, ci95}},
    new: {…}, agreement_gain: {value, ci95}, log_loss_change: {value, ci95}}, better, reason, replaced, former}.
    """
    try:
        from llm_blender.training.recipes import RANKERS
        from llm_blender.training.run import train_ranker
    except ModuleNotFoundError as error:
        raise MissingExtraError("Training", "train") from error
    from transformers.utils import logging

    if options != VotesOptions():
        others: dict[str, Any] = {
            "FILE": files,
            "--ranker": kind,
            "--recipe": recipe,
            "--data": data != Path(),
            "--dev": dev,
        }
        others |= {"--score": score, "--max-groups": max_groups, "--backbone": backbone}
        refused = [name for name, value in others.items() if value]
        train_on(options, output, refused, exclude=exclude or [], epochs=epochs, seed=seed or 0, as_json=as_json)
        return
    if dev is not None and not dev.exists():
        raise NotFoundError(f"There is no file or folder {dev}.")
    if kind is not None and kind not in RANKERS:
        raise unknown_name("ranker", kind, RANKERS)
    plan = _plan(files or [], recipe, dev, score or [], pairs, max_groups)
    changes = {
        name: value for name, value in {"epochs": epochs, "seed": seed, "ranker": kind}.items() if value is not None
    }
    plan = plan.model_copy(update=changes)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading weights: a blink
    with progress("training", "steps") as report:
        run = train_ranker(
            plan,
            data,
            data if dev is None else dev if dev.is_dir() else dev.parent,
            output,
            exclude=exclude or [],
            backbone=backbone,
            progress=report,
            note=note,
        )
    result: dict[str, Any] = {
        "output": str(output),
        "pairs": sum(count.pairs for count in run.sources),
        "steps": sum({entry["stage"]: entry["step"] for entry in run.log}.values()),  # the last of each stage
        "temperature": run.temperature,
        "dev": run.dev,
        "int8": run.int8,
    }
    if as_json:
        print_json(result)
    else:
        note(f"The checkpoint is in {output}, its model card in {output / 'README.md'}.")
        if run.dev:
            typer.echo(f"dev agreement {run.dev['agreement']:.3f} (longest {run.dev['longest']:.3f})")


def _plan(
    files: list[Path], recipe: Path | None, dev: Path | None, scores: list[str], pairs: str, max_groups: int | None
) -> Recipe:
    from llm_blender.training.recipes import Recipe, Source

    if recipe is not None:
        if files or scores or max_groups is not None or (dev is not None and dev.is_file()):
            raise InputError(
                "A recipe names its sources itself: leave out FILE, --score, --max-groups and a --dev FILE."
            )
        return Recipe.load(recipe)
    if not files:
        raise InputError("Nothing to learn from: give files of rows, or a --recipe.")
    if pairs not in ("implied", "labelled"):
        raise InputError(f"--pairs is implied or labelled, not {pairs!r}.")
    options: dict[str, Any] = {"pairs": pairs, "scores": tuple(scores)}
    if max_groups is not None:
        options["max_groups"] = max_groups
    sources = tuple(Source(file=str(path.absolute()), **options) for path in files)
    dev_sources = (Source(file=str(dev.absolute()), **options),) if dev is not None and dev.is_file() else ()
    return Recipe(sources=sources, dev_sources=dev_sources)
