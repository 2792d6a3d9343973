"""Admission of requests, as many as the service and its LLMs can take, and circuit breakers for the LLMs."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from llm_blender.errors import FailureReason, NoAnswerError
from llm_blender.server.errors import RefusedError
from llm_blender.types import Failure

_T = TypeVar("_T")
_MEMORY = 0.9  # weight of the earlier requests in the mean duration, once there are many
_MARGIN = 1.5  # of the mean duration: the LLMs have 80 % of the time that is left, and some take longer
_ANY = ""  # the resource that every request needs: a place of the service itself


@dataclass(eq=False)
class _Place:
    """A request that runs or waits.

    Attributes:
        needs: places that it needs, by LLM; `_ANY` is a place of the service.
        calls: calls that it makes, by LLM.
        end: its deadline, by the event loop's clock.
        turn: is done when the request may run; its exception refuses the request.
        started: when it began to run.
    """

    needs: Mapping[str, int]
    calls: Mapping[str, int]
    end: float
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    started: float | None = None

    @property
    def kind(self) -> str:
        """The kind of work, for its mean duration: one LLM by its name, several LLMs, or none."""
        return next(iter(self.calls)) if len(self.calls) == 1 else "*" if self.calls else ""


class Admission:
    """Admission of requests: some run at a time, some wait in a queue, and further ones are refused at once.

    A request runs as soon as the service and each LLM that it calls have a place for it; it is not overtaken at the LLM
    that it waits for. A request that finds the queue full is refused at once, and so is one that, by the mean duration
    of such requests, would not be answered by its deadline; a waiting one is refused as soon as the mean shows that.

    Args:
        concurrency: maximum number of running requests.
        queue: maximum number of waiting requests.
        places: maximum number of calls at once, by LLM; an LLM that is not named has no maximum.

    Attributes:
        running: number of running requests.
        closed: whether new requests are refused.
    """

    def __init__(self, concurrency: int, queue: int, places: Mapping[str, int] | None = None) -> None:
        self._places = {**(places or {}), _ANY: concurrency}
        self._most = queue
        self._running: list[_Place] = []
        self._waiting: list[_Place] = []
        self._calls: Counter[str] = Counter()
        self._usual: dict[str, float] = {}  # mean duration of a kind of requests, in seconds
        self._answers: Counter[str] = Counter()  # number of answers in it
        self._tasks: set[asyncio.Task[object]] = set()
        self.closed = False

    @property
    def running(self) -> int:
        """Number of running requests."""
        return len(self._running)

    @property
    def admitted(self) -> int:
        """Number of running and waiting requests."""
        return len(self._tasks)

    def has_room(self, name: str) -> bool:
        """Check whether all calls of the running requests to an LLM are under way, and none waits for another one."""
        return name not in self._places or self._calls[name] <= self._places[name]

    def begin(
        self,
        work: Callable[[], Awaitable[_T]],
        deadline: float,
        calls: Mapping[str, int] | None = None,
        *,
        enough: int | None = None,
    ) -> asyncio.Task[_T]:
        """Run work as soon as there is a place, and cancel it at the deadline.

        The task raises a `RefusedError` at the deadline. The caller cancels the task if its result is not needed any
        more.

        Args:
            work: the work.
            deadline: seconds from now, the wait included.
            calls: calls of the work, by LLM.
            enough: number of LLMs that suffice; the work does not wait for places at the others.

        Raises:
            RefusedError: the queue is full, the wait would be too long, or the service is shutting down.
        """
        if self.closed:
            raise RefusedError(503, "shutting_down", "The service is shutting down: try another one.", retry_after=5)
        clock = asyncio.get_running_loop().time
        place = _Place(self._needs(calls or {}, enough), calls or {}, clock() + deadline)
        self._waiting.append(place)
        self._start()
        if not place.turn.done():
            starts = self._review()
            if len(self._waiting) > self._most:
                self._waiting.remove(place)
                wait = starts[self._waiting[len(self._waiting) // 2] if self._waiting else place] - clock()
                raise RefusedError(
                    429,
                    "queue_full",
                    f"{self.admitted} requests are running or waiting, which is the maximum: try again later.",
                    retry_after=wait if wait > 0 else None,  # half of the queue is empty then
                )
            if (refusal := _refusal(place)) is not None:
                raise refusal
        task = asyncio.create_task(self._in_turn(work, place, deadline))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._end(place))
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

    async def _in_turn(self, work: Callable[[], Awaitable[_T]], place: _Place, deadline: float) -> _T:
        try:
            async with asyncio.timeout(deadline):
                await place.turn
                try:
                    result = await work()
                except NoAnswerError:
                    self._learn(place, answered=False)
                    raise
                self._learn(place)
                return result
        except asyncio.CancelledError:
            if self.closed:
                raise RefusedError(503, "shutting_down", "The service shut down before the answer was ready.") from None
            raise
        except TimeoutError:
            if place.started is None:
                raise _too_busy(None) from None
            self._learn(place, answered=False)
            raise RefusedError(504, "deadline", f"There was no answer within {deadline:g} s.") from None

    def _needs(self, calls: Mapping[str, int], enough: int | None) -> dict[str, int]:
        """Return the places that a request waits for: those of the `enough` LLMs that have most."""
        widest = sorted(calls, key=lambda name: -self._places.get(name, 1_000_000))[:enough]
        limited = {name: min(calls[name], self._places[name]) for name in widest if name in self._places}
        return {_ANY: 1, **limited}

    def _start(self) -> None:
        """Let waiting requests run, in order, as far as there are places."""
        free = Counter(self._places)
        for place in self._running:
            free.subtract(place.needs)
        passed: set[str] = set()  # resources that an earlier request waits for
        for place in list(self._waiting):
            if place.turn.done():  # cancelled, with its task
                continue
            if passed.isdisjoint(place.needs) and all(free[name] >= count for name, count in place.needs.items()):
                self._waiting.remove(place)
                self._running.append(place)
                self._calls.update(place.calls)
                free.subtract(place.needs)
                place.started = asyncio.get_running_loop().time()
                place.turn.set_result(None)
            elif free[_ANY] <= 0:
                return
            else:
                passed |= {name for name, count in place.needs.items() if free[name] < count}

    def _end(self, place: _Place) -> None:
        """Free the places of a request, and let others run."""
        if place in self._running:
            self._running.remove(place)
            self._calls.subtract(place.calls)
        elif place in self._waiting:
            self._waiting.remove(place)
        _refusal(place)  # of a task that was cancelled before it read the refusal
        self._start()
        self._review()

    def _learn(self, place: _Place, *, answered: bool = True) -> None:
        """Add a request that was not cancelled to the mean duration of its kind.

        One without an answer, as where its client gave it little time, does not make the mean shorter.
        """
        seconds = asyncio.get_running_loop().time() - (place.started or 0.0)
        before, count = self._usual.get(place.kind, seconds), self._answers[place.kind]
        memory = min(_MEMORY, count / (count + 1)) if answered else _MEMORY
        self._answers[place.kind] += answered
        self._usual[place.kind] = memory * before + (1 - memory) * (seconds if answered else max(seconds, before))

    def _review(self) -> dict[_Place, float]:
        """Estimate when each waiting request will run, and refuse those that would be too late.

        Nothing is refused before a request of its kind has ended: there is no mean duration then.

        Returns:
            The estimates, by the clock of the event loop.
        """
        if not self._waiting:
            return {}
        now = asyncio.get_running_loop().time()
        ends: dict[str, list[float]] = {name: [] for name in self._places}  # when places become free
        for place in self._running:
            end = max(now, (place.started or now) + self._usual.get(place.kind, 0.0))
            for name, count in place.needs.items():
                ends[name] += [end] * count
        for name, most in self._places.items():
            ends[name] += [now] * (most - len(ends[name]))
            heapq.heapify(ends[name])
        starts: dict[_Place, float] = {}
        for place in [place for place in self._waiting if not place.turn.done()]:
            start = max(heapq.nsmallest(count, ends[name])[-1] for name, count in place.needs.items())
            usual = self._usual.get(place.kind)
            if usual is not None and start > now and start + _MARGIN * usual > place.end:
                self._waiting.remove(place)
                place.turn.set_exception(_too_busy(start + _MARGIN * usual - place.end))
                continue
            starts[place] = start
            for name, count in place.needs.items():
                for _ in range(count):
                    heapq.heapreplace(ends[name], start + (usual or 0.0))
        return starts


def _refusal(place: _Place) -> BaseException | None:
    return place.turn.exception() if place.turn.done() and not place.turn.cancelled() else None


def _too_busy(retry_after: float | None) -> RefusedError:
    message = "So many requests are waiting that this one would not be answered by its deadline: try again later."
    return RefusedError(429, "too_busy", message, retry_after=retry_after)


_LONGEST = 600.0  # seconds
# The other reasons are about a request or its limits, and not about the LLM.
_COUNTED: frozenset[FailureReason] = frozenset({"timeout", "connection", "auth", "server", "bad_response", "not_found"})


@dataclass
class _Breaker:
    failures: int = 0
    until: float = 0.0
    probing: bool = False
    last: Failure | None = None


class CircuitBreakers:
    """A circuit breaker for each LLM.

    An LLM that failed several times in a row is set aside: its breaker is open. After a pause one request tries the
    LLM, while the breaker stays open for the others: an answer closes it, a failure doubles the pause, and any other
    end leaves the attempt to the next request. Calls that began before the breaker opened do not lengthen the pause.

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
        """Return why a request may not call an LLM; None if it may."""
        breaker = self._breakers[name]
        left = breaker.until - self._clock()
        if breaker.failures < self._failures or breaker.last is None or (left <= 0 and not breaker.probing):
            return None
        last, when = breaker.last, f"tried again in {left:.0f} s" if left > 0 else "tried again now"
        messages = [
            f"{name}: set aside after {breaker.failures} failures in a row, {when}; the last: {message}"
            for message in (last.message, last.public or last.message)
        ]
        return Failure(
            name, "set_aside", messages[0], public=messages[1], retry_after=max(math.ceil(left), 1), own=False
        )

    def is_open(self, name: str) -> bool:
        """Check whether an LLM is set aside now."""
        breaker = self._breakers[name]
        return breaker.failures >= self._failures and breaker.until > self._clock()

    def probe(self, name: str) -> bool:
        """Claim the one attempt after a pause; False if the breaker is closed, or another request has the attempt."""
        breaker = self._breakers[name]
        due = breaker.failures >= self._failures and breaker.until <= self._clock()
        if not due or breaker.probing:
            return False
        breaker.probing = True
        return True

    def release(self, name: str) -> None:
        """Give an attempt back that ended without an answer and without a failure of the LLM."""
        self._breakers[name].probing = False

    def succeeded(self, name: str) -> None:
        """Close the breaker of an LLM that gave an answer."""
        self._breakers[name] = _Breaker()

    def failed(self, failure: Failure, *, probe: bool = False) -> None:
        """Count a failure, if it is the LLM's own.

        Args:
            failure: the failure.
            probe: whether the call was the attempt after a pause.
        """
        breaker = self._breakers[failure.model]
        if probe:
            breaker.probing = False
        is_open = breaker.failures >= self._failures
        if not failure.own or failure.reason not in _COUNTED or (is_open and not probe):
            return
        breaker.failures, breaker.last = breaker.failures + 1, failure
        breaker.until = self._clock() + self._length(breaker)

    def _length(self, breaker: _Breaker) -> float:
        more = min(max(breaker.failures - self._failures, 0), 32)
        return float(min(self._pause * 2.0**more, max(_LONGEST, self._pause)))
