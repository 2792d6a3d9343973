"""How many requests are worked on, how many wait, and who is sent away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from llm_blender.server.problems import RefusedError

__all__ = ["Gate"]

_T = TypeVar("_T")
_MEMORY = 0.9  # of the mean duration, for each further request


class Gate:
    """Lets a number of requests through at a time, keeps others waiting, and sends away the rest at once.

    Args:
        concurrency: requests that are worked on at a time.
        queue: requests that wait.

    Attributes:
        running: requests at work.
        closed: nobody comes in any more.
    """

    def __init__(self, concurrency: int, queue: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._concurrency, self._most = concurrency, concurrency + queue
        self._usual = 1.0  # seconds of a request
        self._tasks: set[asyncio.Task[object]] = set()
        self.running = 0
        self.closed = False

    @property
    def admitted(self) -> int:
        """Requests at work or waiting."""
        return len(self._tasks)

    def begin(self, work: Callable[[], Awaitable[_T]], deadline: float) -> asyncio.Task[_T]:
        """Start work in its turn, and end it at the deadline, which counts from now.

        The task raises a `RefusedError` when the deadline is over. Whoever begins it cancels it when nobody wants its
        result any more.

        Raises:
            RefusedError: there is no place, or the gate is closed.
        """
        if self.closed:
            raise RefusedError(503, "shutting_down", "The service is shutting down: ask another one.", retry_after=5)
        if self.admitted >= self._most:
            raise RefusedError(
                429,
                "queue_full",
                f"{self.admitted} requests are at work or waiting, and more are not taken: try again later.",
                retry_after=self._usual * self._most / self._concurrency / 2,
            )
        task = asyncio.create_task(self._in_turn(work, deadline))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self, seconds: float) -> bool:
        """Let nobody in, wait until all are done, and after `seconds` cancel the rest; False if there was one."""
        self.closed = True
        if not self._tasks:
            return True
        _, late = await asyncio.wait(self._tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return not late

    async def _in_turn(self, work: Callable[[], Awaitable[_T]], deadline: float) -> _T:
        try:
            async with asyncio.timeout(deadline), self._slots:
                self.running += 1
                started = time.monotonic()
                try:
                    return await work()
                finally:
                    self.running -= 1
                    self._usual = _MEMORY * self._usual + (1 - _MEMORY) * (time.monotonic() - started)
        except asyncio.CancelledError:
            if self.closed:
                raise RefusedError(503, "shutting_down", "The service shut down before the answer was there.") from None
            raise
        except TimeoutError:
            raise RefusedError(504, "deadline", f"There was no answer within {deadline:g} s.") from None
