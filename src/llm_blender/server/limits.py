"""How many requests are worked on, how many wait, and who is sent away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from llm_blender.errors import FailureReason
from llm_blender.server.errors import RefusedError
from llm_blender.types import Failure

__all__ = ["Breakers", "Gate"]

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


_LONGEST = 600.0  # seconds
# What the others say of a request, not of the LLM.
_TELLING: frozenset[FailureReason] = frozenset(
    {"timeout", "connection", "auth", "rate_limit", "server", "bad_response", "not_found"}
)


class _Breaker:
    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0
        self.last = ""


class Breakers:
    """What is remembered of each LLM.

    An LLM that failed several times in a row is set aside. After its pause one request asks it again, while it stays
    set aside for the others: an answer brings it back, a failure doubles the pause.

    Args:
        names: of the LLMs.
        failures: in a row, after which one is set aside.
        pause: seconds, the first time.
        clock: tells the seconds.
    """

    def __init__(
        self, names: Iterable[str], failures: int, pause: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._breakers = {name: _Breaker() for name in names}
        self._failures, self._pause, self._clock = failures, pause, clock

    def take(self, name: str) -> Failure | None:
        """Take an LLM for a request; why not, if it is set aside."""
        breaker = self._breakers[name]
        if breaker.failures < self._failures:
            return None
        left = breaker.until - self._clock()
        if left <= 0:
            breaker.until = self._clock() + self._length(breaker)  # this request tries; until it knows, no other
            return None
        message = (
            f"{name}: set aside after {breaker.failures} failures in a row, tried again in {left:.0f} s; the last: "
            f"{breaker.last}"
        )
        return Failure(name, "set_aside", message)

    def aside(self, name: str) -> bool:
        """Whether an LLM is set aside just now."""
        breaker = self._breakers[name]
        return breaker.failures >= self._failures and breaker.until > self._clock()

    def answered(self, name: str) -> None:
        """An LLM gave an answer."""
        self._breakers[name] = _Breaker()

    def failed(self, failure: Failure) -> None:
        """An LLM gave none."""
        if failure.reason not in _TELLING:
            return
        breaker = self._breakers[failure.model]
        breaker.failures, breaker.last = breaker.failures + 1, failure.message
        breaker.until = self._clock() + self._length(breaker)

    def _length(self, breaker: _Breaker) -> float:
        more = min(max(breaker.failures - self._failures, 0), 32)
        return float(min(self._pause * 2.0**more, max(_LONGEST, self._pause)))
