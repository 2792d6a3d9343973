"""Admission of requests, as many as the service and its LLMs can take, and circuit breakers for the LLMs."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from llm_blender.errors import FailureReason, NoAnswerError
from llm_blender.server.errors import RefusedError
from llm_blender.types import Failure

_T = TypeVar("_T")
_MEMORY = 0.9  # weight of the earlier requests in the mean duration, once there are many
_MARGIN = 1.5  # of the mean duration: the LLMs have 80 % of the time that is left, and some take longer
_PAUSE = 0.05  # minimum seconds from one review of the queue to the next where nothing ends in between


@dataclass(eq=False)
class _Place:
    """A request that runs or waits.

    Attributes:
        calls: its calls that are not over, by LLM.
        enough: number of LLMs that must have room for it before it runs.
        end: its deadline, by the event loop's clock.
        kind: the kind of work, for its mean duration: one LLM by its name, several LLMs, or none.
        turn: is done when the request may run; its exception refuses the request.
        started: when it began to run.
        called: when its last call was over.
    """

    calls: dict[str, int]
    enough: int
    end: float
    kind: str
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    started: float = math.nan
    called: float = math.nan


class _Means:
    """Mean durations by name, in seconds; the last ones have most weight."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._answers: Counter[str] = Counter()

    def get(self, name: str) -> float | None:
        """Return a mean; None if nothing has ended."""
        return self._seconds.get(name)

    def add(self, name: str, seconds: float, *, answered: bool = True) -> None:
        """Add a duration; one without an answer, as where a client gave it little time, does not shorten the mean."""
        before, count = self._seconds.get(name, seconds), self._answers[name]
        memory = min(_MEMORY, count / (count + 1)) if answered else _MEMORY
        self._answers[name] += answered
        self._seconds[name] = memory * before + (1 - memory) * (seconds if answered else max(seconds, before))


_request: ContextVar[_Place] = ContextVar("llm_blender_request")  # the one that a task works for


