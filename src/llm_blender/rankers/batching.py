"""Which pairs to run together: sorted by length, packed by token budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_TOKENS", "padding_efficiency", "side_by_side", "token_batches"]

_T = TypeVar("_T")

MAX_TOKENS = 2_048
"""Tokens of a batch on a CPU, padding included: larger ones pad more (benchmarks/ranker_speed.py)."""

_OVERHEAD = 40
"""What one more batch costs, in tokens computed.

On one thread, 41 in int8 for MiniLM and 42 in torch for a DeBERTa of 6 layers x 256.
"""


def token_batches(lengths: Sequence[int], max_tokens: int, *, chunk: int = 8_192) -> Iterator[NDArray[np.intp]]:
    """Split sequences into batches of at most `max_tokens` tokens, padding included, longest first.

    Of all ways to cut the sequences, sorted by length, it is the cheapest one: the tokens computed, padding included,
    and a constant for each batch. Longest first, so that a batch that does not fit into memory fails at once and not
    after an hour.

    Args:
        lengths: tokens of each sequence.
        max_tokens: of a batch; a longer sequence is a batch of its own.
        chunk: sequences that are cut at a time.

    Yields:
        The indices of each batch.
    """
    sizes = np.asarray(lengths, np.int64)
    order = np.argsort(-sizes, kind="stable")
    for first in range(0, len(order), chunk):
        some = order[first : first + chunk]
        for start, end in _cuts(sizes[some], max_tokens):
            yield some[start:end]


def side_by_side(
    run: Callable[[NDArray[np.intp]], _T], batches: Iterable[NDArray[np.intp]], parallel: int
) -> Iterator[_T]:
    """Run batches in as many threads as there are devices; results come back in order."""
    if parallel == 1:
        yield from map(run, batches)
        return
    with ThreadPoolExecutor(parallel) as pool:
        yield from pool.map(run, batches)


def _cuts(sizes: NDArray[np.int64], max_tokens: int) -> list[tuple[int, int]]:
    """Where the batches start and end: dynamic programming over the sizes in descending order."""
    cost = np.full(len(sizes) + 1, np.inf)  # of the first k sequences
    cost[0] = 0
    starts = np.zeros(len(sizes) + 1, np.intp)  # of the batch that ends before k
    for start, longest in enumerate(sizes.tolist()):
        most = min(max(1, max_tokens // longest), len(sizes) - start)
        ends = slice(start + 1, start + 1 + most)
        offered = cost[start] + _OVERHEAD + longest * np.arange(1, most + 1)
        better = offered < cost[ends]
        cost[ends][better] = offered[better]
        starts[ends][better] = start
    cuts, end = [], len(sizes)
    while end:
        cuts.append((int(starts[end]), end))
        end = cuts[-1][0]
    return cuts[::-1]


def padding_efficiency(lengths: Sequence[int], max_tokens: int) -> float:
    """Share of the computed tokens that are text and not padding, with these batches."""
    sizes = np.asarray(lengths)
    computed = sum(len(batch) * int(sizes[batch].max()) for batch in token_batches(lengths, max_tokens))
    return float(sizes.sum() / computed) if computed else 1.0
