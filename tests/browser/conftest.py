"""The playground in a real Chromium, around LLMs on loopback that write slowly enough to be watched."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import expect, sync_playwright

from llm_blender.config import ServerConfig
from llm_blender.ensemble import Ensemble, Limits, Member
from llm_blender.fusers.chat_fuser import ChatFuser
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.server import create_app
from llm_blender.server.auth import Keys
from llm_blender.store import Store
from llm_blender.testing import FakeLLM, FakeOpenAIServer, FakeRanker, FakeReply
from llm_blender.types import LLM

PHONE = {"width": 390, "height": 844}
QUESTION = "Why is the sky blue?"
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Texts:
    """What is answered, the later the longer: the better, for the ranker."""

    short = "Because."
    long = "The air scatters short waves more strongly than long ones, and blue is short."
    markup = "It <img src=x onerror=\"document.title='broken'\"> is <b>scattered</b> light & nothing else, see."
    fused = f"{long} At sunset the way is longer, and red is left. This is called Rayleigh scattering, and well known."


@pytest.fixture
def texts() -> type[Texts]:
    return Texts


@pytest.fixture
def ask() -> Callable[..., None]:
    """Puts a question."""

    def put(page: Any, question: str = QUESTION) -> None:
        page.fill("#question", question)
        page.click("#go")

    return put


@pytest.fixture
def answered() -> Callable[..., None]:
    """Waits for the answer of the last of so many turns."""

    def wait(page: Any, turns: int = 1) -> None:
        expect(page.locator(".turn")).to_have_count(turns)
        expect(page.locator(".turn").last.locator(".facts")).to_be_visible(timeout=20_000)

    return wait


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium. While it lives, Playwright's loop runs in this thread, where no other test could run one."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: `apt-get install chromium`, or name one in CHROMIUM")
    expect.set_options(timeout=20_000)  # a busy machine is slow
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., Any]]:
    """Opens pages; what a page says on its console, or throws, fails the test."""
    said: list[str] = []
    with contextlib.ExitStack() as stack:

        def open_(url: str, **options: Any) -> Any:
            context = browser.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 900}), **options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(20_000)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(url)
            return page

        yield open_
    planted = ("401", "404", "TrustedHTML", "TrustedTypePolicy", "Trusted Type", "ERR_FAILED")  # what tests provoke
    assert [text for text in said if not any(word in text for word in planted)] == []


@pytest.fixture
def playground(tmp_path: Path, serve_app: Callable[[contextlib.ExitStack, Any], str]) -> Iterator[Callable[..., str]]:
    """Starts services, and gives the address of their page."""
    with contextlib.ExitStack() as stack:

        def serve(*llms: LLM, keys: Keys | None = None, fuser: ChatFuser | None = None, **more: Any) -> str:
            made = llms or slow_llms(stack)
            ensemble = Ensemble(
                [Member(llm) for llm in made],
                FakeRanker(lambda text: len(text) / 100),
                limits=Limits(deadline=20),
                store=Store(tmp_path / "blend.db"),
                fuser=fuser,
                **more,
            )
            app = create_app(ensemble, ServerConfig(), keys)
            return f"{serve_app(stack, app)}/"

        yield serve


def slow_llms(stack: contextlib.ExitStack) -> list[LLM]:
    """Three behind an API that write word by word, and one that fails."""
    llms: list[LLM] = []
    for name, text in (("llama", Texts.short), ("qwen", Texts.long), ("gemma", Texts.markup)):
        api = stack.enter_context(FakeOpenAIServer([FakeReply(text, drip=0.1)]))
        llms.append(OpenAICompatibleLLM(name, "fake", api.base_url))
    return [*llms, FakeLLM("down", errors="auth")]


@pytest.fixture
def fuser() -> ChatFuser:
    return ChatFuser(FakeLLM("writer", Texts.fused))


@pytest.fixture
def echo() -> tuple[FakeLLM, list[Any]]:
    """An LLM that repeats the last question, and its calls."""
    llm = FakeLLM("echo", lambda messages, sampling: f"You wrote: {messages[-1]['content']}")
    return llm, llm.calls


@pytest.fixture
def long_llms() -> list[LLM]:
    """Three that write long answers with code, the last one the longest."""
    code = "```python\ndef double(x):\n    return 2 * x  # twice, as a long comment that needs some place\n```\n\n"
    paragraph = "Some **words** about `it`, with a [link](https://example.org). " * 8
    text = f"## Why\n\n{code}{paragraph}\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    return [FakeLLM(name, text * (3 + i), delay=0.3) for i, name in enumerate(("first", "second", "third"))]


@pytest.fixture
def instant_llms() -> list[LLM]:
    """Three with a short answer each."""
    return [FakeLLM("llama", Texts.short), FakeLLM("qwen", Texts.long), FakeLLM("gemma", f"{Texts.long} So it is.")]
