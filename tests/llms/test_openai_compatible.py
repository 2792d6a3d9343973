import asyncio
import gc
import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from llm_blender.config import OpenAIConfig, Price
from llm_blender.errors import ConfigError, LLMError
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.llms.pacing import Backoff
from llm_blender.testing.openai_server import FakeOpenAIServer, FakeReply
from llm_blender.types import LLM, Candidate, Message, OnText, Sampling, Usage

KEY = "sk-very-secret-0123456789"
QUESTION: list[Message] = [{"role": "user", "content": "Say something."}]
QUICK = Backoff(first=0.01, jitter=lambda: 1.0)


def llm_at(server: FakeOpenAIServer, **options: Any) -> OpenAICompatibleLLM:
    return OpenAICompatibleLLM("llama", "fake", server.base_url, **{"backoff": QUICK, **options})


def ask(llm: LLM, sampling: Sampling | None = None, on_text: OnText | None = None) -> Candidate:
    return asyncio.run(llm.generate(QUESTION, sampling or Sampling(), on_text=on_text))


def failure(llm: LLM, on_text: OnText | None = None) -> LLMError:
    with pytest.raises(LLMError) as caught:
        ask(llm, on_text=on_text)
    assert caught.value.llm == "llama"
    assert "\n" not in str(caught.value)
    return caught.value


def ignore(piece: str) -> None:
    pass


both = pytest.mark.parametrize("on_text", [None, ignore], ids=["whole", "streamed"])


def test_an_answer() -> None:
    with FakeOpenAIServer([FakeReply(" Hello. \n", usage=(1000, 500))]) as server:
        llm = llm_at(server, price=Price(input=2, output=8))
        assert isinstance(llm, LLM)
        candidate = ask(llm)
    assert candidate.text == "Hello."
    assert candidate.model == "llama"
    assert candidate.usage == Usage(1000, 500)
    assert candidate.cost == pytest.approx(0.006)
    assert candidate.finish_reason == "stop"
    assert candidate.seconds is not None
    assert candidate.seconds > 0
    assert server.requests == [{"model": "fake", "messages": QUESTION}]


def test_a_streamed_answer_is_the_same() -> None:
    reply = FakeReply("<think>Hm.</think>\n\nHello, you there.\n", reasoning="So. ")
    pieces: list[str] = []
    with FakeOpenAIServer([reply]) as server:
        whole, streamed = ask(llm_at(server)), ask(llm_at(server), on_text=pieces.append)
    assert "".join(pieces) == streamed.text == whole.text == "Hello, you there."
    assert len(pieces) == 3
    assert streamed.reasoning == whole.reasoning == "So. Hm."
    assert streamed.usage == whole.usage == Usage(3, 2)


def test_sampling_system_and_extra_reach_the_server() -> None:
    with FakeOpenAIServer() as server:
        llm = llm_at(
            server,
            sampling=Sampling(temperature=0.7, max_tokens=100),
            system="Be brief.",
            extra={"min_p": 0.1},
        )
        ask(llm, Sampling(temperature=0.0, seed=10, sample=2, stop=("END",)))
    assert server.requests == [
        {
            "model": "fake",
            "messages": [{"role": "system", "content": "Be brief."}, *QUESTION],
            "temperature": 0.0,
            "max_tokens": 100,
            "seed": 12,
            "stop": ["END"],
            "min_p": 0.1,
        }
    ]


def test_options_that_a_server_refuses_are_left_out() -> None:
    def picky(request: dict[str, Any]) -> FakeReply:
        unknown = request.keys() & {"seed", "stream_options"}
        return FakeReply(f"unknown field {min(unknown)}", status=422) if unknown else FakeReply()

    with FakeOpenAIServer(picky) as server:
        llm = llm_at(server)
        for _ in range(2):
            candidate = ask(llm, Sampling(seed=1), on_text=ignore)
    assert candidate.text == "An answer."
    assert candidate.usage is candidate.cost is None
    assert len(server.requests) == 4  # the second call knows


