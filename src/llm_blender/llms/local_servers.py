"""Detection of LLM servers on this machine, and the models of any server with an OpenAI-compatible API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llm_blender.config import is_loopback
from llm_blender.llms.providers import PROVIDERS

if TYPE_CHECKING:
    import httpx

PORTS: Mapping[int, str] = MappingProxyType(
    {urlsplit(each.url).port or 80: each.title for each in PROVIDERS.values() if each.local and each.name != "ollama"}
)
"""Usual ports of servers with an OpenAI-compatible API."""
_OWNERS = {"llamacpp": "llama.cpp", "vllm": "vLLM"}  # programs that name themselves, whatever their port
_OWN = "llm-blender"  # `blend serve`, which must not become a member of itself


@dataclass(frozen=True)
class LocalServer:
    """A running server.

    Attributes:
        kind: program that usually listens on its port, such as ``Ollama``, or that the server names.
        base_url: for ``blend.toml``.
        models: names of the models that it serves.
    """

    kind: str
    base_url: str
    models: tuple[str, ...]


async def find_local_servers(timeout: float = 0.3, *, ports: Mapping[int, str] = PORTS) -> list[LocalServer]:
    """Find Ollama (at ``OLLAMA_HOST`` if set), llama.cpp, LM Studio and vLLM on this machine.

    Never raises; a server that does not answer within `timeout` seconds is left out, and so is `blend serve`.

    Args:
        timeout: seconds for all probes together.
        ports: further ports than Ollama's, with the program that usually listens there.
    """
    import httpx

    # Requests to this machine must not go through a proxy.
    async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
        probes = [_ollama(client, PROVIDERS["ollama"].base_url)]
        probes += [_openai(client, kind, f"http://127.0.0.1:{port}/v1") for port, kind in ports.items()]
        tasks = [asyncio.create_task(probe) for probe in probes]
        done, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    found = [task.result() for task in tasks if task in done and task.exception() is None]
    return [server for server in found if server.models]


async def list_models(base_url: str, api_key: str | None = None, *, timeout: float = 2.0) -> tuple[str, ...]:
    """List the models of a server; empty if it does not say within `timeout` seconds.

    Raises:
        PermissionError: the server refuses the key.
    """
    import httpx

    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    if urlsplit(base_url).hostname == "api.anthropic.com":  # its list has the headers of its own API
        headers |= {"x-api-key": api_key or "", "anthropic-version": "2023-06-01"}
    here = is_loopback(urlsplit(base_url).hostname or "")
    try:
        async with (
            asyncio.timeout(timeout),
            httpx.AsyncClient(trust_env=not here, timeout=timeout, headers=headers) as client,
        ):
            before, mark, query = base_url.partition("?")  # Azure has its version there
            response = await client.get(f"{before.rstrip('/')}/models{mark}{query}")
            if response.status_code == 401:  # after a 403, the key may still be good for chats
                raise PermissionError(response.status_code)
            return tuple(str(model["id"]).removeprefix("models/") for model in response.json()["data"])
    except PermissionError:
        raise
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, LookupError, TypeError):
        return ()


async def _ollama(client: httpx.AsyncClient, base_url: str) -> LocalServer:
    response = await client.get(f"{base_url.removesuffix('/v1')}/api/tags")
    if response.status_code == 404:  # another program on its port, or a proxy that knows only the API of OpenAI
        return await _openai(client, "Ollama", base_url)
    return LocalServer("Ollama", base_url, tuple(str(model["name"]) for model in response.json()["models"]))


async def _openai(client: httpx.AsyncClient, kind: str, base_url: str) -> LocalServer:
    models = (await client.get(f"{base_url}/models")).json()["data"]
    owners = {str(model.get("owned_by")) for model in models}
    kind = next((_OWNERS[owner] for owner in sorted(owners) if owner in _OWNERS), kind)
    return LocalServer(kind, base_url, tuple(str(model["id"]) for model in models if model.get("owned_by") != _OWN))
