"""Detection of LLM servers on this machine: probe their usual ports concurrently."""

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

_OLLAMA_PORT = 11434
PORTS: Mapping[int, str] = MappingProxyType({8080: "llama.cpp", 1234: "LM Studio", 8000: "vLLM"})
"""Usual ports of servers with an OpenAI-compatible API."""


@dataclass(frozen=True)
class LocalServer:
    """A running server.

    Attributes:
        kind: program that usually listens on its port, such as ``Ollama``.
        base_url: for ``blend.toml``.
        models: names of the models that it serves.
    """

    kind: str
    base_url: str
    models: tuple[str, ...]


async def find_local_servers(timeout: float = 0.3, *, ports: Mapping[int, str] = PORTS) -> list[LocalServer]:
    """Find Ollama (at ``OLLAMA_HOST`` if set), llama.cpp, LM Studio and vLLM on this machine.

    Never raises; a server that does not answer within `timeout` seconds is left out.

    Args:
        timeout: seconds for all probes together.
        ports: further ports than Ollama's, with the program that usually listens there.
    """
    import httpx

    # Requests to this machine must not go through a proxy.
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
    """Parse ``OLLAMA_HOST`` as Ollama does: scheme, port and host are each optional."""
    try:
        parts = urlsplit(host if "://" in host else f"http://{host}")
        name, port = parts.hostname or "127.0.0.1", parts.port or _OLLAMA_PORT
    except ValueError:
        return f"http://127.0.0.1:{_OLLAMA_PORT}"
    if name in ("0.0.0.0", "::"):  # an address to listen on, not to connect to
        name = "127.0.0.1"
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}"
