"""Call the LLMs of an ensemble, all at once, until a quorum or a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from llm_blender.calls import Caller, Reply
from llm_blender.ensemble.form import Form
from llm_blender.errors import LLMError
from llm_blender.llms.pacing import was_queued
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

    def paid(self, candidate: Candidate) -> None:
        """Receive each answer that was paid for as soon as it is here, also of the fuser, or one that is not used."""

    def comparing(self, done: int, total: int) -> None:
        """Receive the numbers of comparisons done and expected; called from another thread."""

    def fusing(self, text: str) -> None:
        """Receive the next piece of the fuser's text, which may not become the answer."""


LEAST_GRACE = 10.0
"""Minimum seconds after the quorum where no grace is set: local LLMs often need one, those of a cloud five or more."""


@dataclass(frozen=True)
class Limits:
    """Limits of time and cost for one prompt.

    Attributes:
        deadline: maximum seconds of the LLMs, then of the judge, and then of the fuser.
        quorum: number of LLMs whose answers suffice; an LLM counts with its first answer. None waits for all, up to the
            deadline.
        grace: seconds that the other calls get once the quorum has answered; None is as long again as the quorum took,
            and at least `LEAST_GRACE`.
        answers: number of answers that are returned, best first; a quorum has at least as many.
        total: maximum seconds from prompt to answer: LLMs, judge and fuser get a share of it, at most their deadline,
            and the ranker the rest; None gives each the deadline.
        max_cost: maximum cost in dollars; an LLM is not called if its answer may cost more than is left.
        allow_unpriced: call LLMs of unknown price in spite of `max_cost`, and count them as free.
    """

    deadline: float = 120.0
    quorum: int | None = None
    grace: float | None = None
    answers: int = 1
    total: float | None = None
    max_cost: float | None = None
    allow_unpriced: bool = False

    def for_llms(self, *, fusing: bool) -> Self:
        """Return the limits with the deadline of the LLMs."""
        if self.total is None:
            return self
        share = _SHARE_BEFORE_FUSING if fusing else _SHARE
        return replace(self, deadline=min(self.deadline, round(share * self.total, 3)))

    def grace_after(self, elapsed: float) -> float:
        """Return the seconds for the other calls, when the quorum has answered after `elapsed` seconds."""
        return max(LEAST_GRACE, elapsed) if self.grace is None else self.grace

    def for_judge(self, elapsed: float, *, fusing: bool) -> float:
        """Return the maximum seconds of the judge, `elapsed` seconds after the prompt."""
        if self.total is None:
            return self.deadline
        share = _SHARE_BEFORE_FUSING if fusing else _SHARE
        return max(0.0, min(self.deadline, round(share * (self.total - elapsed), 3)))

    def for_fuser(self, elapsed: float) -> float:
        """Return the maximum seconds of the fuser, `elapsed` seconds after the prompt."""
        if self.total is None:
            return self.deadline
        return max(0.0, min(self.deadline, round(_SHARE * (self.total - elapsed), 3)))


_QUICK_CHARS = 10_000  # characters of an answer whose form is checked in the event loop
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
    """

    candidates: dict[int, Candidate]
    failures: dict[int, Failure]


async def gather(
    calls: Sequence[Call], messages: Sequence[Message], limits: Limits, observer: Observer, form: Form | None = None
) -> Gathered:
    """Make all calls at once and wait for a quorum and its grace, or for the deadline.

    An answer without text, or without the required form, is a failure. Refusals to answer are the answers only where
    no answer has the form. Calls that are late are cancelled and reported as timed out.
    """
    candidates: dict[int, Candidate] = {}
    failures: dict[int, Failure] = {}
    queued: set[int] = set()
    tried: dict[int, LLMError] = {}
    refusals: dict[int, tuple[Reply, LLMError]] = {}

    def fail(index: int, failure: Failure) -> None:
        failures[index] = failure
        observer.failed(index, failure)

    async def attempt(index: int, call: Call) -> None:
        try:
            reply = await call.caller.call(messages, call.sampling, lambda text: observer.writing(index, text))
        except LLMError as error:
            fail(index, Failure.of(error))
            return
        except asyncio.CancelledError as error:
            if was_queued(error):
                queued.add(index)
            if isinstance(error.__cause__, LLMError):
                tried[index] = error.__cause__
            raise
        if not reply.candidate.text.strip():
            fail(index, Failure(call.caller.llm.name, "empty", f"{call.caller.llm.name}: the answer is empty"))
            return
        try:
            take(index, reply, reply.candidate if form is None else await _checked(form, reply.candidate))
        except LLMError as error:
            if reply.candidate.refusal is None:
                fail(index, Failure.of(error))
            else:
                refusals[index] = reply, error

    def take(index: int, reply: Reply, candidate: Candidate) -> None:
        candidates[index] = candidate
        observer.wrote(index, candidate, stored=reply.stored)

    def enough() -> bool:
        llms = {calls[index].caller.llm.name for index in candidates}
        return limits.quorum is not None and len(llms) >= limits.quorum and len(candidates) >= limits.answers

    tasks = {asyncio.create_task(attempt(index, call)): index for index, call in enumerate(calls)}
    try:
        late = await _wait(tasks, enough, limits)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task, index in tasks.items():
        if task.cancelled():
            name = calls[index].caller.llm.name
            if index in tried:
                fail(index, _late_after(tried[index], late))
            elif index in queued:
                fail(index, Failure(name, "rate_limit", f"{name}: no free place; {late}", retry_after=5.0, own=False))
            else:
                fail(index, Failure(name, "timeout", f"{name}: {late}", own=False))
        elif (error := task.exception()) is not None:
            raise error
    answered = bool(candidates)
    for index, (reply, error) in refusals.items():
        if answered:
            fail(index, Failure.of(error))
        else:
            take(index, reply, reply.candidate)
    return Gathered(dict(sorted(candidates.items())), dict(sorted(failures.items())))


async def _checked(form: Form, candidate: Candidate) -> Candidate:
    """Check the form of an answer; that of a long one beside the event loop, as a schema takes 1 ms for 1,000 chars."""
    if len(candidate.text) <= _QUICK_CHARS:
        return form.check(candidate)
    return await asyncio.to_thread(form.check, candidate)


def _late_after(error: LLMError, late: str) -> Failure:
    """Make the failure of a call that was late, as an attempt before had failed."""
    failure = Failure.of(error)
    public = None if failure.public is None else f"{failure.public.rstrip('.')}; {late}"
    return replace(failure, message=f"{failure.message.rstrip('.')}; {late}", public=public)


async def _wait(tasks: Iterable[asyncio.Task[None]], enough: Callable[[], bool], limits: Limits) -> str:
    """Wait until all calls are done, one has raised, the grace after the quorum is over, or the deadline.

    Returns the failure of a call that is not done by then.
    """
    clock = asyncio.get_running_loop().time
    started = clock()
    end, late, graced = started + limits.deadline, f"no answer within {limits.deadline:g} s", False
    pending = set(tasks)
    while pending and clock() < end:
        done, pending = await asyncio.wait(pending, timeout=end - clock(), return_when=asyncio.FIRST_COMPLETED)
        if any(not task.cancelled() and task.exception() for task in done):
            break
        if not graced and enough():
            graced, grace = True, limits.grace_after(clock() - started)
            if clock() + grace < end:
                end = clock() + grace
                late = f"no answer within {grace:.3g} s after the quorum of {limits.quorum} had answered"
    return late
