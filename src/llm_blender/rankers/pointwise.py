"""Base of models that score each candidate by itself; the order of the scores is the ranking."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from llm_blender._inputs import check_inputs
from llm_blender.rankers.batching import MAX_TOKENS, Tally, pad, side_by_side, token_batches
from llm_blender.rankers.checkpoints import Pretrained, copy_checkpoint
from llm_blender.ranking import BaseRanker, RankOptions, ranking_from_scores
from llm_blender.types import Instruction, OnProgress, Ranking, text_messages

if TYPE_CHECKING:
    from llm_blender.rankers._torch import Replicas


@dataclass(frozen=True)
class Reading:
    """A tokenised sequence.

    Attributes:
        ids: token ids.
        read: number of tokens of the texts that are in the sequence.
        whole: number of tokens of the whole texts.
        types: token types; None for a model without them.
    """

    ids: list[int]
    read: int
    whole: int
    types: list[int] | None = None


@dataclass(frozen=True)
class Scored:
    """Scores of pairs of an instruction and a candidate.

    Attributes:
        scores: ``[n]``, higher is better.
        read: ``[n]`` tokens of both texts that the model read.
        whole: ``[n]`` tokens of both whole texts.
    """

    scores: NDArray[np.float64]
    read: NDArray[np.int64]
    whole: NDArray[np.int64]

    @classmethod
    def by(cls, scores: NDArray[np.floating], readings: Sequence[Reading]) -> Scored:
        """Combine scores ``[n]`` with one reading for each of the n pairs."""
        return cls(
            np.asarray(scores, np.float64),
            np.array([reading.read for reading in readings], np.int64),
            np.array([reading.whole for reading in readings], np.int64),
        )


Pair = tuple[Instruction, str]
"""An instruction and one candidate."""


class PointwiseRanker(BaseRanker, Pretrained):
    """Base of pointwise models; a subclass implements `_score` for pairs of an instruction and a candidate.

    Args:
        model: maps token ids, attention mask and (if it has them) token types to one row per sequence.
        folder: its checkpoint.
        pad_id: token that pads short sequences of a batch.
        max_tokens: of a batch, padding included; more suits an accelerator.
        temperature: of probabilities.

    Attributes:
        name: value of `Ranking.strategy`.
    """

    name: ClassVar[str]
    decimals: ClassVar[int] = 4
    """Decimals of the scores in a ranking, so that float noise, which depends on the batch, cannot turn a rank."""

    def __init__(
        self, model: Replicas, folder: Path, *, pad_id: int, max_tokens: int = MAX_TOKENS, temperature: float = 1.0
    ) -> None:
        self.model, self.folder = model, folder
        self.pad_id, self.max_tokens, self.temperature = pad_id, max_tokens, temperature

    @abstractmethod
    def _score(self, pairs: Sequence[Pair], progress: OnProgress) -> Scored:
        """Score pairs that all differ."""

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
        """Return the model's own scores, not rounded: one array per instruction, one score per candidate.

        Args:
            instructions: prompts or conversations.
            candidates: texts of each; lists may differ in length.
            progress: called with (done, total) in texts, by the share of their tokens.

        Raises:
            InputError: the lists differ in length, an instruction has no candidates, a candidate is not a string.
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
        self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]], progress: OnProgress | None
    ) -> tuple[Scored, list[NDArray[np.intp]]]:
        """Score each different pair once; return the scores, and for each instruction the rows of its candidates."""
        pairs: dict[tuple[object, str], Pair] = {}
        row_of: dict[tuple[object, str], int] = {}
        places: list[NDArray[np.intp]] = []
        for instruction, texts in zip(instructions, candidates, strict=True):
            keys = [(_key(instruction), text) for text in texts]
            pairs |= {key: (instruction, key[1]) for key in keys if key not in pairs}
            places.append(np.array([row_of.setdefault(key, len(row_of)) for key in keys], np.intp))
        return self._score(list(pairs.values()), progress or _ignore), places

    def _run(self, readings: Sequence[Reading], tally: Tally) -> NDArray[np.float32]:
        """Run the model on sequences of any number and order; return ``[n, …]``, one row per sequence.

        Args:
            readings: the sequences.
            tally: progress, whose work is in tokens.
        """
        rows_of: list[tuple[NDArray[np.intp], NDArray[np.float32]]] = []

        def begin(rows: NDArray[np.intp]) -> Callable[[], tuple[NDArray[np.intp], NDArray[np.float32]]]:
            output = self.model(*self._pad([readings[row] for row in rows]))
            return lambda: (rows, np.asarray(output, np.float32))

        batches = token_batches([len(reading.ids) for reading in readings], self.max_tokens)
        for rows, output in side_by_side(begin, batches, self.model.parallel, self.model.ahead):
            rows_of.append((rows, output))
            tally.advance(tokens_of([readings[row] for row in rows]))
        if not rows_of:
            return np.empty((0, 1), np.float32)
        order = np.concatenate([rows for rows, _ in rows_of])
        outputs = np.concatenate([output for _, output in rows_of])
        return np.asarray(outputs[np.argsort(order)], np.float32)

    def _pad(self, readings: Sequence[Reading]) -> list[NDArray[np.int64]]:
        """Return ids, mask and (if the model has them) types, ``[B, T]`` each, padded on the right."""
        ids, mask = pad([reading.ids for reading in readings], self.pad_id)
        types = [reading.types for reading in readings if reading.types is not None]
        return [ids, mask, pad(types, 0)[0]] if types else [ids, mask]


def tokens_of(readings: Sequence[Reading]) -> int:
    """Return the number of tokens of sequences, the work of a `Tally`."""
    return sum(len(reading.ids) for reading in readings)


def _key(instruction: Instruction) -> object:
    """Return a key that is equal for instructions the model reads alike."""
    if isinstance(instruction, str):
        return instruction
    return tuple((message["role"], message["content"]) for message in text_messages(instruction))


def _ignore(done: int, total: int) -> None:
    """Ignore progress."""
