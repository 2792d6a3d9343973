"""Backends of jobs: where the stages of a job work on its rows, in this process or on a Ray cluster."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pickle
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TextIO, cast

from llm_blender.errors import InputError, LLMBlenderError, MissingExtraError, WorkError
from llm_blender.types import OnProgress

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]


class Stage(Protocol):
    """Work on rows; see `llm_blender.stages.Stage`, which can be pickled."""

    def __call__(self, rows: Sequence[Row], progress: OnProgress | None = None, /) -> list[dict[str, Any]]:
        """Work on rows: one row out for each row in, in order; report the work done and expected."""

    def error(self, row: Row, /) -> str | None:
        """Return why a row that came out has failed; None if it has not."""

    def count(self, row: Row, /) -> Mapping[str, float]:
        """Count what a row that came out holds, by name; ``incomplete`` is a row to try again."""


class Backend(Protocol):
    """The place where a stage works."""

    def map(
        self, stage: Stage, chunks: Iterable[Sequence[Row]], count: int, progress: OnProgress | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield what the stage makes of chunks of rows, in their order.

        Few chunks are held at a time, so that memory does not grow with their number.

        Args:
            stage: the work, which can be pickled.
            chunks: rows.
            count: number of chunks; a backend in this process does not need it.
            progress: called with the work done and expected of the chunk at work, where that is known.
        """


class LocalBackend:
    """This process: a chunk is worked on when the one before has been taken."""

    def map(
        self, stage: Stage, chunks: Iterable[Sequence[Row]], count: int, progress: OnProgress | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield what the stage makes of chunks of rows, in their order; see `Backend`."""
        for rows in chunks:
            yield stage(rows, progress)


class RayBackend:
    """Actors of a Ray cluster, each with a copy of the stage.

    The driver reads the chunks and hands them out one by one, so that the actors need no file of it, only the models:
    `bundled`, a name of the Hub, or a folder that all nodes have. An actor or a node that is lost is replaced, and its
    chunk done again: stages cost nothing but time. Results come in order, and do not depend on who made them.

    Args:
        actors: number of actors.
        cpus: processors of each, which is also its number of threads.
        gpus: accelerators of each.
        address: of a running cluster: ``auto``, the one that this node belongs to, or ``HOST:PORT``; None starts one on
            this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: a number is not positive.
    """

    def __init__(self, actors: int = 1, cpus: float = 1.0, gpus: float = 0.0, address: str | None = None) -> None:
        if actors < 1 or cpus <= 0 or gpus < 0:
            raise InputError(f"At least one actor with a processor is needed, not {actors} with {cpus:g}.")
        try:
            import ray.data  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("A Ray cluster", "ray") from error
        self._actors, self._cpus, self._gpus, self._address = actors, cpus, gpus, address

    def map(
        self, stage: Stage, chunks: Iterable[Sequence[Row]], count: int, progress: OnProgress | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield what the stage makes of chunks of rows, in their order; see `Backend`.

        Raises:
            WorkError: the cluster could not do the work, or was lost.
        """
        import ray

        if not count:
            return
        own = not ray.is_initialized()
        stdout = sys.stdout
        sys.stdout = cast(TextIO, _WithoutRay(stdout))
        try:
            if own:
                self._connect()
            yield from self._map(stage, chunks, count)
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise WorkError(f"The Ray cluster failed: {_cause(error)}") from error
        finally:
            if own:
                ray.shutdown()
            sys.stdout = stdout

    def _connect(self) -> None:
        import ray

        resources: dict[str, Any] = {}
        if self._address is None:  # actors share the processors rather than wait for more of them
            cpus = max(os.cpu_count() or 1, math.ceil(self._actors * self._cpus))
            resources = {"num_cpus": cpus, "include_dashboard": False}
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR, **resources)

    def _map(self, stage: Stage, chunks: Iterable[Sequence[Row]], count: int) -> Iterator[list[dict[str, Any]]]:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        free = ray.cluster_resources().get("CPU", 0.0)
        if free < self._actors * self._cpus:
            logger.warning("%g processors of %d actors wait for nodes", self._actors * self._cpus - free, self._actors)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        feed = ray.remote(_Feed).options(num_cpus=0, max_concurrency=1_000, scheduling_strategy=here).remote()
        context = ray.data.DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        if hasattr(context, "execution_no_progress_timeout_s"):  # Ray 2.60: a chunk, or a node, may take longer
            context.execution_no_progress_timeout_s = -1
        with ray.data.DataContext.current(context):
            made = ray.data.range(count, override_num_blocks=count).map_batches(
                _Worker,
                fn_constructor_args=(stage, feed),
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=self._actors),
                num_cpus=self._cpus,
                num_gpus=self._gpus or None,
            )
            giver = _Giver(feed, _all_of(chunks, count), self._actors)
            for i, block in enumerate(made.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=0)):
                if giver.error is not None:
                    raise giver.error
                feed.taken.remote(i)
                rows = pickle.loads(block["rows"][0])
                if isinstance(rows, LLMBlenderError):
                    raise rows
                yield rows


