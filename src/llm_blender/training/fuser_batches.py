"""Examples of a fuser packed into batches, drawn anew on each pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from llm_blender.rankers.batching import pad
from llm_blender.training.batches import pack
from llm_blender.training.fuser_rows import FuserRow, Reader, Tokens
from llm_blender.training.recipes import FuserRecipe

IGNORED = -100
"""Label of a token that is not learnt."""


class FuserBatches(Dataset[dict[str, Tensor]]):
    """Rows packed with others of about the same length, into all batches of a run.

    An item is one batch, see `causal_batch` and `seq2seq_batch`. In each pass, every row is one example. Which of its
    candidates are read, and in which order, depends only on seed, pass and row.

    Args:
        rows: rows that fit.
        lengths: tokens of each row, with all its candidates.
        reader: makes tokens of rows.
        seq2seq: whether to make batches for a sequence-to-sequence model, or for a causal LLM.
        pad_id: padding token.
        recipe: passes or steps, tokens per batch, draws.
        fixed: one pass in the given order, with all candidates, best first.
    """

    def __init__(
        self,
        rows: Sequence[FuserRow],
        lengths: Sequence[int],
        reader: Reader,
        *,
        seq2seq: bool,
        pad_id: int,
        recipe: FuserRecipe,
        fixed: bool = False,
    ) -> None:
        self._rows, self._reader, self._recipe, self._fixed = rows, reader, recipe, fixed
        self._seq2seq, self._pad_id = seq2seq, pad_id
        self._batches = list(self._pass(0, lengths))
        passes = 1
        while not fixed and (
            passes < recipe.epochs if recipe.steps is None else len(self._batches) < recipe.steps * recipe.accumulate
        ):
            self._batches += self._pass(passes, lengths)
            passes += 1
        if recipe.steps is not None and not fixed:
            del self._batches[recipe.steps * recipe.accumulate :]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number, members = self._batches[index]
        examples = [self._read(number, member) for member in members]
        return (seq2seq_batch if self._seq2seq else causal_batch)(examples, self._pad_id)

    def _pass(self, number: int, lengths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        rng = np.random.default_rng([self._recipe.seed, number])
        order = np.arange(len(lengths)) if self._fixed else rng.permutation(len(lengths))
        packed = pack([(lengths[i], 1) for i in order], self._recipe.batch_tokens)
        for place in np.arange(len(packed)) if self._fixed else rng.permutation(len(packed)):
            yield number, [int(order[i]) for i in packed[place]]

    def _read(self, number: int, member: int) -> Tokens:
        row = self._rows[member]
        if self._fixed:
            return self._reader.read(row, row.candidates)
        rng = np.random.default_rng([self._recipe.seed, number, member])
        shuffled = self._recipe.order == "shuffled"
        return self._reader.read(row, draw_candidates(row.candidates, self._recipe.fewer, rng, shuffled=shuffled))


def draw_candidates(
    candidates: Sequence[str], fewer: float, rng: np.random.Generator, *, shuffled: bool = True
) -> list[str]:
    """Draw the best candidates, shuffled: all of them, or fewer with probability `fewer`."""
    count = len(candidates)
    if count > 1 and rng.random() < fewer:
        count = int(rng.integers(1, count))
    return [candidates[i] for i in (rng.permutation(count) if shuffled else range(count))]


def causal_batch(examples: Sequence[Tokens], pad_id: int) -> dict[str, Tensor]:
    """Stack prompts with their answers, which all end in the last column.

    Returns:
        ``input_ids``, ``attention_mask`` and ``position_ids``, ``[B, T]``; ``labels`` of the last columns,
        ``[B, A + 1]``: A is the length of the longest answer, and the first label is never learnt.
    """
    width = max(len(prompt) + len(answer) for prompt, answer in examples)
    longest = max(len(answer) for _, answer in examples)
    ids, mask = np.full((len(examples), width), pad_id), np.zeros((len(examples), width), np.int64)
    labels = np.full((len(examples), longest + 1), IGNORED)
    for row, (prompt, answer) in enumerate(examples):
        start = width - len(prompt) - len(answer)
        ids[row, start:], mask[row, start:] = [*prompt, *answer], 1
        labels[row, longest + 1 - len(answer) :] = answer
    return _tensors(input_ids=ids, attention_mask=mask, position_ids=np.maximum(mask.cumsum(1) - 1, 0), labels=labels)


def seq2seq_batch(examples: Sequence[Tokens], pad_id: int) -> dict[str, Tensor]:
    """Stack prompts, and their answers separately.

    Returns:
        ``input_ids`` and ``attention_mask``, ``[B, T]``; ``labels``, ``[B, A]``.
    """
    prompts, answers = zip(*examples, strict=True)
    ids, mask = pad(prompts, pad_id)
    labels, _ = pad(answers, IGNORED)
    return _tensors(input_ids=ids, attention_mask=mask, labels=labels)


def _tensors(**arrays: Any) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array, np.int64)) for name, array in arrays.items()}
