"""Waiting for LLMs: deadline, quorum, grace, and the answers that are kept."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import Any

import pytest

from llm_blender.ensemble import Ensemble, Limits, Member, Observer
from llm_blender.ensemble.form import Form
from llm_blender.errors import NoAnswerError, StoreError
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeRanker
from llm_blender.types import LLM, Answer, Candidate, Usage

PROMPT = "Say something."


def ask(*llms: LLM, seed: int = 0, **options: Any) -> Answer:
    return Ensemble([Member(llm) for llm in llms], FakeRanker(), **options).ask(PROMPT, seed=seed)


@pytest.mark.parametrize("reason", ["timeout", "connection", "auth", "rate_limit", "server", "not_found"])
def test_a_failing_llm_is_reported_and_the_others_go_on(reason: Any) -> None:
    answer = ask(FakeLLM("a", errors=reason), FakeLLM("b", "used"))
    assert (answer.text, answer.degraded) == ("used", True)
    assert [(f.model, f.reason, f.message) for f in answer.failures] == [("a", reason, f"a: planted {reason}")]


@pytest.mark.parametrize("text", ["", " \n\t", "\u00a0"])
def test_an_empty_answer_does_not_count(text: str) -> None:
    answer = ask(FakeLLM("a", text), FakeLLM("b", "used"))
    assert [candidate.model for candidate in answer.candidates] == ["b"]
    assert [(f.model, f.reason) for f in answer.failures] == [("a", "empty")]
    assert answer.degraded


def test_if_all_fail_each_reason_is_said_once() -> None:
    llms = [FakeLLM("a", errors="auth"), FakeLLM("b", "")]
    members = [Member(llms[0], 2), Member(llms[1])]
    with pytest.raises(NoAnswerError) as caught:
        Ensemble(members, FakeRanker()).ask(PROMPT)
    assert str(caught.value) == "No LLM gave an answer: a (2 times): planted auth; b: the answer is empty."


def test_after_the_deadline_the_late_are_cancelled() -> None:
    late = FakeLLM("late", never_ends=True)
    answer = ask(late, FakeLLM("quick", "used"), limits=Limits(deadline=0.3))
    assert answer.text == "used"
    assert answer.degraded
    assert 0.29 < answer.seconds < 2  # a timer may ring a moment early
    assert [(f.model, f.reason, f.message) for f in answer.failures] == [
        ("late", "timeout", "late: no answer within 0.3 s")
    ]
    assert late.cancelled == 1


def test_if_all_are_late_there_is_an_error_in_time() -> None:
    llms = [FakeLLM("a", never_ends=True), FakeLLM("b", delay=60)]
    started = time.perf_counter()
    with pytest.raises(NoAnswerError, match=r"a: no answer within 0\.2 s; b: no answer"):
        ask(*llms, limits=Limits(deadline=0.2))
    assert time.perf_counter() - started < 2
    assert [llm.cancelled for llm in llms] == [1, 1]


def test_a_quorum_gives_the_others_their_grace() -> None:
    llms = [FakeLLM("a", "one"), FakeLLM("b", "two"), FakeLLM("soon", "soon", delay=0.1), FakeLLM("never", delay=60)]
    answer = ask(*llms, limits=Limits(deadline=60, quorum=2, grace=0.5))
    assert [candidate.model for candidate in answer.candidates] == ["a", "b", "soon"]
    assert answer.failures[0].message == "never: no answer within 0.5 s after the quorum of 2 had answered"
    assert 0.49 < answer.seconds < 3


def test_a_quorum_counts_llms_and_not_samples() -> None:
    members = [Member(FakeLLM("llama", ["one", "two"]), 2), Member(FakeLLM("cloud", "three", delay=0.3))]
    answer = Ensemble(members, FakeRanker(), limits=Limits(deadline=60, quorum=2, grace=0)).ask(PROMPT)
    assert [candidate.model for candidate in answer.candidates] == ["llama", "llama", "cloud"]


def test_a_quorum_waits_for_the_answers_that_are_needed() -> None:
    llms = [FakeLLM("a", "one"), FakeLLM("b", "two", delay=0.2), FakeLLM("never", delay=60)]
    answer = ask(*llms, limits=Limits(deadline=60, quorum=1, grace=0, answers=2))
    assert [candidate.model for candidate in answer.candidates] == ["a", "b"]


def test_without_a_grace_it_depends_on_the_time_of_the_quorum() -> None:
    limits = Limits(quorum=2)
    assert [limits.grace_after(seconds) for seconds in (1, 12)] == [10, 12]
    assert Limits(quorum=2, grace=0.5).grace_after(12) == 0.5


def test_the_grace_is_as_long_again_as_the_quorum_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_blender.ensemble.gathering.LEAST_GRACE", 0.0)
    llms = [FakeLLM("a", "one", delay=0.4), FakeLLM("soon", "two", delay=0.6), FakeLLM("never", delay=60)]
    answer = ask(*llms, limits=Limits(deadline=60, quorum=1))
    assert [candidate.model for candidate in answer.candidates] == ["a", "soon"]
    assert re.fullmatch(
        r"never: no answer within 0\.4\d* s after the quorum of 1 had answered", answer.failures[0].message
    )


def test_a_quorum_that_the_deadline_cuts_short_names_the_deadline() -> None:
    answer = ask(FakeLLM("a"), FakeLLM("b", delay=60), limits=Limits(deadline=0.3, quorum=1))
    assert answer.failures[0].message == "b: no answer within 0.3 s"


@pytest.mark.parametrize(("text", "failures"), [("", 1), ("used", 0)])
def test_answers_that_are_not_used_are_paid_for(text: str, failures: int) -> None:
    llms = [FakeLLM("a", text, usage=Usage(5, 1), cost=0.5), FakeLLM("b", "used", usage=Usage(7, 2), cost=0.25)]
    answer = ask(*llms)
    assert (answer.cost, answer.usage, len(answer.failures)) == (0.75, Usage(12, 3), failures)


def test_answers_are_paid_for_where_none_can_be_used() -> None:
    llms = [FakeLLM("a", "", usage=Usage(5, 1), cost=0.5), FakeLLM("b", errors="auth")]
    with pytest.raises(NoAnswerError) as caught:
        ask(*llms)
    assert (caught.value.cost, caught.value.usage) == (0.5, Usage(5, 1))
    with pytest.raises(NoAnswerError) as unpriced:
        ask(FakeLLM("a", "", cost=None))
    assert unpriced.value.cost is None


def test_an_observer_learns_what_was_paid_for(store: Store) -> None:
    class Purse(Observer):
        def __init__(self) -> None:
            self.costs: list[float | None] = []

        def paid(self, candidate: Candidate) -> None:
            self.costs.append(candidate.cost)

    llms = [FakeLLM("a", "", cost=0.5), FakeLLM("b", "used", cost=0.25), FakeLLM("c", "never", errors="auth")]
    ensemble, purse = Ensemble([Member(llm) for llm in llms], FakeRanker(), store=store), Purse()
    ensemble.ask(PROMPT, observer=purse)
    assert sorted(map(str, purse.costs)) == ["0.25", "0.5"]
    ensemble.ask(PROMPT, observer=purse)
    assert len(purse.costs) == 2


def test_a_quorum_of_failures_is_none() -> None:
    llms = [FakeLLM("a", errors="auth"), FakeLLM("b", ""), FakeLLM("c", "used", delay=0.3)]
    assert ask(*llms, limits=Limits(deadline=60, quorum=1, grace=0)).text == "used"


def test_grace_does_not_prolong_the_deadline() -> None:
    answer = ask(FakeLLM("a"), FakeLLM("b", delay=60), limits=Limits(deadline=0.3, quorum=1, grace=60))
    assert answer.seconds < 3


def test_the_same_question_is_answered_from_the_store(store: Store) -> None:
    llms = [FakeLLM("a", ["first", "second"], usage=Usage(5, 1), cost=0.5), FakeLLM("b", "b")]
    first = ask(*llms, store=store)
    again = ask(*llms, store=store)
    assert len(store) == 2
    assert [len(llm.calls) for llm in llms] == [1, 1]
    assert again.candidates == first.candidates
    assert (first.cost, again.cost, again.usage) == (0.5, 0, Usage())
    other = ask(*llms, seed=1, store=store)
    assert other.candidates[0].text == "second"
    assert (other.cost, other.usage) == (0.5, first.usage)
    assert len(store) == 4


def test_only_new_calls_are_counted(store: Store) -> None:
    llm = FakeLLM("a", usage=Usage(5, 1), cost=0.5)
    Ensemble([Member(llm)], FakeRanker(), store=store).ask(PROMPT)
    answer = Ensemble([Member(llm, 3)], FakeRanker(), store=store).ask(PROMPT)
    assert (answer.cost, answer.usage, len(answer.candidates)) == (1.0, Usage(10, 2), 3)


def test_a_renamed_llm_finds_its_answers_under_its_new_name(store: Store) -> None:
    class Renamed(FakeLLM):
        identity = {"provider": "fake"}  # noqa: RUF012

    ask(Renamed("old"), store=store)
    renamed = Renamed("new")
    assert ask(renamed, store=store).candidates[0].model == "new"
    assert renamed.calls == []


def test_without_a_store_nothing_is_kept() -> None:
    llm = FakeLLM()
    ask(llm)
    ask(llm)
    assert len(llm.calls) == 2


def test_a_stored_empty_answer_still_does_not_count(store: Store) -> None:
    empty = FakeLLM("a", "", cost=1.0)
    assert ask(empty, FakeLLM("b"), store=store).cost == 1.0
    answer = ask(empty, FakeLLM("b"), store=store)
    assert (answer.failures[0].reason, answer.cost, len(empty.calls)) == ("empty", 0, 1)


def test_what_is_finished_when_all_is_cancelled_is_kept(store: Store) -> None:
    running = FakeLLM("b", never_ends=True)

    async def interrupt() -> None:
        ensemble = Ensemble([Member(FakeLLM("a", "kept")), Member(running)], FakeRanker(), store=store)
        task = asyncio.create_task(ensemble.aask(PROMPT))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupt())
    assert [call.candidate.text for call in store] == ["kept"]
    assert running.cancelled == 1


def test_an_answer_that_is_just_being_stored_is_kept_when_all_is_cancelled(store: Store) -> None:
    class Slow(Store):
        def put(self, key: str, candidate: Candidate) -> None:
            time.sleep(0.4)
            super().put(key, candidate)

    async def interrupt(slow: Store) -> int:
        task = asyncio.create_task(Ensemble([Member(FakeLLM())], FakeRanker(), store=slow).aask(PROMPT))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait([task])
        return len(store)

    with Slow(store.path) as slow:
        assert asyncio.run(interrupt(slow)) == 1


def test_a_store_that_cannot_be_used_costs_no_answer(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "blend.db").write_bytes(b"this is no database at all" * 100)
    assert ask(FakeLLM("a", "used"), store=Store(tmp_path / "blend.db")).text == "used"
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "earlier answers were not found",
        "answers were not kept",
    ]


def test_a_full_disk_costs_no_answer(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Full(Store):
        def put(self, key: str, candidate: Candidate) -> None:
            raise StoreError("the disk is full")

    with Full(tmp_path / "blend.db") as store:
        ensemble = Ensemble([Member(FakeLLM("a", "used"))], FakeRanker(), store=store)
        answer = ensemble.ask(PROMPT)
    assert answer.text == "used"
    assert caplog.messages == ["answers were not kept: the disk is full"]


def test_an_llm_that_cancels_itself_is_one_that_fails() -> None:
    answer = ask(FakeLLM("a", errors=[asyncio.CancelledError()]), FakeLLM("b", "used"))  # type: ignore[arg-type]
    assert answer.text == "used"
    assert answer.degraded


@pytest.mark.parametrize(("length", "beside"), [(100, False), (50_000, True)])
def test_the_form_of_a_long_answer_is_checked_beside_the_event_loop(length: int, beside: bool) -> None:
    threads: list[int] = []

    class Watched(Form):
        def check(self, candidate: Candidate) -> Candidate:
            threads.append(threading.get_ident())
            return super().check(candidate)

    async def answer() -> tuple[Answer, int]:
        blender = Ensemble(
            [Member(FakeLLM("a", f'{{"b": "{"c" * length}"}}')), Member(FakeLLM("d", "e" * length))], FakeRanker()
        )
        return await blender.aask(PROMPT, form=Watched(json=True)), threading.get_ident()

    given, loop = asyncio.run(answer())
    assert [(failure.model, failure.reason) for failure in given.failures] == [("d", "wrong_form")]
    assert given.text.startswith('{"b": "c')
    assert [thread != loop for thread in threads] == [beside] * 2
