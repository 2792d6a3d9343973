"""One training run of a fuser, from a recipe to a folder with its model card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llm_blender.errors import InputError
from llm_blender.fusers.gen_fuser.loading import Loaded
from llm_blender.training.fuser.batches import FuserBatches
from llm_blender.training.fuser.card import FuserRun, fuser_card
from llm_blender.training.fuser.learner import train_loaded
from llm_blender.training.fuser.model import new_fuser, save_fuser
from llm_blender.training.fuser.reading import Reader
from llm_blender.training.fuser.recipe import FuserRecipe
from llm_blender.training.fuser.rows import FuserRow, load_rows
from llm_blender.training.loop import checkpoints, claim
from llm_blender.training.sources import excluded_keys
from llm_blender.types import OnProgress

__all__ = ["FuserRun", "train_fuser"]


def train_fuser(
    recipe: FuserRecipe,
    data: Path,
    dev_data: Path,
    output: Path,
    *,
    exclude: Sequence[Path] = (),
    backbone: str | None = None,
    progress: OnProgress | None = None,
    note: Callable[[str], None] | None = None,
) -> FuserRun:
    """Train a GenFuser and write it with its model card (arXiv 2306.02561).

    It learns to write the reference of a row from the row's instruction and best candidates; only the answer's tokens
    count. Goes on from the last checkpoint in ``output/trainer``, if an earlier run of the same recipe was cut short;
    one of another recipe, or on other rows, is refused.

    Args:
        recipe: what to do.
        data: folder of the recipe's sources.
        dev_data: folder of its dev sources.
        output: folder of the fuser, for `GenFuser.from_pretrained`.
        exclude: files of rows whose prompts must not stand in the training rows.
        backbone: where the recipe's model is found, if not under its own name; an adapter names this place.
        progress: called with steps done and to do.
        note: called with a line for each evaluation.

    Raises:
        NotFoundError: a file or the model is not there.
        RowError: a row cannot be used.
        CheckpointError: the model is none that writes.
        InputError: there are no rows with reference and candidates, none fits into `recipe.max_length`, the model reads
            less than that, or `output` holds another run.
        MissingExtraError: an adapter is wanted and ``lora`` is not installed.
    """
    if not recipe.sources:
        raise InputError("Nothing to learn from: the recipe names no [[sources]].")
    keys = excluded_keys(exclude)
    train, counts = load_rows(recipe.sources, data, keys, recipe.top_k, recipe.seed)
    dev, dev_counts = load_rows(recipe.dev_sources, dev_data, keys, recipe.top_k, recipe.seed)
    claim(output / "trainer", recipe, backbone, train)
    loaded = new_fuser(recipe, backbone or recipe.backbone)
    batches, too_long = _batches(train, loaded, recipe)
    measured = _batches(dev, loaded, recipe, fixed=True)[0] if dev else None
    folder = output / "trainer" / "fuser"
    resumed = checkpoints(folder)[-1:]
    started = time.perf_counter()
    log = train_loaded(loaded, recipe, batches, measured, folder, progress=progress, note=note)
    run = FuserRun(
        recipe,
        tuple(counts),
        tuple(dev_counts),
        tuple(exclude),
        too_long=too_long,
        log=tuple(log),
        seconds=time.perf_counter() - started,
        resumed=int(resumed[0].name.rpartition("-")[2]) if resumed else 0,
    )
    save_fuser(loaded, recipe, backbone or recipe.backbone, output)
    (output / "README.md").write_text(fuser_card(run, output), encoding="utf-8")
    return run


def _batches(
    rows: Sequence[FuserRow], loaded: Loaded, recipe: FuserRecipe, *, fixed: bool = False
) -> tuple[FuserBatches, int]:
    """The batches of the rows that fit, and how many do not."""
    reader = Reader(loaded.tokenizer, loaded.seq2seq, recipe)
    read = [(row, len(tokens.prompt) + len(tokens.answer)) for row in rows if (tokens := reader.fits(row))]
    if not read:
        raise InputError(
            f"max_length {recipe.max_length} leaves no room for two candidates beside an answer: raise it, or lower "
            f"answer_max_length."
        )
    batches = FuserBatches(
        [row for row, _ in read],
        [length for _, length in read],
        reader,
        seq2seq=loaded.seq2seq,
        pad_id=loaded.model.generation_config.pad_token_id,
        recipe=recipe,
        fixed=fixed,
    )
    return batches, len(rows) - len(read)