@both
@pytest.mark.parametrize(
    ("reply", "reason", "fix"),
    [
        (FakeReply("no", status=400), "bad_request", "no"),
        (FakeReply("wait", status=429), "rate_limit", "429"),
        (FakeReply("<html>\noh</html>", status=500), "server", "500"),
        (FakeReply(body=b"<html>down</html>", status=502, content_type="text/html"), "server", "502"),
        (FakeReply(body=b'{"choices": [{"mess'), "bad_response", "choices"),
        (FakeReply(body=b"<html>portal</html>", content_type="text/html"), "bad_response", "portal"),
        (FakeReply(body=b'{"choices": []}'), "bad_response", "/v1"),
        (FakeReply(body=b"[1, 2]"), "bad_response", "[1, 2]"),
        (FakeReply(body=b""), "bad_response", "nothing"),
        (FakeReply(body=b"[" + b" " * (9 << 20)), "bad_response", "8 MiB"),
        (FakeReply(body=b" " * (9 << 20)), "bad_response", "nothing"),
        (FakeReply(body=b'{"error": {"message": "out of memory"}}'), "server", "out of memory"),
        (FakeReply(body=b"data: {oops\n\n", content_type="text/event-stream"), "bad_response", "oops"),
        (FakeReply(body=b": ping\n\n", content_type="text/event-stream"), "bad_response", "no answer"),
        (FakeReply(" \n\t"), "empty", "ask again"),
        (FakeReply("<think>I think, therefore", finish_reason="length"), "empty", "max_tokens"),
        (FakeReply(reset_after=0), "connection", "running"),
    ],
)
def test_faults(reply: FakeReply, reason: str, fix: str, on_text: OnText | None) -> None:
    with FakeOpenAIServer([reply]) as server:
        error = failure(llm_at(server, backoff=Backoff(attempts=1)), on_text)
    assert error.reason == reason, error
    assert fix in str(error)


@pytest.mark.parametrize(
    ("reply", "on_text"),
    [
        (FakeReply(delay=30), None),
        (FakeReply(delay=30), ignore),
        (FakeReply(endless=True), ignore),
        (FakeReply("a " * 99, drip=0.1), ignore),
    ],
    ids=["slow", "slow stream", "endless stream", "dripping stream"],
)
def test_the_timeout_ends_every_call(reply: FakeReply, on_text: OnText | None) -> None:
    with FakeOpenAIServer([reply]) as server:
        started = time.perf_counter()
        error = failure(llm_at(server, timeout=0.3), on_text)
        assert time.perf_counter() - started < 5
    assert error.reason == "timeout"
    assert "0.3 s" in str(error)


@both
@pytest.mark.parametrize("bad", [FakeReply(status=503), FakeReply(status=429), FakeReply(reset_after=0)])
def test_a_passing_fault_is_tried_again(bad: FakeReply, on_text: OnText | None) -> None:
    with FakeOpenAIServer([bad, bad, FakeReply()]) as server:
        assert ask(llm_at(server), on_text=on_text).text == "An answer."
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_lasting_fault_is_not_tried_again(status: int) -> None:
    with FakeOpenAIServer([FakeReply(status=status)]) as server:
        failure(llm_at(server))
    assert len(server.requests) == 1


def test_attempts_are_counted_in_one_layer() -> None:
    with FakeOpenAIServer([FakeReply(status=500)]) as server:
        failure(llm_at(server))
    assert len(server.requests) == QUICK.attempts


def test_retry_after_is_waited_for() -> None:
    with FakeOpenAIServer([FakeReply(status=429, headers={"Retry-After": "0.4"}), FakeReply()]) as server:
        candidate = ask(llm_at(server))
    assert candidate.seconds is not None
    assert candidate.seconds >= 0.4


def test_a_retry_after_beyond_the_timeout_fails_at_once() -> None:
    with FakeOpenAIServer([FakeReply(status=429, headers={"Retry-After": "60"})]) as server:
        started = time.perf_counter()
        error = failure(llm_at(server, timeout=30))
        assert time.perf_counter() - started < 10
    assert error.reason == "rate_limit"
    assert "60 s" in str(error)


def test_a_stream_that_breaks_is_not_begun_again() -> None:
    pieces: list[str] = []
    with FakeOpenAIServer([FakeReply("One two three.", reset_after=2, drip=0.02), FakeReply()]) as server:
        error = failure(llm_at(server), pieces.append)
    assert error.reason == "connection"
    assert "".join(pieces) == "One two"
    assert len(server.requests) == 1


def test_a_stream_that_stops_without_an_end_is_no_answer() -> None:
    body = b'data: {"choices": [{"delta": {"content": "One two"}}]}\n\n'
    with FakeOpenAIServer([FakeReply(body=body, content_type="text/event-stream")]) as server:
        assert failure(llm_at(server), ignore).reason == "connection"


def test_nobody_listens() -> None:
    with FakeOpenAIServer() as server:
        pass
    error = failure(llm_at(server))
    assert error.reason == "connection"
    assert server.base_url in str(error)
    assert "running" in str(error)


def test_an_unknown_model() -> None:
    with FakeOpenAIServer(models=["another"]) as server:
        error = failure(llm_at(server))
    assert error.reason == "not_found"
    assert '"fake"' in str(error)