def _all_of(chunks: Iterable[Sequence[Row]], count: int) -> Iterator[Sequence[Row]]:
    """Yield the chunks; raise InputError if there are fewer than the cluster waits for."""
    found = 0
    for rows in chunks:
        yield rows
        found += 1
    if found < count:
        raise InputError("There are fewer rows than when they were checked: leave the files alone during the work.")


class _WithoutRay:
    """Standard output, which holds rows: what Ray's own thread prints there goes to standard error."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def __getattr__(self, name: str) -> Any:
        rays = threading.current_thread().name.startswith("ray_")
        return getattr(sys.stderr if rays else self._stdout, name)


class _Feed:
    """Actor beside the driver that holds chunks, from when the driver has read them until it has the result."""

    def __init__(self) -> None:
        self._chunks: dict[int, Any] = {}
        self._wanted = self._taken = -1
        self._changed = asyncio.Condition()

    async def get(self, number: int) -> Any:
        """Return a chunk, as soon as the driver has read it; None if the driver has its result.

        A worker asks for a chunk again if its actor was lost after the result had left it, but before Ray's task ended.
        """
        async with self._changed:
            self._wanted = max(self._wanted, number)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: number in self._chunks or number <= self._taken)
            return self._chunks.get(number)

    async def put(self, number: int, rows: Any) -> None:
        """Hold a chunk."""
        async with self._changed:
            self._chunks[number] = rows
            self._changed.notify_all()

    async def taken(self, number: int) -> None:
        """Drop a chunk: the driver has its result, and those of the chunks before it."""
        async with self._changed:
            self._taken = max(self._taken, number)
            self._chunks.pop(number, None)
            self._changed.notify_all()

    async def wait(self, number: int) -> None:
        """Return once a worker wants this chunk, or a later one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._wanted >= number)


class _Giver:
    """Thread of the driver that reads chunks, a few before they are wanted, and gives them to the feed.

    Attributes:
        error: why a chunk could not be read; the feed has None in its place.
    """

    def __init__(self, feed: Any, chunks: Iterable[Sequence[Row]], ahead: int) -> None:
        self.error: Exception | None = None
        self._feed, self._chunks, self._ahead = feed, chunks, ahead
        threading.Thread(target=self._run, daemon=True, name="llm-blender-feed").start()

    def _run(self) -> None:
        import ray

        number = 0
        with suppress(ray.exceptions.RayError):  # the work has ended, or failed
            try:
                for rows in self._chunks:
                    ray.get(self._feed.wait.remote(number - self._ahead))
                    ray.get(self._feed.put.remote(number, rows))
                    number += 1
            except ray.exceptions.RayError:
                raise
            except Exception as error:
                self.error = error
                ray.get(self._feed.put.remote(number, None))


class _Worker:
    """Actor that works on chunks, with a stage of its own."""

    def __init__(self, stage: Stage, feed: Any) -> None:
        self._stage, self._feed = stage, feed

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Work on the chunks of these numbers."""
        import ray

        made = []
        for number in batch["id"]:
            rows = ray.get(self._feed.get.remote(int(number)))
            try:
                made.append(pickle.dumps([] if rows is None else self._stage(rows)))
            except LLMBlenderError as error:  # with its own message, and without more attempts
                raised = InputError(str(error)) if isinstance(error, InputError) else WorkError(str(error))
                made.append(pickle.dumps(raised))
        return {"rows": made}


def _cause(error: BaseException) -> str:
    """Return the last error that Ray's report names."""
    lines = [line.strip() for line in str(error).splitlines()]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt): ", line)]
    return next(reversed(named or lines), type(error).__name__)