class Admission:
    """Admission of requests: some run at a time, some wait in a queue, and further ones are refused at once.

    A request runs as soon as the service and the LLMs that it calls have places for it; it is not overtaken at an LLM
    that it waits for. A request that finds the queue full is refused at once, and so is one that no LLM would answer by
    its deadline: by the mean duration of the LLM's calls, and the mean time that requests take after their last call. A
    waiting one is refused as soon as the means show that. Where only some of its LLMs have no place in time, or a call
    before it takes too long, a request does not wait for them.

    Args:
        concurrency: maximum number of running requests.
        queue: maximum number of waiting requests.
        places: maximum number of calls at once, by LLM; an LLM that is not named has no maximum.

    Attributes:
        closed: whether new requests are refused.
    """

    def __init__(self, concurrency: int, queue: int, places: Mapping[str, int] | None = None) -> None:
        self._concurrency, self._most, self._places = concurrency, queue, dict(places or {})
        self._running: list[_Place] = []
        self._waiting: list[_Place] = []
        self._calls: Counter[str] = Counter()  # of the running requests
        self._usual = _Means()  # by kind of request
        self._usual_call = _Means()  # by LLM
        self._usual_rest = _Means()  # after the last call, by kind of request
        self._timer: asyncio.TimerHandle | None = None
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
        clock, calls = asyncio.get_running_loop().time, dict(calls or {})
        kind = next(iter(calls)) if len(calls) == 1 else "*" if calls else ""
        wanted = len(calls) if enough is None else min(enough, len(calls))
        place = _Place(calls, wanted, clock() + deadline, kind)
        self._waiting.append(place)
        starts = self._update()
        if not place.turn.done() and len(self._waiting) > self._most:
            self._waiting.remove(place)
            wait = starts[self._waiting[len(self._waiting) // 2] if self._waiting else place] - clock()
            raise RefusedError(
                429,
                "queue_full",
                f"{self.admitted} requests are running or waiting, which is the maximum: try again later.",
                retry_after=wait if wait > 0 and self._usual.get(kind) else None,  # half of the queue is empty then
            )
        if (refusal := _refusal(place)) is not None:
            raise refusal
        task = asyncio.create_task(self._in_turn(work, place, deadline))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._end(place))
        return task

    def call_ended(self, name: str, *, usual: bool) -> None:
        """Free the place of a call as soon as it is over; called in the task of a request, or in one that it began.

        Args:
            name: the LLM.
            usual: count its duration in the mean of the LLM's calls.
        """
        place = _request.get(None)
        if place is None or not place.calls.get(name) or place not in self._running:
            return
        place.calls[name] -= 1
        place.called = asyncio.get_running_loop().time()
        self._calls[name] -= 1
        if usual:
            self._usual_call.add(name, place.called - place.started)
        if self._waiting:
            self._update()

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
                _request.set(place)
                try:
                    result = await work()
                except NoAnswerError:
                    place.called = math.nan  # nothing followed the calls
                    self._learn(place, answered=False)
                    raise
                self._learn(place)
                return result
        except asyncio.CancelledError:
            if self.closed:
                raise RefusedError(503, "shutting_down", "The service shut down before the answer was ready.") from None
            raise
        except TimeoutError:
            if place not in self._running:
                raise _too_busy(None) from None
            self._learn(place, answered=False)
            raise RefusedError(504, "deadline", f"There was no answer within {deadline:g} s.") from None

    def _learn(self, place: _Place, *, answered: bool = True) -> None:
        now = asyncio.get_running_loop().time()
        self._usual.add(place.kind, now - place.started, answered=answered)
        if not math.isnan(place.called):
            self._usual_rest.add(place.kind, now - place.called, answered=answered)

    def _end(self, place: _Place) -> None:
        """Free the places of a request, and let others run."""
        if place in self._running:
            self._running.remove(place)
            self._calls.subtract(place.calls)
        elif place in self._waiting:
            self._waiting.remove(place)
        _refusal(place)  # of a task that was cancelled before it read the refusal
        if self._waiting:
            self._update()

    def _update(self) -> dict[_Place, float]:
        """Let waiting requests run, and refuse those that would be late; return when the others will probably run."""
        self._start()
        starts, eased = self._review()
        if eased:
            self._start()
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        if self._waiting and (next_start := min(starts.values(), default=None)) is not None:
            self._timer = loop.call_at(max(next_start, loop.time() + _PAUSE), self._update)  # its estimate was wrong
        return starts

    def _start(self) -> None:
        """Let waiting requests run, in order, as far as there are places."""
        passed: set[str] = set()  # LLMs that an earlier request waits for
        for place in [place for place in self._waiting if not place.turn.done()]:  # others are cancelled
            if len(self._running) >= self._concurrency:
                return
            full = {name for name in place.calls if name in passed or not self._fits(place, name)}
            if len(place.calls) - len(full) < place.enough:
                passed |= full
                continue
            self._waiting.remove(place)
            self._running.append(place)
            self._calls.update(place.calls)
            place.started = asyncio.get_running_loop().time()
            place.turn.set_result(None)

    def _fits(self, place: _Place, name: str) -> bool:
        """Check whether an LLM has room for all calls of a request, or for as many as it can take."""
        most = self._places.get(name)
        return most is None or self._calls[name] + min(place.calls[name], most) <= most

    def _review(self) -> tuple[dict[_Place, float], bool]:
        """Estimate when each waiting request will run, and refuse those that would be too late.

        Nothing is refused before a request of its kind has ended: there is no mean duration then.

        Returns:
            The estimates, by the clock of the event loop; whether a request now waits for fewer LLMs.
        """
        starts: dict[_Place, float] = {}
        eased = False
        if not self._waiting:
            return starts, eased
        now = asyncio.get_running_loop().time()
        requests, calls = self._ends(now)
        for place in [place for place in self._waiting if not place.turn.done()]:
            usual = self._usual.get(place.kind)
            counts = {name: min(count, self._places[name]) for name, count in place.calls.items() if name in calls}
            rooms = sorted(
                (max(requests[0], heapq.nsmallest(counts[name], calls[name])[-1] if name in counts else now), name)
                for name in place.calls or [""]
            )
            wanted = max(place.enough, 1)
            if usual is not None and rooms[wanted - 1][0] > now:
                takes = [self._takes(place.kind, name, usual) for _, name in rooms]
                if not (enough := _awaited([room for room, _ in rooms[:wanted]], takes, now, place.end)):
                    self._waiting.remove(place)
                    soonest = min(room + seconds for (room, _), seconds in zip(rooms, takes, strict=True))
                    place.turn.set_exception(_too_busy(soonest - place.end))
                    continue
                if enough < wanted:
                    place.enough, wanted, eased = enough, enough, True
            start = rooms[wanted - 1][0]
            starts[place] = start
            heapq.heapreplace(requests, start + (usual or 0.0))
            for name, count in counts.items():
                for _ in range(count):
                    begun = max(start, calls[name][0])
                    heapq.heapreplace(calls[name], begun + (self._usual_call.get(name) or usual or 0.0))
        return starts, eased

    def _takes(self, kind: str, llm: str, usual: float) -> float:
        """Estimate the seconds from the call of an LLM to the end of a request; `usual` is the mean of whole ones."""
        call = self._usual_call.get(llm)
        return _MARGIN * usual if call is None else _MARGIN * call + (self._usual_rest.get(kind) or 0.0)

    def _ends(self, now: float) -> tuple[list[float], dict[str, list[float]]]:
        """Estimate when each place becomes free: those of the service, and those of the LLMs; as heaps."""
        requests = [now] * (self._concurrency - len(self._running))
        calls = {name: [now] * most for name, most in self._places.items()}
        for place in self._running:
            usual = self._usual.get(place.kind) or 0.0
            requests.append(_expected_end(now, place.started, usual, place.end))
            for name, count in place.calls.items():
                length = self._usual_call.get(name) or usual
                for _ in range(count if name in calls else 0):
                    begun = max(place.started, calls[name][0]) if calls[name][0] > now else place.started
                    heapq.heapreplace(calls[name], _expected_end(now, begun, length, place.end))
        heapq.heapify(requests)
        return requests, calls


def _awaited(rooms: Sequence[float], takes: Sequence[float], now: float, end: float) -> int:
    """Return for how many LLMs a request should wait, so that as many as possible answer in time; 0 if none can.

    Args:
        rooms: when each LLM has room, ascending.
        takes: seconds from the call of each LLM to the end of the request.
        now: the time; a request never waits in vain while an LLM has room.
        end: the deadline.
    """

    def in_time(count: int) -> int:
        return sum(rooms[count - 1] + seconds <= end for seconds in takes[:count])

    if in_time(len(rooms)) == len(rooms):
        return len(rooms)
    best = max(range(1, len(rooms) + 1), key=in_time)
    return best if in_time(best) else sum(room <= now for room in rooms)


def _expected_end(now: float, begun: float, usual: float, end: float) -> float:
    """Estimate when a request or call will end; one that took longer than usual takes as long again as it has so far.

    Args:
        now: the time; what has not ended ends later, also where it began in this tick of the clock.
        begun: its begin.
        usual: the mean duration.
        end: the deadline of the request.
    """
    expected = begun + usual if begun + usual > now else 2 * now - begun
    return max(math.nextafter(now, math.inf), min(expected, end))


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
