"""Training groups packed into batches of token ids: one item of a data set is the input of one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from llm_blender.rankers.batching import pad
from llm_blender.rankers.pair_ranker.input_format import InputFormat, PairBatch, PairSequence
from llm_blender.rankers.pointwise import Reading
from llm_blender.training.groups import Preference, ScoredGroup, TrainingGroup

_WINDOW = 64  # batches whose items are sorted by length


def pack(sizes: Sequence[tuple[int, int]], max_tokens: int) -> list[list[int]]:
    """Pack items of about the same length into batches, so that little is padding.

    Args:
        sizes: length of each item's longest sequence, and number of its sequences.
        max_tokens: tokens per batch, padding included; an item that needs more is a batch of its own.

    Returns:
        Indices of the items in each batch.
    """
    if not sizes:
        return []
    mean = float(np.mean([length * count for length, count in sizes]))
    step = max(1, round(_WINDOW * max_tokens / mean))  # windows in the given order, so that sources stay mixed
    packed: list[list[int]] = []
    for start in range(0, len(sizes), step):
        rows = longest = 0
        for number in sorted(range(start, min(start + step, len(sizes))), key=lambda number: sizes[number]):
            length, count = sizes[number]
            longest, rows = max(longest, length), rows + count
            if rows > count and rows * longest <= max_tokens:
                packed[-1].append(number)
            else:
                packed.append([number])
                longest, rows = length, count
    return packed


ReadingMode = Literal["both", "one", "late", "alone"]
"""How a PairRanker reads a group, which also names the training stage.

Pairwise: each pair in one sequence, in ``both`` orders or in ``one`` (the better candidate alternately left and right);
or each text in its own sequence, compared with another one in the upper layers (``late``). Pointwise: each text in its
own sequence, scored without the others (``alone``)."""


class PairBatches(Dataset[dict[str, Any]]):
    """Groups for a PairRanker, packed into batches of about equal work; each text is tokenised once.

    An item is one batch of B sequences with P preferences:

    - ``input_ids``, ``attention_mask``, ``segment_ids``: int64 ``[B, T]``, see `PairBatch`;
    - ``lengths``: int64 ``[B]``, tokens of the whole candidate; 0 where a sequence holds two;
    - ``left``, ``right``: int64 ``[P]``, index of the sequence with the left and with the right candidate;
    - ``targets``: float32 ``[P]``, probability that the left one is better;
    - ``sizes``: number of preferences per group, a tuple.

    Args:
        groups: training groups.
        input_format: of the ranker.
        reading: see `ReadingMode`.
        max_tokens: tokens per batch, padding included; a group that needs more is a batch of its own.
        soft: keep probabilities; else round them to 0 and 1.
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

    def __getitem__(self, index: int) -> dict[str, Any]:
        sequences: list[PairSequence] = []
        lengths: list[int] = []
        columns: list[tuple[int, int, float]] = []
        sizes = []
        for number in self._packed[index]:
            group, first = self._groups[number], len(sequences)
            preferences = self._preferences(number)
            sequences += self._sequences(group, preferences)
            if self._separate:
                lengths += [len(self._ids[text]) for text in group.texts]
                columns += [(first + a, first + b, p) for a, b, p in preferences]
            else:
                lengths += [0] * len(preferences)
                columns += [(first + n, first + n, p) for n, (_, _, p) in enumerate(preferences)]
            sizes.append(len(preferences))
        padded = PairBatch.pad(sequences, self._format.pad_id)
        left, right, targets = zip(*columns, strict=True)
        return {
            **{name: torch.from_numpy(array) for name, array in vars(padded).items()},
            "lengths": torch.tensor(lengths),
            "left": torch.tensor(left),
            "right": torch.tensor(right),
            "targets": torch.tensor(targets, dtype=torch.float32),
            "sizes": tuple(sizes),
        }

    @property
    def _separate(self) -> bool:
        return self._reading in ("late", "alone")

    def _preferences(self, number: int) -> list[Preference]:
        """List a group's preferences in the orders in which they are read."""
        result = []
        for place, (a, b, probability) in enumerate(self._groups[number].preferences):
            p = probability if self._soft else float(probability > 0.5)
            one, other = Preference(a, b, p), Preference(b, a, 1 - p)
            if self._reading == "both":
                result += [one, other]
            else:
                # The better one is alternately left and right, over groups and within them: its place means nothing.
                left_is_better = (number + place) % 2 == 0
                result.append(one if (p > 0.5) == left_is_better else other)
        return result

    def _sequences(self, group: TrainingGroup, preferences: Sequence[Preference]) -> list[PairSequence]:
        source = self._format.fit_source(self._ids[group.prompt])
        texts = [self._format.fit_candidate(self._ids[text], len(source)) for text in group.texts]
        if self._separate:
            return [self._format.join(source, text, None) for text in texts]
        return [self._format.join(source, texts[a], texts[b]) for a, b, _ in preferences]

    def _size(self, number: int) -> tuple[int, int]:
        """Measure a group: length of its longest sequence, and number of its sequences."""
        sequences = self._sequences(self._groups[number], self._preferences(number))
        return max(map(len, sequences)), len(sequences)


_CHUNK = 256  # groups that are tokenised at a time


class _Sequence(NamedTuple):
    """A `Reading` in less memory."""

    ids: NDArray[np.int32]
    types: NDArray[np.int8] | None

    @classmethod
    def of(cls, reading: Reading) -> _Sequence:
        types = None if reading.types is None else np.array(reading.types, np.int8)
        return cls(np.array(reading.ids, np.int32), types)


class PackedGroups(Dataset[dict[str, Any]]):
    """Groups for a pointwise ranker, packed into batches of about equal work; each sequence is tokenised once.

    An item is one batch: ``input_ids``, ``attention_mask`` and, if the model knows types, ``token_type_ids``, int64
    ``[B, T]``; ``groups``, a tuple; and ``sizes``, the number of sequences per group.

    Args:
        groups: training groups.
        read: makes the sequences of each group.
        pad_id: padding token.
        max_tokens: tokens per batch, padding included; a group that needs more is a batch of its own.
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
                self._sequences.append([_Sequence.of(reading) for reading in readings])
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
