"""Groups of token sequences as the batches of single steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from llm_blender.rankers.pointwise import Reading
from llm_blender.training.baselines.scored import ScoredGroup
from llm_blender.training.packing import pack

__all__ = ["PackedGroups", "pad"]

_CHUNK = 256  # groups that are tokenised at a time


class _Sequence(NamedTuple):
    """A `Reading`, in less memory."""

    ids: NDArray[np.int32]
    types: NDArray[np.int8] | None


class PackedGroups(Dataset[dict[str, Any]]):
    """Groups packed into batches of about equal work; each sequence is tokenised once.

    An item is one batch: ``input_ids``, ``attention_mask`` and, where there are any, ``token_type_ids`` ``[B, T]``,
    ``groups``, and ``sizes``, how many rows each of them has.

    Args:
        groups: what to learn from.
        read: gives the sequences of each group.
        pad_id: fills up the shorter ones.
        max_tokens: of a batch, padding included; a group that needs more is a batch of its own.
    """

    def __init__(
        self,
        groups: Sequence[ScoredGroup],
        read: Callable[[Sequence[ScoredGroup]], Iterable[Sequence[Reading]]],
        pad_id: int,
        max_tokens: int,
    ) -> None:
        self._groups, self._pad_id = groups, pad_id
        self._sequences: list[list[_Sequence]] = []
        for start in range(0, len(groups), _CHUNK):
            for readings in read(groups[start : start + _CHUNK]):
                self._sequences.append([_small(reading) for reading in readings])
        sizes = [(max(len(s.ids) for s in group), len(group)) for group in self._sequences]
        self._packed = pack(sizes, max_tokens)

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> dict[str, Any]:
        numbers = self._packed[index]
        sequences = [sequence for number in numbers for sequence in self._sequences[number]]
        ids, mask = pad([sequence.ids for sequence in sequences], self._pad_id)
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        types = [sequence.types for sequence in sequences if sequence.types is not None]
        if types:
            batch["token_type_ids"] = torch.from_numpy(pad(types, 0)[0])
        groups = tuple(self._groups[number] for number in numbers)
        return {**batch, "groups": groups, "sizes": tuple(len(self._sequences[number]) for number in numbers)}


def _small(reading: Reading) -> _Sequence:
    types = None if reading.types is None else np.array(reading.types, np.int8)
    return _Sequence(np.array(reading.ids, np.int32), types)


def pad(sequences: Sequence[NDArray[Any]], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sequences side by side, filled up on the right, and their mask: ``[B, T]`` each."""
    shape = len(sequences), max(map(len, sequences))
    ids, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask
