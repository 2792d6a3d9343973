"""Rankers that score each candidate by itself: the order of the scores is the ranking."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from llm_blender._inputs import check_inputs
from llm_blender.rankers.batching import MAX_TOKENS, side_by_side, token_batches
from llm_blender.rankers.checkpoints import copy_checkpoint
from llm_blender.ranking import BaseRanker, RankOptions, ranking_from_scores
from llm_blender.types import Instruction, OnProgress, Ranking, to_messages

if TYPE_CHECKING:
    from llm_blender.rankers._torch import Replicas

__all__ = ["PointwiseRanker", "Reading", "Scored"]


@dataclass(frozen=True)
class Reading:
    """One sequence as a model reads it.

    Attributes:
        ids: token ids.
        read: tokens of the texts that are in it.
        whole: tokens that the texts have.
        types: token types, where the model knows more than one.
    """

    ids: list[int]
    read: int
    whole: int
    types: list[int] | None = None


@dataclass(frozen=True)
class Scored:
    """What a model says to pairs of an instruction and a candidate.

    Attributes:
        scores: ``[n]``, higher is better.
        read: ``[n]`` tokens of both that the model read.
        whole: ``[n]`` tokens that both have.
    """

    scores: NDArray[np.float64]
    read: NDArray[np.int64]
    whole: NDArray[np.int64]

    @classmethod
    def by(cls, scores: NDArray[np.floating], readings: Sequence[Reading]) -> Scored:
        """From one reading per pair."""
        return cls(
            np.asarray(scores, np.float64),
            np.array([reading.read for reading in readings], np.int64),
            np.array([reading.whole for reading in readings], np.int64),
        )


Pair = tuple[Instruction, str]
"""An instruction and one candidate."""


class PointwiseRanker(BaseRanker):
    """What such rankers share: a subclass scores pairs of an instruction and a candidate.

    Args:
        model: from token ids, attention mask and, where it knows them, token types to one row per sequence.
        folder: the checkpoint it comes from.
        pad_id: fills up short sequences of a batch.
        max_tokens: of a batch, padding included; more suits an accelerator.
        temperature: of probabilities.

    Attributes:
        name: stands in `Ranking.strategy`.
    """

    name: ClassVar[str]
    decimals: ClassVar[int] = 4
    """Of the scores that make a ranking, so that float noise, which depends on the batch, cannot turn a rank."""

    def __init__(
        self, model: Replicas, folder: Path, *, pad_id: int, max_tokens: int = MAX_TOKENS, temperature: float = 1.0
    ) -> None:
        self.model, self.folder = model, folder
        self.pad_id, self.max_tokens, self.temperature = pad_id, max_tokens, temperature

    @abstractmethod
    def _score(self, pairs: Sequence[Pair], progress: OnProgress) -> Scored:
        """Score pairs, no two of which are equal."""

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Copy the checkpoint to a folder that `from_pretrained` reads."""
        copy_checkpoint(self.folder, Path(folder))

    def scores(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        *,
        progress: OnProgress | None = None,
    ) -> list[NDArray[np.float64]]:
        """The model's own scores, not rounded: one array per instruction, one score per candidate.

        Args:
            instructions: prompts or conversations.
            candidates: texts of each; lists may differ in length.
            progress: called with texts done and to do.

        Raises:
            InputError: the lists differ in length, an instruction has no candidates, a text is no text.
        """
        check_inputs(instructions, candidates)
        scored, places = self._score_all(instructions, candidates, progress)
        return [scored.scores[rows] for rows in places]

    def _rank_many(
        self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]], options: RankOptions
    ) -> list[Ranking]:
        scored, places = self._score_all(instructions, candidates, options["progress"])
        rounded = scored.scores.round(self.decimals) + 0.0  # no -0.0
        return [self._ranking(rounded[rows], scored, rows) for rows in places]

    def _ranking(self, scores: NDArray[np.float64], scored: Scored, rows: NDArray[np.intp]) -> Ranking:
        logits = (scores[:, None] - scores[None, :]).round(self.decimals) + 0.0
        whole = int(scored.whole[rows].sum())
        return replace(
            ranking_from_scores(self.name, scores, logits),
            comparisons=0,
            temperature=self.temperature,
            truncated=1 - int(scored.read[rows].sum()) / whole if whole else 0.0,
        )

    def _score_all(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        progress: OnProgress | None,
    ) -> tuple[Scored, list[NDArray[np.intp]]]:
        """Each different pair scored once; and for each instruction, where its candidates' scores stand."""
        pairs: dict[tuple[object, str], Pair] = {}
        row_of: dict[tuple[object, str], int] = {}
        places: list[NDArray[np.intp]] = []
        for instruction, texts in zip(instructions, candidates, strict=True):
            keys = [(_key(instruction), text) for text in texts]
            pairs |= {key: (instruction, key[1]) for key in keys if key not in pairs}
            places.append(np.array([row_of.setdefault(key, len(row_of)) for key in keys], np.intp))
        return self._score(list(pairs.values()), progress or _nobody), places

    def _run(
        self, readings: Sequence[Reading], progress: OnProgress, *, before: int = 0, total: int | None = None
    ) -> NDArray[np.float32]:
        """The model's output for each sequence, ``[n, …]``, whatever their number and order.

        Args:
            readings: the sequences.
            progress: called with sequences done and to do.
            before: done already.
            total: to do in all; None is these.
        """
        done = before
        rows_of: list[tuple[NDArray[np.intp], NDArray[np.float32]]] = []

        def run(rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
            return rows, self.model(*self._pad([readings[row] for row in rows]))

        batches = token_batches([len(reading.ids) for reading in readings], self.max_tokens)
        for rows, output in side_by_side(run, batches, self.model.parallel):
            rows_of.append((rows, output))
            done += len(rows)
            progress(done, total or len(readings))
        if not rows_of:
            return np.empty((0, 1), np.float32)
        order = np.concatenate([rows for rows, _ in rows_of])
        outputs = np.concatenate([output for _, output in rows_of])
        return np.asarray(outputs[np.argsort(order)], np.float32)

    def _pad(self, readings: Sequence[Reading]) -> list[NDArray[np.int64]]:
        """Ids, mask and, where there are any, types, ``[B, T]`` each, padded on the right."""
        shape = len(readings), max(len(reading.ids) for reading in readings)
        ids, mask, types = np.full(shape, self.pad_id, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, reading in enumerate(readings):
            ids[row, : len(reading.ids)] = reading.ids
            mask[row, : len(reading.ids)] = 1
            if reading.types is not None:
                types[row, : len(reading.ids)] = reading.types
        return [ids, mask] if readings[0].types is None else [ids, mask, types]


def _key(instruction: Instruction) -> object:
    """Equal for instructions that are read alike."""
    if isinstance(instruction, str):
        return instruction
    return tuple((message["role"], message["content"]) for message in to_messages(instruction))


def _nobody(done: int, total: int) -> None:
    """Progress that nobody watches."""
