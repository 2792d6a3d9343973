"""The judge of close calls: when it is called, what its verdict does, and what its failures cost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_blender.config import Config
from llm_blender.ensemble import Ensemble, Judge, Limits, Member, load_judge
from llm_blender.errors import NotFoundError, WorkError
from llm_blender.llms import OpenAICompatibleLLM
from llm_blender.rankers.heuristics import Longest
from llm_blender.rankers.llm_judge import LLMJudge
from llm_blender.ranking import CloseCalls, Priors
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeRanker
from llm_blender.types import LLM, Answer, Candidate, Judging, Message, Ranking, Sampling, Usage, Verdict

PROMPT = "Say something."
STRENGTHS = {"first": 0.3, "second": 0.2, "third": -3.0}


def prefers(text: str) -> Any:
    """Make the answers of a judge that prefers this text, wherever it stands."""

    def answer(messages: Sequence[Message], sampling: Sampling) -> str:
        content = str(messages[-1]["content"])
        others = [content.find(other) for other in STRENGTHS if other != text and other in content]
        return "A" if content.find(text) < min(others) else "B"

    return answer


def blender(judge: LLM | Judge, *, temperature: float = 1.0, members: Sequence[LLM] = (), **options: Any) -> Ensemble:
    llms = members or [FakeLLM(text, text, cost=0.25, usage=Usage(5, 1)) for text in STRENGTHS]
    made = judge if isinstance(judge, Judge) else Judge(judge.name, LLMJudge(judge), {judge.name})
    ranker = FakeRanker(STRENGTHS, temperature=temperature)
    return Ensemble([Member(llm) for llm in llms], ranker, judge=made, **options)


def judging(ranking: Ranking) -> Judging:
    assert ranking.evidence is not None
    assert ranking.evidence.judging is not None
    return ranking.evidence.judging


def without(answer: Answer) -> Any:
    """Return what a judge without a verdict must not change."""
    return answer.text, answer.ranking.order, answer.ranking.scores, answer.degraded, answer.failures


def test_its_verdict_turns_a_close_call_and_its_cost_counts() -> None:
    judge = FakeLLM("judge", prefers("second"), cost=0.1, usage=Usage(50, 1))
    answer = blender(judge).ask(PROMPT)
    assert (answer.text, answer.ranking.order) == ("second", (1, 0, 2))
    assert judging(answer.ranking) == Judging("judge", False, (Verdict(0, 1, -1.0),))
    assert answer.ranking.probability(1, 0) > 0.75
    assert len(judge.calls) == 2  # both orders
    assert answer.cost == pytest.approx(3 * 0.25 + 2 * 0.1)
    assert answer.usage == Usage(115, 5)
    assert not answer.degraded


def test_a_clear_call_needs_no_judge() -> None:
    judge = FakeLLM("judge", prefers("second"))
    answer = blender(judge, temperature=0.01).ask(PROMPT)
    assert (answer.text, judge.calls, answer.ranking.evidence) == ("first", [], None)
    lone = blender(judge, members=[FakeLLM("first", "first")]).ask(PROMPT)
    assert (lone.text, judge.calls) == ("first", [])


def test_a_judge_that_prefers_the_first_place_changes_nothing() -> None:
    answer = blender(FakeLLM("judge", "A")).ask(PROMPT)
    assert answer.text == "first"
    assert judging(answer.ranking).verdicts == (Verdict(0, 1, 0.0),)


def test_the_next_challenger_is_compared_within_the_budget() -> None:
    judge = FakeLLM("judge", prefers("third"))
    rule = CloseCalls(margin=0.5, pairs=3, accuracy=0.99)
    answer = blender(judge, close_calls=rule).ask(PROMPT)
    assert answer.text == "third"
    assert len(judging(answer.ranking).verdicts) == len(judge.calls) / 2
    assert len(judge.calls) <= 6


def test_priors_come_before_the_judge() -> None:
    judge = FakeLLM("judge", prefers("second"))
    answer = blender(judge, priors=Priors({"first": 9.0, "second": -9.0})).ask(PROMPT)
    assert (answer.text, judge.calls) == ("first", [])  # with the priors it is no close call


@pytest.mark.parametrize(
    ("judge", "limits", "reason"),
    [
        (FakeLLM("judge", errors="auth"), Limits(), "auth"),
        (FakeLLM("judge", delay=30.0), Limits(total=2.0), "timeout"),
        (FakeLLM("judge", prefers("second"), cost=0.6), Limits(max_cost=1.0), "budget"),
        (FakeLLM("judge", prefers("second"), cost=None), Limits(max_cost=1.0), "budget"),
    ],
)
def test_a_judge_that_fails_costs_only_its_verdict(judge: FakeLLM, limits: Limits, reason: str) -> None:
    answer = blender(judge, limits=limits).ask(PROMPT)
    plain = Ensemble(blender(judge).members, FakeRanker(STRENGTHS)).ask(PROMPT)
    assert without(answer) == without(plain)
    failure = judging(answer.ranking).failure
    assert failure is not None
    assert (failure.model, failure.reason) == ("judge", reason)
    assert failure.message.startswith("judge: ")
    assert answer.cost == pytest.approx(0.75)
    assert answer.seconds < 5


def test_replies_of_an_llm_come_from_the_store(store: Store) -> None:
    judge = FakeLLM("judge", prefers("second"), cost=0.1)
    first = blender(judge, store=store).ask(PROMPT)
    again = blender(judge, store=store).ask(PROMPT)
    assert (first.text, again.text, len(judge.calls)) == ("second", "second", 2)
    assert again.cost == 0


def test_an_answer_that_was_cut_off_is_not_judged() -> None:
    class CutOff(FakeLLM):
        async def generate(self, *args: Any, **options: Any) -> Candidate:
            return replace(await super().generate(*args, **options), finish_reason="length")

    judge = FakeLLM("judge", prefers("third"))
    members = [CutOff("first", "first"), FakeLLM("second", "second"), FakeLLM("third", "third")]
    answer = blender(judge, members=members, close_calls=CloseCalls(margin=0.5, accuracy=0.99)).ask(PROMPT)
    assert (answer.text, answer.ranking.order) == ("third", (2, 1, 0))
    assert judging(answer.ranking).verdicts == (Verdict(1, 2, -1.0),)
    all_cut = [CutOff("first", "first"), CutOff("second", "second")]
    assert blender(FakeLLM("judge", prefers("second")), members=all_cut).ask(PROMPT).text == "second"


@pytest.mark.parametrize(
    ("finish", "fix"), [("stop", "holds no verdict: 'Both have merits.'; choose another"), ("length", "raise its max")]
)
def test_a_judge_without_a_verdict_is_a_failure_with_its_cost(finish: str, fix: str) -> None:
    class Vague(FakeLLM):
        async def generate(self, *args: Any, **options: Any) -> Candidate:
            return replace(await super().generate(*args, **options), finish_reason=finish)

    answer = blender(Vague("judge", "Both have merits.", cost=0.1)).ask(PROMPT)
    failure = judging(answer.ranking).failure
    assert failure is not None
    assert (failure.reason, answer.text, answer.cost) == ("bad_response", "first", pytest.approx(0.95))
    assert fix in failure.message


def test_one_reply_without_a_verdict_leaves_half_of_it() -> None:
    answer = blender(FakeLLM("judge", ["A", "Both have merits."])).ask(PROMPT)
    assert abs(judging(answer.ranking).verdicts[0].value) == 0.5


def test_a_judge_that_reasons_has_its_own_maximum_of_tokens() -> None:
    def most(own: int | None) -> int | None:
        llm = OpenAICompatibleLLM("judge", "judge", "http://127.0.0.1:9/v1", sampling=Sampling(max_tokens=own))
        judge = load_judge("judge", [llm], None).ranker
        assert isinstance(judge, LLMJudge)
        return judge.sampling.max_tokens

    assert (most(None), most(100), most(4000)) == (512, 512, 4000)


def test_another_ranker_is_a_judge_as_well() -> None:
    answer = blender(Judge("longest", lambda: Longest())).ask(PROMPT)
    assert (answer.text, judging(answer.ranking).judge) == ("second", "longest")


def test_a_ranker_that_breaks_costs_only_its_verdict() -> None:
    class Broken(FakeRanker):
        def rank_many(self, *args: Any, **options: Any) -> list[Ranking]:
            raise WorkError("planted: the ranker broke")

    answer = blender(Judge("broken", Broken())).ask(PROMPT)
    failure = judging(answer.ranking).failure
    assert answer.text == "first"
    assert failure is not None
    assert (failure.reason, failure.message) == ("bad_response", "broken: planted: the ranker broke")


def test_a_judge_that_cannot_be_loaded_is_an_error() -> None:
    ensemble = blender(load_judge("no/such/judge", [FakeLLM("a")], None))
    with pytest.raises(NotFoundError, match=r"judge no/such/judge is neither an \[\[llm\]\] nor a ranker.*LLMs: a\."):
        ensemble.ask(PROMPT)


def test_texts_of_others_are_judged_too() -> None:
    judge = FakeLLM("judge", prefers("second"))
    ensemble = blender(judge)
    ranking = asyncio.run(ensemble.arank(PROMPT, list(STRENGTHS)))
    assert (ranking.best, judging(ranking).member) == (1, False)
    off = ensemble.settings
    quiet = Ensemble(ensemble.members, FakeRanker(STRENGTHS), judge=ensemble.judge, close_calls=CloseCalls(pairs=0))
    assert asyncio.run(quiet.arank(PROMPT, list(STRENGTHS))).best == 0
    assert off.close_calls.pairs > 0


def test_a_judge_among_the_members_is_flagged() -> None:
    judge = FakeLLM("second", lambda messages, sampling: "second" if len(messages) == 1 else "tie")
    members = [FakeLLM("first", "first"), judge, FakeLLM("third", "third")]
    answer = blender(judge, members=members).ask(PROMPT)
    assert judging(answer.ranking).member
    made = load_judge("second", members, None)
    assert made.is_among(["first", "second"])
    assert not made.is_among(["first", None])


def test_many_prompts_are_judged_and_each_failure_is_its_own() -> None:
    def answer(messages: Sequence[Message], sampling: Sampling) -> str:
        if "broken prompt" in str(messages[-1]["content"]):
            raise LookupError
        return prefers("second")(messages, sampling)

    class Fragile(FakeLLM):
        async def generate(self, messages: Any, *args: Any, **options: Any) -> Any:
            from llm_blender.errors import LLMError

            if "broken prompt" in str(messages[-1]["content"]):
                raise LLMError(self.name, "server", "planted")
            return await super().generate(messages, *args, **options)

    texts, prompts = [list(STRENGTHS)] * 3, ["one", "broken prompt", "three"]
    rankings = FakeRanker(STRENGTHS).rank_many(prompts, texts)
    judge = Judge("judge", LLMJudge(Fragile("judge", answer)))
    judged = asyncio.run(judge.judge(rankings, prompts, texts, CloseCalls()))
    assert [ranking.best for ranking in judged] == [1, 0, 1]
    assert [judging(ranking).failure is None for ranking in judged] == [True, False, True]


def test_a_configuration_names_an_llm_that_only_judges(tmp_path: Path) -> None:
    entries = [f'[[llm]]\nname = "{name}"\nmodel = "{model}"\nbase_url = "http://localhost:9/v1"\n' for name, model in
               (("a", "m"), ("b", "m"), ("strong", "s"))]  # fmt: skip
    text = '[ranker]\njudge = "{}"\njudge_margin = 0.1\njudge_pairs = 2\n' + "".join(entries) + "samples = 0\n"
    with Store(tmp_path / "blend.db") as store:
        ensemble = Ensemble.from_config(Config.from_toml(text.format("strong")), store=store)
        same = Ensemble.from_config(Config.from_toml(text.format("judge:a")), store=store)
    assert ensemble.judge is not None
    assert ensemble.judge.llm is not None
    assert (ensemble.judge.name, len(ensemble.members)) == ("strong", 2)
    assert ensemble.settings.close_calls == CloseCalls(0.1, 2)
    assert ensemble.judge.llm in ensemble._managed
    assert not ensemble.judge.is_among(member.llm.name for member in ensemble.members)
    assert same.judge is not None
    assert same.judge.is_among(["b"])  # another name of the same model
    assert Config().ranker.judge_margin == CloseCalls().margin
    assert Config().ranker.judge_pairs == CloseCalls().pairs
