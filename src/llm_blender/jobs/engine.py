"""Works through the rows of a job: several at a time, each once, within a budget; failures are noted and left."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from llm_blender.calls import run_to_end
from llm_blender.errors import LLMError, NoAnswerError
from llm_blender.jobs.journal import Entry, Journal

__all__ = ["Budget", "Item", "OnRows", "Result", "Rows", "work_through", "work_through_batches"]


class Budget:
    """Dollars that may be spent, and those that calls under way may still cost.

    Before a call begins, the most that it may cost is put aside; when it is over, what it did cost takes that place.
    The cap is broken only where a call costs more than what was put aside for it.

    Args:
        most: dollars; None is no cap.
        spent: of these, already.
    """

    def __init__(self, most: float | None = None, spent: float = 0.0) -> None:
        self.most, self.spent = most, spent
        self._aside = 0.0
        self._changed = asyncio.Condition()

    async def admit(self, most: float) -> bool:
        """Put aside what a call may cost at most; False if that is more than what is left.

        Where it only may be too much, it waits for calls under way, which may cost less than their most.
        """
        async with self._changed:
            while self.most is not None and most and self.spent + self._aside + most > self.most:
                if not self._aside:
                    return False
                await self._changed.wait()
            self._aside += most
            return True

    async def settle(self, most: float, cost: float | None) -> None:
        """A call is over for which `most` was put aside.

        Args:
            most: see there.
            cost: of it; None where it is unknown, which then counts as `most`.
        """
        async with self._changed:
            self._aside = max(0.0, self._aside - most)
            if self._aside < 1e-12:
                self._aside = 0.0  # what is left of sums of small numbers
            self.spent += most if cost is None else cost
            self._changed.notify_all()


T = TypeVar("T")

_PATIENCE = 10
"""Failures in a row of one lane after which nobody can believe that its LLM answers today."""
_LASTING = {"auth", "connection", "rate_limit", "server", "timeout"}


@dataclass(frozen=True)
class Item(Generic[T]):
    """A row to be worked on.

    Attributes:
        key: by which the journal knows it; no two rows of a job share one.
        value: what the work wants to know.
        lane: whose turn it is; each lane works on its own rows, as many at a time as it may.
        most: dollars that it may cost at most, as far as can be known.
    """

    key: str
    value: T
    lane: str = ""
    most: float = 0.0


@dataclass(frozen=True)
class Result:
    """What came of a row.

    Attributes:
        value: plain JSON values; None where the row failed.
        reason: why it failed, or is not all that was asked for; empty where it is.
        cost: dollars paid; None where a price is unknown.
    """

    value: Any
    reason: str = ""
    cost: float | None = 0.0


@dataclass(frozen=True)
class Rows:
    """How far the rows are.

    Attributes:
        total: all of them.
        resumed: of these, done by earlier runs.
        done: done now.
        partial: with a result that is not all that was asked for; the next run tries them again.
        failed: without a result; the next run tries them again.
        over_budget: not begun, since the budget does not allow it.
        given_up: not begun, since the LLM failed again and again.
        cost: dollars paid now, as far as prices are known.
        unpriced: rows whose cost is unknown.
        seconds: since the work began.
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
        """Rows that nothing more happens to now."""
        return self.resumed + self.done + self.partial + self.failed + self.over_budget + self.given_up

    @property
    def missing(self) -> int:
        """Rows without a result, whatever the reason."""
        return self.failed + self.over_budget + self.given_up

    @property
    def rate(self) -> float:
        """Rows a second, of this run."""
        return (self.done + self.partial + self.failed) / self.seconds if self.seconds else 0.0


OnRows = Callable[[Rows], None]
"""Told how far the work is, after each row."""


class _Count:
    """Counts rows, and tells."""

    def __init__(self, total: int, resumed: int, tell: OnRows | None) -> None:
        self.rows = Rows(total, resumed)
        self._started, self._tell = time.monotonic(), tell

    def add(self, *, cost: float | None = 0.0, **more: int) -> None:
        counts = {name: getattr(self.rows, name) + count for name, count in more.items()}
        self.rows = replace(
            self.rows,
            **counts,
            cost=self.rows.cost + (cost or 0.0),
            unpriced=self.rows.unpriced + (cost is None),
            seconds=time.monotonic() - self._started,
        )
        if self._tell is not None:
            self._tell(self.rows)

    def entry(self, journal: Journal, key: str, result: Result) -> None:
        """Write down what came of a row."""
        status = "failed" if result.value is None else "partial" if result.reason else "done"
        journal.add(Entry(key, status, result.value, result.reason, result.cost))  # type: ignore[arg-type]
        self.add(cost=result.cost, **{status: 1})


