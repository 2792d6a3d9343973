"""Batches of sequences, sorted by length and packed by token budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T")

MAX_TOKENS = 2_048
"""Tokens of a batch on a CPU, padding included: larger ones pad more (benchmarks/ranking.py)."""

_OVERHEAD = 40
"""Cost of one more batch, in tokens computed.

Measured on one thread: 41 in int8 for MiniLM and 42 in torch for a DeBERTa of 6 layers x 256.
"""


def token_batches(lengths: Sequence[int], max_tokens: int, *, chunk: int = 8_192) -> Iterator[NDArray[np.intp]]:
    """Split sequences into batches of at most `max_tokens` tokens, padding included, longest first.

    Of all ways to cut the sequences, sorted by length, this is the cheapest: the cost is the number of tokens
    computed, padding included, plus a constant for each batch. The longest come first, so that a batch that does not
    fit into memory fails at once and not after an hour.

    Args:
        lengths: tokens of each sequence.
        max_tokens: of a batch; a longer sequence becomes a batch of its own.
        chunk: number of sequences that are cut at a time.

    Yields:
        The indices of each batch.
    """
    sizes = np.asarray(lengths, np.int64)
    order = np.argsort(-sizes, kind="stable")
    for first in range(0, len(order), chunk):
        some = order[first : first + chunk]
        for start, end in _cuts(sizes[some], max_tokens):
            yield some[start:end]


def pad(sequences: Sequence[Sequence[int] | NDArray[Any]], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stack sequences, padded on the right: their ids and their mask, ``[B, T]`` each."""
    shape = len(sequences), max(map(len, sequences))
    ids, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = sequence, 1
    return ids, mask


def side_by_side(
    run: Callable[[NDArray[np.intp]], _T], batches: Iterable[NDArray[np.intp]], parallel: int
) -> Iterator[_T]:
    """Run batches in one thread per device and yield the results in order."""
    if parallel == 1:
        yield from map(run, batches)
        return
    with ThreadPoolExecutor(parallel) as pool:
        yield from pool.map(run, batches)


def _cuts(sizes: NDArray[np.int64], max_tokens: int) -> list[tuple[int, int]]:
    """Return start and end of each batch, by dynamic programming over the sizes in descending order."""
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
