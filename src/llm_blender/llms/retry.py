"""When to try a call again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["Backoff", "retry_after"]


@dataclass(frozen=True)
class Backoff:
    """Exponential pauses between the attempts of a call.

    Attributes:
        attempts: how often a call is tried, the first time included.
        first: seconds before the second attempt; each later pause doubles.
        longest: most seconds of a pause, but for one that the server asks for.
        jitter: gives numbers from 0 to 1; a pause is between a half and the whole of its length, so that the
            callers of a server that recovers do not all come back at once.
    """

    attempts: int = 4
    first: float = 0.5
    longest: float = 8.0
    jitter: Callable[[], float] = random.random

    def pause(self, attempt: int, asked: float | None = None) -> float | None:
        """Seconds to wait after failed `attempt` (0-based), at least `asked`; None to give up."""
        if attempt + 1 >= self.attempts:
            return None
        pause = min(self.longest, self.first * 2.0**attempt) * (1 + self.jitter()) / 2
        return max(pause, asked or 0.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response's ``Retry-After`` asks for, as a number or a date; None if it does not."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    seconds: float = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds)
