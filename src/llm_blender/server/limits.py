"""Admission of requests, up to a bound on running and waiting ones, and circuit breakers for the LLMs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from llm_blender.errors import FailureReason
from llm_blender.server.errors import RefusedError
from llm_blender.types import Failure

_T = TypeVar("_T")
_MEMORY = 0.9  # weight of the earlier requests in the mean duration


class Admission:
    """Admission of requests: some run at a time, some wait in a queue, and further ones are refused at once.

    Args:
        concurrency: maximum number of running requests.
        queue: maximum number of waiting requests.

    Attributes:
        running: number of running requests.
        closed: whether new requests are refused.
    """

    def __init__(self, concurrency: int, queue: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._concurrency, self._most = concurrency, concurrency + queue
        self._usual = 1.0  # mean duration of a request, in seconds
        self._tasks: set[asyncio.Task[object]] = set()
        self.running = 0
        self.closed = False

    @property
    def admitted(self) -> int:
        """Number of running and waiting requests."""
        return len(self._tasks)

    def begin(self, work: Callable[[], Awaitable[_T]], deadline: float) -> asyncio.Task[_T]:
        """Run work as soon as there is a free slot, and cancel it at the deadline.

        The task raises a `RefusedError` at the deadline. The caller cancels the task if its result is not needed any
        more.

        Args:
            work: the work.
            deadline: seconds from now, the wait included.

        Raises:
            RefusedError: the queue is full, or the service is shutting down.
        """
        if self.closed:
            raise RefusedError(503, "shutting_down", "The service is shutting down: try another one.", retry_after=5)
        if self.admitted >= self._most:
            raise RefusedError(
                429,
                "queue_full",
                f"{self.admitted} requests are running or waiting, which is the maximum: try again later.",
                retry_after=self._usual * self._most / self._concurrency / 2,
            )
        task = asyncio.create_task(self._in_turn(work, deadline))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self, seconds: float) -> bool:
        """Refuse new requests, wait for the others, cancel them after `seconds`; return whether all were done."""
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
                raise RefusedError(503, "shutting_down", "The service shut down before the answer was ready.") from None
            raise
        except TimeoutError:
            raise RefusedError(504, "deadline", f"There was no answer within {deadline:g} s.") from None


_LONGEST = 600.0  # seconds
# The other reasons are about a request, not about the LLM.
_COUNTED: frozenset[FailureReason] = frozenset(
    {"timeout", "connection", "auth", "rate_limit", "server", "bad_response", "not_found"}
)


@dataclass
class _Breaker:
    failures: int = 0
    until: float = 0.0
    last: str = ""


class CircuitBreakers:
    """A circuit breaker for each LLM.

    An LLM that failed several times in a row is set aside: its breaker is open. After a pause one request tries the
    LLM, while the breaker stays open for the others: an answer closes it, a failure doubles the pause.

    Args:
        names: names of the LLMs.
        failures: number of failures in a row that opens a breaker.
        pause: seconds of the first pause; the maximum is ten minutes.
        clock: returns the time in seconds.
    """

    def __init__(
        self, names: Iterable[str], failures: int, pause: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._breakers = {name: _Breaker() for name in names}
        self._failures, self._pause, self._clock = failures, pause, clock

    def refusal(self, name: str) -> Failure | None:
        """Return why a request may not call an LLM; None lets it call the LLM, as the one that tries after a pause."""
        breaker = self._breakers[name]
        if breaker.failures < self._failures:
            return None
        left = breaker.until - self._clock()
        if left <= 0:
            breaker.until = self._clock() + self._length(breaker)  # this request tries the LLM, the others wait for it
            return None
        message = (
            f"{name}: set aside after {breaker.failures} failures in a row, tried again in {left:.0f} s; the last: "
            f"{breaker.last}"
        )
        return Failure(name, "set_aside", message)

    def is_open(self, name: str) -> bool:
        """Return whether an LLM is set aside now."""
        breaker = self._breakers[name]
        return breaker.failures >= self._failures and breaker.until > self._clock()

    def succeeded(self, name: str) -> None:
        """Close the breaker of an LLM that gave an answer."""
        self._breakers[name] = _Breaker()

    def failed(self, failure: Failure) -> None:
        """Count a failure of an LLM, if its reason is about the LLM and not about the request."""
        if failure.reason not in _COUNTED:
            return
        breaker = self._breakers[failure.model]
        breaker.failures, breaker.last = breaker.failures + 1, failure.message
        breaker.until = self._clock() + self._length(breaker)

    def _length(self, breaker: _Breaker) -> float:
        more = min(max(breaker.failures - self._failures, 0), 32)
        return float(min(self._pause * 2.0**more, max(_LONGEST, self._pause)))
