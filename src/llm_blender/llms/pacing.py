"""Pace the calls of one LLM: places, pauses that its server orders, and a rate that it accepts.

A refusal (429, or a 503) closes the LLM for the time that its server names. Afterwards the calls keep to the rate that
the server accepted before, which grows again slowly: a job runs at the rate of the server, with few refused calls.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class Backoff:
    """Exponential pauses between the attempts of a call.

    Attributes:
        attempts: maximum attempts of a call, including the first. A refusal with ``Retry-After`` counts as none.
        first: seconds before the second attempt; each later pause doubles.
        longest: maximum seconds of a pause, unless the server orders more.
        jitter: returns numbers from 0 to 1; a pause is between a half and the whole of its length, so that the
            clients of a server that recovers do not all come back at once.
    """

    attempts: int = 4
    first: float = 0.5
    longest: float = 8.0
    jitter: Callable[[], float] = random.random

    def length(self, attempt: int) -> float:
        """Return the seconds of the pause after failed `attempt` (0-based)."""
        return min(self.longest, self.first * 2.0 ** min(attempt, 64)) * (1 + self.jitter()) / 2

    def pause(self, attempt: int, least: float | None = None) -> float | None:
        """Return seconds to wait after failed `attempt` (0-based), at least `least`; None to give up."""
        if attempt + 1 >= self.attempts:
            return None
        return max(self.length(attempt), least or 0.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which a refused call may be repeated; None if a response does not name them.

    They are those of ``Retry-After-Ms`` or ``Retry-After``, a number, a time such as ``1m30s``, or a date; or, of a
    limit without a rest, of ``X-RateLimit-Reset``, a number of seconds or a time in seconds or milliseconds since 1970.

    Args:
        headers: headers of the response, with names in lower case or case-insensitive.
    """
    now = datetime.now(UTC)
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if (seconds := _number(value)) is not None:
            return max(0.0, seconds * unit)
    if (seconds := duration(value)) is not None:
        return seconds
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError):
            date = read(value)
            return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())
    reset = _number(headers.get("x-ratelimit-reset", ""))
    if reset is None or _number(headers.get("x-ratelimit-remaining", "")) != 0:
        return None
    if reset > _LATEST:
        reset /= 1000
    return max(0.0, reset - now.timestamp() if reset > _LONGEST_WAIT else reset)


_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|h|m|s)[a-z]*(?:,? and)?,? ?")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def duration(text: str) -> float | None:
    """Read a time such as ``1m30s``, ``320ms`` or ``1 minute and 30 seconds`` in seconds; None if it is none."""
    parts, rest = _DURATION.findall(text.lower()), _DURATION.sub("", text.lower())
    return sum(float(number) * _UNITS[unit] for number, unit in parts) if parts and not rest.strip() else None


_LATEST, _LONGEST_WAIT = 1e11, 1e9  # seconds since 1970; seconds


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Load:
    """The calls of an LLM at a moment.

    Attributes:
        places: maximum number of calls at once, as its server allows it now.
        running: number of calls that have a place.
        waiting: number of calls in the queue.
        closed_for: seconds until its server accepts calls again; 0.0 if it does.
        wait: seconds that a new call waits at least, because of refusals and rates.
    """

    places: int
    running: int = 0
    waiting: int = 0
    closed_for: float = 0.0
    wait: float = 0.0


class BusyError(Exception):
    """A call would wait longer than it may.

    Attributes:
        wait: seconds that it would wait.
    """

    def __init__(self, wait: float) -> None:
        super().__init__(f"a call waits {wait:g} s")
        self.wait = wait


QUEUED = "a call in the queue"
"""Note of a `asyncio.CancelledError` that ended a call in the queue, which its LLM never received."""


def was_queued(error: asyncio.CancelledError) -> bool:
    """Return whether a cancelled call was still in the queue."""
    return QUEUED in getattr(error, "__notes__", ())


class Place:
    """The permission of one call to be with the server."""

    __slots__ = ("_pacer", "_tokens", "refused", "sent")  # a pacer remembers many

    def __init__(self, pacer: Pacer, sent: float, tokens: float) -> None:
        self._pacer, self.sent, self._tokens, self.refused = pacer, sent, tokens, False

    def succeed(self, tokens: int | None = None) -> None:
        """Report an answer, with the number of tokens of prompt and answer where it is known."""
        self._pacer._succeed(None if tokens is None else tokens - self._tokens)

    def refuse(self, retry_after: float | None = None, *, too_many: bool = True) -> None:
        """Report that the server accepts no calls now.

        Args:
            retry_after: seconds that it names; None without them.
            too_many: whether the number of calls is the reason, and not a fault of the server.
        """
        self.refused = True
        self._pacer._refuse(self, retry_after, too_many)


