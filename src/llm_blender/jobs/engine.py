"""Work through the rows of a job: several at a time, each once, within a budget; record failures and go on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Generic, TypeVar

from llm_blender.calls import Budget, run_to_end
from llm_blender.errors import Failure, LLMError, NoAnswerError
from llm_blender.jobs.journal import Entry, Journal

T = TypeVar("T")

_PATIENCE = 10
"""Failures of one queue, one after the other, after which its LLM counts as unavailable."""
_LASTING = {"auth", "connection", "rate_limit", "server", "timeout"}
_STUCK = 600.0
"""Seconds without an answer of an LLM at its limit, after which a row is no longer tried again."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # seconds before a row is tried again; the first doubles with each attempt


@dataclass(frozen=True)
class Item(Generic[T]):
    """A row to work on.

    Attributes:
        key: its key in the journal, unique in the job.
        value: argument of the work.
        queue: its queue; each queue has its own number of rows under way.
        most_cost: maximum cost in dollars, as far as it is known.
    """

    key: str
    value: T
    queue: str = ""
    most_cost: float = 0.0


@dataclass(frozen=True)
class Result:
    """The result of a row.

    Attributes:
        value: plain JSON values; None where the row failed and nothing is known of it.
        reason: why the row failed or is incomplete; empty where it is complete.
        cost: dollars paid; None where a price is unknown.
        busy: LLMs that did not answer because they are at their limit, with the seconds until they may; the row is
            tried again in the same run.
        failed: whether the row failed although it has a value, which says how.
    """

    value: Any
    reason: str = ""
    cost: float | None = 0.0
    busy: Mapping[str, float] = field(default_factory=dict)
    failed: bool = False


def busy_llms(failures: Iterable[Failure]) -> dict[str, float]:
    """Return the LLMs at their limit, for `Result.busy`: their servers, or our queues, name a time to come back."""
    return {
        failure.model: failure.retry_after
        for failure in failures
        if failure.reason == "rate_limit" and failure.retry_after is not None
    }


@dataclass(frozen=True)
class Rows:
    """Progress of a job, in rows.

    Attributes:
        total: all rows.
        resumed: rows done by earlier runs.
        done: rows done now.
        partial: rows with an incomplete result; the next run tries them again.
        failed: rows without a result; the next run tries them again.
        over_budget: rows not begun, since the budget does not allow it.
        given_up: rows not begun, since their LLM failed again and again.
        cost: dollars paid now, as far as prices are known.
        unpriced: rows of unknown cost.
        seconds: time since the work began.
    """

    total: int = 0
    resumed: int = 0
    done: int = 0
    partial: int = 0
    failed: int = 0
    over_budget: int = 0
    given_up: int = 0
    cost: float = 0.0
    unpriced: int = 0
    seconds: float = 0.0

    @property
    def over(self) -> int:
        """Rows that this run has finished, skipped or given up."""
        return self.resumed + self.done + self.partial + self.failed + self.over_budget + self.given_up

    @property
    def missing(self) -> int:
        """Rows without a result, for whatever reason."""
        return self.failed + self.over_budget + self.given_up

    @property
    def rate(self) -> float:
        """Rows per second of this run."""
        return (self.done + self.partial + self.failed) / self.seconds if self.seconds else 0.0


OnRows = Callable[[Rows], None]
"""Callback with the progress, after each row."""


class _Count:
    """The progress of a run, reported after each change."""

    def __init__(self, total: int, resumed: int, on_rows: OnRows | None) -> None:
        self.rows = Rows(total, resumed)
        self._started, self._on_rows = time.monotonic(), on_rows

    def add(self, *, cost: float | None = 0.0, **more: int) -> None:
        counts = {name: getattr(self.rows, name) + count for name, count in more.items()}
        self.rows = replace(
            self.rows,
            **counts,
            cost=self.rows.cost + (cost or 0.0),
            unpriced=self.rows.unpriced + (cost is None),
            seconds=time.monotonic() - self._started,
        )
        if self._on_rows is not None:
            self._on_rows(self.rows)

    def entry(self, journal: Journal, key: str, result: Result) -> None:
        """Write the result of a row to the journal."""
        status = "failed" if result.failed or result.value is None else "partial" if result.reason else "done"
        journal.add(Entry(key, status, result.value, result.reason, result.cost))  # type: ignore[arg-type]
        self.add(cost=result.cost, **{status: 1})


