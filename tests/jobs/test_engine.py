from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from llm_blender.errors import LLMError, NoAnswerError, StoreError, WorkError
from llm_blender.jobs import Budget, Entry, Item, Journal, Result, engine, work_through, work_through_batches
from llm_blender.types import Failure


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "j.jsonl") as journal:
        yield journal


def items(n, **options):
    return [Item(f"row {i}", i, **options) for i in range(n)]


class Work:
    """Work that squares numbers, counts, and fails on planted rows."""

    def __init__(self, failures=None, partial=(), cost=0.0, seconds=0.0):
        self.failures, self.partial, self.cost, self.seconds = failures or {}, partial, cost, seconds
        self.tried, self.running, self.most_at_once = [], 0, 0

    async def __call__(self, value):
        self.tried.append(value)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await asyncio.sleep(self.seconds)
            if value in self.failures:
                raise self.failures[value]
            return Result({"square": value**2}, "one LLM failed" if value in self.partial else "", self.cost)
        finally:
            self.running -= 1


def test_each_row_once(journal):
    work, reports = Work(cost=0.25), []
    rows = work_through(journal, items(5), work, on_rows=reports.append)
    assert (rows.total, rows.done, rows.resumed, rows.missing, rows.over, rows.cost) == (5, 5, 0, 0, 5, 1.25)
    assert [row.over for row in reports] == [1, 2, 3, 4, 5]
    assert reports[-1].rate > 0
    again = work_through(journal, items(7), work)
    assert (again.done, again.resumed, again.cost) == (2, 5, 0.5)
    assert sorted(work.tried) == list(range(7))
    assert [value["square"] for value in journal.values(f"row {i}" for i in range(7))] == [i**2 for i in range(7)]


def test_rows_are_read_as_they_are_needed(journal):
    read = []

    def rows():
        for item in items(9):
            read.append(item.value)
            yield item

    async def work(value):
        assert len(read) <= len(finished) + 3
        await asyncio.sleep(0)
        finished.append(value)
        return Result({"square": value**2})

    finished, keys = [3, 5], [item.key for item in items(9)]
    for value in finished:
        journal.add(Entry(f"row {value}", "done", {"square": value**2}))
    done = work_through(journal, rows(), work, keys=keys, concurrency={"": 3})
    assert (done.total, done.resumed, done.done, sorted(finished)) == (9, 2, 7, list(range(9)))
    again = work_through(journal, iter(()), work, keys=keys)
    assert (again.resumed, again.over) == (9, 9)


def test_an_error_of_reading_rows_ends_the_work(journal):
    def rows():
        yield from items(2)
        raise WorkError("planted")

    with pytest.raises(WorkError, match="planted"):
        work_through(journal, rows(), Work(), keys=[f"row {i}" for i in range(6)], concurrency={"": 3})
    assert len(journal) == 2


def test_failed_and_partial_rows_are_noted_and_tried_again(journal):
    work = Work({1: LLMError("a", "empty", "no answer")}, partial={2})
    rows = work_through(journal, items(4), work)
    assert (rows.done, rows.partial, rows.failed, rows.missing) == (2, 1, 1, 1)
    assert (journal.status("row 1"), journal.reason("row 1")) == ("failed", "a: no answer")
    assert (journal.status("row 2"), journal.value("row 2")) == ("partial", {"square": 4})
    work.failures, work.partial = {}, ()
    rows = work_through(journal, items(4), work)
    assert (rows.done, rows.resumed, rows.missing) == (2, 2, 0)
    assert sorted(work.tried) == [0, 1, 1, 2, 2, 3]


def test_a_result_without_value_is_a_failure_with_its_cost(journal):
    async def work(value):
        return Result(None, "the answer is empty", 0.5)

    rows = work_through(journal, items(1), work)
    assert (rows.failed, rows.cost, journal.cost, journal.reason("row 0")) == (1, 0.5, 0.5, "the answer is empty")


def test_an_llm_that_fails_again_and_again_is_given_up(journal):
    broken = {i: LLMError("a", "connection", "no connection") for i in range(50)}
    work = Work(broken)
    rows = [*items(50, queue="a"), *[Item(f"other {i}", 100 + i, "b") for i in range(20)]]
    rows = work_through(journal, rows, work)
    assert (rows.failed, rows.given_up, rows.done, rows.missing) == (10, 40, 20, 50)
    assert journal.status("row 49") is None


class Limited:
    """Work of an LLM that refuses the first calls of each row, as its rate limit."""

    def __init__(self, refusals, result=None):
        self.refusals, self.result, self.tried = refusals, result, []

    async def __call__(self, value):
        self.tried.append(value)
        if self.tried.count(value) <= self.refusals:
            if self.result is not None:
                return self.result
            raise LLMError("a", "rate_limit", "the server refuses more requests", retry_after=0.01)
        return Result(value, cost=0.25)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(engine, "_FIRST_WAIT", 0.001)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "result", [None, Result({"some": 1}, "a: no place", 0.5, busy={"a": 0.01})], ids=["no result", "a part"]
)
def test_a_rate_limit_costs_time_and_no_row(journal, result):
    work = Limited(3, result)
    rows = work_through(journal, items(20), work, concurrency={"": 4})
    assert (rows.done, rows.partial, rows.failed, rows.given_up) == (20, 0, 0, 0)
    assert len(work.tried) == 80
    assert journal.value("row 7") == 7
    assert rows.cost == pytest.approx(20 * (0.25 if result is None else 0.25 + 3 * 0.5))


@pytest.mark.usefixtures("quick")
def test_other_rows_go_on_meanwhile(journal):
    class Uneven(Limited):
        async def __call__(self, value):
            return await super().__call__(value) if value == 0 else Result(value)

    work = Uneven(5)
    work_through(journal, items(12), work, concurrency={"": 2})
    assert journal.status("row 0") == "done"


