"""Asking the LLMs of an ensemble, all at once, and knowing when to stop waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from llm_blender.calls import Caller
from llm_blender.errors import FailureReason, LLMError
from llm_blender.types import Candidate, Failure, Message, Sampling

__all__ = ["Call", "Gathered", "Limits", "Observer", "gather"]


class Observer:
    """Told what happens while an answer is made; override what is of interest. Called in the event loop.

    `call` is the 0-based index of one asked-for answer, in the order of the LLMs and their samples.
    """

    def started(self, models: list[str]) -> None:
        """The calls begin: the LLM of each."""

    def writing(self, call: int, text: str) -> None:
        """A call has written another piece of text."""

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        """A call has its answer; `stored`: from the store, nobody was asked."""

    def failed(self, call: int, failure: Failure) -> None:
        """A call has none."""

    def comparing(self, done: int, total: int) -> None:
        """Comparisons done and expected. Called from another thread."""

    def fusing(self, text: str) -> None:
        """The fuser has written another piece of a text, which may not be what is given back."""


@dataclass(frozen=True)
class Limits:
    """When to stop waiting.

    Attributes:
        deadline: seconds that the LLMs have for one prompt, and then the fuser.
        quorum: answers that suffice; None waits for all, up to the deadline.
        grace: seconds that stragglers get once the quorum is there.
        total: seconds for everything, from the question to the answer: LLMs and fuser get a share of it, at most
            their deadline, and the rest is for the ranker; None gives both their deadline.
        max_cost: dollars that one prompt may cost. Nobody is asked whose answer might cost more than is left.
        allow_unpriced: ask LLMs whose price is unknown in spite of `max_cost`, and count them as free.
    """

    deadline: float = 120.0
    quorum: int | None = None
    grace: float = 3.0
    total: float | None = None
    max_cost: float | None = None
    allow_unpriced: bool = False

    def for_llms(self, *, fusing: bool) -> Self:
        """With the deadline that the LLMs have."""
        if self.total is None:
            return self
        share = _SHARE_BEFORE_FUSING if fusing else _SHARE
        return replace(self, deadline=min(self.deadline, round(share * self.total, 3)))

    def for_fuser(self, elapsed: float) -> float:
        """Seconds that the fuser has, `elapsed` seconds after the question."""
        if self.total is None:
            return self.deadline
        return max(0.0, min(self.deadline, round(_SHARE * (self.total - elapsed), 3)))


# Of what is left of the total: the ranker needs the rest, with a fuser before it and after it.
_SHARE, _SHARE_BEFORE_FUSING = 0.8, 0.5


@dataclass(frozen=True)
class Call:
    """One answer to ask for."""

    caller: Caller
    sampling: Sampling


@dataclass(frozen=True)
class Gathered:
    """What came back.

    Attributes:
        candidates: by the index of their call, in that order.
        failures: likewise, why there is no candidate.
        new: answers that were not in the store, empty ones among them: what was paid for.
    """

    candidates: dict[int, Candidate]
    failures: dict[int, Failure]
    new: tuple[Candidate, ...]


async def gather(calls: Sequence[Call], messages: Sequence[Message], limits: Limits, observer: Observer) -> Gathered:
    """Make all calls at once; an answer is stored under its call's key before anything else happens to it.

    An answer that is empty or only white space counts as a failure. Calls that are still running when the quorum
    and its grace, or the deadline, are over are cancelled and reported as timed out.

    Raises:
        StoreError: the store cannot be read; nobody is asked then.
    """
    candidates: dict[int, Candidate] = {}
    failures: dict[int, Failure] = {}
    new: list[Candidate] = []

    def fail(index: int, reason: FailureReason, message: str) -> None:
        failures[index] = Failure(calls[index].caller.llm.name, reason, message)
        observer.failed(index, failures[index])

    async def attempt(index: int, call: Call) -> None:
        try:
            reply = await call.caller.call(
                messages, call.sampling, lambda text: observer.writing(index, text), new.append
            )
        except LLMError as error:
            fail(index, error.reason, str(error))
            return
        if reply.candidate.text.strip():
            candidates[index] = reply.candidate
            observer.wrote(index, reply.candidate, stored=reply.stored)
        else:
            fail(index, "empty", f"{call.caller.llm.name}: the answer is empty")

    tasks = {asyncio.create_task(attempt(index, call)): index for index, call in enumerate(calls)}
    try:
        await _wait(tasks, candidates, limits)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    late = f"no answer within {limits.deadline:g} s"
    if limits.quorum and len(candidates) >= limits.quorum:
        late = f"no answer within {limits.grace:g} s after the quorum of {limits.quorum} had answered"
    for task, index in tasks.items():
        if task.cancelled():
            fail(index, "timeout", f"{calls[index].caller.llm.name}: {late}")
        elif (error := task.exception()) is not None:
            raise error
    return Gathered(dict(sorted(candidates.items())), dict(sorted(failures.items())), tuple(new))


async def _wait(tasks: dict[asyncio.Task[None], int], candidates: dict[int, Candidate], limits: Limits) -> None:
    """Until all are done, one broke, the quorum had its grace, or the deadline is over."""
    clock = asyncio.get_running_loop().time
    end, graced = clock() + limits.deadline, False
    pending = set(tasks)
    while pending and clock() < end:
        done, pending = await asyncio.wait(pending, timeout=end - clock(), return_when=asyncio.FIRST_COMPLETED)
        if any(not task.cancelled() and task.exception() for task in done):
            return
        if limits.quorum and len(candidates) >= limits.quorum and not graced:
            end, graced = min(end, clock() + limits.grace), True
