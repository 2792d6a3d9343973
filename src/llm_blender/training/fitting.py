"""Training of a PairRanker on rows in memory, as ``blend train ranker`` trains it on files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from llm_blender.data import RowWriter, parse_judged_row
from llm_blender.errors import InputError
from llm_blender.rankers.checkpoints import BUNDLED, find_checkpoint
from llm_blender.training.card import Run
from llm_blender.training.loop import Reports
from llm_blender.training.recipes import TRAINING_ON, Recipe, Source
from llm_blender.training.run import train_ranker
from llm_blender.types import Example


def recipe_for(files: Sequence[Source], dev: Sequence[Source], changes: Mapping[str, Any]) -> Recipe:
    """Make the recipe of a run on files, without a recipe of the user's.

    Args:
        files: to train on.
        dev: to measure on; empty holds out a part of `files`.
        changes: fields of the recipe that are not the defaults; with `init`, the others are those of `TRAINING_ON`.

    Raises:
        ConfigError: a field is unknown or wrong.
    """
    settings = TRAINING_ON if changes.get("init") else {"hold_out": TRAINING_ON["hold_out"]}
    given = {name: value for name, value in changes.items() if value is not None}
    return Recipe.parse({"sources": tuple(files), "dev_sources": tuple(dev), **settings, **given}, "The settings")


def fit_ranker(
    init: Path,
    pairs: Iterable[Mapping[str, Any] | Example],
    dev: Iterable[Mapping[str, Any] | Example] | None,
    output: Path,
    *,
    licence: str = "",
    settings: Mapping[str, Any],
    **reports: Unpack[Reports],
) -> Run:
    """Train a PairRanker on with rows, as `llm_blender.PairRanker.fit` does.

    Args:
        init: checkpoint that is trained on.
        pairs: rows with labelled pairs, scores or votes.
        dev: rows to evaluate on; None holds out a part of `pairs`.
        output: folder of the checkpoint; the rows are written to ``rows`` in it, as what the card describes.
        licence: of the data, for the card.
        settings: fields of the recipe, see `recipe_for`.
        **reports: see `Reports`.

    Raises:
        ConfigError: a setting is unknown or wrong.
        InputError: a row cannot be read; the message gives its number.
    """
    recipe = recipe_for([], [], {**settings, "init": str(init)})  # before the rows are read and written
    if init == find_checkpoint(BUNDLED):
        recipe = recipe.model_copy(update={"init": BUNDLED})
    sources = [_write(output / "rows" / "train.jsonl", pairs, licence)]
    dev_sources = [] if dev is None else [_write(output / "rows" / "dev.jsonl", dev, licence)]
    recipe = recipe.model_copy(update={"sources": tuple(sources), "dev_sources": tuple(dev_sources)})
    return train_ranker(recipe, output / "rows", output / "rows", output, **reports)


def _write(path: Path, rows: Iterable[Mapping[str, Any] | Example], licence: str) -> Source:
    if isinstance(rows, str | os.PathLike):
        raise InputError(f"Pairs are rows, not a path: use `blend train ranker {rows} --init bundled`.")
    records = [row.to_dict() if isinstance(row, Example) else dict(row) for row in rows]
    for number, record in enumerate(records):
        try:
            parse_judged_row(record)
        except ValueError as error:
            raise InputError(f"Row {number} of {path.stem}: {error}.") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with RowWriter(path) as writer:
        for record in records:
            writer.write({key: value for key, value in record.items() if key != "extra"})
    return Source(file=path.name, licence=licence)
