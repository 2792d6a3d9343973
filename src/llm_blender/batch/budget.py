"""A cap on what a job may cost, which calls that run at the same time cannot break together."""

from __future__ import annotations

import asyncio

__all__ = ["Budget"]


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