class _Queue(Generic[T]):
    """Items in order, which are taken from an iterator when their turn has come."""

    def __init__(self, items: Iterable[Item[T]], size: int) -> None:
        self._items, self._left = iter(items), size

    def __len__(self) -> int:
        return self._left

    def take(self) -> Item[T]:
        left, self._left = self._left, 0  # nothing is left after an error
        item = next(self._items)
        self._left = left - 1
        return item

    def clear(self) -> None:
        self._left = 0


def work_through(
    journal: Journal,
    items: Iterable[Item[T]],
    work: Callable[[T], Awaitable[Result]],
    *,
    keys: Sequence[str] | None = None,
    concurrency: Mapping[str, int] | None = None,
    budget: Budget | None = None,
    resources: Sequence[object] = (),
    on_rows: OnRows | None = None,
    on_stopping: Callable[[int], None] | None = None,
) -> Rows:
    """Work on each row that is not done yet.

    A row whose LLM fails is recorded with the reason, and the others go on. A row whose LLM is at its rate limit is
    tried again until that LLM has answered no row for ten minutes: the limit costs time. After ten lasting failures of
    one queue, one after the other, its remaining rows are not begun. On any other error, and when interrupted, no
    further row is begun, and those under way come to their end: what was paid for is kept.

    Args:
        journal: record of the results.
        items: the rows; their keys differ.
        work: makes the result of a row.
        keys: keys of all rows, whose items are then read in that order as they are needed, and share one queue; None
            reads them at once.
        concurrency: rows under way of each queue; 1 by default.
        budget: limit of the cost; None is no limit.
        resources: objects to be open meanwhile, where they are asynchronous context managers, such as LLMs.
        on_rows: called with the progress after each row.
        on_stopping: called with the number of rows under way when the work stops early.

    Raises:
        ValueError: two rows share a key.
        StoreError, WorkError: a result could not be kept; other errors of `work` come as they are.
    """
    if keys is None:
        items = list(items)
        keys = [item.key for item in items]
    total, waiting = len(keys), _waiting(journal, keys)
    queues = _queues(journal, items, waiting)

    async def run() -> Rows:
        async with contextlib.AsyncExitStack() as stack:
            for resource in resources if waiting else ():  # load nothing for no work
                if isinstance(resource, contextlib.AbstractAsyncContextManager):
                    await stack.enter_async_context(resource)
            count = _Count(total, total - waiting, on_rows)
            await _work(journal, queues, count, work, concurrency or {}, budget or Budget(), on_stopping)
            return count.rows

    return run_to_end(run)


def _queues(journal: Journal, items: Iterable[Item[T]], waiting: int) -> dict[str, _Queue[T]]:
    """Return the queues of the items that are not done, by name; one queue where the items are no list."""
    to_do = (item for item in items if journal.status(item.key) != "done")
    if not isinstance(items, list):
        return {"": _Queue(to_do, waiting)}
    queues: dict[str, list[Item[T]]] = {}
    for item in to_do:
        queues.setdefault(item.queue, []).append(item)
    return {name: _Queue(of_queue, len(of_queue)) for name, of_queue in queues.items()}