_LATENESS = 0.02  # seconds that a timer may be late without slowing the rate down
_LONGEST_PAUSE = 3600.0  # seconds; then a call tries it, whatever the server ordered
_MARGIN = 0.94  # share of the rate that the server accepted
_LEAST, _SAMPLE = 3, 10  # calls from which a rate is known, and well known
_CAREFUL = 10.0  # calls a second, where the rate is not known
_STEADY, _UNSTEADY, _STEADIEST = 60.0, 5.0, 600.0  # seconds in which a learned rate doubles
_HELD = 1.0  # pause; a rate that the server accepts for longer is nearly right
_REMEMBERED = 4096  # calls


class _Meter:
    """A rate: units a second, spread evenly.

    Attributes:
        rate: units a second.
        due: time when the next call may begin.
    """

    def __init__(self, rate: float) -> None:
        self.rate, self.due = rate, -math.inf

    def take(self, now: float, units: float) -> None:
        """Count the units of a call that begins now."""
        self.due = max(self.due, now - _LATENESS) + units / self.rate


class _LearnedRate(_Meter):
    """The rate of calls that a server accepts, learned from its refusals.

    It grows, slowly at first and then faster, to find out whether the server accepts more by now.

    Attributes:
        since: time of the last refusal's end.
    """

    def __init__(self, now: float) -> None:
        super().__init__(math.inf)
        self.since = now
        self._base, self._doubling = math.inf, 0.0
        self._before: tuple[float, float, float, float] | None = None

    def grow(self, now: float) -> None:
        """Set the rate of this moment."""
        if self._base < math.inf:
            self.rate = self._base * (1 + ((now - self.since) / self._doubling) ** 3)

    def learn(self, sent: deque[Place], refused_at: float, opened_at: float, pause: float | None) -> None:
        """Set the rate after a refusal; `pause` is None after one that says nothing of the rate.

        What the server accepted within the length of its pause is an upper bound: a window of time, such as a minute,
        is as long. A server that saves up what was not used accepts more for a while; what it accepted since the last
        refusal, its pause included, is the rate that lasts. After a pause that was too short nothing was accepted, and
        the pause goes on.
        """
        if self._before and not any(place.sent >= self.since and not place.refused for place in sent):
            self.since, self._base, self._doubling, refused_at = self._before
            pause = None if pause is None else opened_at - refused_at
        self._before = (self.since, self._base, self._doubling, refused_at)
        accepted = [place.sent for place in sent if not place.refused and place.sent <= refused_at]
        sample = accepted[-_SAMPLE:]
        window = max(pause or 0.0, min(1.0, refused_at - sample[0]) if sample else 0.0, 1e-3)
        count = sum(time > refused_at - window for time in accepted)
        lasted = refused_at - self.since
        stale = lasted > self._doubling
        lasting = sum(time >= self.since for time in accepted) / max(opened_at - self.since, 1e-3)
        if self._base == math.inf and (pause is None or count < _LEAST):
            self._base, self._doubling = _CAREFUL, _UNSTEADY
        elif pause is not None and count < _LEAST:
            self._base = _CAREFUL if stale else max(self._base / 2, 0.98 * lasting)
            self._doubling = _UNSTEADY if stale else min(2 * self._doubling, _STEADIEST)
        elif pause is not None:
            before = math.inf if stale else self._base
            self._base = min(_MARGIN * count / window, max(0.98 * lasting, before))
            if before < math.inf and lasted > _HELD * pause:  # nearly right: calls may have come late, in a bunch
                self._base = max(self._base, _MARGIN * before)
            first = (_STEADY if count >= _SAMPLE else _UNSTEADY) * max(1.0, pause)
            self._doubling = min(first if stale else max(first, 2 * self._doubling), _STEADIEST)
        self.since, self.due = opened_at, opened_at
        self.grow(opened_at)


@dataclass(eq=False)
class _Waiter:
    """A call in the queue: its turn, its tokens, and until when it waits for a refusal to end."""

    turn: asyncio.Future[float]
    tokens: float
    latest: float


