import asyncio
import gc
import json
import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from llm_blender.config import OpenAIConfig, Price
from llm_blender.errors import ConfigError, LLMError
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.llms.pacing import Backoff, Load
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
    reply = FakeReply("<think>Hm.</think>\n\nHello, you there.\n", reasoning="So. ", drip=0.02)
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


def refusing(status: int, body: dict[str, Any], *keys: str) -> Callable[[dict[str, Any]], FakeReply]:
    """Replies of a server that refuses requests with one of these keys."""
    refusal = FakeReply(body=json.dumps(body).encode(), status=status)
    return lambda request: refusal if request.keys() & set(keys) else FakeReply("One two three.")


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


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "Your organization must be verified to stream this model.", "param": "stream"}),
        (500, {"message": "Cannot use tools with stream", "code": 500, "type": "server_error"}),
    ],
)
def test_a_server_that_may_not_stream_answers_whole(
    status: int, error: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with FakeOpenAIServer(refusing(status, {"error": error}, "stream")) as server:
        llm = llm_at(server)
        for calls in (2, 3, 4):
            pieces: list[str] = []
            assert ask(llm, on_text=pieces.append).text == "".join(pieces) == "One two three."
            assert len(server.requests) == calls
    assert "stream_options" not in server.requests[-1]
    assert len([record for record in caplog.records if "stream" in record.message]) == 1


def test_the_operator_turns_streams_off() -> None:
    with FakeOpenAIServer() as server:
        assert ask(llm_at(server, extra={"stream": False}), on_text=ignore).text == "An answer."
    assert server.requests == [{"model": "fake", "messages": QUESTION, "stream": False}]


def test_the_maximum_of_tokens_gets_its_other_name() -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    with FakeOpenAIServer(refusing(400, {"error": {"message": words}}, "max_tokens")) as server:
        llm = llm_at(server, price=Price(input=0, output=1e6))
        for _ in range(2):
            ask(llm, Sampling(max_tokens=50))
        assert llm.most_cost(QUESTION, Sampling(max_tokens=50)) == 50
    assert [request.get("max_completion_tokens") for request in server.requests] == [None, 50, 50]


def test_a_temperature_that_is_refused_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    words = "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) is supported."
    error = {"message": words, "param": "temperature", "code": "unsupported_value"}
    with FakeOpenAIServer(refusing(400, {"error": error}, "temperature")) as server:
        llm = llm_at(server)
        for _ in range(3):
            ask(llm, Sampling(temperature=0.2))
    assert len(server.requests) == 4
    assert [record.message for record in caplog.records] == [
        "llama: its server refuses a part of the request: temperature is left out from now on"
    ]


def test_calls_at_once_learn_together() -> None:
    async def many(llm: LLM) -> None:
        await asyncio.gather(*(llm.generate(QUESTION, Sampling(seed=1, max_tokens=5)) for _ in range(4)))

    words = {"error": {"message": "Unsupported parameter: 'max_tokens', use 'max_completion_tokens'"}}
    with FakeOpenAIServer(refusing(400, words, "max_tokens")) as server:
        asyncio.run(many(llm_at(server)))
    assert len(server.requests) <= 8


@pytest.mark.parametrize("kind", ["extra_forbidden", "unknown"])
def test_options_that_a_server_forbids_in_detail_are_left_out(kind: str) -> None:
    body = {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"], "msg": "Extra"}]}
    if kind == "unknown":
        body = {"detail": "The moon is too far away."}  # type: ignore[dict-item]
    with FakeOpenAIServer(refusing(422, body, "stream_options")) as server:
        llm = llm_at(server)
        if kind == "unknown":
            assert "The moon is too far away." in str(failure(llm, ignore))
        else:
            assert ask(llm, on_text=ignore).text == "One two three."
            assert len(server.requests) == 2


def test_a_refusal_of_everything_ends() -> None:
    def picky(request: dict[str, Any]) -> FakeReply:
        return FakeReply(f"Unsupported parameter: '{sorted(request)[0]}'", status=400)

    extra = {f"a_{number}": 1 for number in range(50)}
    with FakeOpenAIServer(picky) as server:
        assert failure(llm_at(server, extra=extra)).reason == "bad_request"
    assert len(server.requests) < 20


def test_keys_of_messages_that_are_refused_are_left_out() -> None:
    detail = [
        {"type": "extra_forbidden", "loc": ["body", "messages", 0, "assistant", "reasoning_content"], "msg": "No"}
    ]

    def picky(request: dict[str, Any]) -> FakeReply:
        if any("reasoning_content" in message for message in request["messages"]):
            return FakeReply(body=json.dumps({"detail": detail}).encode(), status=422)
        return FakeReply()

    turns: list[Any] = [{"role": "assistant", "content": "Hi.", "reasoning_content": "Hm."}, *QUESTION]
    with FakeOpenAIServer(picky) as server:
        llm = llm_at(server)
        for _ in range(2):
            asyncio.run(llm.generate(turns))
    assert len(server.requests) == 3
    assert turns[0]["reasoning_content"] == "Hm."


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_of_its_own_yields_to_that_of_the_conversation(role: str) -> None:
    turns: list[Any] = [{"role": role, "content": "House rules."}, *QUESTION]
    with FakeOpenAIServer() as server:
        asyncio.run(llm_at(server, system="Be brief.").generate(turns))
    assert server.requests[0]["messages"] == turns


def test_extra_of_the_operator_replaces_that_of_a_call() -> None:
    own = {"provider": {"data_collection": "deny"}, "max_completion_tokens": 7, "temperature": 0.1}
    call = Sampling(temperature=0.9, max_tokens=100, extra={"provider": {"data_collection": "allow"}, "top_k": 3})
    with FakeOpenAIServer() as server:
        ask(llm_at(server, extra=own, sampling=Sampling(top_p=0.5)), call)
    assert server.requests == [{"model": "fake", "messages": QUESTION, "top_p": 0.5, "top_k": 3, **own}]


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
    assert (error.reason, error.own) == ("timeout", True)
    assert "0.3 s" in str(error)


IN_THE_BODY = {"id": None, "choices": None, "error": {"message": "Provider returned error", "code": 429}}


@both
@pytest.mark.parametrize(
    "bad",
    [
        *(FakeReply(status=status) for status in (408, 409, 425, 429, 500, 503, 529)),
        FakeReply(body=json.dumps(IN_THE_BODY).encode()),
        FakeReply(status=429, headers={"Retry-After": "0"}),
        FakeReply(reset_after=0),
    ],
)
def test_a_passing_fault_is_tried_again(bad: FakeReply, on_text: OnText | None) -> None:
    with FakeOpenAIServer([bad, bad, FakeReply()]) as server:
        assert ask(llm_at(server), on_text=on_text).text == "An answer."
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_lasting_fault_is_not_tried_again(status: int) -> None:
    with FakeOpenAIServer([FakeReply(status=status)]) as server:
        failure(llm_at(server))
    assert len(server.requests) == 1


@both
def test_an_account_without_money_is_not_called_again(on_text: OnText | None) -> None:
    reply = FakeReply(body=b'{"error": {"message": "Insufficient credits", "code": 402}}')
    with FakeOpenAIServer([reply]) as server:
        error = failure(llm_at(server), on_text)
    assert "Insufficient credits" in str(error)
    assert len(server.requests) == 1


def test_attempts_are_counted_in_one_layer() -> None:
    with FakeOpenAIServer([FakeReply(status=500)]) as server:
        failure(llm_at(server))
    assert len(server.requests) == QUICK.attempts


def test_retry_after_is_waited_for() -> None:
    with FakeOpenAIServer([FakeReply(status=429, headers={"Retry-After": "0.4"}), FakeReply()]) as server:
        candidate = ask(llm_at(server))
    assert candidate.seconds is not None
    assert candidate.seconds > 0.39


def test_a_retry_after_beyond_the_timeout_fails_at_once() -> None:
    with FakeOpenAIServer([FakeReply(status=429, headers={"Retry-After": "60"})]) as server:
        started = time.perf_counter()
        error = failure(llm_at(server, timeout=30))
        assert time.perf_counter() - started < 10
    assert (error.reason, error.own, error.retry_after) == ("rate_limit", False, pytest.approx(60, abs=1))
    assert "60 s" in str(error)


def test_the_wait_that_is_left_is_in_the_failure_of_the_next_call() -> None:
    async def twice(llm: LLM) -> list[float | None]:
        waits = []
        for _ in range(2):
            with pytest.raises(LLMError) as caught:
                await llm.generate(QUESTION)
            assert (caught.value.reason, caught.value.own) == ("rate_limit", False)
            waits.append(caught.value.retry_after)
            await asyncio.sleep(0.2)
        return waits

    with FakeOpenAIServer([FakeReply(status=429, headers={"Retry-After": "120"})]) as server:
        first, second = asyncio.run(twice(llm_at(server)))
    assert first == 120.0
    assert second is not None
    assert 119 < second < 119.9
    assert len(server.requests) == 1


def test_refusals_with_a_time_cost_no_attempt() -> None:
    bad = [FakeReply(status=429, headers={"Retry-After-Ms": "20"})] * 6
    with FakeOpenAIServer([*bad, FakeReply()]) as server:
        assert ask(llm_at(server, backoff=Backoff(attempts=2, first=0.01))).text == "An answer."
    assert len(server.requests) == 7


def test_refusals_without_end_fail_at_the_timeout() -> None:
    with FakeOpenAIServer([FakeReply(status=429, headers={"Retry-After": "0.1"})]) as server:
        started = time.perf_counter()
        error = failure(llm_at(server, timeout=0.5))
    assert time.perf_counter() - started < 5
    assert error.reason == "rate_limit"


def test_the_load_shows_places_and_pauses() -> None:
    async def refused(llm: OpenAICompatibleLLM) -> tuple[Load, Load]:
        before = llm.load
        with pytest.raises(LLMError):
            await llm.generate(QUESTION)
        return before, llm.load

    with FakeOpenAIServer([FakeReply(status=503, headers={"Retry-After": "100"})]) as server:
        llm = llm_at(server, concurrency=8)
        before, after = asyncio.run(refused(llm))
    assert before == llm.load == Load(8)
    assert (after.places, after.running, after.waiting) == (4, 0, 0)
    assert after.closed_for == after.wait == pytest.approx(100, abs=2)


def test_a_rate_in_the_configuration_is_kept() -> None:
    async def many(llm: LLM) -> float:
        started = time.perf_counter()
        await asyncio.gather(*(llm.generate(QUESTION) for _ in range(6)))
        return time.perf_counter() - started

    with FakeOpenAIServer([FakeReply(usage=(20, 500))]) as server:
        assert asyncio.run(many(llm_at(server, rpm=1200, timeout=30))) > 0.22
        assert asyncio.run(many(llm_at(server, tpm=6e5, sampling=Sampling(max_tokens=500)))) > 0.2


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


def test_refusals_and_further_keys_reach_the_candidate() -> None:
    message = {"content": None, "refusal": "No.", "reasoning_details": [{"data": "abc"}]}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "end_turn"}]}).encode()
    with FakeOpenAIServer([FakeReply(body=body)]) as server:
        candidate = ask(llm_at(server))
    assert (candidate.text, candidate.refusal, candidate.finish_reason) == ("No.", "No.", "stop")
    assert candidate.extra == {"reasoning_details": [{"data": "abc"}]}