def test_a_missing_key_is_named_before_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMA_KEY", raising=False)
    with pytest.raises(ConfigError, match="LLAMA_KEY"):
        OpenAICompatibleLLM("llama", "fake", "http://127.0.0.1:9/v1", api_key_env="LLAMA_KEY")
    monkeypatch.setenv("LLAMA_KEY", "two\nlines")
    with pytest.raises(ConfigError, match="LLAMA_KEY"):
        OpenAICompatibleLLM("llama", "fake", "http://127.0.0.1:9/v1", api_key_env="LLAMA_KEY")


def test_a_wrong_key_is_never_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("LLAMA_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with FakeOpenAIServer(api_key="another") as server:
        llm = llm_at(server, api_key_env="LLAMA_KEY")
        error = failure(llm)
    assert error.reason == "auth"
    assert "LLAMA_KEY" in str(error)
    assert "provided: ***" in str(error)  # this server repeats it
    shown = [
        str(error),
        repr(error),
        *traceback.format_exception(error),
        repr(llm),
        str(llm.identity),
        caplog.text,
    ]
    assert not any(KEY in text for text in shown)


def test_a_server_that_wants_a_key() -> None:
    with FakeOpenAIServer(api_key=KEY) as server:
        assert ask(llm_at(server, api_key=KEY)).text == "An answer."
        error = failure(llm_at(server))
    assert error.reason == "auth"
    assert "api_key_env" in str(error)


def test_nothing_but_the_named_key_leaves_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(variable, KEY)
    monkeypatch.setenv("LLAMA_KEY", "sk-for-llama")
    with FakeOpenAIServer() as server:
        ask(llm_at(server))
        ask(llm_at(server, api_key_env="LLAMA_KEY"))
    assert KEY not in str(server.headers)
    assert "sk-for-llama" not in str(server.headers[0])
    assert server.headers[1]["authorization"] == "Bearer sk-for-llama"


@pytest.mark.parametrize("concurrency", [1, 3])
def test_calls_at_once_are_bounded(concurrency: int) -> None:
    async def many(llm: LLM) -> None:
        await asyncio.gather(*(llm.generate(QUESTION) for _ in range(7)))

    with FakeOpenAIServer([FakeReply(delay=0.05)]) as server:
        asyncio.run(many(llm_at(server, concurrency=concurrency)))
    assert server.most_at_once == concurrency


def test_waiting_for_a_place_is_not_in_the_timeout() -> None:
    async def many(llm: LLM) -> list[Candidate]:
        return await asyncio.gather(*(llm.generate(QUESTION) for _ in range(6)))

    with FakeOpenAIServer([FakeReply(delay=0.3)]) as server:
        assert len(asyncio.run(many(llm_at(server, concurrency=1, timeout=1.5)))) == 6


def test_one_fails_while_the_others_go_on() -> None:
    async def all_of(*llms: LLM) -> list[Candidate | BaseException]:
        return await asyncio.gather(*(llm.generate(QUESTION) for llm in llms), return_exceptions=True)

    with FakeOpenAIServer() as good, FakeOpenAIServer([FakeReply(status=500)]) as bad:
        outcomes = asyncio.run(all_of(llm_at(good), llm_at(bad), llm_at(good)))
    assert [type(outcome) for outcome in outcomes] == [Candidate, LLMError, Candidate]


def test_cancelling_reaches_the_server() -> None:
    async def give_up(llm: LLM) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await llm.generate(QUESTION, on_text=ignore)

    with FakeOpenAIServer([FakeReply(endless=True)]) as server:
        asyncio.run(give_up(llm_at(server)))
        wait_until(lambda: server._running == 0)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_several_event_loops_and_no_connection_left() -> None:
    async def twice(llm: OpenAICompatibleLLM) -> None:
        async with llm:
            await llm.generate(QUESTION)
            await llm.generate(QUESTION)

    with FakeOpenAIServer() as server:
        llm = llm_at(server)
        for _ in range(2):
            ask(llm)
            asyncio.run(twice(llm))
    assert not llm._sessions
    gc.collect()  # a connection that was not closed would warn, and warnings are errors


def test_from_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_KEY", KEY)
    with FakeOpenAIServer(api_key=KEY) as server:
        config = OpenAIConfig(
            name="llama",
            model="fake",
            base_url=server.base_url + "/",
            api_key_env="LLAMA_KEY",
            temperature=0.5,
            timeout=7,
            price=Price(input=0, output=0),
        )
        llm = OpenAICompatibleLLM.from_config(config)
        candidate = ask(llm)
    assert (candidate.cost, llm.timeout) == (0.0, 7)
    assert server.requests[0]["temperature"] == 0.5
