"""Retraining of a PairRanker on votes, its evaluation on held-out votes, and the replacement of the current one."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench import JudgedPairs, labelled_pairs, ranker_predictions
from llm_blender.data import RowWriter, normalized_key, read_rows
from llm_blender.errors import InputError, NotFoundError, WorkError
from llm_blender.history import BLIND, History
from llm_blender.rankers import load_ranker
from llm_blender.rankers.checkpoints import BUNDLED, copy_checkpoint, find_checkpoint, read_config
from llm_blender.ranking import Interval, bootstrap_interval
from llm_blender.store import Store
from llm_blender.training.card import table
from llm_blender.training.groups import share_of
from llm_blender.training.processes import number_of_processes
from llm_blender.training.recipes import FEW_PAIRS, Recipe, Source
from llm_blender.types import Example, OnProgress

if TYPE_CHECKING:
    from llm_blender.training.card import Run
    from llm_blender.training.loop import Reports

_MIN_HELD_OUT = 20  # instructions; with fewer, an interval over them means little
_MIN_LEARNT = 30  # instructions
# Instructions to fit to. On two tastes, fitted to 20 the bundled ranker's log loss rose by 0.001 and 0.010 nats, fitted
# to 40 it fell by 0.005 and 0.003: fewer are better learnt from.
_MIN_FITTED = 40
_HELD_OUT = 0.2  # share of the instructions; likewise of those to fit to, of the others

SETTINGS: Mapping[str, Any] = MappingProxyType({**FEW_PAIRS, "epochs": 4})
"""Recipe settings for some hundred votes."""
_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class SplitVotes:
    """Rows with votes in three parts without a common instruction.

    Attributes:
        learnt: votes to learn from.
        fitted: votes to fit temperature and evidence to; empty if they are too few.
        held_out: votes to compare the new ranker with the current one.
    """

    learnt: tuple[Example, ...]
    fitted: tuple[Example, ...]
    held_out: tuple[Example, ...]


def read_votes(path: str | Path, *, blind_only: bool = False) -> list[Example]:
    """Read the rows with votes for one of two different answers, without their other pairs.

    Args:
        path: file of rows with labelled `pairs`, or store of ``blend serve``, recognised by its first bytes.
        blind_only: leave out votes that are not `BLIND`; otherwise all count alike.

    Raises:
        NotFoundError: there is no such file.
        RowError: a row cannot be used.
        StoreError: the store is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}: give rows with labelled pairs, or the store of `blend serve`.")
    with path.open("rb") as file:
        is_store = file.read(len(_SQLITE)) == _SQLITE
    if is_store:
        with Store(path) as store:
            rows = [answer.example for answer in History(store).voted()]
    else:
        rows = list(read_rows(path))
    return [decisive for row in rows if (decisive := _decisive(row, blind_only)).pairs]


def _decisive(row: Example, blind_only: bool) -> Example:
    texts = [candidate.text.strip() for candidate in row.candidates]
    kept = (pair for pair in row.pairs if pair.label != "tie" and texts[pair.a] != texts[pair.b])
    return dataclasses.replace(row, pairs=tuple(pair for pair in kept if pair.by == BLIND or not blind_only))


def split_votes(rows: Sequence[Example], seed: int) -> SplitVotes:
    """Hold out a fifth of the instructions, at least 20, and a fifth of the others to fit to, if that is 40 or more.

    The choice depends only on seed and instruction. So when more votes come in, an instruction learnt from or fitted to
    before is not held out later, and a ranker is never evaluated on what an earlier round taught it.

    Raises:
        InputError: there are too few votes.
    """
    shares = {key: share_of(key, seed) for key in map(normalized_key, rows)}
    least = _MIN_HELD_OUT + _MIN_LEARNT
    if len(shares) < least:
        raise InputError(
            f"There are votes on {len(shares)} instructions (ties are none), and {least} are needed: {_MIN_LEARNT} to "
            f"learn from and {_MIN_HELD_OUT} to compare the new ranker with the current one. "
            f"Vote on {least - len(shares)} more."
        )
    lowest = sorted(shares, key=lambda key: shares[key])
    held_out = max(sum(share < _HELD_OUT for share in shares.values()), _MIN_HELD_OUT)
    fitted = int(_HELD_OUT * (len(lowest) - held_out))
    parts = dict.fromkeys(lowest, "learnt")
    parts |= dict.fromkeys(lowest[: held_out + fitted if fitted >= _MIN_FITTED else held_out], "fitted")
    parts |= dict.fromkeys(lowest[:held_out], "held_out")
    split: dict[str, list[Example]] = {"learnt": [], "fitted": [], "held_out": []}
    for row in rows:
        split[parts[normalized_key(row)]].append(row)
    return SplitVotes(**{part: tuple(of_part) for part, of_part in split.items()})


