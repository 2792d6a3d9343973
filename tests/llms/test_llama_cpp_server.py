"""Against a real llama.cpp server with a real model."""

import asyncio

import pytest

from llm_blender.config import Price
from llm_blender.errors import LLMError
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.types import Candidate, Message, Sampling

QUESTION: list[Message] = [{"role": "user", "content": "What is the capital of France?"}]
SAMPLING = Sampling(temperature=0.0, max_tokens=8, seed=0)


@pytest.fixture
def llm(llama_cpp_url: str) -> OpenAICompatibleLLM:
    return OpenAICompatibleLLM("smol", "smollm2", llama_cpp_url, price=Price(input=1, output=1), concurrency=2)


def test_it_answers_whole_and_streamed(llm: OpenAICompatibleLLM) -> None:
    pieces: list[str] = []
    whole = asyncio.run(llm.generate(QUESTION, SAMPLING))
    streamed = asyncio.run(llm.generate(QUESTION, SAMPLING, on_text=pieces.append))
    assert whole.text
    assert "".join(pieces) == streamed.text == whole.text
    assert len(pieces) > 2
    assert whole.usage is not None
    assert streamed.usage == whole.usage
    assert 0 < whole.usage.completion_tokens <= 8 < whole.usage.prompt_tokens
    assert whole.cost == pytest.approx((whole.usage.prompt_tokens + whole.usage.completion_tokens) / 1e6)
    assert whole.finish_reason in ("stop", "length")


def test_samples_differ(llm: OpenAICompatibleLLM) -> None:
    async def several() -> list[Candidate]:
        samplings = [Sampling(temperature=1.5, max_tokens=8, seed=1, sample=sample) for sample in range(3)]
        return await asyncio.gather(*(llm.generate(QUESTION, sampling) for sampling in samplings))

    assert len({candidate.text for candidate in asyncio.run(several())}) > 1


def test_a_conversation_too_long_for_the_model(llm: OpenAICompatibleLLM) -> None:
    long: list[Message] = [{"role": "user", "content": "word " * 20_000}]
    with pytest.raises(LLMError) as caught:
        asyncio.run(llm.generate(long, SAMPLING))
    assert caught.value.reason == "bad_request"
    assert "context" in str(caught.value)
