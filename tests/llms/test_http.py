"""What goes over the wire: redirects, proxies, compression, broken responses, and what strangers read of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest

from llm_blender.errors import LLMError
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.llms.pacing import Backoff
from llm_blender.testing.openai_server import FakeOpenAIServer, FakeReply
from llm_blender.types import Candidate, Message

QUESTION: list[Message] = [{"role": "user", "content": "Say something."}]
ANSWER = json.dumps({"choices": [{"message": {"content": "An answer."}, "finish_reason": "stop"}]}).encode()


class RawServer(ThreadingTCPServer):
    """A server that answers each request with raw bytes, the last ones again and again."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, replies: Sequence[bytes], *, keep: bool = False) -> None:
        self.replies, self.keep = replies, keep
        self.requests: list[bytes] = []
        super().__init__(("127.0.0.1", 0), RawHandler)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class RawHandler(StreamRequestHandler):
    server: RawServer

    def handle(self) -> None:
        while True:
            head = b""
            while line := self.rfile.readline():
                head += line
                if line == b"\r\n":
                    break
            if not line:
                return
            self.rfile.read(int(head.lower().partition(b"content-length:")[2].split()[0]))
            number = len(self.server.requests)
            self.server.requests.append(head)
            reply = self.server.replies[min(number, len(self.server.replies) - 1)]
            self.wfile.write(reply)
            if not self.server.keep or not reply:
                return


@contextmanager
def raw_server(*replies: bytes, keep: bool = False) -> Iterator[RawServer]:
    with RawServer(replies, keep=keep) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def llm_at(base_url: str, **options: Any) -> OpenAICompatibleLLM:
    return OpenAICompatibleLLM("a", "fake", base_url, **{"backoff": Backoff(attempts=2, first=0.01), **options})


def ask(llm: OpenAICompatibleLLM, messages: list[Message] = QUESTION) -> Candidate:
    return asyncio.run(llm.generate(messages))


def failure(llm: OpenAICompatibleLLM) -> LLMError:
    with pytest.raises(LLMError) as caught:
        ask(llm)
    return caught.value


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://else.example/v1/chat/completions", "https://else.example/v1:"),
        ("/v2/chat/completions", "/v2:"),
        ("/v2/chat/completions/", "/v2:"),
        ("file:///etc/passwd", "file:///etc/passwd:"),
    ],
)
def test_a_redirect_is_not_followed(status: str, location: str, target: str) -> None:
    with raw_server(response(b"", f"Location: {location}", status=status)) as server:
        error = failure(llm_at(server.base_url))
    assert len(server.requests) == 1
    assert error.reason == "not_found"
    assert target in str(error)
    assert "base_url" in str(error)
    assert error.public == "a: its server has moved to another URL"


def test_a_redirect_without_a_target() -> None:
    with raw_server(response(b"", status="302 Found")) as server:
        error = failure(llm_at(server.base_url))
    assert (error.reason, len(server.requests)) == ("not_found", 1)
    assert str(error) == "a: the server sends the call to another URL (302) and does not name it"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"", "connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "connection"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "bad_response"),
        (response(ANSWER)[:-20], "connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + ANSWER[:20], "connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + ANSWER, "bad_response"),
        (response(b"no gzip", "Content-Encoding: gzip"), "bad_response"),
        (response(ANSWER, "Content-Encoding: br"), "bad_response"),
    ],
)
def test_what_is_no_whole_response_is_a_failure(reply: bytes, reason: str) -> None:
    with raw_server(reply) as server:
        error = failure(llm_at(server.base_url))
        assert error.reason == reason, error
        assert str(server.server_address[1]) not in (error.public or "")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://127.0.0.1:1/v1",
        "http://no-such-host.invalid/v1",
        "http://127.0.0.1:99999/v1",
        "ftp://x/v1",
        "http://[::1/v1",
    ],
)
def test_a_url_without_a_server(base_url: str) -> None:
    error = failure(llm_at(base_url))
    assert (error.reason, error.own) == ("connection", True)
    assert base_url in str(error)
    assert "://" not in (error.public or "")


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("gzip", gzip.compress(ANSWER)),
        ("X-GZIP", gzip.compress(ANSWER)),
        ("deflate", zlib.compress(ANSWER)),
        ("deflate", bare(ANSWER)),
        ("identity", ANSWER),
        ("gzip, identity", gzip.compress(ANSWER)),
        ("gzip", gzip.compress(ANSWER[:30]) + gzip.compress(ANSWER[30:]) + bytes(9)),
        ("gzip", ANSWER),
        ("utf-8", ANSWER),
    ],
    ids=["gzip", "X-GZIP", "deflate", "bare deflate", "identity", "a list", "two members", "a wrong label", "no label"],
)
def test_compressed_answers(name: str, body: bytes) -> None:
    with raw_server(response(body, f"Content-Encoding: {name}")) as server:
        assert ask(llm_at(server.base_url)).text == "An answer."


