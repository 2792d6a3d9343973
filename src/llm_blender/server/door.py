"""What every request passes first: its key, its size, where it comes from; and where it is counted."""

from __future__ import annotations

import re
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_blender.llms.openai_compatible import VIA, came_through
from llm_blender.server.keys import Keys, is_loopback
from llm_blender.server.playground import PATHS
from llm_blender.server.problems import RefusedError, problem
from llm_blender.server.service import OWNER, Service
from llm_blender.server.status import OPEN

__all__ = ["Door"]

_PORT = re.compile(r":\d+$")
_MOST_SERVICES = 4  # that a request comes through
_UNLOCKED = OPEN | PATHS
_NO_GUESSING = (b"x-content-type-options", b"nosniff")


class Door:
    """ASGI middleware.

    Args:
        app: what is behind the door.
        service: whose door it is.
        keys: of those who may come in; without any, only requests that name this machine as their host may, so that
            no page in a browser can be made to ask under another name.
    """

    def __init__(self, app: ASGIApp, service: Service, keys: Keys) -> None:
        self._app, self._service, self._keys = app, service, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or send it away, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), _NO_GUESSING]
            await send(message)

        try:
            await self._enter(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._service.metrics.served(route, status, time.perf_counter() - started)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        via = tuple(name for name in headers.get(VIA.encode(), b"").decode("latin-1").split(",") if name)
        try:
            self._check(scope["path"], headers, via)
        except RefusedError as refusal:
            await problem(refusal)(scope, receive, send)
            return
        most, taken = self._service.config.max_body, 0

        async def measured() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"The body is longer than {most} bytes.")
            return message

        scope[OWNER] = self._keys.owner(headers.get(b"authorization", b"")) or ""
        with came_through((*via, self._service.name)):
            await self._app(scope, measured, send)

    def _check(self, path: str, headers: dict[bytes, bytes], via: tuple[str, ...]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._keys and not is_loopback(_PORT.sub("", host)):
            raise RefusedError(
                403, "wrong_host", f"Without keys, this service answers on loopback alone, not as {host!r}."
            )
        if self._keys and path not in _UNLOCKED and not self._keys.know(headers.get(b"authorization", b"")):
            raise RefusedError(
                401, "invalid_api_key", "Send one of this service's keys as `Authorization: Bearer KEY`."
            )
        if self._service.name in via:
            raise RefusedError(400, "loop", "This ensemble was asked by itself: take it out of its own LLMs.")
        if len(via) >= _MOST_SERVICES:
            raise RefusedError(
                400, "loop", f"This request came through {len(via)} ensembles: that is taken for a circle."
            )
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._service.config.max_body:
            raise RefusedError(413, "too_large", f"The body is longer than {self._service.config.max_body} bytes.")