def test_an_interrupted_answer_is_tried_again() -> None:
    broken = b'{"choices": [{"message": {"content": "The weather is su"}, "finish_reason": "error"}]}'
    limited = b'{"choices": null, "error": {"message": "Provider returned error", "code": 429}}'
    with FakeOpenAIServer([FakeReply(body=broken), FakeReply(body=limited), FakeReply()]) as server:
        assert ask(llm_at(server)).text == "An answer."
    assert len(server.requests) == 3


@pytest.mark.parametrize(("finish", "reason"), [("stop", None), (None, "connection")])
def test_a_connection_that_breaks_after_the_end_costs_nothing(finish: str | None, reason: str | None) -> None:
    chunk = {"choices": [{"delta": {"content": "An answer."}, "finish_reason": finish}]}
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await writer.drain()
        writer.close()

    async def call() -> str:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()[:2]
            llm = OpenAICompatibleLLM("llama", "fake", f"http://{host}:{port}/v1", backoff=Backoff(attempts=1))
            try:
                return (await llm.generate(QUESTION, on_text=ignore)).text
            except LLMError as error:
                return error.reason

    assert asyncio.run(call()) == (reason or "An answer.")


@pytest.mark.parametrize("done", [True, False])
def test_a_stream_that_stays_open_after_its_end_costs_nothing(monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    monkeypatch.setattr("llm_blender.llms.openai_compatible._TAIL", 0.05)
    chunk = {"choices": [{"delta": {"content": "An answer."}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    tail = b"data: [DONE]\n\n" if done else b": keep-alive\n\n"

    async def call() -> Candidate:
        answered = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head + b"data: " + json.dumps(chunk).encode() + b"\n\n" + tail)
            await writer.drain()
            await answered.wait()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()[:2]
            llm = OpenAICompatibleLLM("llama", "fake", f"http://{host}:{port}/v1", timeout=20)
            try:
                return await llm.generate(QUESTION, on_text=ignore)
            finally:
                answered.set()

    candidate = asyncio.run(call())
    assert (candidate.text, candidate.usage) == ("An answer.", Usage(3, 0))


def test_the_tokens_of_attempts_that_failed_are_counted() -> None:
    broken = {"choices": [{"message": {"reasoning": "Hm."}, "finish_reason": "error"}], "usage": {"prompt_tokens": 3}}
    interrupted = FakeReply(body=json.dumps(broken).encode())
    with FakeOpenAIServer([interrupted, FakeReply(usage=(3, 2))]) as server:
        assert ask(llm_at(server)).usage == Usage(6, 2)
    with FakeOpenAIServer([interrupted]) as server:
        error = failure(llm_at(server))
    assert error.usage == Usage(3 * len(server.requests), 0)


def test_the_tokens_of_a_call_that_is_too_late_are_counted() -> None:
    async def call() -> LLMError:
        chunk = {"choices": [{"delta": {"reasoning": "Hm."}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
        answered = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\ndata: " + json.dumps(chunk).encode() + b"\n\n")
            await writer.drain()
            await answered.wait()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()[:2]
            llm = OpenAICompatibleLLM("llama", "fake", f"http://{host}:{port}/v1", timeout=2)
            with pytest.raises(LLMError) as caught:
                await llm.generate(QUESTION, on_text=ignore)
            answered.set()
            return caught.value

    error = asyncio.run(call())
    assert (error.reason, error.usage) == ("timeout", Usage(3, 1))


def test_an_account_without_money_is_named() -> None:
    body = b'{"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}'
    with FakeOpenAIServer([FakeReply(status=429, body=body)]) as server:
        error = failure(llm_at(server))
    assert error.reason == "auth"
    assert "no credit" in str(error)
    assert "api_key_env" not in str(error)
    assert len(server.requests) == 1


def test_an_answer_without_a_body_is_refused_each_time():
    with FakeOpenAIServer([FakeReply(status=204, body=b"")]) as server:
        llm = OpenAICompatibleLLM("fake", "fake", server.base_url)
        for _ in range(3):
            with pytest.raises(LLMError, match="nothing"):
                asyncio.run(asyncio.wait_for(llm.generate([{"role": "user", "content": "Hello?"}]), 20))
