"""The cost of a prompt: no LLM is called that may cost more than is left."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from llm_blender.calls import Budget
from llm_blender.config import Price
from llm_blender.ensemble import Ensemble, Limits, Member
from llm_blender.errors import InputError, LLMError, NoAnswerError
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.testing import FakeLLM, FakeRanker
from llm_blender.types import LLM, Message, Sampling, Usage

MESSAGES: list[Message] = [{"role": "user", "content": "Say something."}]


def ensemble(*llms: LLM, max_cost: float | None, allow_unpriced: bool = False, fuser: LLM | None = None) -> Ensemble:
    limits = Limits(deadline=10, max_cost=max_cost, allow_unpriced=allow_unpriced)
    return Ensemble(
        [Member(llm) for llm in llms], FakeRanker(), limits=limits, fuser=None if fuser is None else ChatFuser(fuser)
    )


def test_who_might_cost_more_than_is_left_is_not_asked() -> None:
    llms = [FakeLLM("a", "one", cost=0.4), FakeLLM("b", "two", cost=0.4), FakeLLM("c", "three", cost=0.4)]
    answer = ensemble(*llms, max_cost=1.0).ask("Say something.")
    assert [(failure.model, failure.reason) for failure in answer.failures] == [("c", "budget")]
    assert "max_cost $0.200000 is left" in answer.failures[0].message
    assert (answer.cost, answer.degraded, llms[2].calls) == (pytest.approx(0.8), True, [])


def test_the_fuser_is_paid_from_the_same_purse() -> None:
    llms = [FakeLLM("a", "short", cost=0.4), FakeLLM("b", "a longer one", cost=0.4)]
    fuser = FakeLLM("f", "something much longer and better", cost=0.4)
    answer = ensemble(*llms, max_cost=1.0, fuser=fuser).ask("Say something.", mode="fuse")
    assert answer.fusion is not None
    assert (answer.text, answer.fusion.reason, fuser.calls) == ("a longer one", "failed", [])
    assert ensemble(*llms, max_cost=1.2, fuser=fuser).ask("Say something.", mode="fuse").mode == "fuse"


def test_nobody_can_be_paid() -> None:
    with pytest.raises(NoAnswerError, match="may cost") as caught:
        ensemble(FakeLLM("a", cost=2.0), max_cost=1.0).ask("Say something.")
    assert [failure.reason for failure in caught.value.failures] == ["budget"]


def test_an_unknown_price_is_an_error_unless_allowed() -> None:
    other, unknown = FakeLLM("a", cost=0.1), FakeLLM("b", "longer answer", cost=None)
    with pytest.raises(InputError, match=r"b: the maximum cost of an answer is unknown.*allow_unpriced"):
        ensemble(other, unknown, max_cost=1.0).ask("Say something.")
    assert other.calls == []
    assert ensemble(other, unknown, max_cost=1.0, allow_unpriced=True).ask("Say something.").cost is None


def test_what_was_not_used_is_given_back_and_a_cancelled_call_counts() -> None:
    async def run() -> tuple[float, float]:
        budget = Budget(1.0)
        with pytest.raises(LLMError):
            await budget.llm(FakeLLM("a", errors="server", cost=0.5)).generate(MESSAGES)
        failed = budget.spent + budget.reserved
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await budget.llm(FakeLLM("b", never_ends=True, cost=0.5)).generate(MESSAGES)
        return failed, budget.spent + budget.reserved

    assert asyncio.run(run()) == (0.0, 0.5)


def test_the_worst_case_of_an_api() -> None:
    llm = OpenAICompatibleLLM("a", "m", "http://localhost/v1", price=Price(input=1e6, output=1e3))
    assert llm.most_cost(MESSAGES) is None  # it may write for ever
    few, more = (llm.most_cost(MESSAGES, Sampling(max_tokens=n)) or 0.0 for n in (1000, 2000))
    assert more - few == pytest.approx(1.0)
    assert few > len("Say something.")
    assert OpenAICompatibleLLM("a", "m", "http://localhost/v1").most_cost(MESSAGES, Sampling(max_tokens=1)) is None


def test_one_deadline_for_everything_is_split() -> None:
    limits = Limits(deadline=100, total=10)
    assert (limits.for_llms(fusing=False).deadline, limits.for_llms(fusing=True).deadline) == (8, 5)
    assert (limits.for_fuser(5), limits.for_fuser(20)) == (4, 0)
    assert Limits(deadline=3).for_llms(fusing=True).deadline == Limits(deadline=3).for_fuser(2) == 3


def test_an_answer_that_cannot_be_used_is_paid_for() -> None:
    error = LLMError("a", "empty", "only thoughts", usage=Usage(5, 90), cost=0.75)
    answer = Ensemble([Member(FakeLLM("a", errors=error)), Member(FakeLLM("b", cost=0.25))], FakeRanker()).ask("Hi.")
    assert (answer.cost, answer.usage.completion_tokens > 90) == (1.0, True)

    async def spent() -> tuple[float, float]:
        budget = Budget(2.0)
        with suppress(LLMError):
            await budget.llm(FakeLLM("a", errors=error, cost=1.0)).generate(MESSAGES)
        return budget.spent, budget.reserved

    assert asyncio.run(spent()) == (0.75, 0.0)
