"""Batches of sequences, sorted by length and packed by token budget."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError

_T = TypeVar("_T")
_B = TypeVar("_B")

MAX_TOKENS = 2_048
"""Tokens of a batch on a CPU, padding included: larger ones pad more (benchmarks/ranking.py)."""

ACCELERATOR_MAX_TOKENS = 32_768
"""Tokens of a batch on another device: a starting point, not measured (benchmarks/gpu.py measures it)."""

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


def check_max_tokens(max_tokens: int | None) -> None:
    """Refuse a size of batches below 1.

    Raises:
        InputError: it is.
    """
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max_tokens must be 1 or more tokens, not {max_tokens}.")


class Tally:
    """Progress in items, by the share of the work that is done.

    Args:
        progress: called with (done, total) in items.
        items: number of them.
        work: of all items, in any unit.
    """

    def __init__(self, progress: Callable[[int, int], None], items: int, work: int) -> None:
        self._progress, self._items, self._work = progress, items, work
        self._done = 0

    def advance(self, work: int) -> None:
        """Report that so much more is done."""
        self._done = min(self._done + work, self._work)
        self._progress(self._items * self._done // max(self._work, 1), self._items)


def pad(sequences: Sequence[Sequence[int] | NDArray[Any]], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stack sequences, padded on the right: their ids and their mask, ``[B, T]`` each."""
    shape = len(sequences), max(map(len, sequences))
    ids, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = sequence, 1
    return ids, mask


def side_by_side(
    begin: Callable[[_B], Callable[[], _T]], batches: Iterable[_B], parallel: int, ahead: int = 0
) -> Iterator[_T]:
    """Run batches in so many threads, and yield their results as they come.

    Args:
        begin: begins a batch; returns the function that waits for its result.
        batches: taken by the first free thread, in order.
        parallel: number of threads.
        ahead: number of further batches that a thread begins before it waits for a result.
    """
    shared = batches if parallel == 1 else _Shared(batches)
    yield from in_lanes(lambda _: in_turn(begin, shared, ahead), parallel)


def in_lanes(run: Callable[[int], Iterator[_T]], lanes: int) -> Iterator[_T]:
    """Run an iterator for each lane, in a thread of its own, and yield what they yield, as it comes.

    The first error of a lane is raised; the other lanes then end with their running batch.

    Args:
        run: makes the iterator of a lane, counted from 0.
        lanes: number of them; a single one runs in the caller's thread.
    """
    if lanes == 1:
        yield from run(0)
        return
    found: queue.SimpleQueue[tuple[_T] | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def work(lane: int) -> None:
        try:
            for result in run(lane):
                if stopped.is_set():
                    return
                found.put((result,))
            found.put(None)
        except BaseException as error:
            found.put(error)

    with ThreadPoolExecutor(lanes) as pool:
        try:
            for lane in range(lanes):
                pool.submit(work, lane)
            running = lanes
            while running:
                item = found.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    running -= 1
                else:
                    yield item[0]
        finally:
            stopped.set()


def in_turn(begin: Callable[[_B], Callable[[], _T]], batches: Iterable[_B], ahead: int = 0) -> Iterator[_T]:
    """Run batches one after the other and yield their results in order; for the arguments see `side_by_side`."""
    begun: deque[Callable[[], _T]] = deque()
    for batch in batches:
        begun.append(begin(batch))
        if len(begun) > ahead:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


class _Shared(Iterator[_B]):
    """Iterator that several threads take from."""

    def __init__(self, items: Iterable[_B]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __next__(self) -> _B:
        with self._lock:
            return next(self._items)


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
