"""``blend train ranker --votes``: the ranker that votes make, and whether it replaces the current one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_blender.cli._output import note, print_json
from llm_blender.cli._progress import progress
from llm_blender.errors import InputError

__all__ = ["VotesOptions", "train_on"]


@dataclasses.dataclass(frozen=True)
class VotesOptions:
    """Those of the votes."""

    votes: Annotated[
        Path | None,
        typer.Option(
            "--votes",
            metavar="FILE|DB",
            help="Learn from votes: rows with labelled pairs, or the store of `blend serve`. A fifth of the "
            "instructions is held out, and compares the new ranker with the current one.",
        ),
    ] = None
    init: Annotated[
        str | None,
        typer.Option("--init", metavar="RANKER", help="Of --votes: the PairRanker to start from [default: bundled]."),
    ] = None
    replace: Annotated[
        str | None,
        typer.Option(
            "--replace",
            metavar="DIR",
            help="Of --votes: the current ranker's folder, which the new one replaces if it is better.",
        ),
    ] = None


def train_on(
    options: VotesOptions,
    output: Path,
    refused: Sequence[str],
    *,
    exclude: Sequence[Path],
    epochs: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Train on the votes, compare, and replace what is to be replaced if the new ranker is better.

    Args:
        options: of the votes.
        output: folder of the checkpoint.
        refused: options that were given and mean nothing beside votes.
        exclude: files of rows whose instructions are not learnt from.
        epochs: passes over the votes; None is what suits few.
        seed: of everything drawn.
        as_json: print JSON.
    """
    from llm_blender.rankers.checkpoints import BUNDLED
    from llm_blender.training.votes import (
        count_votes,
        read_votes,
        replace_ranker,
        replaceable,
        split_votes,
        train_on_votes,
        trial_section,
        try_ranker,
    )

    if options.votes is None:
        raise InputError("--init and --replace are of --votes: give the votes.")
    if refused:
        raise InputError(
            f"--votes says what is learnt from, and --init what it starts from: leave out {', '.join(refused)}."
        )
    init = options.init or BUNDLED
    folder = None if options.replace is None else replaceable(options.replace, output)
    votes = split_votes(read_votes(options.votes), seed)
    learnt = count_votes(votes.learnt)
    note("Learning from {votes:,} votes on {instructions:,} instructions.".format(**learnt))
    with progress("training", "steps") as report:
        train_on_votes(votes, output, init=init, epochs=epochs, seed=seed, exclude=exclude, progress=report, note=note)
    note(f"The checkpoint is in {output}.")
    with progress("comparing", "comparisons") as report:
        trial = try_ranker(votes.held_out, output, folder or init, seed=seed, progress=report)
    with (output / "README.md").open("a", encoding="utf-8") as card:
        card.write(f"\n{trial_section(trial)}")
    kept = replace_ranker(output, folder) if folder is not None and trial.better else None
    note(trial.reason)
    if kept is not None:
        note(f"It replaces {options.replace}, for a service from its next start; the former ranker is in {kept}.")
    elif folder is not None:
        note(f"{options.replace} stays as it is.")
    if as_json:
        result: dict[str, Any] = {
            "output": str(output),
            "init": init,
            "current": options.replace or init,
            "learnt": learnt,
            "held_out": trial.to_dict(),
            "better": trial.better,
            "reason": trial.reason,
            "replaced": None if kept is None else options.replace,
            "former": None if kept is None else str(kept),
        }
        print_json(result)
        return
    typer.echo(f"on {trial.votes:,} votes that were held out, on {trial.instructions:,} instructions (95 %)")
    typer.echo(f"agreement {trial.new.agreement}, before {trial.current.agreement}; difference {trial.agreement_gain}")
    typer.echo(f"log loss {trial.new.log_loss}, before {trial.current.log_loss}; difference {trial.log_loss_change}")
