import asyncio
import doctest

import pytest

import llm_blender.testing.llms
import llm_blender.testing.openai_server
from llm_blender.errors import LLMError
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.testing import FakeCall, FakeLLM, FakeOpenAIServer
from llm_blender.types import LLM, Message, Sampling, Usage

QUESTION: list[Message] = [{"role": "user", "content": "Say something."}]


def ask(llm: LLM, sampling: Sampling | None = None) -> str:
    return asyncio.run(llm.generate(QUESTION, sampling or Sampling())).text


def test_the_examples_run() -> None:
    assert doctest.testmod(llm_blender.testing.llms).failed == 0
    names = {"asyncio": asyncio, "OpenAICompatibleLLM": OpenAICompatibleLLM}
    assert doctest.testmod(llm_blender.testing.openai_server, extraglobs=names).failed == 0


def test_answers_by_call_or_by_function() -> None:
    assert isinstance(FakeLLM(), LLM)
    assert [ask(llm) for llm in [FakeLLM(answers=["a", "b"])] for _ in range(3)] == ["a", "b", "a"]
    assert (
        ask(FakeLLM(answers=lambda messages, sampling: f"{messages[0]['content']} {sampling.seed}"), Sampling(seed=3))
        == "Say something. 3"
    )
    assert ask(FakeLLM(answers="")) == ""


def test_it_remembers_what_it_was_asked() -> None:
    llm = FakeLLM("a")
    candidate = asyncio.run(llm.generate(QUESTION, Sampling(temperature=0.5)))
    assert llm.calls == [FakeCall(tuple(QUESTION), Sampling(temperature=0.5))]
    assert (candidate.model, candidate.usage, candidate.cost) == ("a", Usage(2, 2), 0.0)


def test_errors_by_call_or_for_ever() -> None:
    llm = FakeLLM(errors=["timeout", None, ValueError("planted")])
    with pytest.raises(LLMError) as caught:
        ask(llm)
    assert caught.value.reason == "timeout"
    assert ask(llm) == "An answer."
    with pytest.raises(ValueError, match="planted"):
        ask(llm)
    assert ask(llm) == "An answer."
    always = FakeLLM(errors="auth")
    for _ in range(3):
        with pytest.raises(LLMError):
            ask(always)


def test_it_streams_and_may_never_end() -> None:
    pieces: list[str] = []
    asyncio.run(FakeLLM(answers="One  two\nthree.").generate(QUESTION, on_text=pieces.append))
    assert pieces == ["One  ", "two\n", "three."]

    async def give_up(llm: LLM) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await llm.generate(QUESTION, on_text=pieces.append)

    for endless in (FakeLLM(never_ends=True), FakeLLM(answers="", never_ends=True)):
        asyncio.run(give_up(endless))
        assert endless.cancelled == 1
    assert pieces.count("answer.") > 1


def test_it_counts_what_runs_at_once() -> None:
    async def several(llm: LLM) -> None:
        await asyncio.gather(*(llm.generate(QUESTION) for _ in range(3)))

    llm = FakeLLM(delay=0.01)
    asyncio.run(several(llm))
    assert llm.most_at_once == 3


def test_the_server_lists_its_models() -> None:
    from openai import OpenAI

    with (
        FakeOpenAIServer(models=["a", "b"]) as server,
        OpenAI(api_key="none", base_url=server.base_url, max_retries=0) as client,
    ):
        assert [model.id for model in client.models.list()] == ["a", "b"]
        reply = client.chat.completions.create(model="b", messages=[{"role": "user", "content": "Hello?"}])
    assert reply.choices[0].message.content == "An answer."
    assert server.requests[0]["model"] == "b"
