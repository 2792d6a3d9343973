"""Which pairs to run together: sorted by length, packed by token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["padding_efficiency", "token_batches"]


def token_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[NDArray[np.intp]]:
    """Split sequences into batches of at most `max_tokens` tokens, padding included, longest first.

    Longest first, so that a batch that does not fit into memory fails at once and not after an hour.

    Args:
        lengths: tokens of each sequence.
        max_tokens: of a batch; a longer sequence is a batch of its own.

    Yields:
        The indices of each batch.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        count = max(1, max_tokens // lengths[order[start]])
        yield order[start : start + count]
        start += count


def padding_efficiency(lengths: Sequence[int], max_tokens: int) -> float:
    """Share of the computed tokens that are text and not padding, with these batches."""
    sizes = np.asarray(lengths)
    computed = sum(len(batch) * int(sizes[batch].max()) for batch in token_batches(lengths, max_tokens))
    return float(sizes.sum() / computed) if computed else 1.0
