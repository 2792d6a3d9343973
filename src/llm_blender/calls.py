"""Calls of LLMs: equal ones once at a time, found in the store or kept there, within a budget."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast

from llm_blender.errors import InputError, LLMError, StoreError
from llm_blender.store import call_key
from llm_blender.types import LLM, Candidate, Fusion, Message, OnText, Sampling, Usage

__all__ = [
    "Budget",
    "CallStore",
    "Caller",
    "Reply",
    "WrappedLLM",
    "call_many",
    "first_seeds",
    "most_cost",
    "run_in_store_thread",
    "run_to_end",
]

logger = logging.getLogger(__name__)

_S = TypeVar("_S")
_T = TypeVar("_T")
_SAMPLING = Sampling()


class CallStore(Protocol):
    """Replies kept between runs, by the keys of their calls; `llm_blender.store.Store` is one."""

    def get(self, key: str) -> Candidate | None:
        """Return the reply to a call; None if the call is new."""
        ...

    def put(self, key: str, candidate: Candidate) -> None:
        """Keep a reply."""
        ...


@dataclass(frozen=True)
class Reply:
    """The result of a call.

    Attributes:
        candidate: the answer; it may be empty.
        stored: the answer comes from the store, at no cost.
    """

    candidate: Candidate
    stored: bool


class Caller:
    """The calls of one LLM.

    Equal calls that share a store run one after the other, so that all but the first are read from it. That holds for
    several `Caller` objects, too: two entries of a configuration may be the same LLM.

    Args:
        llm: the LLM.
        store: cache of the answers; None keeps none.
        budget: limit of the cost; None is no limit.
    """

    def __init__(self, llm: LLM, store: CallStore | None = None, budget: Budget | None = None) -> None:
        self.llm = llm if budget is None else budget.llm(llm)
        self.store = store

    async def call(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        on_text: OnText | None = None,
        on_new: Callable[[Candidate], object] | None = None,
    ) -> Reply:
        """Answer a conversation from the store or by the LLM; a new answer is stored before it is used.

        A store that cannot be read or written is a warning: it costs no answer.

        Args:
            messages: the conversation.
            sampling: options of the LLM.
            on_text: gets the answer as it comes, unless it was stored.
            on_new: gets an answer that was paid for, before it is stored.

        Raises:
            LLMError: there is no answer, or less is left of the budget than it may cost.
        """

        async def generate() -> Candidate:
            candidate = await self.llm.generate(messages, sampling, on_text=on_text)
            if on_new is not None:
                on_new(candidate)
            return candidate

        if self.store is None:
            return Reply(await generate(), stored=False)
        store, key = self.store, call_key(self.llm.identity, messages, sampling)
        async with _single_flight(id(asyncio.get_running_loop()), id(store), key):
            stored = await run_in_store_thread(store, lambda: _find(store, key))
            if stored is not None:
                return Reply(replace(stored, model=self.llm.name), stored=True)  # the LLM may have a new name
            candidate = await generate()
            await _keep(store, key, candidate)
        return Reply(candidate, stored=False)


_flights: dict[Hashable, tuple[asyncio.Lock, int]] = {}


@asynccontextmanager
async def _single_flight(*key: Hashable) -> AsyncIterator[None]:
    """Run the ``with`` blocks of equal keys one after the other; the key names the event loop, as its lock does."""
    lock, users = _flights.get(key, (asyncio.Lock(), 0))
    _flights[key] = (lock, users + 1)
    try:
        async with lock:
            yield
    finally:
        lock, users = _flights.pop(key)
        if users > 1:
            _flights[key] = (lock, users - 1)


def _find(store: CallStore, key: str) -> Candidate | None:
    try:
        return store.get(key)
    except StoreError as error:
        logger.warning("earlier answers were not found: %s", error)
        return None


async def _keep(store: CallStore, key: str, candidate: Candidate) -> None:
    """Store an answer that was paid for, to the end even if the call is cancelled meanwhile."""

    def put() -> None:
        try:
            store.put(key, candidate)
        except StoreError as error:
            logger.warning("answers were not kept: %s", error)

    putting = run_in_store_thread(store, put)
    try:
        await asyncio.shield(putting)
    finally:
        await asyncio.wait([putting])


_THREADS = ThreadPoolExecutor(thread_name_prefix="llm-blender-store")
_Result = tuple["asyncio.Future[Any]", Any, BaseException | None]
_waiting: dict[int, list[tuple[Callable[[], Any], asyncio.Future[Any]]]] = {}  # by the id of a store at work
_waiting_lock = threading.Lock()


def run_in_store_thread(store: object, work: Callable[[], _T]) -> asyncio.Future[_T]:
    """Run work on a store in a thread beside the event loop, in the order of the calls.

    What comes while the store is busy runs in the same thread next, and its results come back together: handing over
    to a thread takes longer than the work. Work that has begun runs to its end, whatever becomes of its future.

    Args:
        store: the store, or whatever only one thread at a time can use.
        work: the work.
    """
    done: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
    with _waiting_lock:
        idle = id(store) not in _waiting
        _waiting.setdefault(id(store), []).append((work, done))
    if idle:
        _THREADS.submit(_run_batches, id(store))
    return done


def _run_batches(store: int) -> None:
    while True:
        with _waiting_lock:
            batch = _waiting.pop(store)
            if not batch:
                return
            _waiting[store] = []
        results: dict[asyncio.AbstractEventLoop, list[_Result]] = {}
        for work, done in batch:
            results.setdefault(done.get_loop(), []).append((done, *_run(work)))
        for loop, of_loop in results.items():
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(_hand_over, of_loop)


def _run(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:
        return None, error


def _hand_over(results: Sequence[_Result]) -> None:
    for done, result, error in results:
        if done.cancelled():
            continue
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)


def first_seeds(llms: Iterable[tuple[LLM, int]], seed: int) -> list[int]:
    """Choose the seed of each LLM's first sample, so that one model in several entries does not answer twice the same.

    Args:
        llms: LLMs, each with its number of samples; sample k adds k to the seed.
        seed: seed of all; where several LLMs have one model, each goes on behind the samples of the earlier ones.
    """
    seeds, samples = [], Counter[object]()
    for llm, number in llms:
        model = llm.identity.get("model", llm.name)
        seeds.append(seed + samples[model])
        samples[model] += number
    return seeds


async def call_many(items: Sequence[_S], call: Callable[[_S], Awaitable[_T]], *, concurrency: int) -> list[_T]:
    """Make a call for each item, several at a time, and return the results in the order of the items.

    Args:
        items: one for each call.
        call: makes the call of an item.
        concurrency: calls under way at a time.

    Raises:
        LLMError: a call failed; no new one is begun then, those under way come to their end.
        Exception: any other error of a call, as it is; calls under way are cancelled.
    """
    waiting = iter(enumerate(items))
    results: dict[int, _T] = {}
    failures: list[LLMError] = []

    async def work() -> None:
        for index, item in waiting:
            try:
                results[index] = await call(item)
            except LLMError as error:
                failures.append(error)
            if failures:
                return

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(concurrency, len(items))):
                tasks.create_task(work())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(items))]


def run_to_end(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine to its end, in another thread where this one already runs an event loop (a notebook)."""
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
        except KeyboardInterrupt:  # raised in this thread only
            loop, task = running.result()
            with suppress(RuntimeError):  # the loop is over
                loop.call_soon_threadsafe(task.cancel)
            raise


