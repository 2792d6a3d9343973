import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llm_blender.llms import providers
from llm_blender.llms.local_servers import LocalServer, find_local_servers
from llm_blender.testing import FakeOpenAIServer


@pytest.fixture(autouse=True)
def nothing_else_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What really runs on the machine of the tests is no part of them."""
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")


@pytest.fixture
def ollama() -> Iterator[ThreadingHTTPServer]:
    class Ollama(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/api/tags": b'{"models": [{"name": "llama3.2:3b"}, {"name": "qwen3:4b"}]}'}.get(self.path)
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ollama) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def find(timeout: float = 5.0, ports: dict[int, str] | None = None) -> list[LocalServer]:
    return asyncio.run(find_local_servers(timeout, ports=ports or {}))


def test_nothing_runs() -> None:
    assert find() == []


def test_ollama_where_its_variable_says(ollama: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", f"0.0.0.0:{ollama.server_port}")
    url = f"http://127.0.0.1:{ollama.server_port}/v1"
    assert find() == [LocalServer("Ollama", url, ("llama3.2:3b", "qwen3:4b"))]


def test_ollama_behind_the_api_of_openai_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOpenAIServer(models=["qwen3"]) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.base_url.removesuffix("/v1"))
        assert find() == [LocalServer("Ollama", server.base_url, ("qwen3",))]


def test_others_and_a_port_where_something_else_listens(ollama: ThreadingHTTPServer) -> None:
    with FakeOpenAIServer(models=["a", "b"]) as server, FakeOpenAIServer(models=[]) as empty:
        ports = [int(each.base_url.split(":")[-1].removesuffix("/v1")) for each in (server, empty)]
        others = {ports[0]: "llama.cpp", ports[1]: "LM Studio", ollama.server_port: "vLLM", 9: "x"}
        assert find(ports=others) == [LocalServer("llama.cpp", server.base_url, ("a", "b"))]


def test_a_server_that_hangs_costs_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = FakeOpenAIServer()  # listens, but nobody serves
    with silent._server:
        monkeypatch.setenv("OLLAMA_HOST", silent.base_url.removesuffix("/v1"))
        started = time.perf_counter()
        assert find(0.1) == []
        assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("gpu-box", "http://gpu-box:11434"),
        ("gpu-box:8000", "http://gpu-box:8000"),
        (":8000", "http://127.0.0.1:8000"),
        ("https://gpu-box:443/", "https://gpu-box:443"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("what:is:this", "http://127.0.0.1:11434"),
    ],
)
def test_the_spellings_of_ollama_host(host: str, url: str) -> None:
    assert providers.ollama_url(host) == url
