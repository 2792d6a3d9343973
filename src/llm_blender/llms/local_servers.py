"""Servers on this machine that could answer: found by asking their usual ports, quickly and all at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx

__all__ = ["PORTS", "LocalServer", "find_local_servers"]

_OLLAMA_PORT = 11434
PORTS: Mapping[int, str] = MappingProxyType({8080: "llama.cpp", 1234: "LM Studio", 8000: "vLLM"})
"""Where servers with an OpenAI-compatible API usually listen."""


@dataclass(frozen=True)
class LocalServer:
    """A server that answered.

    Attributes:
        kind: which program usually listens there, such as ``Ollama``.
        base_url: for ``blend.toml``.
        models: whose names it knows.
    """

    kind: str
    base_url: str
    models: tuple[str, ...]


async def find_local_servers(timeout: float = 0.3, *, ports: Mapping[int, str] = PORTS) -> list[LocalServer]:
    """Ollama (where ``OLLAMA_HOST`` says, if it does), llama.cpp, LM Studio and vLLM, if they run here.

    Never raises; what does not answer within `timeout` seconds is not there.

    Args:
        timeout: in seconds, of all together.
        ports: of this machine, beside Ollama's, and which program usually listens there.
    """
    import httpx

    # A proxy for the internet has no business with this machine.
    async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
        probes = [_ollama(client, _ollama_url(os.environ.get("OLLAMA_HOST", "")))]
        probes += [_openai(client, kind, f"http://127.0.0.1:{port}") for port, kind in ports.items()]
        tasks = [asyncio.create_task(probe) for probe in probes]
        done, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    found = [task.result() for task in tasks if task in done and task.exception() is None]
    return [server for server in found if server.models]


async def _ollama(client: httpx.AsyncClient, url: str) -> LocalServer:
    models = (await client.get(f"{url}/api/tags")).json()["models"]
    return LocalServer("Ollama", f"{url}/v1", tuple(str(model["name"]) for model in models))


async def _openai(client: httpx.AsyncClient, kind: str, url: str) -> LocalServer:
    models = (await client.get(f"{url}/v1/models")).json()["data"]
    return LocalServer(kind, f"{url}/v1", tuple(str(model["id"]) for model in models))


def _ollama_url(host: str) -> str:
    """``OLLAMA_HOST`` as Ollama itself reads it: scheme and port may be missing, the host too."""
    try:
        parts = urlsplit(host if "://" in host else f"http://{host}")
        name, port = parts.hostname or "127.0.0.1", parts.port or _OLLAMA_PORT
    except ValueError:
        return f"http://127.0.0.1:{_OLLAMA_PORT}"
    if name in ("0.0.0.0", "::"):  # where the server listens, which is no place to call
        name = "127.0.0.1"
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}"
