"""Logits of many pairs, each read in one sequence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llm_blender.rankers.batching import side_by_side, token_batches
from llm_blender.rankers.pair_ranker.backends import Backend
from llm_blender.rankers.pair_ranker.input_format import PairBatch
from llm_blender.rankers.pair_ranker.texts import FittedTexts
from llm_blender.ranking import Advance, Pool

__all__ = ["PairComparer"]


class PairComparer:
    """Compares the candidates of one call; pairs that read the same are computed once.

    Args:
        backend: runs the model.
        texts: of the call.
        pad_id: of the tokenizer.
        max_tokens: of a batch.
    """

    def __init__(self, backend: Backend, texts: FittedTexts, pad_id: int, max_tokens: int) -> None:
        self._backend, self._texts, self._pad_id, self._max_tokens = backend, texts, pad_id, max_tokens

    def __call__(self, pool: Pool, advance: Advance) -> NDArray[np.float64]:
        """The logits of a pool of ordered pairs, whatever their number and order."""
        places: dict[tuple[int, int, int], list[int]] = {}
        for number, pair in enumerate(pool):
            places.setdefault(self._texts.key(*pair), []).append(number)
        rows_of = list(places.values())
        lengths = [self._texts.length(*pool[first]) for first, *_ in rows_of]
        logits = np.empty(len(pool))

        def run(batch: NDArray[np.intp]) -> int:
            rows = [rows_of[number] for number in batch]
            padded = PairBatch.pad([self._texts.sequence(*pool[first]) for first, *_ in rows], self._pad_id)
            for same, logit in zip(rows, self._backend(padded).mean(axis=-1), strict=True):
                logits[same] = logit
            return sum(map(len, rows))

        for count in side_by_side(run, token_batches(lengths, self._max_tokens), self._backend.parallel):
            advance(count)
        return logits
