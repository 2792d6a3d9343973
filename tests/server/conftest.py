"""A service on a free port of loopback, around whatever ensemble a test plants."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")

from llm_blender.config import ServerConfig
from llm_blender.ensemble import Ensemble, Limits, Member
from llm_blender.server import create_app
from llm_blender.server.auth import Keys
from llm_blender.server.service import Service
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeRanker
from llm_blender.types import LLM

ServeApp = Callable[[contextlib.ExitStack, Any], str]


@dataclass
class Running:
    """A service that runs in a thread."""

    url: str
    service: Service
    http: httpx.Client

    def ask(self, prompt: str = "Say something.", *, model: str = "blend", **body: Any) -> httpx.Response:
        messages = [{"role": "user", "content": prompt}]
        return self.http.post("/v1/chat/completions", json={"model": model, "messages": messages, **body})

    def idle(self) -> bool:
        """Whether nothing is at work any more, after a moment."""
        end = time.monotonic() + 20
        while self.service.admission.admitted and time.monotonic() < end:
            time.sleep(0.01)
        return not self.service.admission.admitted


class Serving:
    """Starts services, and stops them."""

    def __init__(self, stack: contextlib.ExitStack, serve_app: ServeApp) -> None:
        self._stack, self._serve_app = stack, serve_app

    def __call__(
        self,
        *llms: LLM,
        ranker: Any = None,
        limits: Limits | None = None,
        keys: Keys | None = None,
        options: dict[str, Any] | None = None,
        **more: Any,
    ) -> Running:
        made = llms or (FakeLLM("a", "Short."), FakeLLM("b", "A longer answer."))
        limits = limits or Limits(deadline=20)
        ensemble = Ensemble([Member(llm) for llm in made], ranker or FakeRanker(), limits=limits, **more)
        app = create_app(ensemble, ServerConfig(**(options or {})), keys)
        url = self._serve_app(self._stack, app)
        http = self._stack.enter_context(httpx.Client(base_url=url, timeout=30))
        return Running(url, app.state.service, http)


@pytest.fixture
def serve(serve_app: ServeApp) -> Iterator[Serving]:
    """For services with something planted."""
    with contextlib.ExitStack() as stack:
        yield Serving(stack, serve_app)


@pytest.fixture(scope="module")
def serve_for_all(serve_app: ServeApp) -> Iterator[Serving]:
    """For a service that all tests of a module use."""
    with contextlib.ExitStack() as stack:
        yield Serving(stack, serve_app)


@pytest.fixture(scope="module")
def plain(serve_for_all: Serving, tmp_path_factory: pytest.TempPathFactory) -> Running:
    """Two LLMs, the second of which writes more, a fuser, and a store, within the default limits."""
    from llm_blender.fusers.chat_fuser import ChatFuser

    llms = [FakeLLM("a", "Short."), FakeLLM("b", "A longer answer.")]
    store = Store(tmp_path_factory.mktemp("store") / "blend.db")
    return serve_for_all(*llms, fuser=ChatFuser(FakeLLM("f", "An answer that is made of both of them.")), store=store)
