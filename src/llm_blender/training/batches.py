"""Training groups as the token ids of one step each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from llm_blender.rankers.pair_ranker.input_format import InputFormat, PairBatch, PairSequence
from llm_blender.training.groups import Preference, TrainingGroup
from llm_blender.training.packing import pack

__all__ = ["Batches", "Reading", "TrainingBatch"]

ReadingMode = Literal["both", "one", "late", "alone"]
"""How a ranker reads a group: each pair in one sequence, in ``both`` orders or in ``one`` (the better candidate by
turns left and right); each text in a sequence of its own and then beside another (``late``), or not (``alone``)."""


@dataclass(frozen=True)
class TrainingBatch:
    """What one step reads.

    Attributes:
        input_ids: int64 ``[B, T]``, with `attention_mask` and `segment_ids` as in `PairBatch`.
        lengths: int64 ``[B]``, tokens of the whole candidate; 0 where a sequence holds two.
        left: int64 ``[P]``, for each preference the sequence with its left candidate.
        right: int64 ``[P]``, that with its right candidate.
        targets: float32 ``[P]``, probability that the left one is better.
        sizes: preferences of each group.
    """

    input_ids: Tensor
    attention_mask: Tensor
    segment_ids: Tensor
    lengths: Tensor
    left: Tensor
    right: Tensor
    targets: Tensor
    sizes: tuple[int, ...]


class Batches(Dataset[TrainingBatch]):
    """Groups packed into batches of about equal work; each text is tokenised once.

    Args:
        groups: what to learn from.
        input_format: the ranker's.
        reading: see `Reading`.
        max_tokens: of a batch, padding included; a group that needs more is a batch of its own.
        soft: keep probabilities; else they become 0 and 1.
    """

    def __init__(
        self,
        groups: Sequence[TrainingGroup],
        input_format: InputFormat,
        reading: ReadingMode,
        max_tokens: int,
        soft: bool,
    ) -> None:
        texts = list(dict.fromkeys(text for group in groups for text in (group.prompt, *group.texts)))
        self._ids = dict(zip(texts, input_format.tokenize(texts), strict=True))
        self._groups, self._format, self._reading, self._soft = groups, input_format, reading, soft
        self._packed = pack([self._size(number) for number in range(len(groups))], max_tokens)

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> TrainingBatch:
        sequences: list[PairSequence] = []
        lengths: list[int] = []
        columns: list[tuple[int, int, float]] = []
        sizes = []
        for number in self._packed[index]:
            group, first = self._groups[number], len(sequences)
            preferences = self._preferences(number)
            sequences += self._sequences(group, preferences)
            if self._apart:
                lengths += [len(self._ids[text]) for text in group.texts]
                columns += [(first + a, first + b, p) for a, b, p in preferences]
            else:
                lengths += [0] * len(preferences)
                columns += [(first + n, first + n, p) for n, (_, _, p) in enumerate(preferences)]
            sizes.append(len(preferences))
        padded = PairBatch.pad(sequences, self._format.pad_id)
        left, right, targets = zip(*columns, strict=True)
        return TrainingBatch(
            input_ids=torch.from_numpy(padded.input_ids),
            attention_mask=torch.from_numpy(padded.attention_mask),
            segment_ids=torch.from_numpy(padded.segment_ids),
            lengths=torch.tensor(lengths),
            left=torch.tensor(left),
            right=torch.tensor(right),
            targets=torch.tensor(targets, dtype=torch.float32),
            sizes=tuple(sizes),
        )

    @property
    def _apart(self) -> bool:
        return self._reading in ("late", "alone")

    def _preferences(self, number: int) -> list[Preference]:
        """A group's, in the orders in which they are read."""
        result = []
        for place, (a, b, probability) in enumerate(self._groups[number].preferences):
            p = probability if self._soft else float(probability > 0.5)
            one, other = Preference(a, b, p), Preference(b, a, 1 - p)
            if self._reading == "both":
                result += [one, other]
            else:
                # By turns, over groups and within them, the better one is left: its place tells nothing.
                left_is_better = (number + place) % 2 == 0
                result.append(one if (p > 0.5) == left_is_better else other)
        return result

    def _sequences(self, group: TrainingGroup, preferences: Sequence[Preference]) -> list[PairSequence]:
        source = self._format.fit_source(self._ids[group.prompt])
        texts = [self._format.fit_candidate(self._ids[text], len(source)) for text in group.texts]
        if self._apart:
            return [self._format.join(source, text, None) for text in texts]
        return [self._format.join(source, texts[a], texts[b]) for a, b, _ in preferences]

    def _size(self, number: int) -> tuple[int, int]:
        """A group's longest sequence, and how many it has."""
        sequences = self._sequences(self._groups[number], self._preferences(number))
        return max(map(len, sequences)), len(sequences)
