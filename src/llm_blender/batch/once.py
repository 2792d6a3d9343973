"""A call that is under way is not made a second time: who asks the same waits, and finds the answer in the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager

from llm_blender._calls import CallStore, Reply, call
from llm_blender.store import call_key
from llm_blender.types import LLM, Message, Sampling

__all__ = ["Turns", "call_once"]


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
