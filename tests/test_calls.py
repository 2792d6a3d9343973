"""One call of an LLM: single flight, store, budget; and many of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llm_blender.calls import Budget, Caller, WrappedLLM, call_many, most_cost, run_in_store_thread, run_to_end
from llm_blender.errors import LLMError, StoreError
from llm_blender.store import Store
from llm_blender.testing import FakeLLM
from llm_blender.types import LLM, Candidate, Message, Sampling

HELLO: list[Message] = [{"role": "user", "content": "Hello?"}]


class Same(FakeLLM):
    """One of several entries of a configuration that are the same LLM."""

    identity: Mapping[str, Any] = {"provider": "fake"}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "blend.db") as store:
        yield store


def test_one_call_of_an_llm_through_the_store(store: Store) -> None:
    new: list[Candidate] = []
    replies = [
        asyncio.run(Caller(FakeLLM("a", "Hi."), store).call(HELLO, Sampling(), on_new=new.append)) for _ in range(2)
    ]
    assert [reply.stored for reply in replies] == [False, True]
    assert [candidate.text for candidate in new] == ["Hi."]


def test_equal_calls_at_once_are_one_call(store: Store) -> None:
    llms = [Same(name, "Hi.", delay=0.05) for name in "abc"]

    async def call() -> list[Any]:
        return await asyncio.gather(*(Caller(llm, store).call(HELLO, Sampling()) for llm in llms))

    replies = asyncio.run(call())
    assert [reply.stored for reply in replies] == [False, True, True]
    assert [reply.candidate.model for reply in replies] == ["a", "b", "c"]
    assert [len(llm.calls) for llm in llms] == [1, 0, 0]


def test_after_a_failure_an_equal_call_is_tried(store: Store) -> None:
    llms = [Same("a", errors="server", delay=0.05), Same("b", "Hi.")]

    async def call() -> list[Any]:
        callers = [Caller(llm, store).call(HELLO, Sampling()) for llm in llms]
        return await asyncio.gather(*callers, return_exceptions=True)

    failed, reply = asyncio.run(call())
    assert isinstance(failed, LLMError)
    assert (reply.candidate.text, reply.stored) == ("Hi.", False)


def test_equal_calls_of_two_threads_do_not_meet(store: Store) -> None:
    llm, texts = Same("a", "Hi.", delay=0.1), []

    def call() -> None:
        texts.append(asyncio.run(Caller(llm, store).call(HELLO, Sampling())).candidate.text)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["Hi.", "Hi."]


def test_a_store_that_cannot_keep_an_answer_is_a_warning(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any) -> None:
        raise StoreError("planted: full")

    monkeypatch.setattr(store, "put", full)
    assert asyncio.run(Caller(FakeLLM("a", "Hi."), store).call(HELLO, Sampling())).candidate.text == "Hi."
    assert caplog.messages == ["answers were not kept: planted: full"]


def test_a_stored_answer_costs_nothing_of_the_budget(store: Store) -> None:
    llm, budget = FakeLLM("a", "Hi.", cost=0.6), Budget(1.0)
    for _ in range(2):
        asyncio.run(Caller(llm, store, budget).call(HELLO, Sampling()))
    assert (budget.spent, budget.reserved) == (0.6, 0.0)
    with pytest.raises(LLMError, match=r"max_cost \$0\.400000 is left"):
        asyncio.run(Caller(llm, store, budget).call(HELLO, Sampling(seed=1)))


def test_many_calls_keep_their_order() -> None:
    async def square(n: int) -> int:
        await asyncio.sleep(0.01 * (3 - n))
        return n * n

    assert run_to_end(lambda: call_many([0, 1, 2, 3], square, concurrency=2)) == [0, 1, 4, 9]
    assert run_to_end(lambda: call_many([], square, concurrency=2)) == []


def test_a_failure_begins_no_new_call_and_lets_the_others_end() -> None:
    begun, ended = [], []

    async def call(n: int) -> None:
        begun.append(n)
        if n == 1:
            raise LLMError("a", "server", "planted")
        await asyncio.sleep(0.05)
        ended.append(n)

    with pytest.raises(LLMError, match="planted"):
        asyncio.run(call_many(range(10), call, concurrency=3))
    assert (begun, ended) == ([0, 1, 2], [0, 2])


def test_another_error_comes_as_it_is_and_cancels_the_others() -> None:
    llm = FakeLLM(never_ends=True)

    async def call(n: int) -> None:
        if n == 1:
            raise ZeroDivisionError("planted")
        await llm.generate(HELLO)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(call_many(range(2), call, concurrency=2))
    assert llm.cancelled == 1


def test_a_wrapped_llm_is_the_other_one() -> None:
    llm = FakeLLM("a", "Hi.", cost=0.5)
    wrapped = WrappedLLM(llm)
    assert isinstance(wrapped, LLM)
    assert (wrapped.name, wrapped.identity) == (llm.name, llm.identity)
    assert wrapped.most_cost(HELLO) == most_cost(llm, HELLO, Sampling()) == 0.5
    assert asyncio.run(wrapped.generate(HELLO)).text == "Hi."


def test_a_reservation_waits_for_calls_that_may_cost_less() -> None:
    async def run() -> list[bool]:
        budget = Budget(1.0)
        assert await budget.reserve_in_time(0.8)
        waiting = [asyncio.create_task(budget.reserve_in_time(0.8)) for _ in range(2)]
        await asyncio.sleep(0)
        budget.release(0.8, 0.1)
        await asyncio.sleep(0)
        budget.release(0.8, None)
        return await asyncio.gather(*waiting)

    assert asyncio.run(run()) == [True, False]


class TestBeside:
    def test_what_comes_while_a_store_is_busy_runs_next_in_its_thread(self) -> None:
        busy, free = threading.Event(), threading.Event()
        seen: list[tuple[int, str]] = []

        def work(name: int) -> int:
            seen.append((name, threading.current_thread().name))
            if name == 0:
                busy.set()
                assert free.wait(10)
            if name == 2:
                raise StoreError("planted")
            return name

        async def run() -> list[object]:
            store = object()
            first = run_in_store_thread(store, lambda: work(0))
            assert await asyncio.to_thread(busy.wait, 10)
            others = [run_in_store_thread(store, partial(work, i)) for i in range(1, 5)]
            others[3].cancel()
            alone = await run_in_store_thread(object(), lambda: threading.current_thread().name)
            free.set()
            results = await asyncio.gather(first, *others, return_exceptions=True)
            assert alone not in {thread for _, thread in seen}
            return list(results)

        results = asyncio.run(run())
        assert [name for name, _ in seen] == [0, 1, 2, 3, 4]  # also what is not awaited any more
        assert len({thread for _, thread in seen}) == 1
        assert threading.current_thread().name not in {thread for _, thread in seen}
        assert (results[:2], results[3]) == ([0, 1], 3)
        assert [type(result) for result in (results[2], results[4])] == [StoreError, asyncio.CancelledError]

    def test_work_goes_on_when_its_loop_has_ended(self) -> None:
        ended, done = threading.Event(), threading.Event()

        async def run() -> None:
            run_in_store_thread(done, lambda: ended.wait(10) and done.set())
            await asyncio.sleep(0)

        asyncio.run(run())
        ended.set()
        assert done.wait(10)
        assert asyncio.run(_await_in_store_thread(done, lambda: 3)) == 3


async def _await_in_store_thread(store: object, work: Callable[[], int]) -> int:
    return await run_in_store_thread(store, work)
