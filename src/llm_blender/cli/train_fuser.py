"""``blend train fuser``: train a GenFuser on rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_blender.cli._options import JsonOption, TrainingOptions, with_options
from llm_blender.cli._output import note, print_json
from llm_blender.cli._progress import progress
from llm_blender.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from llm_blender.training.recipes import FuserRecipe


def check_sources(files: list[Path], options: TrainingOptions, given: bool, names: str) -> None:
    """Check that a run has files of rows or a recipe, and not both.

    Args:
        files: arguments of the command.
        options: recipe and development rows.
        given: whether an option is given that describes `files`.
        names: names of such options, for the message.

    Raises:
        InputError: it has neither or both.
    """
    if options.recipe is not None and (files or given or options.dev_file):
        raise InputError(f"A recipe names its sources itself: leave out FILE, {names} and a --dev FILE.")
    if options.recipe is None and not files:
        raise InputError("Nothing to learn from: give files of rows, or a --recipe.")


@with_options
def fuser(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE…]", help="Rows with references and candidates, without a --recipe."),
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Write the fuser to this folder.")] = Path(
        "fuser"
    ),
    score: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Order the candidates of FILE by this score where rows hold no ranking."),
    ] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option(min=0, help="Set the LoRA adapter's rank; 0 trains the whole model [default: the recipe's]."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Train for N steps, instead of --epochs.")] = None,
    options: TrainingOptions,
    as_json: JsonOption = False,
) -> None:
    """Train a GenFuser; an interrupted run with the same output resumes.

    JSON: {output, rows, too_long, steps, seconds, dev: [{step, loss, loss_low, loss_high, rows, tokens}], remarks,
    pushed}; dev is the loss per token of the answers, before the first step and while it trains.
    """
    try:
        from llm_blender.training.fuser import train_fuser
        from llm_blender.training.processes import is_main_process
    except ModuleNotFoundError as error:
        raise MissingExtraError("Training", "train") from error

    plan = _plan(files or [], options, score)
    changes: dict[str, Any] = {"lora_rank": lora_rank, "epochs": options.epochs, "steps": steps, "seed": options.seed}
    changes["accumulate"] = options.accumulate
    if options.recipe is None:
        changes["backbone"] = options.backbone
    plan = plan.model_copy(update={name: value for name, value in changes.items() if value is not None})
    options.check_push()
    with progress("training", "steps", show=is_main_process()) as report:
        run = train_fuser(
            plan,
            options.data,
            options.dev_folder,
            output,
            exclude=options.exclude or [],
            backbone=None if options.recipe is None else options.backbone,
            progress=report,
            note=note,
        )
    if not is_main_process():
        return
    result: dict[str, Any] = {
        "output": str(output),
        "rows": sum(count.used for count in run.sources) - run.too_long,
        "too_long": run.too_long,
        "steps": run.steps,
        "seconds": run.seconds,
        "dev": run.evaluations,
        "remarks": run.remarks,
    }
    note(f"The fuser is in {output}, its model card in {output / 'README.md'}.")
    for remark in run.remarks:
        note(f"remark: {remark}")
    result["pushed"] = options.push(output)
    if as_json:
        print_json(result)
        return
    if run.evaluations:
        first, last = run.evaluations[0], run.evaluations[-1]
        interval = f"{last['loss_low']:.3f} to {last['loss_high']:.3f}"
        typer.echo(f"dev loss per token {last['loss']:.3f} (95 %: {interval}), before training {first['loss']:.3f}")


def _plan(files: list[Path], options: TrainingOptions, score: str | None) -> FuserRecipe:
    from llm_blender.training.recipes import FuserRecipe, FuserSource

    check_sources(files, options, score is not None, "--score")
    if options.recipe is not None:
        return FuserRecipe.load(options.recipe)
    paths = [*files, *([options.dev_file] if options.dev_file else [])]
    sources = tuple(
        FuserSource(file=str(path.absolute()), score=score or "", licence=options.licence) for path in paths
    )
    return FuserRecipe(sources=sources[: len(files)], dev_sources=sources[len(files) :])