async def _work(
    journal: Journal,
    queues: Mapping[str, _Queue[T]],
    count: _Count,
    work: Callable[[T], Awaitable[Result]],
    concurrency: Mapping[str, int],
    budget: Budget,
    on_stopping: Callable[[int], None] | None,
) -> None:
    stop = asyncio.Event()

    limits = _RateLimits()

    async def attempt(item: Item[T]) -> bool:
        """Work on a row until no LLM is at its limit; return False after a lasting failure of its LLM."""
        cost: float | None = 0.0
        tries = 0
        try:
            while True:
                result, lasting = await _outcome(work, item)
                cost = None if cost is None or result.cost is None else cost + result.cost
                wait = limits.wait(item.queue, result.busy, tries)
                if wait is None or stop.is_set():
                    break
                tries += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), wait)
                if stop.is_set():
                    break
        finally:
            budget.release(item.most_cost, cost)
        count.entry(journal, item.key, replace(result, cost=cost))
        return not lasting

    async def worker(queue: _Queue[T], failures: list[int]) -> None:
        while queue and not stop.is_set():
            if failures[0] >= _PATIENCE:
                count.add(given_up=len(queue))
                queue.clear()
                return
            item = queue.take()
            if not await budget.reserve_in_time(item.most_cost):
                count.add(over_budget=1 + len(queue))
                queue.clear()
                return
            if stop.is_set():  # set while this worker waited for the budget
                budget.release(item.most_cost, 0.0)
                return
            failures[0] = 0 if await attempt(item) else failures[0] + 1

    tasks: set[asyncio.Task[None]] = set()
    for name, queue in queues.items():
        failures = [0]
        for _ in range(min(concurrency.get(name, 1), len(queue))):
            tasks.add(asyncio.create_task(worker(queue, failures)))
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        stop.set()
        if pending := [task for task in tasks if not task.done()]:
            if on_stopping is not None:
                on_stopping(len(pending))
            await asyncio.wait(pending)
    for task in tasks:
        task.result()


async def _outcome(work: Callable[[T], Awaitable[Result]], item: Item[T]) -> tuple[Result, bool]:
    """Work on a row once; return the result, and whether its LLM fails in a way that lasts."""
    try:
        return await work(item.value), False
    except LLMError as error:
        return Result(None, str(error), error.cost, busy=busy_llms([Failure.of(error)])), error.reason in _LASTING
    except NoAnswerError as error:
        lasting = all(failure.reason in _LASTING for failure in error.failures)
        value = {"failures": [failure.to_dict() for failure in error.failures]}
        return Result(value, str(error), error.cost, failed=True, busy=busy_llms(error.failures)), lasting


class _RateLimits:
    """The LLMs of each queue that are at their limit, and since when."""

    def __init__(self) -> None:
        self._since: dict[str, dict[str, float]] = {}

    def wait(self, queue: str, busy: Mapping[str, float], tries: int) -> float | None:
        """Note the result of a row; return the seconds before it is tried again, or None to leave it as it is.

        Args:
            queue: queue of the row.
            busy: LLMs at their limit, with the seconds until they may answer.
            tries: number of earlier attempts that were tried again.
        """
        now, before = time.monotonic(), self._since.get(queue, {})
        since = self._since[queue] = {llm: before.get(llm, now) for llm in busy}
        left = max((begun + _STUCK - now for begun in since.values()), default=0.0)
        if left <= 0:
            return None
        return min(max(min(busy.values()), _FIRST_WAIT * 2.0 ** min(tries, 16)), _LONGEST_WAIT, left)


def work_through_batches(
    journal: Journal,
    items: Sequence[Item[T]],
    work: Callable[[Sequence[T]], Sequence[Result]],
    *,
    size: int,
    on_rows: OnRows | None = None,
) -> Rows:
    """Work on rows in batches, for work that costs nothing, such as a metric; see `work_through`.

    Args:
        journal: record of the results.
        items: the rows; their queues are ignored.
        work: makes one result for each row of a batch.
        size: maximum rows of a batch.
        on_rows: called with the progress after each row.

    Raises:
        ValueError: two rows share a key.
        WorkError: the journal cannot be written; other errors of `work` come as they are.
    """
    waiting = _waiting(journal, [item.key for item in items])
    count = _Count(len(items), len(items) - waiting, on_rows)
    to_do = (item for item in items if journal.status(item.key) != "done")
    while batch := list(islice(to_do, size)):
        for item, result in zip(batch, work([item.value for item in batch]), strict=True):
            count.entry(journal, item.key, result)
    return count.rows


def _waiting(journal: Journal, keys: Sequence[str]) -> int:
    """Count the rows that are not done."""
    if len(set(keys)) < len(keys):
        raise ValueError("two rows of a job share a key")
    return sum(journal.status(key) != "done" for key in keys)