def test_a_small_body_that_becomes_huge_is_refused_early() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(256)) + packer.flush()
    with raw_server(response(bomb, "Content-Encoding: gzip")) as server:
        tracemalloc.start()
        error = failure(llm_at(server.base_url))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert error.reason == "bad_response"
    assert peak < 100 << 20


def test_a_long_prompt() -> None:
    with FakeOpenAIServer() as server:
        assert ask(llm_at(server.base_url), [{"role": "user", "content": "x" * (3 << 20)}]).text == "An answer."
    assert len(server.requests[0]["messages"][0]["content"]) == 3 << 20


def test_a_connection_is_used_again_and_a_closed_one_is_opened_again() -> None:
    async def thrice(llm: OpenAICompatibleLLM) -> None:
        async with llm:
            for _ in range(3):
                assert (await llm.generate(QUESTION)).text == "An answer."

    with raw_server(response(ANSWER), response(ANSWER), b"", response(ANSWER), keep=True) as server:
        asyncio.run(thrice(llm_at(server.base_url, backoff=Backoff(first=60.0))))
    assert len(server.requests) == 4  # the third one got nothing, and was sent again at once


def test_no_password_comes_from_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with FakeOpenAIServer() as server:
        ask(llm_at(server.base_url))
        ask(llm_at(server.base_url, api_key="own"))
    assert [headers.get("authorization") for headers in server.headers] == [None, "Bearer own"]


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_proxies_of_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with raw_server(response(ANSWER)) as server:
        monkeypatch.setenv(variable, f"127.0.0.1:{server.server_address[1]}")
        assert ask(llm_at("http://llm.invalid/v1")).text == "An answer."
        monkeypatch.setenv("no_proxy", "llm.invalid")
        assert failure(llm_at("http://llm.invalid/v1")).reason == "connection"
    assert server.requests[0].startswith(b"POST http://llm.invalid/v1/chat/completions")
    monkeypatch.delenv("no_proxy")
    for proxy, words in (
        ("http://me:secret@127.0.0.1:9", "through the proxy http://127.0.0.1:9;"),
        ("socks5://me:secret@127.0.0.1:9", "socks5://127.0.0.1:9 is no HTTP proxy"),
    ):
        monkeypatch.setenv(variable, proxy)
        error = failure(llm_at("http://llm.invalid/v1"))
        assert words in str(error)
        assert "secret" not in str(error)
        assert error.public == "a: no connection to its server"


def test_a_query_of_the_base_url_stays_at_the_end() -> None:
    with raw_server(response(ANSWER)) as server:
        assert ask(llm_at(f"{server.base_url}/?api-version=2024-10-21")).text == "An answer."
    assert server.requests[0].startswith(b"POST /v1/chat/completions?api-version=2024-10-21 ")


def test_cookies_are_not_kept() -> None:
    async def twice(llm: OpenAICompatibleLLM) -> None:
        async with llm:
            await llm.generate(QUESTION)
            await llm.generate(QUESTION)

    with raw_server(response(ANSWER, "Set-Cookie: a=b")) as server:
        asyncio.run(twice(llm_at(server.base_url)))
    assert not any(b"cookie" in head.lower() for head in server.requests)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_strangers_read_no_url_no_variable_and_no_path(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_VARIABLE", "sk-0123456789")
    words = "set $THEIR_API_KEY, http://10.0.0.7:9000/v1, /srv/models/llama.gguf, sk-0123456789, too long by 5 and/or 6"
    with FakeOpenAIServer([FakeReply(words, status=status)]) as server:
        error = failure(llm_at(server.base_url, api_key_env="SECRET_VARIABLE", backoff=Backoff(attempts=1)))
    assert error.public is not None
    assert error.public.startswith("a: ")
    for secret in (
        "10.0.0.7",
        "/srv",
        "SECRET_VARIABLE",
        "THEIR_API_KEY",
        "sk-0123456789",
        server.base_url,
        "base_url",
    ):
        assert secret not in error.public
    assert "/srv/models/llama.gguf" in str(error)
    assert "sk-0123456789" not in str(error)
    if status in (400, 500):
        assert "too long by 5 and/or 6" in error.public


@pytest.mark.parametrize(
    ("status", "own"),
    [(400, False), (422, False), (429, False), (401, True), (404, True), (500, True), (502, True), (503, True)],
)
def test_whose_fault_it_is(status: int, own: bool) -> None:
    with FakeOpenAIServer([FakeReply("no", status=status)]) as server:
        assert failure(llm_at(server.base_url, backoff=Backoff(attempts=1))).own is own