class WrappedLLM:
    """An `LLM` that hands everything on to another one; a subclass overrides what it changes.

    Args:
        llm: the other LLM.
    """

    def __init__(self, llm: LLM) -> None:
        self.llm = llm

    @property
    def name(self) -> str:
        """Name of the LLM."""
        return self.llm.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """Settings that the LLM's answers depend on."""
        return self.llm.identity

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float | None:
        """Return the maximum cost of an answer in dollars; None if it is unknown."""
        return most_cost(self.llm, messages, sampling)

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        """Answer a conversation; see `LLM.generate`."""
        return await self.llm.generate(messages, sampling, on_text=on_text)


def most_cost(llm: LLM, messages: Sequence[Message], sampling: Sampling) -> float | None:
    """Return the maximum cost of an answer in dollars; None if it is unknown."""
    known: Callable[[Sequence[Message], Sampling], float | None] | None = getattr(llm, "most_cost", None)
    return None if known is None else known(messages, sampling)


class Budget:
    """Dollars that calls may cost: each reserves its maximum cost before it begins, and releases it when it is over.

    The cap is broken only where a call costs more than its maximum.

    Args:
        max_cost: dollars; None is no cap.
        spent: dollars that earlier calls have cost.
        allow_unpriced: call LLMs of unknown price, too, and count them as free.
        on_paid: gets each answer of an LLM of this budget as soon as it is here, before it is stored; an empty one for
            an answer that cannot be used and has a cost all the same.

    Attributes:
        reserved: dollars that calls under way may still cost.
        cost: dollars of all answers of the LLMs of this budget; None if a price is unknown.
        usage: tokens of these answers.
    """

    def __init__(
        self,
        max_cost: float | None = None,
        spent: float = 0.0,
        *,
        allow_unpriced: bool = False,
        on_paid: Callable[[Candidate], object] | None = None,
    ) -> None:
        self.max_cost, self.spent, self.allow_unpriced = max_cost, spent, allow_unpriced
        self.reserved = 0.0
        self.cost: float | None = 0.0
        self.usage = Usage()
        self._on_paid, self._released = on_paid, asyncio.Event()

    def llm(self, llm: LLM) -> LLM:
        """Return the LLM, with its calls limited to this budget and counted."""
        return _PaidLLM(llm, self)

    def pay(self, answer: Candidate | Fusion) -> None:
        """Count the cost and the tokens of an answer that no call of this budget has counted."""
        self.cost = None if self.cost is None or answer.cost is None else self.cost + answer.cost
        self.usage += answer.usage or Usage()

    def paid(self, candidate: Candidate) -> None:
        """Count the answer of a call."""
        self.pay(candidate)
        if self._on_paid is not None:
            self._on_paid(candidate)

    def check(self, llm: LLM, messages: Sequence[Message], sampling: Sampling) -> None:
        """Refuse an LLM of unknown price.

        Raises:
            InputError: there is a cap, the maximum cost of an answer is unknown, and `allow_unpriced` is not set.
        """
        if self.max_cost is None or self.allow_unpriced or most_cost(llm, messages, sampling) is not None:
            return
        raise InputError(
            f"{llm.name}: the maximum cost of an answer is unknown, and there is a max_cost: give the LLM a `price` "
            "and `max_tokens`, or set allow_unpriced."
        )

    @property
    def left(self) -> float:
        """Dollars that are neither spent nor reserved; infinite without a cap."""
        return float("inf") if self.max_cost is None else max(self.max_cost - self.spent - self.reserved, 0.0)

    def reserve(self, most: float) -> bool:
        """Reserve the maximum cost of a call; False, and nothing reserved, if less is left."""
        if most and self.max_cost is not None and self.spent + self.reserved + most > self.max_cost * (1 + 1e-9):
            return False
        self.reserved += most
        return True

    async def reserve_in_time(self, most: float) -> bool:
        """Reserve the maximum cost of a call, and wait for calls under way where these may cost less than reserved."""
        while not self.reserve(most):
            if not self.reserved:
                return False
            self._released.clear()
            await self._released.wait()
        return True

    def release(self, reserved: float, cost: float | None) -> None:
        """Replace a reservation by what the call did cost; None, an unknown cost, counts as all that was reserved."""
        self.reserved = max(0.0, round(self.reserved - reserved, 12))  # sums of small numbers leave a rest
        self.spent += reserved if cost is None else cost
        self._released.set()


