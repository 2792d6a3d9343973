"""The embedded LLM on the real default model; skipped, visibly, where its file is not on this machine."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from llm_blender.config import EmbeddedConfig
from llm_blender.errors import CheckpointError, LLMError, NotFoundError
from llm_blender.llms.embedded import EmbeddedLLM, default_variations
from llm_blender.llms.models import DEFAULT_MODEL, resolve
from llm_blender.store import call_key
from llm_blender.types import LLM, Candidate, Message, Sampling, Usage

PROMPT: list[Message] = [{"role": "user", "content": "Give three tips for sleeping better."}]
SHORT = Sampling(max_tokens=16)

needs_model = pytest.mark.skipif(
    resolve(DEFAULT_MODEL) is None, reason=f"{DEFAULT_MODEL} is not downloaded: blend models pull {DEFAULT_MODEL}"
)


@pytest.fixture(scope="module")
def llm():
    llm = EmbeddedLLM("small")
    yield llm
    llm.close()


def ask(llm: EmbeddedLLM, *samplings: Sampling) -> list[Candidate]:
    async def all_at_once():
        return await asyncio.gather(*(llm.generate(PROMPT, sampling) for sampling in samplings))

    return asyncio.run(all_at_once())


@needs_model
def test_it_answers_and_counts(llm):
    pieces: list[str] = []
    candidate = asyncio.run(llm.generate(PROMPT, SHORT, on_text=pieces.append))
    assert isinstance(llm, LLM)
    assert candidate.text == "".join(pieces).strip()
    assert (candidate.model, candidate.finish_reason) == ("small", "length")
    assert candidate.usage is not None
    assert candidate.usage.completion_tokens == 16
    assert candidate.usage.prompt_tokens > 8
    assert candidate.seconds is not None
    assert candidate.seconds > 0


def test_turns_of_tools_reach_the_chat_template_as_texts(tmp_path: Path):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    llm = EmbeddedLLM("small", str(tmp_path / "small.gguf"))
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    given = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "Q \ud800"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ]
    assert llm._request(given, SHORT)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q ?"},
        {"role": "assistant", "content": '[{"name": "f", "arguments": {}}]'},
        {"role": "user", "content": "Result of a tool: 42"},
    ]


@needs_model
def test_it_writes_on_behind_tokens(llm):
    prompt = [504, 3575, 282, 4649, 314]  # "The capital of France is"
    pieces: list[str] = []
    first = asyncio.run(llm.complete(prompt, max_tokens=8, on_text=pieces.append))
    assert first.text == "".join(pieces).strip() == asyncio.run(llm.complete(prompt, max_tokens=8)).text
    assert first.usage == Usage(5, 8)
    with pytest.raises(LLMError, match=r"too long: 5000 tokens"):
        asyncio.run(llm.complete([504] * 5000, max_tokens=8))


@needs_model
def test_samples_answer_in_different_manners(llm):
    texts = {c.text for c in ask(llm, *(Sampling(max_tokens=24, sample=k) for k in range(5)))}
    assert len(texts) >= 4


@needs_model
def test_the_seed_decides_the_text_whatever_else_is_written_meanwhile(llm):
    """Alone, and in a batch with others that come and go."""
    hot = [Sampling(temperature=1.0, max_tokens=4 + 4 * k, seed=7, sample=k) for k in range(4)]
    alone = [ask(llm, sampling)[0].text for sampling in hot]
    together = [candidate.text for candidate in ask(llm, *hot)]
    assert together == alone
    assert [candidate.text for candidate in ask(llm, *reversed(hot))] == alone[::-1]
    assert ask(llm, Sampling(temperature=1.0, max_tokens=4, seed=8))[0].text != alone[0]


@needs_model
def test_a_longer_answer_beside_the_text(llm):
    """An answer that passes 256 tokens, beside one far beyond: flash attention would round differently."""
    long: Message = {"role": "user", "content": "The storm came up over the bay at night. " * 70 + "Go on."}

    async def beside() -> Candidate:
        begun = asyncio.Event()
        answer = asyncio.create_task(llm.generate(PROMPT, warm, on_text=lambda text: begun.set()))
        await begun.wait()
        await llm.generate([long], Sampling(max_tokens=200))
        return await answer

    warm = Sampling(temperature=1.0, max_tokens=300, seed=3)
    assert asyncio.run(beside()).text == ask(llm, warm)[0].text


@needs_model
def test_an_answer_repeats_the_question_where_it_has_to_and_does_not_loop(llm):
    """A penalty on tokens that occurred would change the age; without any, the egg is boiled again and again."""

    def first(question: str) -> Candidate:
        return asyncio.run(llm.generate([{"role": "user", "content": question}], Sampling(seed=0)))

    person = first("Answer with only JSON: Anna is 31 years old (keys name, age).")
    assert json.loads(person.text) == {"name": "Anna", "age": 31}
    egg = first("How do I boil an egg?")
    assert egg.finish_reason == "stop"
    assert egg.text.count("Boil an egg:") < 3


@needs_model
def test_the_number_of_threads_does_not_change_the_text(llm):
    one = EmbeddedLLM("one", threads=1, parallel=1, context=512)
    assert ask(one, SHORT)[0].text == ask(llm, SHORT)[0].text
    one.close()


@needs_model
def test_a_stop_text_ends_the_answer(llm):
    full = ask(llm, Sampling(max_tokens=24))[0].text
    word = full.split()[3]
    stopped = ask(llm, Sampling(max_tokens=24, stop=(word,)))[0]
    assert word not in stopped.text
    assert stopped.finish_reason == "stop"


@needs_model
def test_odd_characters_are_text(llm):
    messages: list[Message] = [{"role": "user", "content": "\udcff half, \x00 nul, 😀, مرحبا: say hello."}]
    assert asyncio.run(llm.generate(messages, SHORT)).text


@needs_model
def test_a_prompt_beyond_the_context_is_the_users_error(llm):
    messages: list[Message] = [{"role": "user", "content": "word " * 100_000}]
    with pytest.raises(LLMError, match=r"too long: \d+ tokens.* holds 4096") as caught:
        asyncio.run(llm.generate(messages))
    assert caught.value.reason == "bad_request"


@needs_model
def test_an_empty_answer_is_an_error(llm):
    end = Sampling(max_tokens=8, temperature=0.0, stop=("When", "1", "\n", " ", "Here", "Get", "Sleep"))
    with pytest.raises(LLMError) as caught:
        ask(llm, end)
    assert caught.value.reason == "empty"


@needs_model
@pytest.mark.parametrize("content", ["Tell a very long story.", "word " * 3000], ids=["writing", "reading"])
def test_cancelling_stops_the_model(llm, content):
    async def cancel_then_ask() -> float:
        running = asyncio.create_task(llm.generate([{"role": "user", "content": content}], Sampling(max_tokens=4000)))
        await asyncio.sleep(0.5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        start = time.perf_counter()
        await asyncio.to_thread(llm.close)  # waits for the threads
        return time.perf_counter() - start

    assert asyncio.run(cancel_then_ask()) < 30  # uncancelled: minutes; a batch of a prompt is read to its end
    assert ask(llm, SHORT)[0].text  # a closed LLM opens again


@needs_model
def test_closing_ends_the_calls_under_way(llm):
    async def close_while_writing() -> list[Candidate | BaseException]:
        calls = [llm.generate(PROMPT, Sampling(max_tokens=4000, sample=k)) for k in range(5)]
        running = asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(llm.close)
        return await running

    for outcome in asyncio.run(close_while_writing()):
        assert isinstance(outcome, LLMError | asyncio.CancelledError | Candidate)


@needs_model
def test_it_is_silent(llm, capfd):
    ask(llm, SHORT)
    assert capfd.readouterr() == ("", "")


@needs_model
def test_from_config():
    config = EmbeddedConfig(name="mine", provider="embedded", model=DEFAULT_MODEL, system="Be brief.", temperature=0.1)
    llm = EmbeddedLLM.from_config(config)
    assert llm.name == "mine"
    assert llm.identity["system"] == "Be brief."
    assert llm.identity["sampling"]["temperature"] == 0.1


@needs_model
def test_a_damaged_model_fails_alone(tmp_path):
    path = resolve(DEFAULT_MODEL)
    assert path is not None
    with path.open("rb") as whole:
        (tmp_path / "cut.gguf").write_bytes(whole.read(1 << 20))
    with pytest.raises(LLMError, match=r"cannot load .*cut\.gguf"):
        ask(EmbeddedLLM("cut", tmp_path / "cut.gguf"), SHORT)


def test_options_of_sampling_are_in_the_request_and_in_the_identity(tmp_path, monkeypatch):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    llm = EmbeddedLLM("small", str(tmp_path / "small.gguf"))
    before, request = llm.identity, llm._request(PROMPT, Sampling())
    assert json.loads(json.dumps(before)) == before
    assert before["decoding"].items() <= request.items()
    assert "repeat_penalty" not in request
    assert llm._request(PROMPT, SHORT)["max_tokens"] == 16
    monkeypatch.setattr("llm_blender.llms.embedded._MAX_TOKENS", 99)
    longer = llm.identity
    monkeypatch.setattr("llm_blender.llms.embedded._DECODING", {"min_p": 0.2})
    assert len({call_key(identity, PROMPT, SHORT) for identity in (before, longer, llm.identity)}) == 3


def test_what_is_no_model_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_BLENDER_CACHE", str(tmp_path))
    (tmp_path / "notes.gguf").write_text("no model")
    with pytest.raises(CheckpointError, match="no GGUF file"):
        EmbeddedLLM("x", tmp_path / "notes.gguf")
    with pytest.raises(NotFoundError, match="There is no model file"):
        EmbeddedLLM("x", Path("missing.gguf"))
    with pytest.raises(NotFoundError, match=r"blend models pull llama-3\.2-1b"):
        EmbeddedLLM("x", "llama-3.2-1b")


def test_variations_come_again_warmer():
    seven = default_variations(7)
    assert len({v.system for v in default_variations()}) == 5
    assert seven[5].system == seven[0].system
    assert seven[5].temperature > seven[0].temperature
    assert all(v.temperature <= 1 for v in default_variations(50))