def count_votes(rows: Sequence[Example]) -> dict[str, int]:
    """Count instructions and votes."""
    return {"instructions": len(set(map(normalized_key, rows))), "votes": sum(len(row.pairs) for row in rows)}


def train_on_votes(
    votes: SplitVotes,
    output: Path,
    *,
    init: str = BUNDLED,
    epochs: int | None = None,
    seed: int = 0,
    exclude: Sequence[str | Path] = (),
    settings: Mapping[str, Any] = SETTINGS,
    **reports: Unpack[Reports],
) -> Run:
    """Train a PairRanker further on votes and write its checkpoint; an interrupted run resumes.

    Temperature and evidence are fitted to `SplitVotes.fitted`; without such votes, those of `init` stay.

    Args:
        votes: votes to learn from, to fit to, and held-out ones; all are written to ``output/votes``.
        output: folder of the checkpoint.
        init: PairRanker to start from: ``bundled``, a folder, or a Hub repository.
        epochs: passes over the votes; None for those of `settings`.
        seed: of order and dropout.
        exclude: test files; votes on their instructions are not learnt from.
        settings: other fields of the recipe.
        **reports: see `llm_blender.training.loop.Reports`.

    Raises:
        NotFoundError: there is no such ranker.
        CheckpointError: it is no PairRanker.
        InputError: it has the layout of llm-blender 0.0.2, `output` holds another run, or several processes share
            this one.
    """
    from llm_blender.training.run import train_ranker

    if number_of_processes() > 1:
        raise InputError("Votes are few, and one process learns from them: start `blend train ranker --votes` alone.")
    recipe = _recipe(init, votes, seed, epochs, settings)
    folder = output / "votes"
    parts = {"learnt.jsonl": votes.learnt, "fitted.jsonl": votes.fitted, "held-out.jsonl": votes.held_out}
    _write(folder, {name: rows for name, rows in parts.items() if rows})
    return train_ranker(recipe, folder, folder, output, exclude=exclude, **reports)


def _recipe(init: str, votes: SplitVotes, seed: int, epochs: int | None, settings: Mapping[str, Any]) -> Recipe:
    sources, dev_sources = (
        (Source(file=file, pairs="labelled", max_groups=len(rows), name="votes", licence="your own"),) if rows else ()
        for file, rows in (("learnt.jsonl", votes.learnt), ("fitted.jsonl", votes.fitted))
    )
    changed = {"seed": seed, "init": init} | ({} if epochs is None else {"epochs": epochs})
    return Recipe.model_validate({"sources": sources, "dev_sources": dev_sources, **settings, **changed})


def _write(folder: Path, parts: dict[str, Sequence[Example]]) -> None:
    """Write the votes of this run, unless the folder holds them.

    Raises:
        InputError: the folder holds the votes of another run.
    """
    for name, rows in parts.items():
        path = folder / name
        if path.exists() and [row.to_dict() for row in read_rows(path)] != [row.to_dict() for row in rows]:
            raise InputError(f"{folder.parent} belongs to a run on other votes: choose another output, or remove it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write to {folder}: {error.strerror}.") from error
    for name, rows in parts.items():
        with RowWriter(folder / name) as writer:
            for row in rows:
                writer.write({key: value for key, value in row.to_dict().items() if key != "extra"})


_Floats = NDArray[np.float64]
_LEAST = 1e-12  # probability, so that no loss is infinite


@dataclass(frozen=True)
class Estimate:
    """Mean over votes, with its 95 % interval, resampled by instruction."""

    value: float
    ci95: Interval

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.ci95.low:.3f} to {self.ci95.high:.3f})"


