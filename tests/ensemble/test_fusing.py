"""Ensembles that fuse: what is given back, what it cost, and what is said of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_blender.config import Config
from llm_blender.ensemble import Ensemble, Limits, Member, Observer
from llm_blender.errors import InputError, NotFoundError
from llm_blender.fusers import FusionRule
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeOpenAIServer, FakeRanker, FakeReply
from llm_blender.types import Answer, Message, Ranking, Sampling, Usage

PROMPT = "Say something."
FUSED = "a fused answer, longer than all the candidates together"


class Writer(FakeLLM):
    """Writes one text as a candidate, and another where it is asked to fuse."""

    def __init__(self, name: str, text: str, fused: str = FUSED, **options: Any) -> None:
        def answer(messages: Sequence[Message], sampling: Sampling) -> str:
            return fused if messages[0]["role"] == "system" else text

        super().__init__(name, answer, **options)


def ensemble(*llms: FakeLLM, fuser: Any = None, store: Store | None = None, **options: Any) -> Ensemble:
    made = ChatFuser(fuser or llms[0], store=store)
    return Ensemble([Member(llm) for llm in llms], FakeRanker(), fuser=made, store=store, **options)


def test_picking_stays_the_default() -> None:
    llms = [Writer("a", "short"), Writer("b", "a longer one")]
    answer = ensemble(*llms).ask(PROMPT)
    assert (answer.text, answer.mode, answer.fusion) == ("a longer one", "pick", None)
    assert "fusion" not in answer.to_dict()
    assert len(llms[0].calls) == 1
    assert Config().ensemble.mode == "pick"


def test_a_fused_answer_that_is_better() -> None:
    usage = Usage(5, 2)
    llms = [Writer("a", "short", usage=usage, cost=0.5), Writer("b", "a longer one", usage=usage, cost=0.25)]
    answer = ensemble(*llms, mode="fuse").ask(PROMPT, seed=4)
    assert (answer.text, answer.mode, answer.degraded) == (FUSED, "fuse", False)
    assert answer.fusion is not None
    assert (answer.fusion.asked, answer.fusion.returned, answer.fusion.reason) == ("fuse", "fuse", "better")
    assert answer.fusion.fusion is not None
    assert (answer.fusion.fusion.fuser, sorted(answer.fusion.fusion.used)) == ("chat:a", [0, 1])
    assert answer.usage == Usage(15, 6)  # the fuser's call is paid for, too
    assert answer.cost == 1.25
    assert llms[0].calls[1].sampling.seed == 4
    assert [candidate.text for candidate in answer.candidates] == ["short", "a longer one"]
    said = answer.to_dict()["fusion"]
    assert (said["reason"], said["text"], said["fuser"]) == ("better", FUSED, "chat:a")


def test_a_fused_answer_that_is_worse_is_kept_but_not_given_back() -> None:
    answer = ensemble(Writer("a", "short", "bad"), FakeLLM("b", "a longer one"), mode="fuse").ask(PROMPT)
    assert (answer.text, answer.mode, answer.degraded) == ("a longer one", "pick", False)
    assert answer.fusion is not None
    assert (answer.fusion.reason, answer.to_dict()["fusion"]["text"]) == ("worse", "bad")


def test_without_the_guard() -> None:
    answer = ensemble(Writer("a", "short", "bad"), FakeLLM("b", "a longer one"), mode="fuse", guard=False).ask(PROMPT)
    assert (answer.text, answer.mode) == ("bad", "fuse")


def test_auto_fuses_by_its_rule() -> None:
    clear = [Writer("a", "apples pears plums cherries"), Writer("b", "apples")]
    answer = ensemble(*clear, mode="auto").ask(PROMPT)
    assert (answer.text, answer.mode) == ("apples pears plums cherries", "pick")
    assert answer.fusion is not None
    assert (answer.fusion.reason, answer.fusion.fusion) == ("clear", None)
    assert len(clear[0].calls) == 1
    bold = ensemble(*clear, mode="auto", rule=FusionRule(close=1.0)).ask(PROMPT)
    assert (bold.text, bold.mode) == (FUSED, "fuse")


def test_the_mode_of_one_question() -> None:
    blender = ensemble(Writer("a", "short"), Writer("b", "a longer one"))
    assert blender.ask(PROMPT, mode="fuse").text == FUSED
    assert blender.ask(PROMPT).text == "a longer one"
    with pytest.raises(InputError, match="Unknown mode 'fsue': did you mean 'fuse'"):
        blender.ask(PROMPT, mode="fsue")  # type: ignore[arg-type]


def test_a_conversation_is_fused_as_one() -> None:
    llm = Writer("a", "short")
    turns: list[Message] = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "And now?"},
    ]
    assert ensemble(llm, FakeLLM("b", "a longer one"), mode="fuse").ask(turns).text == FUSED
    assert "User: Hello.\n\nAssistant: Hi.\n\nUser: And now?" in llm.calls[1].messages[1]["content"]


def test_one_candidate_is_the_answer() -> None:
    llms = [Writer("a", "only"), FakeLLM("b", errors="timeout")]
    answer = ensemble(*llms, mode="fuse").ask(PROMPT)
    assert (answer.text, answer.mode) == ("only", "pick")
    assert answer.fusion is not None
    assert (answer.fusion.reason, answer.fusion.message) == ("one_candidate", "there is only one candidate")


@pytest.mark.parametrize("error", ["connection", "bad_request", "timeout"])
def test_a_fuser_that_fails_does_not_cost_the_answer(error: Any, store: Store) -> None:
    fuser = FakeLLM("f", errors=error)
    answer = ensemble(FakeLLM("a", "short"), FakeLLM("b", "a longer one"), fuser=fuser, mode="fuse", store=store).ask(
        PROMPT
    )
    assert (answer.text, answer.mode, answer.degraded) == ("a longer one", "pick", True)
    assert answer.fusion is not None
    assert answer.fusion.message == f"the fuser failed: f: planted {error}"
    assert len(store) == 2


def test_a_fuser_that_never_ends_has_the_deadline() -> None:
    fuser = FakeLLM("f", never_ends=True)
    llms = [FakeLLM("a", "short"), FakeLLM("b", "a longer one")]
    answer = ensemble(*llms, fuser=fuser, mode="fuse", limits=Limits(deadline=0.3)).ask(PROMPT)
    assert (answer.text, answer.degraded) == ("a longer one", True)
    assert answer.fusion is not None
    assert answer.fusion.message == "the fuser failed: no fused answer within 0.3 s"
    assert fuser.cancelled == 1


def test_fused_answers_are_found_again(store: Store) -> None:
    llms = [Writer("a", "short", cost=0.5), Writer("b", "a longer one", cost=0.5)]
    blender = ensemble(*llms, mode="fuse", store=store)
    first, again = blender.ask(PROMPT), blender.ask(PROMPT)
    assert first.text == again.text == FUSED
    assert (first.cost, again.cost, again.usage) == (1.5, 0, Usage())
    assert again.fusion is not None
    assert again.fusion.fusion is not None
    assert again.fusion.fusion.stored
    assert len(store) == 3


def test_who_watches_sees_the_fuser_write() -> None:
    class Diary(Observer):
        def __init__(self) -> None:
            self.pieces: list[str] = []

        def fusing(self, text: str) -> None:
            self.pieces.append(text)

    diary = Diary()
    ensemble(Writer("a", "short"), Writer("b", "a longer one"), mode="fuse").ask(PROMPT, observer=diary)
    assert "".join(diary.pieces) == FUSED
    assert len(diary.pieces) > 3


def test_a_fuser_is_loaded_once_while_the_llms_write() -> None:
    loaded: list[ChatFuser] = []

    def load() -> ChatFuser:
        loaded.append(ChatFuser(FakeLLM("f", FUSED)))
        return loaded[-1]

    llms = [FakeLLM("a", "short"), FakeLLM("b", "a longer one")]
    blender = Ensemble([Member(llm) for llm in llms], FakeRanker(), fuser=load)
    blender.load()
    blender.ask(PROMPT)
    assert not loaded
    assert [blender.ask(PROMPT, mode="fuse").mode for _ in range(2)] == ["fuse", "fuse"]
    assert blender.fuser is loaded[0]
    assert len(loaded) == 1
    Ensemble([Member(llm) for llm in llms], FakeRanker(), fuser=load, mode="auto").load()
    assert len(loaded) == 2


def test_a_fuser_that_loads_slowly_holds_up_no_other_prompt() -> None:
    go_on = threading.Event()

    def load() -> ChatFuser:
        go_on.wait(5)
        return ChatFuser(FakeLLM("f", FUSED))

    llms = [FakeLLM("a", "short"), FakeLLM("b", "a longer one")]
    blender = Ensemble([Member(llm) for llm in llms], FakeRanker(), fuser=load)

    async def ask() -> list[str]:
        async with asyncio.TaskGroup() as tasks:
            fused = tasks.create_task(blender.aask(PROMPT, mode="fuse"))
            await asyncio.sleep(0.05)
            picked = await blender.aask(PROMPT)
            assert not fused.done()
            go_on.set()
        return [picked.mode, fused.result().mode]

    started = time.perf_counter()
    assert asyncio.run(ask()) == ["pick", "fuse"]
    assert time.perf_counter() - started < 4


def test_the_guard_compares_in_the_ranker_s_own_threads() -> None:
    threads: list[str] = []

    class Watched(FakeRanker):
        def rank_many(self, *args: Any, **options: Any) -> list[Ranking]:
            threads.append(threading.current_thread().name)
            return super().rank_many(*args, **options)

    llms = [Writer("a", "short"), Writer("b", "a longer one")]
    answer = Ensemble([Member(llm) for llm in llms], Watched(), fuser=ChatFuser(llms[0]), mode="fuse").ask(PROMPT)
    assert answer.fusion is not None
    assert answer.fusion.reason == "better"
    assert [name.startswith("llm-blender-ranker") for name in threads] == [True, True]


def test_a_fuser_that_cannot_be_loaded_ends_the_calls() -> None:
    def load() -> ChatFuser:
        raise NotFoundError("planted: no such fuser")

    llm = FakeLLM(never_ends=True)
    with pytest.raises(NotFoundError, match="planted"):
        Ensemble([Member(llm)], FakeRanker(), fuser=load, mode="fuse").ask(PROMPT)
    assert llm.cancelled == 1


def test_what_is_refused() -> None:
    llm = FakeLLM("a")
    with pytest.raises(InputError, match="The mode fuse needs a fuser: give the ensemble one"):
        Ensemble([Member(llm)], FakeRanker(), mode="fuse")
    with pytest.raises(InputError, match="The mode auto needs a fuser"):
        Ensemble([Member(llm)], FakeRanker()).ask(PROMPT, mode="auto")
    with pytest.raises(InputError, match="This ensemble has no fuser"):
        _ = Ensemble([Member(llm)], FakeRanker()).fuser
    with pytest.raises(InputError, match="at least two candidates, not 1"):
        ensemble(llm, top_k=1)
    assert llm.calls == []


def write(folder: Path, *servers: FakeOpenAIServer, more: str = "", last: str = "") -> Path:
    path = folder / "blend.toml"
    entries = [
        f'[[llm]]\nname = "{name}"\nmodel = "fake"\nbase_url = "{server.base_url}"\n'
        for name, server in zip("abc", servers, strict=False)
    ]
    path.write_text("".join(entries) + last + more)
    return path


def by(text: str) -> FakeOpenAIServer:
    return FakeOpenAIServer(lambda body: FakeReply(FUSED if body["messages"][0]["role"] == "system" else text))


def test_from_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr("llm_blender.rankers.load_ranker", lambda name: FakeRanker())
    with by("short") as one, by("a longer one") as two:
        more = '[ensemble]\nmode = "fuse"\n[fuser]\nname = "chat:b"\ntop_k = 2\nguard = false\nprefer = 0.75\n'
        blender = Ensemble.from_config(write(tmp_path, one, two, more=more), store=store)
        answer = blender.ask(PROMPT)
        assert (answer.text, answer.mode) == (FUSED, "fuse")
        assert (len(one.requests), len(two.requests), len(store)) == (1, 2, 3)
        settings = blender.settings
        assert (settings.top_k, settings.guard, settings.rule) == (2, False, FusionRule(prefer=0.75))
        wrong = write(tmp_path, one, two, more='[fuser]\nname = "chat:d"\n')
        with pytest.raises(InputError, match="Unknown LLM 'd'"):
            Ensemble.from_config(wrong, store=store)


def test_an_llm_that_only_fuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr("llm_blender.rankers.load_ranker", lambda name: FakeRanker())
    with by("short") as one, by("a longer one") as two, by("never asked") as three:
        path = write(
            tmp_path,
            one,
            two,
            three,
            last="samples = 0\n",
            more='[ensemble]\nmode = "fuse"\n[fuser]\nname = "chat:c"\n',
        )
        blender = Ensemble.from_config(path, store=store)

        async def ask() -> Answer:
            async with blender:  # which keeps its connections open, too
                return await blender.aask(PROMPT)

        answer = asyncio.run(ask())
    assert [candidate.model for candidate in answer.candidates] == ["a", "b"]
    assert (answer.text, answer.fusion and answer.fusion.fusion and answer.fusion.fusion.fuser) == (FUSED, "chat:c")
    assert len(three.requests) == 1


def test_a_checkpoint_as_fuser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    asked: list[str] = []

    def load(name: str, **options: Any) -> ChatFuser:
        asked.append(name)
        return ChatFuser(FakeLLM("f", FUSED))

    monkeypatch.setattr("llm_blender.rankers.load_ranker", lambda name: FakeRanker())
    monkeypatch.setattr("llm_blender.ensemble.ensemble.load_fuser", load)
    with by("short") as one, by("a longer one") as two:
        path = write(tmp_path, one, two, more='[fuser]\nname = "some/fuser"\n')
        blender = Ensemble.from_config(path, store=store)
        assert blender.ask(PROMPT).mode == "pick"
        assert asked == []  # nothing is loaded that nobody needs
        assert blender.ask(PROMPT, mode="fuse").mode == "fuse"
    assert asked == ["some/fuser"]
