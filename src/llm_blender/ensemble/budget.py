"""What one prompt may cost: the worst case is reserved before a call, and what is left of it given back after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from llm_blender.errors import InputError, LLMError
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.types import LLM, Candidate, Fuser, Message, OnText, Sampling

__all__ = ["Budget", "Priced"]

_SAMPLING = Sampling()


@runtime_checkable
class Priced(Protocol):
    """An `LLM` that knows what an answer may cost."""

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = ...) -> float | None:
        """Dollars that the answer costs at most; None where that is unknown."""
        ...


class Budget:
    """The dollars of one prompt.

    Args:
        max_cost: how many there are; None counts nothing.
        allow_unpriced: LLMs whose price is unknown count as free, where they would be an error.
    """

    def __init__(self, max_cost: float | None, *, allow_unpriced: bool = False) -> None:
        self.max_cost, self.allow_unpriced = max_cost, allow_unpriced
        self.taken = 0.0

    def llm(self, llm: LLM) -> LLM:
        """The LLM, made to ask for money first."""
        return llm if self.max_cost is None else _Paid(llm, self)

    def fuser(self, fuser: Fuser) -> Fuser:
        """The fuser; where an LLM fuses, that is made to ask for money first."""
        if self.max_cost is None or not isinstance(fuser, ChatFuser):
            return fuser
        return ChatFuser(
            self.llm(fuser.llm),
            criteria=fuser.criteria,
            sampling=fuser.sampling,
            max_chars=fuser.max_chars,
            concurrency=fuser.concurrency,
            store=fuser.store,
        )

    def check(self, llm: LLM, messages: Sequence[Message], sampling: Sampling) -> None:
        """Refuse an LLM of which nobody knows what an answer may cost.

        Raises:
            InputError: such is this one, and it is not allowed.
        """
        if self.max_cost is None or self.allow_unpriced or most_cost(llm, messages, sampling) is not None:
            return
        raise InputError(
            f"{llm.name}: what an answer may cost is unknown, and there is a max_cost: give the LLM a `price` and "
            "`max_tokens`, or set allow_unpriced."
        )

    def reserve(self, llm: LLM, messages: Sequence[Message], sampling: Sampling) -> float:
        """Take what an answer costs at most.

        Returns:
            Dollars, to be given to `give_back`.

        Raises:
            LLMError: there is less left, with the reason ``budget``.
        """
        worst = most_cost(llm, messages, sampling)
        if worst is None and not self.allow_unpriced:
            raise LLMError(llm.name, "budget", "what an answer may cost is unknown, and there is a max_cost")
        worst, limit = worst or 0.0, self.max_cost or 0.0
        if self.taken + worst > limit * (1 + 1e-9):
            raise LLMError(
                llm.name,
                "budget",
                f"an answer may cost ${worst:.6f}, and of max_cost ${max(limit - self.taken, 0):.6f} is left; raise "
                "it, or lower max_tokens",
            )
        self.taken += worst
        return worst

    def give_back(self, reserved: float, cost: float | None = 0.0) -> None:
        """Of what was reserved, keep what the call did cost; all, where that is unknown."""
        if cost is not None:
            self.taken += cost - reserved


def most_cost(llm: LLM, messages: Sequence[Message], sampling: Sampling) -> float | None:
    """Dollars that an answer costs at most; None where that is unknown."""
    return llm.most_cost(messages, sampling) if isinstance(llm, Priced) else None


class _Paid:
    """An LLM that is asked within a budget.

    A call that failed was not paid for. One that was cancelled may have been: its reservation stays.
    """

    def __init__(self, llm: LLM, budget: Budget) -> None:
        self._llm, self._budget = llm, budget

    @property
    def name(self) -> str:
        return self._llm.name

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._llm.identity

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float | None:
        return most_cost(self._llm, messages, sampling)

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        reserved = self._budget.reserve(self._llm, messages, sampling)
        try:
            candidate = await self._llm.generate(messages, sampling, on_text=on_text)
        except LLMError:
            self._budget.give_back(reserved)
            raise
        self._budget.give_back(reserved, candidate.cost)
        return candidate
