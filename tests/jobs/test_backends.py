"""The feed of a Ray cluster's workers, without a cluster."""

from __future__ import annotations

import asyncio

from llm_blender.jobs.backends import _Feed


def test_a_worker_that_asks_again_for_a_chunk_is_answered() -> None:
    """Ray does a task again whose actor was lost after its result had left it, but before the task had ended."""

    async def ask() -> None:
        feed = _Feed()
        early = asyncio.create_task(feed.get(0))
        await asyncio.wait_for(feed.wait(0), 5)
        for number in range(3):
            await feed.put(number, [number])
        assert await early == [0]
        assert await feed.get(0) == [0]  # the driver does not have its result
        await feed.taken(0)
        await feed.taken(1)
        assert [await asyncio.wait_for(feed.get(number), 5) for number in range(3)] == [None, None, [2]]

    asyncio.run(ask())