class Pacer:
    """The queue of all calls of one LLM in one event loop.

    A refusal closes it until the time that the server names, or for a pause that doubles with each further refusal,
    and halves the places; each round of answers adds a place again. Calls that were refused come first.

    Args:
        places: maximum calls at once.
        rpm: maximum calls a minute, spread evenly; None is no limit.
        tpm: maximum tokens a minute, likewise.
        backoff: pauses after refusals without ``Retry-After``.
    """

    def __init__(
        self, places: int, *, rpm: float | None = None, tpm: float | None = None, backoff: Backoff | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._most = places
        self._places = float(places)
        self._running = 0
        self._waiters: deque[_Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._backoff = backoff or Backoff()
        self._calls = None if rpm is None else _Meter(rpm / 60)
        self._tokens = None if tpm is None else _Meter(tpm / 60)
        self._learned = _LearnedRate(self._loop.time())
        self._sent: deque[Place] = deque(maxlen=_REMEMBERED)
        self._refusals = 0  # in a row
        self._refused_at = self._opens = -math.inf
        self._pause, self._too_many = 0.0, False  # the longest that the server ordered since `_refused_at`, and why
        self._open = True

    @property
    def load(self) -> Load:
        """The state of the queue now."""
        now = self._loop.time()
        closed_for = max(0.0, self._opens - now)
        return Load(int(self._places), self._running, len(self._waiters), closed_for, self._wait(now))

    def _wait(self, now: float, ahead: int | None = None) -> float:
        """Return the seconds until a call is due that has `ahead` others before it; None: the whole queue."""
        self._learned.grow(now)
        ahead = len(self._waiters) if ahead is None else ahead
        meters = [meter for meter in (self._calls, self._learned) if meter is not None]
        wait = max([self._opens - now, 0.0, *(meter.due - now + ahead / meter.rate for meter in meters)])
        return wait if self._tokens is None else max(wait, self._tokens.due - now)

    @asynccontextmanager
    async def place(
        self, *, tokens: float = 0.0, patience: float = math.inf, first: bool = False
    ) -> AsyncIterator[Place]:
        """Wait for a place, and hold it in the ``async with`` block.

        Args:
            tokens: expected number of tokens of prompt and answer.
            patience: seconds to wait at most because of refusals and rates; the wait for a free place is not limited.
            first: put the call before the others, because it was refused.

        Raises:
            BusyError: the call would wait longer than `patience`.
        """
        sent = await self._turn(tokens, patience, first=first)
        place = Place(self, sent, tokens)
        self._sent.append(place)
        try:
            yield place
        finally:
            self._leave()

    async def _turn(self, tokens: float, patience: float, *, first: bool) -> float:
        now = self._loop.time()
        if (wait := self._wait(now, 0 if first else None)) > patience:
            raise BusyError(wait)
        waiter = _Waiter(self._loop.create_future(), tokens, now + patience)
        if first:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        self._admit()
        try:
            return await waiter.turn
        except asyncio.CancelledError as error:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self._leave()
            error.add_note(QUEUED)
            raise

    def _admit(self) -> None:
        """Let calls go, as far as places and time allow, and set a timer for the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters and self._running < int(self._places):
            now = self._loop.time()
            if now >= self._opens and not self._open:
                self._open = True
                self._learned.learn(self._sent, self._refused_at, now, self._pause if self._too_many else None)
            self._learned.grow(now)
            meters = [meter for meter in (self._calls, self._tokens, self._learned) if meter is not None]
            due = max(self._opens, *(meter.due for meter in meters))
            if due > now:
                self._timer = self._loop.call_at(due, self._admit)
                return
            waiter = self._waiters.popleft()
            if waiter.turn.done():
                continue
            for meter in meters:
                meter.take(now, waiter.tokens if meter is self._tokens else 1.0)
            self._running += 1
            waiter.turn.set_result(now)

    def _leave(self) -> None:
        self._running -= 1
        self._admit()

    def _succeed(self, more_tokens: float | None) -> None:
        self._refusals = 0
        self._places = min(float(self._most), self._places + 1 / self._places)
        if self._tokens is not None and more_tokens is not None:
            self._tokens.due += more_tokens / self._tokens.rate

    def _refuse(self, place: Place, retry_after: float | None, too_many: bool) -> None:
        now = self._loop.time()
        if place.sent >= self._refused_at:  # not one of the calls that were under way at the last refusal
            self._refusals += 1
            if self._refusals == 1:
                self._places = max(1.0, self._places / 2)
            self._refused_at, self._open, self._pause, self._too_many = now, False, 0.0, False
        least = 0.0 if self._refusals < 2 else self._backoff.length(self._refusals - 2)
        pause = self._backoff.length(self._refusals - 1) if retry_after is None else max(retry_after, least)
        pause = min(pause, _LONGEST_PAUSE)
        self._too_many |= too_many
        self._pause, self._opens = max(self._pause, pause), max(self._opens, now + pause)
        for waiter in [each for each in self._waiters if each.latest < self._opens]:
            self._waiters.remove(waiter)
            if not waiter.turn.done():
                waiter.turn.set_exception(BusyError(self._opens - now))
