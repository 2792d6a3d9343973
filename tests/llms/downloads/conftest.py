"""A file server on loopback with planned failures."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@dataclass
class FileServer:
    """Files by path, and the failures to simulate.

    Attributes:
        files: content of each path.
        headers: of every answer to a path.
        redirects: from one path to another.
        cut: lengths at which bodies break off, one for each request.
        statuses: answered instead of the file, one for each request.
        agents: required beginning of the User-Agent of a path; others get 401.
        ranges: whether it supports byte ranges.
        seen: requests, as (method, path, Range).
        tokens: the last Authorization of each path.
        url: address.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    agents: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    tokens: dict[str, str | None] = field(default_factory=dict)
    url: str = ""


@pytest.fixture
def server() -> Iterator[FileServer]:
    plan = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            span = self.headers.get("Range")
            plan.seen.append((self.command, self.path, span))
            plan.tokens[self.path] = self.headers.get("Authorization")
            if plan.statuses:
                self.head(plan.statuses.pop(0), 0)
            elif not (self.headers.get("User-Agent") or "").startswith(plan.agents.get(self.path, "")):
                self.head(401, 0)
            elif self.path in plan.redirects:
                self.head(302, 0, Location=plan.redirects[self.path])
            elif self.path not in plan.files:
                self.head(404, 0)
            else:
                self.send(plan.files[self.path], span if plan.ranges else None, body)

        def send(self, content: bytes, span: str | None, body: bool) -> None:
            start = int(re.findall(r"\d+", span)[0]) if span else 0
            if start >= len(content) and start:
                return self.head(416, 0, **{"Content-Range": f"bytes */{len(content)}"})
            rest = content[start:]
            if span:
                self.head(206, len(rest), **{"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})
            else:
                self.head(200, len(rest))
            if body:
                self.wfile.write(rest[: plan.cut.pop(0)] if plan.cut else rest)
            return None

        def head(self, status: int, length: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, **plan.headers.get(self.path, {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        plan.url = f"http://127.0.0.1:{listening.server_port}"
        try:
            yield plan
        finally:
            listening.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache, a token, no proxy, and a Hub without a server."""
    for name in ("LLM_BLENDER_OFFLINE", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("LLM_BLENDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
