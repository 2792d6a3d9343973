"""Bodies of responses, and what is read in them."""

import json
from typing import Any

import pytest

from llm_blender.llms.api_errors import CallError
from llm_blender.llms.chat_response import ChatResponse

SSE = "text/event-stream"
DONE = b"data: [DONE]\n\n"


def read(body: bytes, content_type: str = SSE, size: int | None = None) -> ChatResponse:
    """Read a body in blocks of `size` bytes; check that its pieces make up the text, without a refusal."""
    response = ChatResponse(content_type)
    blocks = [body] if size is None else [body[i : i + size] for i in range(0, len(body), size)]
    pieces = [response.feed(block) for block in blocks]
    pieces.append(response.close())
    calls = response.tool_calls
    text = "" if response.text == response.refusal else response.text
    assert "".join(pieces) == (text if calls is None else text[: len("".join(pieces))])
    return response


def failure(body: bytes, content_type: str = SSE) -> CallError:
    with pytest.raises(CallError) as caught:
        read(body, content_type)
    return caught.value


def sse(*chunks: Any, done: bytes = DONE) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + done


def delta(content: Any = None, finish: Any = None, **keys: Any) -> dict[str, Any]:
    """Make a chunk of a stream."""
    part = {"content": content, **keys} if content is not None else keys
    return {"choices": [{"index": 0, "delta": part, "finish_reason": finish}]}


def whole(content: Any = None, finish: Any = "stop", **keys: Any) -> bytes:
    """Make a response that is not streamed."""
    message = {"role": "assistant", "content": content, **keys}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]}).encode()


def call(name: str | None, arguments: Any, **keys: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {**keys, "function": {key: value for key, value in function.items() if value is not None}}


def functions(response: ChatResponse) -> list[tuple[str, str]]:
    return [(each["function"]["name"], each["function"]["arguments"]) for each in response.tool_calls or ()]


LONDON, PARIS = '{"city":"London"}', '{"city":"Paris"}'
TWO = [("f", LONDON), ("f", PARIS)]
