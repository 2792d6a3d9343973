"""The official client is content, sync and async, streaming and not."""

from __future__ import annotations

import asyncio

import openai
import pytest

from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.testing import FakeLLM

ASKED = [{"role": "user", "content": "Say something."}]
BEST = "A longer answer,\nin two lines."


@pytest.fixture(scope="module")
def url(serve_for_all):
    llms = [FakeLLM("a", "Short."), FakeLLM("b", BEST), FakeLLM("never", errors="timeout")]
    fuser = ChatFuser(FakeLLM("f", "A much longer answer, which is made of all of them."))
    return f"{serve_for_all(*llms, fuser=fuser, options={'failures': 1000}).url}/v1"


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def test_an_answer(client):
    completion = client.chat.completions.create(model="blend", messages=ASKED, n=2, max_tokens=50, temperature=0.2)
    assert [choice.message.content for choice in completion.choices] == [BEST, "Short."]
    assert (completion.choices[0].finish_reason, completion.usage.total_tokens) == ("stop", 11)
    assert completion.blend["failures"][0]["model"] == "never"


@pytest.mark.parametrize("mode", ["pick", "fuse", "auto"])
@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_says_the_same(client, mode, n):
    options = {"model": "blend", "messages": ASKED, "n": n, "extra_body": {"blend": {"mode": mode}}}
    whole = client.chat.completions.create(**options)
    said, finished, blend, usage = [""] * n, [], None, None
    for chunk in client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            finished += [choice.finish_reason] if choice.finish_reason else []
        blend, usage = getattr(chunk, "blend", None) or blend, chunk.usage or usage
    assert said == [choice.message.content for choice in whole.choices]
    assert finished == ["stop"] * n
    assert usage == whole.usage
    assert (blend["mode"], len(blend["candidates"])) == (whole.blend["mode"], 2)


def test_without_include_usage_there_is_none(client):
    chunks = list(client.chat.completions.create(model="blend", messages=ASKED, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_async(url):
    async def ask():
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            whole = await client.chat.completions.create(model="blend", messages=ASKED)
            stream = await client.chat.completions.create(model="blend", messages=ASKED, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            many = await asyncio.gather(
                *(client.chat.completions.create(model="blend", messages=ASKED) for _ in range(8))
            )
            return whole.choices[0].message.content, "".join(pieces), len(many)

    assert asyncio.run(ask()) == (BEST, BEST, 8)


def test_models(client):
    names = [model.id for model in client.models.list()]
    assert names == ["blend", "blend-fast", "blend-best", "a", "b", "never"]
    assert client.models.retrieve("a").id == "a"
    with pytest.raises(openai.NotFoundError, match="did you mean"):
        client.models.retrieve("blond")


def test_errors_are_of_the_clients_kinds(client):
    with pytest.raises(openai.BadRequestError, match="temperature") as caught:
        client.chat.completions.create(model="blend", messages=ASKED, temperature=9)
    assert (caught.value.param, caught.value.code) == ("temperature", "invalid_value")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=ASKED)
    with pytest.raises(openai.InternalServerError, match="planted timeout") as late:
        client.chat.completions.create(model="never", messages=ASKED)
    assert late.value.status_code == 504
    with pytest.raises(openai.APIError, match="planted timeout"):
        list(client.chat.completions.create(model="never", messages=ASKED, stream=True))