@dataclass(frozen=True)
class VoteQuality:
    """Quality of one ranker on votes.

    Attributes:
        agreement: share of the votes in which it prefers the same answer; a half if it prefers none.
        log_loss: mean of −log of the vote's probability, in nats; log 2 for a coin.
    """

    agreement: Estimate
    log_loss: Estimate


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a new ranker against the current one, on the same votes.

    Attributes:
        instructions: number of instructions.
        votes: number of votes on them.
        current: quality of the current ranker.
        new: quality of the new ranker.
        agreement_gain: agreement of the new ranker minus that of the current one, paired by vote.
        log_loss_change: likewise; below zero, the new ranker is better.
    """

    instructions: int
    votes: int
    current: VoteQuality
    new: VoteQuality
    agreement_gain: Estimate
    log_loss_change: Estimate

    @property
    def better(self) -> bool:
        """Whether the new ranker should replace the current one: log loss surely lower, agreement no lower."""
        return self.log_loss_change.ci95.high < 0 and self.agreement_gain.value >= 0

    @property
    def reason(self) -> str:
        """Reason for `better`, one sentence."""
        if self.log_loss_change.ci95.high >= 0:
            return "The new ranker is not better: the interval of the change in log loss is not all below zero."
        if self.agreement_gain.value < 0:
            return "The new ranker is not better: its log loss is lower, but it agrees with fewer votes."
        return "The new ranker is better: its log loss is lower, and it agrees with no fewer votes."

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def evaluate_on_votes(
    rows: Sequence[Example], new: Path, current: str | Path, *, seed: int = 0, progress: OnProgress | None = None
) -> Evaluation:
    """Compare two rankers on votes that neither learnt from, each as it would serve.

    Args:
        rows: with labelled pairs, none of them a tie.
        new: folder of a ranker.
        current: folder or name of a ranker.
        seed: of the bootstrap.
        progress: called with comparisons done and expected.
    """
    judged = labelled_pairs("the held-out votes", rows)
    hits, losses = [], []
    for before, name in enumerate((current, new)):
        found = ranker_predictions(judged, load_ranker(name), str(name), progress=_part(progress, before, 2))
        hits.append((1 + np.sign(found.logits) * judged.sides) / 2)
        losses.append(_losses(judged, np.asarray(found.probabilities)))

    def estimate(values: _Floats) -> Estimate:
        return Estimate(float(values.mean()), bootstrap_interval(values, judged.groups, seed=seed))

    return Evaluation(
        **count_votes(rows),
        current=VoteQuality(estimate(hits[0]), estimate(losses[0])),
        new=VoteQuality(estimate(hits[1]), estimate(losses[1])),
        agreement_gain=estimate(hits[1] - hits[0]),
        log_loss_change=estimate(losses[1] - losses[0]),
    )


def _part(progress: OnProgress | None, before: int, parts: int) -> OnProgress | None:
    """Report the progress of one of several equal parts as that of the whole."""
    return progress and (lambda done, total: progress(before * total + done, parts * total))


def _losses(judged: JudgedPairs, probabilities: _Floats) -> _Floats:
    """Compute −log of the probability of each vote, ``[n]``."""
    voted = np.where(judged.a_wins, probabilities, 1 - probabilities)
    losses: _Floats = -np.log(np.maximum(voted, _LEAST))
    return losses


def evaluation_section(evaluation: Evaluation) -> str:
    """Write the section of the model card, in Markdown."""
    current, new = evaluation.current, evaluation.new
    rows = [
        ("agreement", current.agreement, new.agreement, evaluation.agreement_gain),
        ("log loss", current.log_loss, new.log_loss, evaluation.log_loss_change),
    ]
    return (
        f"## On votes that were held out\n\n{evaluation.votes:,} votes on {evaluation.instructions:,} instructions, "
        "with 95 % intervals over the instructions; the current ranker is the one that this was to replace.\n\n"
        f"{table(('', 'current', 'new', 'difference'), rows)}\n\n{evaluation.reason}\n"
    )


def replaceable(name: str, output: Path) -> Path:
    """Return the folder of a ranker, after checking that the one made in `output` can replace it.

    Raises:
        InputError: it is the bundled ranker, contains `output`, or cannot be moved.
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
        raise InputError(f"{output} lies in {name}, which it would replace: choose another output.")
    if not os.access(folder.parent, os.W_OK):
        raise InputError(f"{name} cannot be replaced: {folder.parent} cannot be written to.")
    return folder


def replace_ranker(checkpoint: Path, folder: Path) -> Path:
    """Replace a folder by a copy of a checkpoint; the former one is kept next to it under the next free number.

    The copy is complete before the two renamings; if the second fails, the first is undone.

    Args:
        checkpoint: folder of the new ranker.
        folder: from `replaceable`.

    Returns:
        New folder of the former ranker.

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
