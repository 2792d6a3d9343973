"""Training groups with what their rows say beside preferences: scores by metric, and a reference."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_blender.data import read_rows
from llm_blender.training.groups import TrainingGroup
from llm_blender.training.recipe import Source
from llm_blender.types import Example

__all__ = ["PREFERENCE", "Judgements", "ScoredGroup", "find_tasks", "wins_share"]

PREFERENCE = "preference"
"""The task that every group has: how often a text is preferred to the group's others."""


@dataclass(frozen=True)
class ScoredGroup:
    """A training group with scores.

    Attributes:
        group: what the PairRanker learns from.
        scores: by name, one for each of the group's texts; NaN where unknown.
        reference: an answer that is known to be good.
    """

    group: TrainingGroup
    scores: Mapping[str, tuple[float, ...]]
    reference: str | None = None

    def targets(self, tasks: Sequence[str]) -> NDArray[np.float64]:
        """``[texts, tasks]`` scores, NaN where unknown; `PREFERENCE` is `wins_share`."""
        unknown = (float("nan"),) * len(self.group.texts)
        columns = [
            wins_share(self.group) if task == PREFERENCE else np.array(self.scores.get(task, unknown)) for task in tasks
        ]
        return np.stack(columns, 1)


def wins_share(group: TrainingGroup) -> NDArray[np.float64]:
    """``[texts]``: each text's mean probability of being the better one, NaN where it is in no preference."""
    found: list[list[float]] = [[] for _ in group.texts]
    for a, b, probability in group.preferences:
        found[a].append(probability)
        found[b].append(1 - probability)
    # Rounded: equals are to be equal.
    return np.array([round(sum(shares) / len(shares), 6) if shares else float("nan") for shares in found])


class Judgements:
    """The scores and references of rows, by prompt and text."""

    def __init__(self, rows: Iterable[Example]) -> None:
        scores: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._references: dict[str, str] = {}
        for row in rows:
            prompt = row.prompt
            if row.reference:
                self._references.setdefault(prompt, row.reference)
            for candidate in row.candidates:
                for name, score in candidate.scores.items():
                    scores[prompt, candidate.text][name].append(score)
        # Two LLMs may have written the same, and been judged differently.
        self._scores = {
            key: {name: sum(values) / len(values) for name, values in of_text.items()}
            for key, of_text in scores.items()
        }

    @classmethod
    def read(cls, sources: Sequence[Source], folder: Path) -> Judgements:
        """Of the files of a recipe's sources.

        Raises:
            NotFoundError: a file is not in the folder.
            RowError: a row cannot be used.
        """
        files = dict.fromkeys(folder / source.file for source in sources)
        return cls(row for file in files for row in read_rows(file))

    def of(self, groups: Iterable[TrainingGroup]) -> list[ScoredGroup]:
        """Groups with what is known of them; an answer to another prompt has no scores."""
        return [ScoredGroup(group, self._of(group), self._references.get(group.prompt)) for group in groups]

    def _of(self, group: TrainingGroup) -> dict[str, tuple[float, ...]]:
        found = [self._scores.get((group.prompt, text), {}) for text in group.texts]
        names = sorted({name for scores in found for name in scores})
        return {name: tuple(scores.get(name, float("nan")) for scores in found) for name in names}


def find_tasks(groups: Sequence[ScoredGroup], least: float = 0.1) -> tuple[str, ...]:
    """`PREFERENCE` and the scores that tell texts apart in at least this share of the groups, most frequent first."""
    telling = Counter(
        name
        for group in groups
        for name, values in group.scores.items()
        if len({value for value in values if not np.isnan(value)}) > 1
    )
    often = sorted(
        (name for name, count in telling.items() if count >= least * len(groups)), key=lambda n: (-telling[n], n)
    )
    return (PREFERENCE, *(name for name in often if name != PREFERENCE))
