"""``blend train fuser``: train a GenFuser on rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_blender.cli._options import JsonOption
from llm_blender.cli._output import note, print_json
from llm_blender.cli._progress import progress
from llm_blender.errors import InputError, MissingExtraError, NotFoundError

if TYPE_CHECKING:
    from llm_blender.training.recipes import FuserRecipe

__all__ = ["DataOption", "DevOption", "ExcludeOption", "RecipeOption", "check_sources", "dev_folder", "fuser"]

RecipeOption = Annotated[Path | None, typer.Option(metavar="TOML", help="Sources and settings of the run.")]
DataOption = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the recipe's sources.")]
DevOption = Annotated[
    Path | None, typer.Option(metavar="DIR|FILE", help="Folder of the recipe's dev sources, or a file of rows.")
]
ExcludeOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Leave out training rows whose instruction is in this test file. Repeatable."),
]


def dev_folder(data: Path, dev: Path | None) -> Path:
    """Return the folder of the development sources.

    Raises:
        NotFoundError: there is no such file or folder.
    """
    if dev is None:
        return data
    if not dev.exists():
        raise NotFoundError(f"There is no file or folder {dev}.")
    return dev if dev.is_dir() else dev.parent


def check_sources(files: list[Path], recipe: Path | None, dev: Path | None, given: bool, options: str) -> None:
    """Check that a run has files of rows or a recipe, and not both.

    Args:
        files: arguments of the command.
        recipe: path of the recipe, if any.
        dev: file or folder of development rows.
        given: whether an option is given that describes `files`.
        options: names of these options, for the message.

    Raises:
        InputError: it has neither or both.
    """
    if recipe is not None and (files or given or (dev is not None and dev.is_file())):
        raise InputError(f"A recipe names its sources itself: leave out FILE, {options} and a --dev FILE.")
    if recipe is None and not files:
        raise InputError("Nothing to learn from: give files of rows, or a --recipe.")


def fuser(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE…]", help="Rows with references and candidates, when there is no --recipe."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the fuser.")] = Path("fuser"),
    recipe: RecipeOption = None,
    data: DataOption = Path(),
    dev: DevOption = None,
    exclude: ExcludeOption = None,
    score: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Score that orders the candidates of FILE where no ranking is stored."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="A sequence-to-sequence model or causal LLM: a Hub name or a folder [default: the recipe's]."
        ),
    ] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option(min=0, help="Rank of a LoRA adapter; 0 trains the whole model [default: the recipe's]."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the rows.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the run, in place of epochs.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything drawn.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a GenFuser; an interrupted run with the same output resumes.

    JSON: {output, rows, too_long, steps, seconds, dev: [{step, loss, loss_low, loss_high, rows, tokens}]}; dev is the
    loss per token of the answers, before the first step and while it trains.
    """
    try:
        from llm_blender.training.fuser import train_fuser
    except ModuleNotFoundError as error:
        raise MissingExtraError("Training", "train") from error

    dev_data = dev_folder(data, dev)
    plan = _plan(files or [], recipe, dev, score)
    changes: dict[str, Any] = {"lora_rank": lora_rank, "epochs": epochs, "steps": steps, "seed": seed}
    if recipe is None:
        changes["backbone"] = backbone
    plan = plan.model_copy(update={name: value for name, value in changes.items() if value is not None})
    with progress("training", "steps") as report:
        run = train_fuser(
            plan,
            data,
            dev_data,
            output,
            exclude=exclude or [],
            backbone=None if recipe is None else backbone,
            progress=report,
            note=note,
        )
    result: dict[str, Any] = {
        "output": str(output),
        "rows": sum(count.used for count in run.sources) - run.too_long,
        "too_long": run.too_long,
        "steps": run.steps,
        "seconds": run.seconds,
        "dev": run.evaluations,
    }
    if as_json:
        print_json(result)
        return
    note(f"The fuser is in {output}, its model card in {output / 'README.md'}.")
    if run.evaluations:
        first, last = run.evaluations[0], run.evaluations[-1]
        interval = f"{last['loss_low']:.3f} to {last['loss_high']:.3f}"
        typer.echo(f"dev loss per token {last['loss']:.3f} (95 %: {interval}), before training {first['loss']:.3f}")


def _plan(files: list[Path], recipe: Path | None, dev: Path | None, score: str | None) -> FuserRecipe:
    from llm_blender.training.recipes import FuserRecipe, FuserSource

    check_sources(files, recipe, dev, score is not None, "--score")
    if recipe is not None:
        return FuserRecipe.load(recipe)
    paths = [*files, *([dev] if dev is not None and dev.is_file() else [])]
    sources = tuple(FuserSource(file=str(path.absolute()), score=score or "") for path in paths)
    return FuserRecipe(sources=sources[: len(files)], dev_sources=sources[len(files) :])
