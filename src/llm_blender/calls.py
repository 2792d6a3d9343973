"""One call of an LLM through the store: found again, or made and kept whatever happens afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast

from llm_blender.errors import StoreError
from llm_blender.store import call_key
from llm_blender.types import LLM, Candidate, Message, OnText, Sampling

__all__ = ["CallStore", "Reply", "Turns", "call", "call_once", "run_to_end"]

_T = TypeVar("_T")


class CallStore(Protocol):
    """Where replies are kept between runs, by the keys of their calls; `llm_blender.store.Store` is one."""

    def get(self, key: str) -> Candidate | None:
        """The reply to a call; None if it was not made yet."""
        ...

    def put(self, key: str, candidate: Candidate) -> None:
        """Keep a reply."""
        ...


@dataclass(frozen=True)
class Reply:
    """What came of a call.

    Attributes:
        candidate: the answer; it may be empty.
        stored: it was in the store, nobody was asked.
        not_kept: why it could not be stored; None where it was, or where there is no store.
    """

    candidate: Candidate
    stored: bool
    not_kept: StoreError | None = None


async def call(
    llm: LLM,
    messages: Sequence[Message],
    sampling: Sampling,
    store: CallStore | None,
    on_text: OnText | None = None,
    on_new: Callable[[Candidate], object] | None = None,
) -> Reply:
    """The answer of an LLM; it is stored under its call's key before anything else happens to it.

    Args:
        llm: who is asked.
        messages: the conversation.
        sampling: how it should write.
        store: None keeps nothing.
        on_text: gets the answer as it comes, unless it was stored.
        on_new: gets an answer that was paid for, the moment it is whole.

    Raises:
        LLMError: there is no answer.
        StoreError: the store cannot be read; nobody is asked then.
    """
    key = call_key(llm.identity, messages, sampling)
    stored = None if store is None else await asyncio.to_thread(store.get, key)
    if stored is not None:
        return Reply(replace(stored, model=llm.name), stored=True)  # it may have been called otherwise then
    candidate = await llm.generate(messages, sampling, on_text=on_text)
    if on_new is not None:
        on_new(candidate)
    try:
        if store is not None:
            await _keep(store, key, candidate)
    except StoreError as error:  # a full disk must not cost what was just paid for
        return Reply(candidate, stored=False, not_kept=error)
    return Reply(candidate, stored=False)


async def _keep(store: CallStore, key: str, candidate: Candidate) -> None:
    """Store an answer, to the end even if the call is cancelled meanwhile: it has been paid for."""
    putting = asyncio.create_task(asyncio.to_thread(store.put, key, candidate))
    try:
        await asyncio.shield(putting)
    finally:
        await asyncio.wait([putting])


def run_to_end(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine to its end, in a thread of its own where this one already runs an event loop (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def run() -> _T:
        running.set_result((asyncio.get_running_loop(), cast("asyncio.Task[Any]", asyncio.current_task())))
        return await work()

    with ThreadPoolExecutor(1, thread_name_prefix="llm-blender") as pool:
        answer = pool.submit(lambda: asyncio.run(run()))
        try:
            return answer.result()
        except KeyboardInterrupt:  # only this thread hears of it
            loop, task = running.result()
            with suppress(RuntimeError):  # the loop is over
                loop.call_soon_threadsafe(task.cancel)
            raise


class Turns:
    """One at a time for each key; different keys do not wait for each other."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, key: Hashable) -> AsyncIterator[None]:
        """Wait for one's turn, and have it in the ``with`` block."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)


async def call_once(turns: Turns, llm: LLM, messages: Sequence[Message], sampling: Sampling, store: CallStore) -> Reply:
    """The answer of an LLM, from the store where the same is being asked already.

    Two candidates that read the same, or two entries of the configuration that are the same LLM, ask the same.

    Raises:
        LLMError: there is no answer.
        StoreError: the store cannot be read; nobody is asked then.
    """
    async with turns.of(call_key(llm.identity, messages, sampling)):
        return await call(llm, messages, sampling, store)
