"""From a prompt to an answer: who is picked, what it cost, what it rests on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_blender.calls import run_to_end
from llm_blender.config import Config, Price
from llm_blender.ensemble import DEFAULT_SAMPLES, Ensemble, Judge, Limits, Member, Observer, fuser_name
from llm_blender.errors import ConfigError, InputError, NoAnswerError, NotFoundError, WorkError
from llm_blender.fusers import ConsensusFuser
from llm_blender.llms.embedded import EmbeddedLLM
from llm_blender.llms.models import DEFAULT_MODEL
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.rankers.heuristics import Longest
from llm_blender.ranking import Priors
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeOpenAIServer, FakeRanker, FakeReply
from llm_blender.types import LLM, Answer, Candidate, Failure, Message, Ranker, Ranking, Usage

PROMPT = "Say something."


def ensemble(*llms: LLM, ranker: Any = None, **options: Any) -> Ensemble:
    return Ensemble([Member(llm) for llm in llms], ranker or FakeRanker(), **options)


class BrokenRanker(FakeRanker):
    def rank_many(self, *args: Any, **options: Any) -> list[Ranking]:
        raise WorkError("planted: the ranker broke")


def test_the_best_is_picked_and_candidates_keep_the_order_of_the_llms() -> None:
    llms = [FakeLLM("a", "long", delay=0.05), FakeLLM("b", "the longest"), FakeLLM("c", "a", delay=0.02)]
    answer = ensemble(*llms).ask(PROMPT)
    assert answer.text == "the longest"
    assert answer.mode == "pick"
    assert [candidate.model for candidate in answer.candidates] == ["a", "b", "c"]
    assert answer.ranking.ranks == (2, 1, 3)
    assert answer.failures == ()
    assert not answer.degraded
    assert answer.seconds > 0.04


def test_all_are_asked_at_once() -> None:
    llms = [FakeLLM(name, delay=0.2) for name in "abcde"]
    assert ensemble(*llms).ask(PROMPT).seconds < 0.9


def test_samples_are_asked_with_their_indices_and_the_seed() -> None:
    llm = FakeLLM("a", lambda messages, sampling: "x" * (sampling.sample + 1))
    answer = Ensemble([Member(llm, 3)], FakeRanker()).ask(PROMPT, seed=7)
    assert sorted((call.sampling.seed, call.sampling.sample) for call in llm.calls) == [(7, 0), (7, 1), (7, 2)]
    assert [candidate.text for candidate in answer.candidates] == ["x", "xx", "xxx"]
    assert answer.text == "xxx"


class Served(FakeLLM):
    """A fake of a model that may run on several servers."""

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "name": self.name, "model": self.name[0]}


def test_members_of_one_model_have_seeds_of_their_own(store: Store) -> None:
    llms = [Served(name, lambda messages, sampling: f"{sampling.seed} {sampling.sample}") for name in ("q1", "q2", "z")]
    members = [Member(llms[0], 2), Member(llms[1]), Member(llms[2])]
    answer = Ensemble(members, FakeRanker(), store=store).ask(PROMPT, seed=7)
    assert [candidate.text for candidate in answer.candidates] == ["7 0", "7 1", "9 0", "7 0"]


def test_a_conversation_reaches_llms_and_ranker() -> None:
    conversation: list[Message] = [
        {"role": "human", "content": "Hello?"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And now?"},
    ]
    llm, ranker = FakeLLM(answers=["one", "two"]), FakeRanker()
    Ensemble([Member(llm, 2)], ranker).ask(conversation)
    assert [message["role"] for message in llm.calls[0].messages] == ["user", "assistant", "user"]
    assert ranker.batches[0][0][0] == "User: Hello?\n\nAssistant: Hello.\n\nUser: And now?"


def test_one_candidate_is_the_answer() -> None:
    ranker = FakeRanker()
    answer = ensemble(FakeLLM(answers="only"), ranker=ranker).ask(PROMPT)
    assert (answer.text, answer.ranking.ranks, answer.ranking.comparisons) == ("only", (1,), 0)
    assert ranker.comparisons == 0


def test_strategy_budget_and_seed_reach_the_ranker() -> None:
    llms = [FakeLLM(str(i), "x" * i) for i in range(1, 5)]
    assert ensemble(*llms).ask(PROMPT).ranking.strategy == "full"
    assert ensemble(*llms, budget=6).ask(PROMPT).ranking.strategy == "knockout"
    fused = ensemble(*llms, budget=6, fuser=ConsensusFuser(), mode="fuse").ask(PROMPT)
    assert fused.ranking.strategy == "top_k"
    answer = ensemble(*llms, strategy="bubble").ask(PROMPT)
    assert (answer.ranking.strategy, answer.ranking.comparisons) == ("bubble", 6)


def test_a_knockout_finds_the_best_where_nothing_else_is_wanted() -> None:
    llms = [FakeLLM(str(i), "x" * i) for i in range(1, 12)]
    ranker = FakeRanker(position_bias=False)
    blender = ensemble(*llms, ranker=ranker, fuser=ConsensusFuser())
    picked = blender.ask(PROMPT)
    assert (picked.text, picked.ranking.strategy, picked.ranking.comparisons) == ("x" * 11, "knockout", 10)
    assert ranker.comparisons == 10
    assert picked.ranking.lead is not None
    assert picked.ranking.ranks[10] == 1
    fused = blender.ask(PROMPT, mode="fuse")
    assert (fused.ranking.strategy, fused.ranking.order[:3]) == ("top_k", (10, 9, 8))
    several = blender.ask(PROMPT, settings=replace(blender.settings, limits=Limits(answers=5)))
    assert (several.ranking.strategy, several.ranking.order[:5]) == ("top_k", (10, 9, 8, 7, 6))
    assert blender.ask(PROMPT, settings=replace(blender.settings, strategy="full")).ranking.strategy == "full"
    ranked = run_to_end(lambda: blender.arank(PROMPT, ["x" * i for i in range(1, 8)]))
    assert (ranked.strategy, ranked.comparisons) == ("full", 21)


def test_what_counts_later_needs_all_pairs() -> None:
    llms = [FakeLLM(str(i), "x" * i) for i in range(1, 7)]
    ranker = FakeRanker(position_bias=False)
    assert ensemble(*llms, ranker=ranker).ask(PROMPT).ranking.strategy == "knockout"
    judged = ensemble(*llms, ranker=ranker, judge=Judge("judge", Longest())).ask(PROMPT)
    assert (judged.ranking.strategy, judged.ranking.comparisons) == ("full", 15)
    with_priors = ensemble(*llms, ranker=ranker, priors=Priors({"1": 50.0, "2": -50.0})).ask(PROMPT)
    assert (with_priors.ranking.strategy, with_priors.text) == ("full", "x")
    learning = ensemble(*llms, ranker=ranker, priors="auto").ask(PROMPT)
    assert learning.ranking.strategy == "full"


def test_the_best_whole_answer_is_found_behind_those_that_were_cut_off() -> None:
    class CutOff(FakeLLM):
        async def generate(self, *args: Any, **options: Any) -> Candidate:
            return replace(await super().generate(*args, **options), finish_reason="length")

    ranker = FakeRanker(position_bias=False)
    for order in (range(1, 12), range(11, 0, -1)):
        llms = [(CutOff if n > 9 else FakeLLM)(str(n), "x" * n) for n in order]
        found = ensemble(*llms, ranker=ranker).ask(PROMPT)
        assert (found.text, found.ranking.strategy) == ("x" * 9, "top_k")


def test_a_ranker_of_another_class_needs_no_k() -> None:
    class Plain:
        def rank_many(
            self,
            instructions: Any,
            candidates: Any,
            *,
            strategy: str = "",
            seed: int = 0,
            budget: int = 0,
            progress: Any = None,
        ) -> list[Ranking]:
            return Longest().rank_many(instructions, candidates)

    llms = [FakeLLM(str(i), "x" * i) for i in range(1, 6)]
    assert ensemble(*llms, ranker=Plain()).ask(PROMPT).text == "xxxxx"


def test_costs_and_tokens_are_summed() -> None:
    llms = [FakeLLM(name, name, usage=Usage(10, 2), cost=0.25) for name in "abc"]
    answer = ensemble(*llms).ask(PROMPT)
    assert (answer.usage, answer.cost) == (Usage(30, 6), 0.75)


def test_an_unknown_price_makes_the_cost_unknown() -> None:
    assert ensemble(FakeLLM("a", cost=0.25), FakeLLM("b", cost=None)).ask(PROMPT).cost is None


def test_an_empty_answer_is_paid_for_too() -> None:
    answer = ensemble(FakeLLM("a", " \n", cost=1.0, usage=Usage(5, 1)), FakeLLM("b", cost=0.5)).ask(PROMPT)
    assert answer.cost == 1.5
    assert answer.usage.prompt_tokens > 5


def test_the_json_is_that_of_the_design() -> None:
    llms = [FakeLLM("a", "short"), FakeLLM("b", "not short"), FakeLLM("c", errors="auth")]
    values = json.loads(json.dumps(ensemble(*llms).ask(PROMPT).to_dict()))
    assert set(values) == {
        "text", "mode", "degraded", "candidates", "ranking", "failures", "usage", "cost", "seconds",
    }  # fmt: skip
    assert set(values["ranking"]) == {"best", "ranks", "scores", "strategy", "comparisons", "lead"}
    assert [(c["model"], c["text"], c["rank"]) for c in values["candidates"]] == [
        ("a", "short", 2),
        ("b", "not short", 1),
    ]
    assert values["candidates"][1]["score"] > values["candidates"][0]["score"]
    assert values["failures"] == [{"model": "c", "reason": "auth", "message": "c: planted auth"}]
    assert (values["text"], values["mode"], values["degraded"]) == ("not short", "pick", True)


def test_an_unknown_price_is_null_in_the_json() -> None:
    assert ensemble(FakeLLM(cost=None)).ask(PROMPT).to_dict()["cost"] is None


def test_sync_and_async_give_the_same() -> None:
    def make() -> Ensemble:
        llms = [FakeLLM("a", "one"), FakeLLM("b", "three"), FakeLLM("c", errors="timeout")]
        return ensemble(*llms, ranker=FakeRanker(noise=2.0))

    def without_time(answer: Answer) -> dict[str, Any]:
        return {**answer.to_dict(), "seconds": None}

    assert without_time(make().ask(PROMPT, seed=3)) == without_time(asyncio.run(make().aask(PROMPT, seed=3)))


def test_ask_inside_a_running_event_loop() -> None:
    async def notebook() -> Answer:
        return ensemble(FakeLLM("a"), FakeLLM("b", "A longer answer.")).ask(PROMPT)

    async def notebook_that_fails() -> Answer:
        return ensemble(FakeLLM("a", errors="auth")).ask(PROMPT)

    assert asyncio.run(notebook()).text == "A longer answer."
    with pytest.raises(NoAnswerError, match="planted auth"):
        asyncio.run(notebook_that_fails())


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.usefixtures("one_process", "interruptible")
def test_an_interrupt_inside_a_running_event_loop_cancels_the_calls() -> None:
    llm = FakeLLM(never_ends=True)

    async def notebook() -> None:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ensemble(llm).ask(PROMPT)
        timer.join()

    loop = asyncio.new_event_loop()  # asyncio.run would take the signal itself
    loop.run_until_complete(notebook())
    loop.close()
    assert llm.cancelled == 1


def test_wrong_input_is_refused_before_anybody_is_asked() -> None:
    llm = FakeLLM()
    with pytest.raises(InputError, match="is empty"):
        ensemble(llm).ask(" \n")
    with pytest.raises(InputError, match=r"knockotu.*'knockout'"):
        ensemble(llm, strategy="knockotu")
    with pytest.raises(InputError, match="same name: a, a"):
        ensemble(FakeLLM("a"), FakeLLM("a"))
    with pytest.raises(InputError, match="at least one"):
        ensemble()
    assert llm.calls == []


def test_a_ranker_is_loaded_once_while_the_llms_write() -> None:
    loaded: list[float] = []

    def load() -> Ranker:
        loaded.append(time.perf_counter())
        return FakeRanker()

    blender = ensemble(FakeLLM(delay=0.5), ranker=load)
    started = time.perf_counter()
    blender.ask(PROMPT)
    blender.ask(PROMPT)
    assert len(loaded) == 1
    assert loaded[0] - started < 0.5
    assert blender.ranker is blender.ranker


def test_a_ranker_that_cannot_be_loaded_ends_the_calls() -> None:
    def load() -> Ranker:
        raise NotFoundError("planted: no such ranker")

    llm = FakeLLM(never_ends=True)

    async def ask() -> set[asyncio.Task[Any]]:
        with pytest.raises(NotFoundError, match="planted"):
            await ensemble(llm, ranker=load).aask(PROMPT)
        return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]

    assert asyncio.run(ask()) == set()
    assert llm.cancelled == 1


def test_an_error_of_an_llm_that_nobody_foresaw_is_raised_and_ends_the_others() -> None:
    other = FakeLLM("b", never_ends=True)
    with pytest.raises(ZeroDivisionError):
        ensemble(FakeLLM("a", errors=ZeroDivisionError("planted")), other).ask(PROMPT)
    assert other.cancelled == 1


def test_answers_outlive_a_ranker_that_breaks(store: Store) -> None:
    with pytest.raises(WorkError, match="the ranker broke"):
        ensemble(FakeLLM("a", "kept"), FakeLLM("b", "too"), ranker=BrokenRanker(), store=store).ask(PROMPT)
    assert {call.candidate.text for call in store} == {"kept", "too"}
    llm = FakeLLM("a", "asked again")
    assert ensemble(llm, store=store).ask(PROMPT).text == "kept"
    assert llm.calls == []


def test_a_lone_answer_needs_no_ranker_of_pairs() -> None:
    answer = ensemble(FakeLLM("a", "x" * 1_000_000), ranker=BrokenRanker()).ask(PROMPT)
    assert (answer.ranking.best, answer.ranking.order, answer.ranking.comparisons) == (0, (0,), 0)
    assert answer.ranking.strategy == FakeRanker().rank(PROMPT, ["x"]).strategy


def test_a_quick_ranker_needs_no_thread_and_others_have_threads_of_their_own() -> None:
    class Where(FakeRanker):
        def rank_many(self, *args: Any, **options: Any) -> list[Ranking]:
            threads.append(threading.current_thread().name)
            return super().rank_many(*args, **options)

    class Quick(Where):
        quick = True

    threads: list[str] = []
    for ranker, texts in ((Where(), "ab"), (Quick(), "ab"), (Quick(), ["a" * 30_000, "b"])):
        asyncio.run(ensemble(FakeLLM("a"), ranker=ranker).arank(PROMPT, list(texts)))
    assert [name.startswith("llm-blender-ranker") for name in threads] == [True, False, True]
    assert Longest.quick


def test_cancelling_ends_the_comparisons() -> None:
    class Endless(FakeRanker):
        ended = False

        def rank_many(self, *args: Any, **options: Any) -> list[Ranking]:
            try:
                while True:
                    options["progress"](1, 2)
                    time.sleep(0.01)
            finally:
                self.ended = True

    ranker = Endless()

    async def interrupt() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ensemble(FakeLLM("a"), FakeLLM("b"), ranker=ranker).aask(PROMPT)

    asyncio.run(interrupt())
    end = time.monotonic() + 20
    while not ranker.ended and time.monotonic() < end:
        time.sleep(0.01)
    assert ranker.ended


def test_who_watches_is_told() -> None:
    class Diary(Observer):
        def __init__(self) -> None:
            self.lines: list[tuple[Any, ...]] = []

        def started(self, models: list[str]) -> None:
            self.lines.append(("started", models))

        def writing(self, call: int, text: str) -> None:
            self.lines.append(("writing", call, text))

        def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
            self.lines.append(("wrote", call, candidate.text, stored))

        def failed(self, call: int, failure: Failure) -> None:
            self.lines.append(("failed", call, failure.reason))

        def comparing(self, done: int, total: int) -> None:
            self.lines.append(("comparing", done, total))

    diary = Diary()
    llms = [FakeLLM("a", "A b"), FakeLLM("b", errors="auth"), FakeLLM("c", "C")]
    ensemble(*llms).ask(PROMPT, observer=diary)
    assert diary.lines[0] == ("started", ["a", "b", "c"])
    assert set(diary.lines[1:-1]) == {
        ("writing", 0, "A "), ("writing", 0, "b"), ("wrote", 0, "A b", False),
        ("failed", 1, "auth"), ("writing", 2, "C"), ("wrote", 2, "C", False),
    }  # fmt: skip
    assert diary.lines[-1] == ("comparing", 2, 2)


def test_from_config_asks_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    with FakeOpenAIServer([FakeReply("short")]) as one, FakeOpenAIServer([FakeReply("a longer one")]) as two:
        path = tmp_path / "blend.toml"
        path.write_text(
            f'[[llm]]\nname = "one"\nmodel = "fake"\nbase_url = "{one.base_url}"\nsamples = 2\n'
            f'[[llm]]\nname = "two"\nmodel = "fake"\nbase_url = "{two.base_url}"\nprice = {{ input = 1, output = 1 }}\n'
            "[limits]\ndeadline = 30\nquorum = 2\n[ranker]\nstrategy = 'bubble'\n"
        )
        blender = Ensemble.from_config(path, store=store)
        monkeypatch.setattr("llm_blender.rankers.load_ranker", lambda name: FakeRanker())
        answer = blender.ask(PROMPT)
    assert (answer.text, answer.ranking.strategy, len(answer.candidates)) == ("a longer one", "bubble", 3)
    assert blender.settings.limits == Limits(30, 2)
    assert len(one.requests) == 2
    assert [candidate.cost == 0 for candidate in answer.candidates] == [True, True, False]  # here, and with a price
    assert len(store) == 3


def test_priors_count_beside_the_ranker() -> None:
    llms = [FakeLLM("a", "long"), FakeLLM("b", "longer"), FakeLLM("c", errors="timeout"), FakeLLM("d", "longest")]
    assert ensemble(*llms).ask(PROMPT).text == "longest"
    informed = ensemble(*llms, priors=Priors({"b": 2.0, "c": 9.0})).ask(PROMPT)
    assert informed.text == "longer"
    assert informed.ranking.probability(1, 2) > 0.5
    assert informed.ranking.order == (1, 2, 0)


def test_priors_of_a_configuration_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    path = tmp_path / "blend.toml"
    with FakeOpenAIServer([FakeReply("short")]) as one, FakeOpenAIServer([FakeReply("a longer one")]) as two:
        path.write_text(
            f'[[llm]]\nname = "one"\nmodel = "fake"\nbase_url = "{one.base_url}"\n'
            f'[[llm]]\nname = "two"\nmodel = "fake"\nbase_url = "{two.base_url}"\n'
            '[ranker]\npriors = "priors.json"\n'
        )
        with pytest.raises(NotFoundError, match="blend priors fit"):
            Ensemble.from_config(path, store=store)
        Priors({"one": 20.0}).save(tmp_path / "priors.json")
        monkeypatch.setattr("llm_blender.rankers.load_ranker", lambda name: FakeRanker())
        assert Ensemble.from_config(path, store=store).ask(PROMPT).text == "short"


def test_the_default_asks_the_embedded_model_several_times_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    pulled: list[str] = []
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("llm_blender.llms.models.pull", pulled.append)
    monkeypatch.setattr("llm_blender.llms.embedded.resolve", lambda name: tmp_path / "small.gguf")
    default = Ensemble.default(store=store)
    (member,) = default.members
    assert isinstance(default.fuser, ConsensusFuser)
    assert pulled == [DEFAULT_MODEL]
    assert member.samples == DEFAULT_SAMPLES
    assert isinstance(member.llm, EmbeddedLLM)
    assert member.llm.name == DEFAULT_MODEL
    assert member.llm._parallel > 1


def test_consensus_fuses_what_the_embedded_model_alone_answers() -> None:
    embedded = {"name": "small", "provider": "embedded", "model": DEFAULT_MODEL}
    other = {"name": "a", "model": "fake", "base_url": "http://127.0.0.1:1"}

    def name(*llms: dict[str, str], **fuser: str) -> str:
        return fuser_name(Config.model_validate({"llm": llms, "fuser": fuser}))

    assert name() == name(embedded) == name(embedded, {**embedded, "name": "again"}) == "consensus"
    assert name(embedded, other) == name({**embedded, "model": "my.gguf"}) == "chat"
    assert name(embedded, name="chat") == "chat"
    assert name(other, name="embedded:folder") == "embedded:folder"


def test_a_configuration_without_llms_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"add an \[\[llm\]\]"):
        Ensemble.from_config(Config())


def test_connections_stay_open_inside_a_with_block() -> None:
    with FakeOpenAIServer([FakeReply("Hello.")]) as server:
        llm = OpenAICompatibleLLM("a", "fake", server.base_url, price=Price(input=1, output=1))

        async def ask_twice() -> tuple[int, int]:
            async with ensemble(llm, FakeLLM("b")) as blender:
                await blender.aask(PROMPT)
                within = len(llm._sessions)
                await blender.aask(PROMPT)
            return within, len(llm._sessions)

        assert asyncio.run(ask_twice()) == (1, 0)
    assert len(server.requests) == 2
