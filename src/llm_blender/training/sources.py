"""A recipe's files read, without what test files ask, and turned into pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm_blender.data import normalized_key, read_rows
from llm_blender.training.pairs import TrainingPair, draw_pairs
from llm_blender.training.recipe import Source
from llm_blender.types import Example

__all__ = ["SourceCount", "excluded_keys", "load_pairs"]


@dataclass(frozen=True)
class SourceCount:
    """What one file gave: rows read, rows left out because a test file asks the same, pairs drawn."""

    source: Source
    path: Path
    rows: int
    excluded: int
    pairs: int


def excluded_keys(files: Sequence[Path]) -> frozenset[str]:
    """The normalised prompts of test files, which must not stand in training rows."""
    return frozenset(normalized_key(row) for path in files for row in read_rows(path))


def load_pairs(
    sources: Sequence[Source], folder: Path, excluded: frozenset[str], seed: int
) -> tuple[list[TrainingPair], list[SourceCount]]:
    """Draw the pairs of all sources, mixed.

    Raises:
        NotFoundError: a source's file is not in the folder.
        RowError: a row cannot be used.
    """
    pairs: list[TrainingPair] = []
    counts: list[SourceCount] = []
    for position, source in enumerate(sources):
        path = folder / source.file
        rows: list[Example] = list(read_rows(path))
        kept = [row for row in rows if not excluded or normalized_key(row) not in excluded]
        drawn = draw_pairs(kept, source, seed * 1_000 + position)
        counts.append(SourceCount(source, path, len(rows), len(rows) - len(kept), len(drawn)))
        pairs += drawn
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [pairs[i] for i in order], counts
