"""A recipe's files read, without what test files ask, and turned into pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm_blender.data import normalized_key, read_rows
from llm_blender.training.groups import TrainingGroup, draw_groups
from llm_blender.training.recipe import Source
from llm_blender.types import Example

__all__ = ["SourceCount", "excluded_keys", "load_groups"]


@dataclass(frozen=True)
class SourceCount:
    """What one file gave: rows read, rows left out because a test file asks the same, groups drawn."""

    source: Source
    path: Path
    rows: int
    excluded: int
    groups: int
    pairs: int


def excluded_keys(files: Sequence[Path]) -> frozenset[str]:
    """The normalised prompts of test files, which must not stand in training rows."""
    return frozenset(normalized_key(row) for path in files for row in read_rows(path))


def load_groups(
    sources: Sequence[Source], folder: Path, excluded: frozenset[str], seed: int
) -> tuple[list[TrainingGroup], list[SourceCount]]:
    """Draw the groups of all sources, mixed.

    Raises:
        NotFoundError: a source's file is not in the folder.
        RowError: a row cannot be used.
    """
    groups: list[TrainingGroup] = []
    counts: list[SourceCount] = []
    for position, source in enumerate(sources):
        path = folder / source.file
        rows: list[Example] = list(read_rows(path))
        kept = [row for row in rows if not excluded or normalized_key(row) not in excluded]
        drawn = draw_groups(kept, source, seed * 1_000 + position)
        counts.append(SourceCount(source, path, len(rows), len(rows) - len(kept), len(drawn), _pairs(drawn)))
        groups += drawn
    order = np.random.default_rng(seed).permutation(len(groups))
    return [groups[i] for i in order], counts


def _pairs(groups: Sequence[TrainingGroup]) -> int:
    return sum(len(group.preferences) for group in groups)