class _PaidLLM(WrappedLLM):
    """An LLM within a budget, which counts its answers.

    A call that failed costs nothing, unless there was an answer that cannot be used. One that was cancelled may have a
    cost: its reservation stays.
    """

    def __init__(self, llm: LLM, budget: Budget) -> None:
        super().__init__(llm)
        self._budget = budget

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        most = 0.0 if self._budget.max_cost is None else self._reserve(messages, sampling)
        try:
            candidate = await super().generate(messages, sampling, on_text=on_text)
        except LLMError as error:
            self._budget.release(most, error.cost)
            if error.usage is not None:
                self._budget.paid(Candidate("", self.name, usage=error.usage, cost=error.cost))
            raise
        self._budget.release(most, candidate.cost)
        self._budget.paid(candidate)
        return candidate

    def _reserve(self, messages: Sequence[Message], sampling: Sampling) -> float:
        """Reserve the maximum cost of a call, and return it."""
        most = self.most_cost(messages, sampling)
        if most is None and not self._budget.allow_unpriced:
            raise LLMError(self.name, "budget", "the maximum cost of an answer is unknown, and there is a max_cost")
        most = most or 0.0
        if not self._budget.reserve(most):
            raise LLMError(
                self.name,
                "budget",
                f"an answer may cost ${most:.6f}, and of max_cost ${self._budget.left:.6f} is left; raise it, or lower "
                "max_tokens",
            )
        return most
