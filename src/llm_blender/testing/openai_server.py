"""A loopback server with the OpenAI API and configurable failures."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class FakeReply:
    """Reply of the server to one request.

    Attributes:
        text: the answer; streamed word by word.
        reasoning: value of ``reasoning_content``.
        status: HTTP status; from 400 on, `text` is the error message.
        headers: additional headers, such as ``Retry-After``.
        delay: seconds before the first byte.
        drip: seconds before each piece of a stream.
        body: raw body that replaces all else.
        content_type: of `body`.
        usage: prompt and completion tokens; None omits them.
        finish_reason: of the answer.
        reset_after: number of pieces of the stream before the connection is reset; 0 sends no byte.
        endless: whether the stream repeats `text` and never ends.
    """

    text: str = "An answer."
    reasoning: str | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    body: bytes | None = None
    content_type: str = "application/json"
    usage: tuple[int, int] | None = (3, 2)
    finish_reason: str = "stop"
    reset_after: int | None = None
    endless: bool = False


class FakeOpenAIServer:
    """Server of ``/v1/chat/completions``, streamed or not, and ``/v1/models``, on an ephemeral loopback port.

    Use it as a context manager; `base_url` is set from the start, but requests are served only inside it.

    Args:
        replies: to the chat requests, in order, the last one for all that follow; or a function of the
            request's body.
        models: names of its models; a request for another one gets a 404.
        api_key: required key; other requests get a 401 with a message that repeats their key.

    Attributes:
        requests: bodies of the chat requests, in order of arrival.
        headers: of the chat requests, in the same order, names in lower case.
        most_at_once: maximum number of concurrent chat requests.

    Examples:
        >>> with FakeOpenAIServer([FakeReply(status=500), FakeReply("Hello.")]) as server:
        ...     llm = OpenAICompatibleLLM("fake", "fake", server.base_url)
        ...     asyncio.run(llm.generate([{"role": "user", "content": "Hello?"}])).text
        'Hello.'
    """

    def __init__(
        self,
        replies: Sequence[FakeReply] | Callable[[dict[str, Any]], FakeReply] = (FakeReply(),),
        *,
        models: Sequence[str] = ("fake",),
        api_key: str | None = None,
    ) -> None:
        self._replies, self.models, self.api_key = replies, tuple(models), api_key
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = self._running = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        """Base URL, up to and including ``/v1``."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _begin(self, request: dict[str, Any], headers: Mapping[str, str]) -> FakeReply:
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            self.headers.append({name.lower(): value for name, value in headers.items()})
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        if callable(self._replies):
            return self._replies(request)
        return self._replies[min(number, len(self._replies) - 1)]

    def _end(self) -> None:
        with self._lock:
            self._running -= 1

    def _wait(self, seconds: float) -> None:
        """Sleep, but no longer than the server runs."""
        if self._stopping.wait(seconds):
            raise ConnectionAbortedError


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # joined at the end, so that no test leaves one running
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], fake: FakeOpenAIServer) -> None:
        self.fake = fake
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print no traceback for a client that disconnects, or for the end of the server."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        fake = self.server.fake
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if fake.api_key is not None and key != fake.api_key:
            self._send_error(401, f"Incorrect API key provided: {key}.")
        elif self.path == "/v1/models":
            models = [{"id": model, "object": "model"} for model in fake.models]
            self._send_json(200, {"object": "list", "data": models})
        else:
            self._send_error(404, f"nothing at {self.path}")

    def do_POST(self) -> None:
        fake = self.server.fake
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.path != "/v1/chat/completions":
            self._send_error(404, f"nothing at {self.path}")
        elif fake.api_key is not None and key != fake.api_key:
            self._send_error(401, f"Incorrect API key provided: {key}.")
        elif request["model"] not in fake.models:
            self._send_error(404, f"model '{request['model']}' not found")
        else:
            reply = fake._begin(request, dict(self.headers))
            with contextlib.ExitStack() as running:
                running.callback(fake._end)
                fake._wait(reply.delay)
                if not request.get("stream"):
                    running.close()  # after the whole answer, the next request may come before this thread continues
                self._answer(request, reply)

    def _answer(self, request: dict[str, Any], reply: FakeReply) -> None:
        if reply.reset_after == 0:
            self._reset()
        elif reply.body is not None:
            self._send(reply.status, reply.body, reply.content_type, reply.headers)
        elif reply.status >= 400:
            self._send_error(reply.status, reply.text, reply.headers)
        elif request.get("stream"):
            self._stream(reply, with_usage=bool(request.get("stream_options", {}).get("include_usage")))
        else:
            message = {"role": "assistant", "content": reply.text, "reasoning_content": reply.reasoning}
            choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
            body = {"object": "chat.completion", "choices": [choice], "usage": _usage(reply)}
            self._send_json(reply.status, body, reply.headers)

    def _stream(self, reply: FakeReply, *, with_usage: bool) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self._finish_headers()
        pieces = re.findall(r"\s*\S+\s*|\s+", reply.text)
        deltas = [{"reasoning_content": reply.reasoning}] if reply.reasoning else []
        deltas += [{"content": piece} for piece in pieces]
        sent = 0
        while sent < len(deltas) or reply.endless:
            self.server.fake._wait(reply.drip or (0.001 if reply.endless else 0))
            self._event({"choices": [{"index": 0, "delta": deltas[sent % len(deltas)]}]})
            sent += 1
            if sent == reply.reset_after:
                return self._reset()
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish_reason}]})
        if with_usage:
            self._event({"choices": [], "usage": _usage(reply)})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")
        return None

    def _event(self, chunk: dict[str, Any]) -> None:
        chunk = {"object": "chat.completion.chunk", **chunk}
        self._chunk(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _reset(self) -> None:
        # With a linger time of 0, close() sends a RST: the client's read fails instead of reaching the end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _send_error(self, status: int, message: str, headers: Mapping[str, str] = {}) -> None:
        self._send_json(status, {"error": {"message": message}}, headers)

    def _send_json(self, status: int, body: dict[str, Any], headers: Mapping[str, str] = {}) -> None:
        self._send(status, json.dumps(body).encode(), "application/json", headers)

    def _send(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self._finish_headers()
        self.wfile.write(body)

    def _finish_headers(self) -> None:
        # One request per connection, so that no thread waits for another when the server stops.
        self.send_header("Connection", "close")
        self.end_headers()


def _usage(reply: FakeReply) -> dict[str, int] | None:
    if reply.usage is None:
        return None
    return {"prompt_tokens": reply.usage[0], "completion_tokens": reply.usage[1]}
