"""API keys, and the middleware that checks the key, the host and the size of every request."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_blender.config import ServerConfig
from llm_blender.errors import ConfigError
from llm_blender.llms.openai_compatible import VIA, came_through
from llm_blender.server.errors import RefusedError, error_response
from llm_blender.server.playground import PATHS
from llm_blender.server.service import OWNER, Service
from llm_blender.server.status import OPEN

_HASH = re.compile(r"[0-9a-f]{64}")


class Keys:
    """The API keys of the clients, as SHA-256 hashes; without any, no request needs a key.

    Args:
        hashes: the hashes, in hex.
    """

    def __init__(self, hashes: Iterable[str] = ()) -> None:
        self._hashes = [bytes.fromhex(value) for value in hashes]

    @classmethod
    def of(cls, config: ServerConfig, environment: Mapping[str, str], folder: Path) -> Self:
        """Read the keys of the environment and of the file.

        Raises:
            ConfigError: the file cannot be read or holds anything but SHA-256 hashes, or one of the two holds no key.
        """
        given = environment.get(config.keys_env)
        keys = [key.strip() for key in (given or "").split(",") if key.strip()]
        if given is not None and not keys:
            raise ConfigError(f"{config.keys_env} is set and holds no key: put one there, or unset it.")
        hashes = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
        if config.keys_file is not None:
            hashes += _read(folder / Path(config.keys_file).expanduser())
        return cls(hashes)

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def owner(self, authorization: bytes) -> str | None:
        """Derive the client's name from a header ``Authorization: Bearer KEY``, in constant time; None: unknown key."""
        scheme, _, key = authorization.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        known = [hmac.compare_digest(digest, each) for each in self._hashes]
        return digest.hex()[:16] if scheme.lower() == b"bearer" and any(known) else None


def is_loopback(host: str) -> bool:
    """Check whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the file of keys cannot be read ({error}).") from None
    hashes = []
    for number, line in enumerate(lines, start=1):
        word = line.partition("#")[0].strip().lower()
        if word and not _HASH.fullmatch(word):
            raise ConfigError(f"{path}, line {number}: this is not a SHA-256 in hex; `sha256sum` makes one from a key.")
        if word:
            hashes.append(word)
    if not hashes:
        raise ConfigError(f"{path}: the file holds no key; each line is the SHA-256 of one, in hex.")
    return hashes


_PORT = re.compile(r":\d+$")
_MOST_SERVICES = 4  # maximum number of ensembles that a request passes
_PUBLIC = OPEN | PATHS
_NO_GUESSING = (b"x-content-type-options", b"nosniff")


class AuthMiddleware:
    """ASGI middleware that refuses requests before they reach a route, and counts all of them.

    Args:
        app: the application behind it.
        service: the service, with its limits and counters.
        keys: API keys of the clients. Without any, a request must name this machine as its host, which keeps pages in a
            browser from reaching the service under another name (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, service: Service, keys: Keys) -> None:
        self._app, self._service, self._keys = app, service, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), _NO_GUESSING]
            await send(message)

        try:
            await self._enter(scope, receive, send_noting_status)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._service.metrics.served(route, status, time.perf_counter() - started)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        via = tuple(name for name in headers.get(VIA.encode(), b"").decode("latin-1").split(",") if name)
        try:
            self._check(scope["path"], headers, via)
        except RefusedError as refusal:
            await error_response(refusal)(scope, receive, send)
            return
        most, taken = self._service.config.max_body, 0

        async def receive_bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"The body is longer than {most} bytes.")
            return message

        scope[OWNER] = self._keys.owner(headers.get(b"authorization", b"")) or ""
        with came_through((*via, self._service.name)):
            await self._app(scope, receive_bounded, send)

    def _check(self, path: str, headers: dict[bytes, bytes], via: tuple[str, ...]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._keys and not is_loopback(_PORT.sub("", host)):
            raise RefusedError(
                403, "wrong_host", f"Without keys, this service answers on loopback only, not as {host!r}."
            )
        if self._keys and path not in _PUBLIC and self._keys.owner(headers.get(b"authorization", b"")) is None:
            raise RefusedError(
                401, "invalid_api_key", "Send one of this service's keys as `Authorization: Bearer KEY`."
            )
        if self._service.name in via:
            raise RefusedError(400, "loop", "This ensemble is one of its own LLMs: take it out of them.")
        if len(via) >= _MOST_SERVICES:
            raise RefusedError(400, "loop", f"This request passed {len(via)} ensembles, which is taken for a loop.")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._service.config.max_body:
            raise RefusedError(413, "too_large", f"The body is longer than {self._service.config.max_body} bytes.")
