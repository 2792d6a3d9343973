"""Whether a new ranker is better than the current one, on votes that it did not learn from; and in its place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench import JudgedPairs, labelled_pairs
from llm_blender.bench.judged_pairs import compare_pairs
from llm_blender.errors import InputError, NotFoundError, WorkError
from llm_blender.rankers import load_ranker
from llm_blender.rankers.checkpoints import BUNDLED, copy_checkpoint, find_checkpoint, read_config
from llm_blender.ranking import Interval, bootstrap_interval
from llm_blender.training.card import table
from llm_blender.training.votes import count_votes
from llm_blender.types import Comparison, Example, OnProgress

__all__ = ["Estimate", "Measured", "Trial", "replace_ranker", "replaceable", "trial_section", "try_ranker"]

_Floats = NDArray[np.float64]
_LEAST = 1e-12  # probability of what happened, that no loss is infinite


@dataclass(frozen=True)
class Estimate:
    """A mean over votes, and its 95 % interval, resampled by instruction."""

    value: float
    ci95: Interval

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.ci95.low:.3f} to {self.ci95.high:.3f})"


@dataclass(frozen=True)
class Measured:
    """One ranker on the votes.

    Attributes:
        agreement: share of the votes in which it prefers the same answer; a half where it prefers none.
        log_loss: mean of −log of the probability it gave to the vote, in nats; a coin has log 2.
    """

    agreement: Estimate
    log_loss: Estimate


@dataclass(frozen=True)
class Trial:
    """The new ranker and the current one on the same votes.

    Attributes:
        instructions: that were voted on.
        votes: on them.
        current: what the current one reaches.
        new: what the new one reaches.
        agreement_gain: that of the new one minus that of the current one, vote by vote.
        log_loss_change: likewise; below zero the new one is better.
    """

    instructions: int
    votes: int
    current: Measured
    new: Measured
    agreement_gain: Estimate
    log_loss_change: Estimate

    @property
    def better(self) -> bool:
        """Whether the new one is to replace the current one: log loss is surely lower, and agreement no lower."""
        return self.log_loss_change.ci95.high < 0 and self.agreement_gain.value >= 0

    @property
    def reason(self) -> str:
        """Why, in a sentence."""
        if self.log_loss_change.ci95.high >= 0:
            return "The new ranker is not better: the interval of the change in log loss is not all below zero."
        if self.agreement_gain.value < 0:
            return "The new ranker is not better: its log loss is lower, but it agrees with fewer votes."
        return "The new ranker is better: its log loss is lower, and it agrees with no fewer votes."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def try_ranker(
    rows: Sequence[Example], new: Path, current: str | Path, *, seed: int = 0, progress: OnProgress | None = None
) -> Trial:
    """Compare two rankers on votes that neither has learnt from, each as it would serve.

    Args:
        rows: with labelled pairs, none of them a tie.
        new: folder of a ranker.
        current: folder of a ranker, or its name.
        seed: of the bootstrap.
        progress: called with comparisons done and expected.
    """
    judged = labelled_pairs("the held-out votes", rows)
    rankers = [load_ranker(name) for name in (current, new)]

    def told(before: int) -> OnProgress | None:
        return progress and (lambda done, total: progress(before * total + done, len(rankers) * total))

    comparisons = [
        compare_pairs(ranker, judged.pairs, consensus=judged.consensus, progress=told(i))
        for i, ranker in enumerate(rankers)
    ]
    hits = [(1 + np.sign([one.logit for one in of_ranker]) * judged.sides) / 2 for of_ranker in comparisons]
    losses = [_losses(judged, of_ranker) for of_ranker in comparisons]

    def estimate(values: _Floats) -> Estimate:
        return Estimate(float(values.mean()), bootstrap_interval(values, judged.groups, seed=seed))

    return Trial(
        **count_votes(rows),
        current=Measured(estimate(hits[0]), estimate(losses[0])),
        new=Measured(estimate(hits[1]), estimate(losses[1])),
        agreement_gain=estimate(hits[1] - hits[0]),
        log_loss_change=estimate(losses[1] - losses[0]),
    )


def _losses(judged: JudgedPairs, comparisons: Sequence[Comparison]) -> _Floats:
    """``[n]``: −log of the probability of each vote."""
    a_better = np.array([comparison.probability for comparison in comparisons])
    voted = np.where(judged.a_wins, a_better, 1 - a_better)
    losses: _Floats = -np.log(np.maximum(voted, _LEAST))
    return losses


def trial_section(trial: Trial) -> str:
    """What the model card says of it, in Markdown."""
    rows = [
        ("agreement", trial.current.agreement, trial.new.agreement, trial.agreement_gain),
        ("log loss", trial.current.log_loss, trial.new.log_loss, trial.log_loss_change),
    ]
    return (
        f"## On votes that were held out\n\n{trial.votes:,} votes on {trial.instructions:,} instructions, with 95 % "
        "intervals over the instructions; the current ranker is the one that this was to replace.\n\n"
        f"{table(('', 'current', 'new', 'difference'), rows)}\n\n{trial.reason}\n"
    )


def replaceable(name: str, output: Path) -> Path:
    """The folder of a ranker that can be replaced by what is made in `output`.

    Raises:
        InputError: it is the bundled one, holds `output`, or cannot be moved.
        NotFoundError: there is no such folder.
        CheckpointError: it holds no ranker.
    """
    folder = Path(name).expanduser().resolve()
    advice = (
        '`blend export bundled my-ranker` makes a copy, `name = "./my-ranker"` under [ranker] in blend.toml takes it, '
        "and --replace my-ranker replaces it."
    )
    if name == BUNDLED or folder == find_checkpoint(BUNDLED).resolve():
        raise InputError(f"The bundled ranker belongs to the package and is not replaced: {advice}")
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {name} to replace: {advice}")
    read_config(folder)
    if output.resolve().is_relative_to(folder):
        raise InputError(f"{output} lies in {name}, which it is to replace: choose another output.")
    if not os.access(folder.parent, os.W_OK):
        raise InputError(f"{name} cannot be replaced: {folder.parent} cannot be written to.")
    return folder


def replace_ranker(checkpoint: Path, folder: Path) -> Path:
    """Put a copy of a checkpoint in a folder's place, which is kept beside it under the next free number.

    The copy is made whole before two renamings; if the second fails, the first is undone.

    Args:
        checkpoint: the new ranker.
        folder: as `replaceable` gives it.

    Returns:
        Where the former ranker is now.

    Raises:
        WorkError: the disk does not allow it; the former ranker is in its place.
    """
    kept = next(path for n in count(1) if not (path := folder.with_name(f"{folder.name}.{n}")).exists())
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as workspace:
            fresh = Path(workspace) / folder.name
            copy_checkpoint(checkpoint, fresh)
            shutil.copymode(folder, fresh)
            folder.rename(kept)
            try:
                fresh.rename(folder)
            except OSError:
                kept.rename(folder)
                raise
    except OSError as error:
        raise WorkError(f"{folder} was not replaced ({error}); the new ranker is in {checkpoint}.") from error
    return kept
