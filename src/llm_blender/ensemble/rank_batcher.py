"""Rank in threads, for the event loop: prompts that come while a ranker is busy are its next batch."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Unpack

from llm_blender.rankers.llm_judge import LLMJudge
from llm_blender.ranking import BaseRanker, RankerOptions, rank_best
from llm_blender.types import Instruction, OnProgress, Ranker, Ranking

MOST_CHARS = 64_000
"""Characters of the candidates of a batch: more would not be faster, and the first of them would wait longer."""
_QUICK_CHARS = 20_000  # characters that a quick ranker reads in a millisecond or few
# Store and history never wait for rankers, and batches never wait for long requests.
_BATCHES = ThreadPoolExecutor(thread_name_prefix="llm-blender-ranker")
_ALONE = ThreadPoolExecutor(2, thread_name_prefix="llm-blender-ranker-alone")


async def arank_best(
    ranker: Ranker,
    prompts: Sequence[Instruction],
    texts: Sequence[Sequence[str]],
    k: int | None = None,
    **options: Unpack[RankerOptions],
) -> list[Ranking]:
    """Rank as `rank_best` does, in a thread beside the event loop; short texts of a quick ranker need none.

    A ranker that is idle begins at once. What comes with the same options while it is busy is ranked in one batch, of
    at most `MOST_CHARS` characters, whose rankings are those of each request alone. Where a batch fails, each of its
    requests is ranked alone, so that an error reaches its own request only. An LLM judge has no batches: its calls run
    side by side as they are.

    Cancelling takes a request that has not begun out of the queue, and ends a ranker's work at its next report of
    progress once all requests of the batch are cancelled. The progress of a request in a batch is its share, by the
    number of candidates, of the progress of the batch.
    """
    request = _Request(ranker, prompts, texts, k, options)
    batched = isinstance(ranker, BaseRanker) and not isinstance(ranker, LLMJudge)
    if isinstance(ranker, BaseRanker) and ranker.quick and request.chars <= _QUICK_CHARS:
        return rank_best(ranker, prompts, texts, k, **options)
    if batched and request.chars <= MOST_CHARS:
        _batcher.add(request)
    else:
        _ALONE.submit(_rank_alone, request)
    try:
        return await asyncio.wrap_future(request.rankings)
    finally:
        request.gone.set()


@dataclass(eq=False)
class _Request:
    """A call of a ranker.

    Attributes:
        k: number of best candidates that are wanted; None for all in order.
        options: its options, without `progress`.
        chars: characters of the texts.
        count: number of the texts.
        gone: is set once its caller does not wait any more.
        rankings: the result.
        context: context variables of its caller.
    """

    ranker: Ranker
    prompts: Sequence[Instruction]
    texts: Sequence[Sequence[str]]
    k: int | None
    options: RankerOptions
    progress: OnProgress | None = field(init=False)
    chars: int = field(init=False)
    count: int = field(init=False)
    gone: threading.Event = field(default_factory=threading.Event)
    rankings: Future[list[Ranking]] = field(default_factory=Future)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def __post_init__(self) -> None:
        self.progress = self.options.get("progress")
        self.options = self.options.copy()
        self.options.pop("progress", None)
        self.chars = sum(len(text) for row in self.texts for text in row)
        self.count = sum(map(len, self.texts))

    @property
    def settings(self) -> object:
        """What requests of one batch have in common."""
        return self.k, self.options

    def report(self, done: int, total: int, count: int) -> None:
        """Report the share of a batch of `count` texts."""
        if self.progress is not None and not self.gone.is_set():
            self.progress(math.ceil(done * self.count / count), math.ceil(total * self.count / count))


class _Batcher:
    """Requests that wait for a busy ranker, by ranker; an idle ranker has no thread."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[_Request]] = {}  # by the id of a ranker at work
        self._lock = threading.Lock()

    def add(self, request: _Request) -> None:
        """Rank at once if the ranker is idle, else with the next batches."""
        key = id(request.ranker)
        with self._lock:
            idle = key not in self._waiting
            self._waiting.setdefault(key, []).append(request)
        if idle:
            _BATCHES.submit(self._work, request.ranker)

    def _work(self, ranker: Ranker) -> None:
        while batch := self._next(ranker):
            _rank_each(batch)

    def _next(self, ranker: Ranker) -> list[_Request]:
        """Take the oldest request, and those with the same options as far as they fit; empty if none waits."""
        batch: list[_Request] = []
        left: list[_Request] = []
        chars, key = 0, id(ranker)
        with self._lock:
            for request in self._waiting[key]:
                if batch and (request.settings != batch[0].settings or chars + request.chars > MOST_CHARS):
                    left.append(request)
                elif request.rankings.set_running_or_notify_cancel():
                    batch.append(request)
                    chars += request.chars
            self._waiting[key] = left
            if not batch:
                del self._waiting[key]
        return batch


_batcher = _Batcher()


def _rank_alone(request: _Request) -> None:
    if request.rankings.set_running_or_notify_cancel():
        _rank_each([request])


def _rank_each(batch: Sequence[_Request]) -> None:
    """Rank for the requests of a batch at once; where that fails, for each alone."""
    try:
        rankings = batch[0].context.run(_rank, batch)
    except BaseException as error:
        if len(batch) == 1:
            batch[0].rankings.set_exception(error)
            return
        for request in batch:
            if not request.gone.is_set():
                _rank_each([request])
        return
    for request in batch:
        request.rankings.set_result(rankings[: len(request.prompts)])
        del rankings[: len(request.prompts)]


def _rank(batch: Sequence[_Request]) -> list[Ranking]:
    count = sum(request.count for request in batch)

    def report(done: int, total: int) -> None:
        if all(request.gone.is_set() for request in batch):
            raise RuntimeError("cancelled")  # ends the work, whose result is not awaited any more
        for request in batch:
            request.report(done, total, count)

    prompts = [prompt for request in batch for prompt in request.prompts]
    texts = [row for request in batch for row in request.texts]
    options = batch[0].options.copy()
    options["progress"] = report
    return rank_best(batch[0].ranker, prompts, texts, batch[0].k, **options)
