"""LLMs that keep failing are set aside for a while, and then tried again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from llm_blender.errors import FailureReason
from llm_blender.types import Failure

__all__ = ["Breakers"]

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
