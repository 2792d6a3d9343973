"""Call the LLMs of an ensemble, all at once, until a quorum or a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from llm_blender.calls import Caller
from llm_blender.errors import LLMError
from llm_blender.types import Candidate, Failure, Message, Sampling


class Observer:
    """Callbacks for the progress of an answer; override the ones of interest. They run in the event loop.

    `call` is the 0-based index of a call, in the order of the LLMs and their samples.
    """

    def started(self, models: list[str]) -> None:
        """Receive the LLM of each call, when the calls begin."""

    def writing(self, call: int, text: str) -> None:
        """Receive the next piece of text of a call."""

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        """Receive the answer of a call; `stored`: it comes from the store, at no cost."""

    def failed(self, call: int, failure: Failure) -> None:
        """Receive the failure of a call."""

    def comparing(self, done: int, total: int) -> None:
        """Receive the numbers of comparisons done and expected; called from another thread."""

    def fusing(self, text: str) -> None:
        """Receive the next piece of the fuser's text, which may not become the answer."""


@dataclass(frozen=True)
class Limits:
    """Limits of time and cost for one prompt.

    Attributes:
        deadline: maximum seconds of the LLMs, and then of the fuser.
        quorum: number of answers that suffice; None waits for all, up to the deadline.
        grace: seconds that the other LLMs get once the quorum has answered.
        total: maximum seconds from prompt to answer: LLMs and fuser get a share of it, at most their deadline, and the
            ranker the rest; None gives both their deadline.
        max_cost: maximum cost in dollars; an LLM is not called if its answer may cost more than is left.
        allow_unpriced: call LLMs of unknown price in spite of `max_cost`, and count them as free.
    """

    deadline: float = 120.0
    quorum: int | None = None
    grace: float = 3.0
    total: float | None = None
    max_cost: float | None = None
    allow_unpriced: bool = False

    def for_llms(self, *, fusing: bool) -> Self:
        """Return the limits with the deadline of the LLMs."""
        if self.total is None:
            return self
        share = _SHARE_BEFORE_FUSING if fusing else _SHARE
        return replace(self, deadline=min(self.deadline, round(share * self.total, 3)))

    def for_fuser(self, elapsed: float) -> float:
        """Return the maximum seconds of the fuser, `elapsed` seconds after the prompt."""
        if self.total is None:
            return self.deadline
        return max(0.0, min(self.deadline, round(_SHARE * (self.total - elapsed), 3)))


# Shares of the total that is left; the rest is for the ranker, which runs before the fuser and after it.
_SHARE, _SHARE_BEFORE_FUSING = 0.8, 0.5


@dataclass(frozen=True)
class Call:
    """One call of an LLM: its caller and its options."""

    caller: Caller
    sampling: Sampling


@dataclass(frozen=True)
class Gathered:
    """The results of the calls.

    Attributes:
        candidates: answers by the index of their call, in that order.
        failures: reasons by the index of a call without an answer.
        new: answers that were paid for, not found in the store; including empty ones.
    """

    candidates: dict[int, Candidate]
    failures: dict[int, Failure]
    new: tuple[Candidate, ...]


async def gather(calls: Sequence[Call], messages: Sequence[Message], limits: Limits, observer: Observer) -> Gathered:
    """Make all calls at once and wait for a quorum and its grace, or for the deadline.

    An answer without text is a failure. Calls that are late are cancelled and reported as timed out.
    """
    candidates: dict[int, Candidate] = {}
    failures: dict[int, Failure] = {}
    new: list[Candidate] = []

    def fail(index: int, failure: Failure) -> None:
        failures[index] = failure
        observer.failed(index, failure)

    async def attempt(index: int, call: Call) -> None:
        try:
            reply = await call.caller.call(
                messages, call.sampling, lambda text: observer.writing(index, text), new.append
            )
        except LLMError as error:
            fail(index, Failure.of(error))
            return
        if reply.candidate.text.strip():
            candidates[index] = reply.candidate
            observer.wrote(index, reply.candidate, stored=reply.stored)
        else:
            fail(index, Failure(call.caller.llm.name, "empty", f"{call.caller.llm.name}: the answer is empty"))

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
            name = calls[index].caller.llm.name
            fail(index, Failure(name, "timeout", f"{name}: {late}", own=False))
        elif (error := task.exception()) is not None:
            raise error
    return Gathered(dict(sorted(candidates.items())), dict(sorted(failures.items())), tuple(new))


async def _wait(tasks: dict[asyncio.Task[None], int], candidates: dict[int, Candidate], limits: Limits) -> None:
    """Wait until all calls are done, one has raised, the grace after the quorum is over, or the deadline."""
    clock = asyncio.get_running_loop().time
    end, graced = clock() + limits.deadline, False
    pending = set(tasks)
    while pending and clock() < end:
        done, pending = await asyncio.wait(pending, timeout=end - clock(), return_when=asyncio.FIRST_COMPLETED)
        if any(not task.cancelled() and task.exception() for task in done):
            return
        if limits.quorum and len(candidates) >= limits.quorum and not graced:
            end, graced = min(end, clock() + limits.grace), True
