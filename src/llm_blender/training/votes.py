"""A ranker retrained on votes: which are learnt from, which are held out, and how much is changed for so few."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llm_blender.data import RowWriter, normalized_key, read_rows
from llm_blender.errors import InputError, NotFoundError
from llm_blender.history import History
from llm_blender.rankers.checkpoints import BUNDLED, find_checkpoint
from llm_blender.store import Store
from llm_blender.training.recipe import Recipe, Source
from llm_blender.types import Example, OnProgress

if TYPE_CHECKING:
    from llm_blender.rankers.pair_ranker import PairRankerConfig
    from llm_blender.training.card import Run

__all__ = [
    "LEAST_HELD_OUT",
    "LEAST_LEARNT",
    "SETTINGS",
    "SplitVotes",
    "count_votes",
    "read_votes",
    "split_votes",
    "train_on_votes",
]

LEAST_HELD_OUT = 20
"""Instructions whose votes compare two rankers; with fewer, an interval over them means little."""
LEAST_LEARNT = 30
"""Instructions whose votes are learnt from."""
_HELD_OUT = 0.2  # of the instructions

SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "alone": 0.0,  # each vote is a comparison
        "epochs": 4,
        "learning_rate": 2e-5,
        "batch_tokens": 4_096,
        "keep_init": 0.3,
    }
)
"""Fields of the recipe that suit some hundred votes."""
_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class SplitVotes:
    """Rows with votes, by what becomes of them; an instruction stands in one of the two parts."""

    learnt: tuple[Example, ...]
    held_out: tuple[Example, ...]


def read_votes(path: Path) -> list[Example]:
    """The rows that hold a vote for one of two different answers, without their other pairs.

    Args:
        path: rows with labelled `pairs`, or the store of ``blend serve``, which its first bytes tell from them.

    Raises:
        NotFoundError: there is no such file.
        RowError: a row cannot be used.
        StoreError: it is a damaged store.
    """
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}: give rows with labelled pairs, or the store of `blend serve`.")
    with path.open("rb") as file:
        is_store = file.read(len(_SQLITE)) == _SQLITE
    if is_store:
        with Store(path) as store:
            rows = [answer.example for answer in History(store).voted()]
    else:
        rows = list(read_rows(path))
    return [decisive for row in rows if (decisive := _decisive(row)).pairs]


def _decisive(row: Example) -> Example:
    texts = [candidate.text.strip() for candidate in row.candidates]
    kept = tuple(pair for pair in row.pairs if pair.label != "tie" and texts[pair.a] != texts[pair.b])
    return dataclasses.replace(row, pairs=kept)


def split_votes(rows: Sequence[Example], seed: int) -> SplitVotes:
    """Hold a fifth of the instructions out, or `LEAST_HELD_OUT` of them.

    Seed and instruction alone say which: when more votes come, one that was learnt from before is not held out later,
    so that a ranker is never measured on what an earlier round taught it.

    Raises:
        InputError: the votes are too few.
    """
    shares = {key: _share(key, seed) for key in map(normalized_key, rows)}
    least = LEAST_HELD_OUT + LEAST_LEARNT
    if len(shares) < least:
        raise InputError(
            f"There are votes on {len(shares)} instructions (ties are none), and {least} are needed: {LEAST_LEARNT} to "
            f"learn from and {LEAST_HELD_OUT} to compare the new ranker with the current one. "
            f"Vote on {least - len(shares)} more."
        )
    lowest = sorted(shares, key=lambda key: shares[key])
    held_out = {key for key in lowest if shares[key] < _HELD_OUT} | set(lowest[:LEAST_HELD_OUT])
    return SplitVotes(
        tuple(row for row in rows if normalized_key(row) not in held_out),
        tuple(row for row in rows if normalized_key(row) in held_out),
    )


def _share(key: str, seed: int) -> float:
    """A number from 0 to 1 that is drawn for this instruction."""
    digest = hashlib.sha256(f"{seed} {key}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def count_votes(rows: Sequence[Example]) -> dict[str, int]:
    """How many instructions and votes these are."""
    return {"instructions": len(set(map(normalized_key, rows))), "votes": sum(len(row.pairs) for row in rows)}


def train_on_votes(
    votes: SplitVotes,
    output: Path,
    *,
    init: str = BUNDLED,
    epochs: int | None = None,
    seed: int = 0,
    exclude: Sequence[Path] = (),
    settings: Mapping[str, Any] = SETTINGS,
    progress: OnProgress | None = None,
    note: Callable[[str], None] | None = None,
) -> Run:
    """Train a PairRanker on, and write its checkpoint; goes on where an earlier run stopped.

    It reads what `init` reads, at the same lengths, and keeps its temperature and its weight of the consensus: votes
    this few would not tell better ones, and those that are held out must not.

    Args:
        votes: those to learn from, and those that are kept beside them; both go to ``output/votes``.
        output: folder of the checkpoint.
        init: the PairRanker to start from: ``bundled``, a folder, or a Hub repository.
        epochs: passes over the votes.
        seed: of order and dropout.
        exclude: files of rows whose instructions are not learnt from.
        settings: other fields of the recipe.
        progress: called with steps done and known of.
        note: called with a line for each evaluation.

    Raises:
        NotFoundError: there is no such ranker.
        CheckpointError: it is no PairRanker.
        InputError: it reads in a way that training does not know, or `output` holds another run.
    """
    from llm_blender.rankers.pair_ranker import PairRankerConfig
    from llm_blender.training.run import train_ranker

    config = PairRankerConfig.load(find_checkpoint(init))
    recipe = _recipe(init, config, len(votes.learnt), seed, epochs, settings)
    folder = output / "votes"
    _write(folder, {"learnt.jsonl": votes.learnt, "held-out.jsonl": votes.held_out})
    run = train_ranker(recipe, folder, folder, output, exclude=exclude, progress=progress, note=note)
    trained = PairRankerConfig.load(output)
    dataclasses.replace(trained, temperature=config.temperature, evidence_weights=config.evidence_weights).save(output)
    return run


def _recipe(
    init: str, config: PairRankerConfig, rows: int, seed: int, epochs: int | None, settings: Mapping[str, Any]
) -> Recipe:
    own = {name: getattr(config, name) for name in ("max_length", "source_max_length", "pooling", "alone_layers")}
    ours = type(config)(
        config.backbone, temperature=config.temperature, evidence_weights=config.evidence_weights, **own
    )
    if ours != config:
        others = [
            field.name
            for field in dataclasses.fields(config)
            if getattr(ours, field.name) != getattr(config, field.name)
        ]
        raise InputError(
            f"{init} reads texts as training does not ({', '.join(others)}): start from `{BUNDLED}`, or from a ranker "
            "that `blend train ranker` made."
        )
    source = Source(file="learnt.jsonl", pairs="labelled", max_groups=rows, name="votes", licence="your own")
    changed = {"seed": seed, "init": init} | ({} if init == BUNDLED else {"backbone": init})
    changed |= {} if epochs is None else {"epochs": epochs}
    return Recipe.model_validate({"sources": (source,), **settings, **own, **changed})


def _write(folder: Path, parts: dict[str, Sequence[Example]]) -> None:
    """Write the votes of this run, unless they stand there already.

    Raises:
        InputError: those of another run stand there.
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
