"""Members of an ensemble on one port of loopback: healthy ones, and ones that misbehave in every way of a matrix.

The model of a request names the member. The last message names the question and the form of its answer: ``q17 text``,
``q17 json`` or ``q17 tools``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "by": {"type": "string"}},
    "required": ["question", "by"],
    "additionalProperties": False,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "parameters": {
                "type": "object",
                "properties": {"question": {"type": "string"}, "part": {"type": "integer"}},
                "required": ["question", "part"],
            },
        },
    }
]
REFUSAL = "I cannot help with that."
_BIG = 20_000_000
_WORDS = ("the", "sky", "is", "blue", "because", "air", "scatters", "light", "most", "—", "das", "ist", "schön", "so")


def answer(member: str, question: str, form: str) -> dict[str, Any]:
    """Make the message that a member answers a question with."""
    drawn = random.Random(f"{member} {question}")
    if form == "json":
        return {"role": "assistant", "content": json.dumps({"question": question, "by": member})}
    if form == "tools":
        calls = [
            {
                "id": f"{question}-{part}",
                "type": "function",
                "function": {"name": "look_up", "arguments": json.dumps({"question": question, "part": part})},
            }
            for part in (1, 2)
        ]
        return {"role": "assistant", "content": None, "tool_calls": calls}
    words = " ".join(drawn.choices(_WORDS, k=drawn.randint(20, 80)))
    return {"role": "assistant", "content": f"{member} answers {question}: {words}. The end of {question}."}


class Call:
    """A request to a member, and what its reply is made of."""

    def __init__(
        self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drawn: random.Random
    ) -> None:
        self.body, self.reader, self.writer, self.drawn = body, reader, writer, drawn
        self.member, self.streamed = body["model"], bool(body.get("stream"))
        self.question, self.form = body["messages"][-1]["content"].split()[:2]
        self.message = answer(self.member, self.question, self.form)
        self.reusable = True  # the connection, for a further request

    @property
    def finish(self) -> str:
        return "tool_calls" if self.form == "tools" else "stop"

    def deltas(self) -> list[dict[str, Any]]:
        """Split the message into the deltas of a stream."""
        if self.form == "tools":
            return [{"tool_calls": [{"index": i, **call}]} for i, call in enumerate(self.message["tool_calls"])]
        text, pieces = self.message["content"], []
        while text:
            size = self.drawn.randint(1, 30)
            pieces.append({"content": text[:size]})
            text = text[size:]
        return pieces

    def chunk(self, delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
        """Render an event of a stream."""
        choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
        return b"data: %s\n\n" % json.dumps({"object": "chat.completion.chunk", "choices": choices, **more}).encode()

    def fragment(self) -> bytes:
        """Render the beginning of an answer that never ends, longer than any whole one: a ranker would like it."""
        if self.form == "tools":
            first = self.deltas()[0]["tool_calls"][0]
            return self.chunk(
                {"tool_calls": [{**first, "function": {"name": "look_up", "arguments": '{"question": "q'}}]}
            )
        return self.chunk({"content": f"{self.message['content'][:10]} {'and so on ' * 200}"})

    def events(self) -> list[bytes]:
        """Render the whole answer as events, without the last one, [DONE]."""
        usage = {"usage": {"prompt_tokens": 3, "completion_tokens": 9}}
        return [
            *map(self.chunk, self.deltas()),
            self.chunk({}, self.finish),
            b"data: %s\n\n" % _json(choices=[], **usage),
        ]

    def completion(self, message: dict[str, Any] | None = None, **more: Any) -> bytes:
        """Render the answer as one JSON object."""
        choice = {"index": 0, "message": message or self.message, "finish_reason": self.finish}
        usage = {"prompt_tokens": 3, "completion_tokens": 9}
        return _json(object="chat.completion", choices=[choice], usage=usage, **more)

    async def send(self, status: int, body: bytes, headers: str = "content-type: application/json") -> None:
        """Send a response with a length."""
        self.writer.write(b"HTTP/1.1 %d Status\r\n%s\r\n" % (status, headers.encode()))
        self.writer.write(b"content-length: %d\r\n\r\n" % len(body))
        self.writer.write(body)
        await self.writer.drain()

    async def begin(self, headers: str = "content-type: text/event-stream") -> None:
        """Send the head of a stream."""
        self.writer.write(b"HTTP/1.1 200 OK\r\n%s\r\ntransfer-encoding: chunked\r\n\r\n" % headers.encode())
        await self.writer.drain()

    async def piece(self, data: bytes) -> None:
        """Send a piece of a stream."""
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def stream(self, events: Sequence[bytes], headers: str = "content-type: text/event-stream") -> None:
        """Send a whole stream, split at any byte."""
        await self.begin(headers)
        data = b"".join(events)
        cuts = sorted(self.drawn.randrange(len(data) + 1) for _ in range(self.drawn.randint(0, 4)))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if end > start:
                await self.piece(data[start:end])
                await asyncio.sleep(self.drawn.choice([0, 0, 0.005]))
        await self.piece(b"")

    async def reply(self) -> None:
        """Answer well."""
        if self.streamed:
            await self.stream([*self.events(), b"data: [DONE]\n\n"])
        else:
            await self.send(200, self.completion())

    async def hang(self) -> None:
        """Wait until the client goes away."""
        self.reusable = False
        await self.reader.read()

    def reset(self) -> None:
        """Reset the connection."""
        self.reusable = False
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Fault = Callable[[Call], Awaitable[None]]
FAULTS: dict[str, Fault] = {}
"""The matrix, by name."""


def _fault(behave: Fault) -> Fault:
    FAULTS[behave.__name__] = behave
    return behave


def _json(**values: Any) -> bytes:
    return json.dumps(values).encode()


def _refusing(status: int, *headers: str) -> None:
    """Add a fault: a status with the headers, and a body in any shape."""

    async def refuse(call: Call) -> None:
        words = f"The provider has status {status}."
        body, kind = call.drawn.choice(
            [
                (_json(error={"message": words, "type": "some_error", "code": status}), "application/json"),
                (_json(error=words), "application/json"),
                (_json(message=words), "application/json"),
                (
                    _json(detail=[{"type": "value_error", "loc": ["body", "messages"], "msg": words}]),
                    "application/json",
                ),
                (_json(object="error", message={"detail": words}, code=status), "application/json"),
                (b"[" + _json(error={"message": words}) + b"]", "application/json"),
                (f"<html><body><h1>{words}</h1></body></html>".encode(), "text/html"),
                (words.encode(), "text/plain"),
                (b"null", "application/json"),
                (b"", "text/plain"),
            ]
        )
        await call.send(status, body, "\r\n".join([f"content-type: {kind}", *headers]))

    FAULTS[" ".join([f"status_{status}", *headers])] = refuse


for _status in (400, 401, 403, 404, 408, 409, 413, 418, 422, 425, 429, 500, 502, 503, 504, 529):
    _refusing(_status)
_refusing(429, "retry-after: 1")
_refusing(429, "retry-after-ms: 300")
_refusing(429, "retry-after: soon")
_refusing(503, "retry-after: 120")
for _status in (301, 302, 303, 307, 308):
    _refusing(_status, "location: /elsewhere/chat/completions")
_refusing(302, "location: file:///nowhere")


@_fault
async def error_in_a_200(call: Call) -> None:
    error = {"message": "Provider returned error", "code": call.drawn.choice([402, 429, 500, "server_error", None])}
    await call.send(200, call.drawn.choice([_json(error=error), _json(id=None, choices=None, error=error)]))


@_fault
async def error_event(call: Call) -> None:
    event = call.drawn.choice(
        [
            b'data: {"error": {"message": "Overloaded.", "code": 529}}\n\n',
            b'event: error\ndata: {"message": "Overloaded."}\n\n',
            b'data: {"object": "error", "message": "maximum context length is 4096 tokens", "code": 400}\n\n',
            b'error: {"code": 500, "message": "slot unavailable"}\n\n',
        ]
    )
    await call.stream([*[call.fragment()] * call.drawn.randint(0, 2), event, b"data: [DONE]\n\n"])


@_fault
async def finish_reason_error(call: Call) -> None:
    error = {"code": 502, "message": "Provider disconnected"}
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": error}
    await call.stream([call.fragment(), b"data: %s\n\n" % _json(choices=[choice]), b"data: [DONE]\n\n"])


@_fault
async def no_end(call: Call) -> None:
    await call.stream([call.fragment()])


@_fault
async def broken_off(call: Call) -> None:
    call.reusable = False
    if call.streamed:
        await call.begin()
        await call.piece(call.fragment())
    else:
        await call.send(200, call.completion()[:-20] + b"\r\n" * 10, "content-encoding: identity")


@_fault
async def shorter_than_its_length(call: Call) -> None:
    call.reusable = False
    call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
    call.writer.write(call.completion())


@_fault
async def reset_at_once(call: Call) -> None:
    call.reset()


@_fault
async def reset_amid_the_stream(call: Call) -> None:
    await call.begin()
    await call.piece(call.fragment())
    await asyncio.sleep(0.01)
    call.reset()


@_fault
async def hang_at_once(call: Call) -> None:
    await call.hang()


@_fault
async def hang_amid_the_stream(call: Call) -> None:
    await call.begin()
    await call.piece(call.fragment())
    await call.hang()


@_fault
async def drip_of_bytes(call: Call) -> None:
    call.reusable = False
    await call.begin()
    for byte in b"".join(call.events()):
        await call.piece(bytes([byte]))
        await asyncio.sleep(0.05)


@_fault
async def drip_of_comments(call: Call) -> None:
    call.reusable = False
    await call.begin()
    while True:
        await call.piece(b": PROCESSING\n\n")
        await asyncio.sleep(0.05)


@_fault
async def endless_stream(call: Call) -> None:
    call.reusable = False
    await call.begin()
    event = call.chunk({"content": "and so on " * 2000})
    while True:
        await call.piece(event)
        await asyncio.sleep(0.01)


@_fault
async def big_answer(call: Call) -> None:
    call.reusable = False
    await call.send(200, call.completion({"role": "assistant", "content": "x" * _BIG}))


@_fault
async def big_line(call: Call) -> None:
    call.reusable = False
    await call.begin()
    for _ in range(_BIG // 1_000_000):
        await call.piece(b"x" * 1_000_000)


@_fault
async def big_head(call: Call) -> None:
    call.reusable = False
    await call.send(200, call.completion(), f"content-type: application/json\r\nx-more: {'x' * 100_000}")


@_fault
async def bomb(call: Call) -> None:
    call.reusable = False
    await call.send(200, _BOMB, "content-type: application/json\r\ncontent-encoding: gzip")


_BOMB = gzip.compress(b" " * 200_000_000, 6)


@_fault
async def broken_gzip(call: Call) -> None:
    body = gzip.compress(call.completion())
    damaged = call.drawn.choice([body[:-12], b"\x1f\x8b" + b"?" * 60, call.completion()])
    await call.send(200, damaged, "content-type: application/json\r\ncontent-encoding: gzip")


@_fault
async def not_http(call: Call) -> None:
    call.reusable = False
    call.writer.write(b"220 mail.example ESMTP\r\n")


@_fault
async def no_content(call: Call) -> None:
    call.writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")


@_fault
async def empty(call: Call) -> None:
    done = b"data: [DONE]\n\n"
    match call.drawn.randrange(4):
        case 0:
            await call.send(200, b"")
        case 1:
            await call.stream([done])
        case 2:
            await call.stream([call.chunk({"content": ""}), call.chunk({}, "stop"), done])
        case _:
            await call.send(200, call.completion({"role": "assistant", "content": " "}))


@_fault
async def not_json(call: Call) -> None:
    body = call.drawn.choice([b"<html>Welcome</html>", b"{", b"[]", b"42", b"null", b'{"choices": [42]}', b"[" * 5000])
    await call.send(200, body, f"content-type: {call.drawn.choice(['text/html', 'application/json'])}")


@_fault
async def not_json_in_the_stream(call: Call) -> None:
    await call.stream([call.fragment(), b"data: {not json\n\n", b"data: [DONE]\n\n"])


@_fault
async def refusal(call: Call) -> None:
    if call.streamed:
        delta = {"content": None, "refusal": REFUSAL}
        await call.stream([call.chunk(delta), call.chunk({}, "stop"), b"data: [DONE]\n\n"])
    else:
        await call.send(200, call.completion({"role": "assistant", "content": None, "refusal": REFUSAL}))


@_fault
async def filtered(call: Call) -> None:
    await call.stream([call.chunk({"content": ""}), call.chunk({}, "content_filter"), b"data: [DONE]\n\n"])


@_fault
async def wrong_form(call: Call) -> None:
    """Answer with prose, or with JSON of another schema, where a form is required."""
    if call.form == "text":
        await call.reply()
        return
    text = call.drawn.choice(
        ["Certainly! " * 40, '{"question": 7}', "42", f'{{"question": NaN, "by": "{"me" * 99}"}}', "{" * 99]
    )
    delta: dict[str, Any] = {"content": text}
    if call.form == "tools":
        function = {"name": call.drawn.choice(["look_up", "nothing"]), "arguments": text}
        delta = {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": function}]}
    await call.stream([call.chunk(delta), call.chunk({}, call.finish), b"data: [DONE]\n\n"])


# From here on: replies that hold the whole answer, in an odd form.


@_fault
async def stream_refused(call: Call) -> None:
    if not call.streamed:
        await call.reply()
        return
    error = {"message": "You may not stream this model.", "param": "stream", "code": "unsupported_value"}
    await call.send(400, _json(error=error))


@_fault
async def fenced(call: Call) -> None:
    if call.form != "json":
        await call.reply()
        return
    text = f"```json\n{call.message['content']}\n```"
    await call.stream([call.chunk({"content": text}), call.chunk({}, "stop"), b"data: [DONE]\n\n"])


@_fault
async def wrong_content_type(call: Call) -> None:
    if call.drawn.random() < 0.5:
        await call.stream([*call.events(), b"data: [DONE]\n\n"], "content-type: text/plain")
    else:
        await call.send(200, call.completion(), "content-type: text/html")


@_fault
async def json_in_place_of_a_stream(call: Call) -> None:
    await call.send(200, call.completion())


@_fault
async def null_fields(call: Call) -> None:
    whole = {"id": None, "usage": None, "created": None, "system_fingerprint": None}
    odd = {"tool_calls": None} if call.form != "tools" else {"content": None}
    events = [call.chunk({"role": None, **odd, **delta}, None, **whole) for delta in call.deltas()]
    last = b'data: {"choices": null, "usage": {"prompt_tokens": null, "completion_tokens": 2.25, "x": []}}\n\n'
    await call.stream(
        [b"data: \n\n", b": comment\n\n", *events, call.chunk({}, call.finish), last, b"data: [DONE]\n\n"]
    )


@_fault
async def two_calls_at_one_index(call: Call) -> None:
    if call.form != "tools":
        await call.reply()
        return
    calls = [dict(delta["tool_calls"][0]) for delta in call.deltas()]
    for each in calls:
        each.pop("index")
        each |= call.drawn.choice([{"index": 0}, {}])
    events = [call.chunk({"tool_calls": [each]}) for each in calls]
    await call.stream([*events, call.chunk({}, "tool_calls"), b"data: [DONE]\n\n"])


@_fault
async def invalid_utf8(call: Call) -> None:
    events = call.events()
    spoilt = b'data: {"choices": [{"index": 0, "delta": {"content": "\xff", "x": "\xc3"}}]}\n\n'
    if call.form != "text":
        spoilt = b": \xff\n\n"
    await call.stream([events[0], spoilt, *events[1:], b"data: [DONE]\n\n"])


@_fault
async def other_line_ends(call: Call) -> None:
    end = call.drawn.choice([b"\r\n", b"\r"])
    lines = b"\xef\xbb\xbf" + b"".join([*call.events(), b"data: [DONE]\n\n"])
    await call.stream([lines.replace(b"\n", end)])


@_fault
async def http_1_0(call: Call) -> None:
    call.reusable = False
    call.writer.write(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"".join(call.events()))


class Members:
    """The server of all members; use it as an asynchronous context manager.

    Args:
        names: of the members.
        bad: those of them that misbehave.
        share: probability that a call of one of them meets a fault.
        seed: of all that is drawn.

    Attributes:
        url: the base URL.
        calls: number of calls by fault; ``""`` are the good replies.
        followed: number of redirects that a client followed.
        active: number of calls that run.
    """

    def __init__(self, names: Sequence[str], bad: Sequence[str], *, share: float = 0.5, seed: int = 0) -> None:
        self.names, self.bad, self._share = tuple(names), frozenset(bad), share
        self._drawn = random.Random(seed)
        self._faults: list[str] = []  # to come before any of them comes again: few calls meet all
        self._tasks: set[asyncio.Task[None]] = set()
        self.calls: Counter[str] = Counter()
        self.followed = self.active = 0
        self.url = ""

    async def __aenter__(self) -> Members:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1000)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                while await self._answer(reader, writer):
                    pass
            finally:
                writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        lengths = (line[15:] for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(int(next(lengths, b"0")))
        if b" /v1/chat/completions " not in head.split(b"\r\n")[0]:
            self.followed += 1
            return False
        call = Call(json.loads(body), reader, writer, self._drawn)
        fault = ""
        if call.member in self.bad and self._drawn.random() < self._share:
            self._faults = self._faults or self._drawn.sample(list(FAULTS), len(FAULTS))
            fault = self._faults.pop()
        self.calls[fault] += 1
        self.active += 1
        try:
            await asyncio.sleep(self._drawn.uniform(0.01, 0.12))
            await (FAULTS[fault](call) if fault else call.reply())
            await writer.drain()
        finally:
            self.active -= 1
        return call.reusable
