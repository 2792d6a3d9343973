"""Asking a judge many things at a time; what was paid for is kept, whatever happens afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from llm_blender.calls import CallStore
from llm_blender.errors import LLMError, StoreError
from llm_blender.store import call_key
from llm_blender.types import LLM, Candidate, Message, Sampling, Usage

__all__ = ["CallStore", "JudgeCalls", "JudgeTotals"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class JudgeTotals:
    """What a judge was asked so far, and what it cost.

    Attributes:
        calls: replies of the LLM that were paid for.
        recalled: replies that were found in the store instead.
        unreadable: replies, of both kinds, in which there was no verdict; they count as ties.
        example: the first of these.
        usage: tokens of `calls`.
        cost: dollars of `calls`; None where a price is unknown.
        not_kept: why the store could not keep a reply; it is still in memory. None where all went well.
    """

    calls: int
    recalled: int
    unreadable: int
    example: str | None
    usage: Usage
    cost: float | None
    not_kept: str | None


class JudgeCalls:
    """The replies of one LLM, asked for once each.

    Args:
        llm: the judge.
        sampling: how it writes.
        concurrency: calls under way at a time.
        store: where replies are kept; memory keeps them in any case.
    """

    def __init__(self, llm: LLM, sampling: Sampling, concurrency: int, store: CallStore | None) -> None:
        self.llm, self.sampling, self.concurrency, self.store = llm, sampling, concurrency, store
        self._replies: dict[str, Candidate] = {}
        self._paid: list[Candidate] = []
        self._not_kept: StoreError | None = None

    def replies(self, conversations: Sequence[Sequence[Message]], done: Callable[[int], None]) -> list[Candidate]:
        """The reply to each conversation, at once from memory or store where it was asked before.

        Args:
            conversations: equal ones are asked once.
            done: called with the number of conversations that were answered just now.

        Raises:
            LLMError: a call failed. No new one is begun then, those under way come to their end, and all replies are
                kept: the next time only the missing ones are asked for.
            StoreError: the store cannot be read.
        """
        keys = [call_key(self.llm.identity, messages, self.sampling) for messages in conversations]
        wanted = dict(zip(keys, conversations, strict=True))
        times = Counter(keys)
        missing = {key: messages for key, messages in wanted.items() if not self._recall(key)}
        if len(missing) < len(wanted):
            done(sum(times[key] for key in wanted if key not in missing))
        if missing:
            stop = threading.Event()
            _run(lambda: self._ask(missing, lambda key: done(times[key]), stop), stop)
        return [self._replies[key] for key in keys]

    def totals(self, unreadable: Mapping[str, str]) -> JudgeTotals:
        """What it came to, given the replies without a verdict."""
        costs = [reply.cost for reply in self._paid]
        known = [cost for cost in costs if cost is not None]
        return JudgeTotals(
            calls=len(self._paid),
            recalled=len(self._replies) - len(self._paid),
            unreadable=len(unreadable),
            example=next(iter(unreadable.values()), None),
            usage=sum((reply.usage for reply in self._paid if reply.usage), Usage()),
            cost=sum(known) if len(known) == len(costs) else None,
            not_kept=None if self._not_kept is None else str(self._not_kept),
        )

    def _recall(self, key: str) -> bool:
        if key not in self._replies and self.store is not None and (stored := self.store.get(key)) is not None:
            self._replies[key] = stored
        return key in self._replies

    def _keep(self, key: str, reply: Candidate) -> None:
        self._replies[key] = reply
        self._paid.append(reply)
        if self.store is not None:
            try:
                self.store.put(key, reply)
            except StoreError as error:  # a full disk must not cost what was just paid for
                self._not_kept = error

    async def _ask(
        self, missing: Mapping[str, Sequence[Message]], done: Callable[[str], None], stop: threading.Event
    ) -> None:
        waiting: Iterator[tuple[str, Sequence[Message]]] = iter(missing.items())
        failures: list[LLMError] = []

        async def work() -> None:
            for key, messages in waiting:
                try:
                    reply = await self.llm.generate(messages, self.sampling)
                except LLMError as error:
                    failures.append(error)
                    stop.set()
                    return
                self._keep(key, reply)
                done(key)
                if stop.is_set():
                    return

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self.concurrency, len(missing))):
                    tasks.create_task(work())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        if failures:
            raise failures[0]


def _run(work: Callable[[], Coroutine[Any, Any, _T]], stop: threading.Event) -> _T:
    """Run a coroutine to its end, in a thread of its own where this one already runs an event loop (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    with ThreadPoolExecutor(1, thread_name_prefix="llm-judge") as pool:
        try:
            return pool.submit(lambda: asyncio.run(work())).result()
        except BaseException:
            stop.set()  # an interrupt is heard here alone; calls under way come to their end
            raise
