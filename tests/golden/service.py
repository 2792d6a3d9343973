"""Drive the service of an ensemble in the process of the test, and read what it answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from llm_blender import Ensemble, Limits, Member, Store
from llm_blender.config import ServerConfig
from llm_blender.server import create_app
from llm_blender.testing import FakeLLM, FakeRanker
from llm_blender.types import Usage

CHAT = "/v1/chat/completions"


def two():
    return [FakeLLM("a", "Short."), FakeLLM("b", "A longer answer.", usage=Usage(7, 4), cost=0.25)]


def ask(prompt="Why?", *, model="blend", **body):
    return ("POST", CHAT, {"model": model, "messages": [{"role": "user", "content": prompt}], **body})


def keep(**body):
    return ask(blend={"keep": True}, **body)


@dataclass(frozen=True)
class Service:
    """Requests, one after the other, to the service of an ensemble.

    Attributes:
        requests: method, path, body (JSON, bytes or None), headers. ``{id}`` in a path is the last id that came.
        llms: makes the members.
        fuser: makes the fuser, if there is one.
        ranker: makes the ranker.
        store: whether there is one; without, nothing is kept.
        limits: of the ensemble.
        server: options of `ServerConfig`.
        more: options of the ensemble.
    """

    requests: Sequence[tuple[Any, ...]]
    llms: Callable[[], list[FakeLLM]] = two
    fuser: Callable[[], Any] | None = None
    ranker: Callable[[], FakeRanker] = FakeRanker
    store: bool = False
    limits: Mapping[str, Any] = field(default_factory=dict)
    server: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


HEADERS = (
    "content-type", "www-authenticate", "allow", "cache-control", "content-disposition", "x-content-type-options",
    "x-accel-buffering", "content-security-policy", "referrer-policy", "cross-origin-opener-policy",
    "cross-origin-resource-policy", "access-control-allow-origin",
)  # fmt: skip


def answered(response: httpx.Response) -> dict[str, Any]:
    headers = {name: response.headers[name] for name in HEADERS if name in response.headers}
    if "retry-after" in response.headers:
        headers["retry-after"] = "<seconds>"
    return {"status": response.status_code, "headers": headers, "body": body(response)}


def body(response: httpx.Response) -> Any:
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind == "text/event-stream":
        return list(map(event, filter(None, response.text.split("\n\n"))))
    if kind == "application/jsonl":
        return list(map(json.loads, response.text.splitlines()))
    if kind == "application/json":
        values = response.json()
        return sorted_openapi(values) if "openapi" in values else values
    if response.url.path == "/metrics":
        names = re.findall(r"^# TYPE (\S+) (\S+)", response.text, re.MULTILINE)
        labels = {
            re.sub(r'"[^"]*"', "…", found) for found in re.findall(r"^(blend_[^ ]*\{.*\})", response.text, re.MULTILINE)
        }
        return {"types": sorted(found for found in names if found[0].startswith("blend_")), "labels": sorted(labels)}
    return "<text>" if response.content else None


def event(text: str) -> Any:
    """A comment or a chunk of a stream, as it came."""
    if text.startswith(": blend "):
        return {"blend": json.loads(text.removeprefix(": blend "))}
    if text.startswith("data: {"):
        return {"data": json.loads(text.removeprefix("data: "))}
    return text


def sorted_openapi(value: Any) -> Any:
    """The document without prose; the order of its keys is that of the web framework."""
    if isinstance(value, dict):
        prose = {key: "<text>" for key in ("summary", "description") if isinstance(value.get(key), str)}
        return {key: prose.get(key) or sorted_openapi(value[key]) for key in sorted(value)}
    return list(map(sorted_openapi, value)) if isinstance(value, list) else value


async def converse(case: Service, path_of_store: Path) -> list[dict[str, Any]]:
    store = Store(path_of_store) if case.store else None
    llms = case.llms()
    ensemble = Ensemble(
        [Member(llm) for llm in llms],
        case.ranker(),
        limits=Limits(**{"deadline": 20, **case.limits}),
        fuser=case.fuser() if case.fuser else None,
        store=store,
        **case.more,
    )
    app = create_app(ensemble, ServerConfig(**case.server))
    id, responses = "", []
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
    ):
        for method, path, content, headers in (
            (*request, None, {})[:4] if len(request) != 3 else (*request, {}) for request in case.requests
        ):
            sent = (
                {"content": content} if isinstance(content, bytes) else {"json": content} if content is not None else {}
            )
            if isinstance(content, bytes):
                headers = {"content-type": "application/json", **headers}
            before = [len(llm.calls) for llm in llms]
            response = await http.request(method, path.replace("{id}", id), headers=headers, **sent)
            if found := re.search(r"chatcmpl-[0-9a-f]{32}", response.text):
                id = found[0]
            calls = {
                llm.name: [
                    {"messages": list(call.messages), "sampling": sampling(call.sampling)} for call in llm.calls[count:]
                ]
                for llm, count in zip(llms, before, strict=True)
                if len(llm.calls) > count
            }
            shown = {} if isinstance(content, bytes) else {"sent": content}
            responses.append(
                {"request": f"{method} {path}", **(shown if content and len(str(content)) < 400 else {}),
                 **answered(response), **({"calls": calls} if calls else {})}
            )  # fmt: skip
    if store is not None:
        store.close()
    return responses


def sampling(options: Any) -> dict[str, Any]:
    """What is set; a seed that was drawn is none."""
    names = ("temperature", "top_p", "max_tokens", "stop", "extra", "sample")
    return {name: value for name in names if (value := getattr(options, name, None)) not in (None, (), {})}