@pytest.mark.usefixtures("quick")
def test_an_llm_without_any_answer_is_given_up_after_a_time(journal, monkeypatch):
    monkeypatch.setattr(engine, "_STUCK", 0.2)
    work = Limited(10**9)
    rows = work_through(journal, items(50), work, concurrency={"": 4})
    assert rows.done == rows.partial == 0
    assert rows.failed + rows.given_up == 50
    assert 10 <= rows.failed <= 14
    assert "refuses more requests" in journal.reason("row 0")


@pytest.mark.usefixtures("quick")
def test_an_llm_that_answers_now_and_then_is_waited_for(journal, monkeypatch):
    monkeypatch.setattr(engine, "_STUCK", 0.25)

    class Slow(Limited):
        async def __call__(self, value):
            await asyncio.sleep(0.01)
            return await super().__call__(value)

    rows = work_through(journal, items(12), Slow(5))
    assert rows.done == 12


@pytest.mark.usefixtures("quick")
def test_a_rate_limit_without_a_time_is_a_failure(journal):
    work = Work({1: LLMError("a", "rate_limit", "no credit today")})
    assert work_through(journal, items(3), work).failed == 1
    assert work.tried == [0, 1, 2]


@pytest.mark.usefixtures("one_process", "interruptible")
def test_an_interrupt_ends_the_wait_for_a_rate_limit(journal):
    async def work(value):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        raise LLMError("a", "rate_limit", "wait", retry_after=30.0)

    with pytest.raises(KeyboardInterrupt):
        work_through(journal, items(1), work)
    assert journal.status("row 0") == "failed"


def test_failures_that_belong_to_a_row_give_up_nobody(journal):
    missing = Failure("a", "not_found", "no such row")
    work = Work({i: NoAnswerError("No LLM gave an answer.", [missing]) for i in range(30)})
    assert work_through(journal, items(30), work).failed == 30


def test_each_lane_has_its_own_places(journal):
    work = Work(seconds=0.005)
    work_through(
        journal, [*items(6, queue="a"), *[Item(f"b{i}", i, "b") for i in range(6)]], work, concurrency={"a": 3, "b": 2}
    )
    assert work.most_at_once == 5
    with Journal(journal.path.with_name("one.jsonl")) as other:
        one = Work(seconds=0.002)
        work_through(other, items(4), one)
        assert one.most_at_once == 1
        assert one.tried == [0, 1, 2, 3]


def test_another_error_stops_the_work_and_keeps_what_is_under_way(journal):
    stopped = []

    async def work(value):
        await asyncio.sleep(0.001 if value == 1 else 0.05)
        if value == 1:
            raise StoreError("disk full")
        return Result(value)

    with pytest.raises(StoreError, match="disk full"):
        work_through(journal, items(10), work, concurrency={"": 3}, on_stopping=stopped.append)
    assert [journal.status(f"row {i}") for i in range(5)] == ["done", None, "done", None, None]
    assert stopped == [2]


@pytest.mark.usefixtures("one_process", "interruptible")
def test_an_interrupt_keeps_what_is_under_way(journal):
    stopped = []

    async def work(value):
        if value == 2:
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
        await asyncio.sleep(0.3 if value >= 2 else 0)
        return Result(value)

    with pytest.raises(KeyboardInterrupt):
        work_through(journal, items(10), work, concurrency={"": 2}, on_stopping=stopped.append)
    assert journal.status("row 2") == "done"
    assert len(journal) in (3, 4)
    assert sum(stopped) in (1, 2)


def test_keys_differ(journal):
    with pytest.raises(ValueError, match="share a key"):
        work_through(journal, [Item("a", 1), Item("a", 2)], Work())


def test_resources_are_open_meanwhile(journal):
    class Resource:
        entered = left = 0

        async def __aenter__(self):
            self.entered += 1

        async def __aexit__(self, *error):
            self.left += 1

    resource = Resource()

    async def work(value):
        assert (resource.entered, resource.left) == (1, 0)
        return Result(value)

    work_through(journal, items(2), work, resources=[resource, "no manager"])
    assert (resource.entered, resource.left) == (1, 1)


def test_the_cap_is_not_broken_by_calls_at_the_same_time(journal):
    work = Work(cost=0.4, seconds=0.002)
    rows = work_through(journal, items(20, most_cost=1.0), work, concurrency={"": 8}, budget=Budget(3.0))
    assert journal.cost <= 3.0
    # 0.4 each: when 2.0 or less are spent, another one that may cost 1.0 fits.
    assert (rows.done, rows.over_budget) == (6, 14)
    more = work_through(journal, items(20, most_cost=1.0), work, budget=Budget(100.0, spent=journal.cost))
    assert (more.done, more.resumed) == (14, 6)


def test_free_rows_go_on_when_the_budget_is_used_up(journal):
    work = Work(cost=0.0)
    rows = work_through(journal, [Item("paid", 1, "a", most_cost=1.0), *items(3, queue="b")], work, budget=Budget(0.5))
    assert (rows.over_budget, rows.done) == (1, 3)


def test_costs_that_are_not_known_are_counted(journal):
    rows = work_through(journal, items(3), Work(cost=None))
    assert (rows.unpriced, rows.cost, journal.unpriced) == (3, 0.0, 3)


def test_batches(journal):
    sizes = []

    def work(values):
        sizes.append(len(values))
        return [Result(value) for value in values]

    work_through_batches(journal, items(3), work, size=2)
    rows = work_through_batches(journal, items(8), work, size=2)
    assert sizes == [2, 1, 2, 2, 1]
    assert (rows.resumed, rows.done) == (3, 5)
