"""`blend serve` with two LLMs behind a fake of OpenAI's API, as clients meet it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_blender.testing import FakeOpenAIServer, FakeReply

BEST = "Air scatters blue light most."
CONFIG = """
[[llm]]
name = "a"
base_url = "{a}"
model = "fake"

[[llm]]
name = "b"
base_url = "{b}"
model = "fake"

[ranker]
name = "longest"
"""


def example(schema: Mapping[str, Any], definitions: Mapping[str, Any] = {}) -> Any:
    """Make a value of a JSON schema."""
    definitions = schema.get("$defs", definitions)
    match schema:
        case {"$ref": reference}:
            return example(definitions[reference.rpartition("/")[2]], definitions)
        case {"enum": [first, *_]} | {"const": first}:
            return first
        case {"anyOf": [first, *_]} | {"allOf": [first, *_]}:
            return example(first, definitions)
        case {"type": "array"}:
            return [example(schema["items"], definitions)]
        case {"type": "integer" | "number"}:
            return 7
        case {"type": "boolean"}:
            return True
        case {"type": "string"}:
            return "Paris"
        case _:
            return {name: example(each, definitions) for name, each in schema.get("properties", {}).items()}


def call(request: Mapping[str, Any]) -> FakeReply:
    """Call the tool that a request forces, or the first one."""
    functions = [tool["function"] for tool in request["tools"]]
    choice = request.get("tool_choice")
    forced = [each for each in functions if isinstance(choice, dict) and each["name"] == choice["function"]["name"]]
    function = (forced or functions)[0]
    called = {"name": function["name"], "arguments": json.dumps(example(function["parameters"]))}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": called}],
    }
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": {}}
    return FakeReply(body=json.dumps(body).encode())


def reply(request: dict[str, Any], text: str) -> FakeReply:
    """Answer as a model with tools and structured output does."""
    last, form = request["messages"][-1], request.get("response_format") or {}
    if last["role"] == "tool":
        return FakeReply(f"The tool gave {last['content']}.")
    if request.get("tools") and request.get("tool_choice") != "none":
        return call(request)
    if form.get("type") == "json_schema":
        return FakeReply(json.dumps(example(form["json_schema"]["schema"])))
    if form.get("type") == "json_object":
        return FakeReply(json.dumps({"city": "Paris", "answer": text}))
    if "[[ ## answer ## ]]" in json.dumps(request["messages"]):
        return FakeReply(f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]")
    return FakeReply(text)


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of the service."""
    folder = tmp_path_factory.mktemp("service")
    with (
        FakeOpenAIServer(lambda request: reply(request, "Because.")) as a,
        FakeOpenAIServer(lambda request: reply(request, BEST)) as b,
    ):
        (folder / "blend.toml").write_text(CONFIG.format(a=a.base_url, b=b.base_url))
        command = [Path(sys.executable).parent / "blend", "serve", "--port", "0"]
        service = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        try:
            for line in service.stderr:
                if found := re.search(r"serving at (\S+)", line):
                    break
            else:
                pytest.fail("blend serve did not start")
            yield found[1]
            assert service.poll() is None, "blend serve has ended"
        finally:
            service.terminate()
            service.communicate(timeout=20)