def work_through(
    journal: Journal,
    items: Sequence[Item[T]],
    work: Callable[[T], Awaitable[Result]],
    *,
    lanes: Mapping[str, int] | None = None,
    budget: Budget | None = None,
    resources: Sequence[object] = (),
    on_rows: OnRows | None = None,
    on_stopping: Callable[[int], None] | None = None,
) -> Rows:
    """Work on each row that is not done yet.

    A row whose LLM fails is noted, with the reason, and the others go on. After ten lasting failures in a row of
    one lane, its other rows are not begun. On any other error, and when interrupted, no further row is begun, and those
    under way come to their end: what was paid for is kept.

    Args:
        journal: where it is noted what was done.
        items: the rows; their keys differ.
        work: makes the result of a row.
        lanes: how many rows of each lane are worked on at a time; 1 where it is not said.
        budget: within which rows are begun; None is no cap.
        resources: those of them that are asynchronous context managers, such as LLMs, are open meanwhile.
        on_rows: see there.
        on_stopping: told how many rows are waited for when the work stops early.

    Raises:
        ValueError: two rows share a key.
        StoreError, WorkError: what was paid for could not be kept, and other errors of `work`.
    """
    waiting = _waiting(journal, items)

    async def run() -> Rows:
        async with contextlib.AsyncExitStack() as stack:
            for resource in resources if waiting else ():  # what is not needed is not loaded
                if isinstance(resource, contextlib.AbstractAsyncContextManager):
                    await stack.enter_async_context(resource)
            count = _Count(len(items), len(items) - len(waiting), on_rows)
            await _work(journal, waiting, count, work, lanes or {}, budget or Budget(), on_stopping)
            return count.rows

    return run_to_end(run)


async def _work(
    journal: Journal,
    waiting: Sequence[Item[T]],
    count: _Count,
    work: Callable[[T], Awaitable[Result]],
    lanes: Mapping[str, int],
    budget: Budget,
    on_stopping: Callable[[int], None] | None,
) -> None:
    queues: dict[str, deque[Item[T]]] = {}
    for item in waiting:
        queues.setdefault(item.lane, deque()).append(item)
    stop = asyncio.Event()

    async def attempt(item: Item[T]) -> bool:
        """Work on a row; whether its lane may be believed to work."""
        cost: float | None = 0.0
        try:
            result = await work(item.value)
            cost = result.cost
        except LLMError as error:
            result = Result(None, str(error))
            lasting = error.reason in _LASTING
        except NoAnswerError as error:
            result = Result(None, str(error))
            lasting = all(failure.reason in _LASTING for failure in error.failures)
        else:
            lasting = False
        finally:
            await budget.settle(item.most, cost)
        count.entry(journal, item.key, result)
        return not lasting

    async def worker(queue: deque[Item[T]], failures: list[int]) -> None:
        while queue and not stop.is_set():
            if failures[0] >= _PATIENCE:
                count.add(given_up=len(queue))
                queue.clear()
                return
            item = queue.popleft()
            if not await budget.admit(item.most):
                count.add(over_budget=1 + len(queue))
                queue.clear()
                return
            if stop.is_set():  # while it waited for the budget
                await budget.settle(item.most, 0.0)
                return
            failures[0] = 0 if await attempt(item) else failures[0] + 1

    tasks: set[asyncio.Task[None]] = set()
    for lane, queue in queues.items():
        failures = [0]
        for _ in range(min(lanes.get(lane, 1), len(queue))):
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


def work_through_batches(
    journal: Journal,
    items: Sequence[Item[T]],
    work: Callable[[Sequence[T]], Sequence[Result]],
    *,
    size: int,
    on_rows: OnRows | None = None,
) -> Rows:
    """`work_through` for work that costs nothing and is done for many rows together, such as a metric.

    Args:
        journal: as for `work_through`.
        items: likewise; lanes are not looked at.
        work: makes one result for each of the rows that it is given.
        size: rows given together, at most.
        on_rows: as for `work_through`.

    Raises:
        ValueError: two rows share a key.
        WorkError: the journal cannot be written, and other errors of `work`.
    """
    waiting = _waiting(journal, items)
    count = _Count(len(items), len(items) - len(waiting), on_rows)
    for start in range(0, len(waiting), size):
        batch = waiting[start : start + size]
        for item, result in zip(batch, work([item.value for item in batch]), strict=True):
            count.entry(journal, item.key, result)
    return count.rows


def _waiting(journal: Journal, items: Sequence[Item[T]]) -> list[Item[T]]:
    if len({item.key for item in items}) < len(items):
        raise ValueError("two rows of a job share a key")
    return [item for item in items if journal.status(item.key) != "done"]
