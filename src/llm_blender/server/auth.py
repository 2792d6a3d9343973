"""API keys, and the middleware that checks the key, the host, the origin and the size of every request."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_blender.config import ServerConfig, is_loopback
from llm_blender.errors import ConfigError
from llm_blender.llms.openai_compatible import VIA, came_through
from llm_blender.server.errors import REQUEST_ID, RefusedError, error_response
from llm_blender.server.playground import PATHS
from llm_blender.server.service import OWNER, Service
from llm_blender.server.status import OPEN

_HASH = re.compile(r"[0-9a-f]{64}")
# A command without its key makes one of these.
_BLANKS = frozenset(
    hashlib.sha256("".join(blanks).encode()).hexdigest()
    for length in range(4)
    for blanks in itertools.product(" \t\r\n", repeat=length)
)


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
        return digest.hex()[:16] if scheme.lower() == b"bearer" and key.strip() and any(known) else None


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the file of keys cannot be read ({error}).") from None
    hashes = []
    for number, line in enumerate(lines, start=1):
        word = line.partition("#")[0].strip().lower()
        if word and not _HASH.fullmatch(word):
            raise ConfigError(f"{path}, line {number}: this is not a SHA-256 in hex; `sha256sum` makes one from a key.")
        if word in _BLANKS:
            raise ConfigError(f"{path}, line {number}: this is the SHA-256 of no key, but of an empty or blank text.")
        if word:
            hashes.append(word)
    if not hashes:
        raise ConfigError(f"{path}: the file holds no key; each line is the SHA-256 of one, in hex.")
    return hashes


_PORT = re.compile(r":\d+$")
_TOKEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_SERVICES = 4  # maximum number of ensembles that a request passes
_PUBLIC = OPEN | PATHS
_API = ("/v1/", "/v2/")
_NO_GUESSING = (b"x-content-type-options", b"nosniff")
_EXPOSED = (b"access-control-expose-headers", b"x-request-id, retry-after")
_PREFLIGHT = {
    "access-control-allow-methods": "GET, HEAD, POST, DELETE",
    "access-control-max-age": "600",
}


class AuthMiddleware:
    """ASGI middleware that refuses requests before they reach a route, gives each an id, and counts all of them.

    HEAD is answered as GET is, without the body.

    Args:
        app: the application behind it.
        service: the service, with its limits and counters.
        keys: API keys of the clients. Without any, a request must name this machine as its host, and a page in a
            browser must be the service's own or one of `ServerConfig.origins`: other pages cannot reach the service,
            neither directly nor under another name (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, service: Service, keys: Keys) -> None:
        self._app, self._service, self._keys = app, service, keys
        self._origins = frozenset(service.config.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _joined(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        id = given if _TOKEN.fullmatch(given) else uuid.uuid4().hex
        more = [_NO_GUESSING, (b"x-request-id", id.encode()), *self._cors(headers)]
        started, status, head = time.perf_counter(), 0, scope["method"] == "HEAD"
        if head:
            scope = {**scope, "method": "GET"}

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *more]
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        token = REQUEST_ID.set(id)
        try:
            await self._enter(scope, headers, receive, send_more)
        except Exception as error:
            if status:
                raise
            await error_response(error)(scope, receive, send_more)
        finally:
            REQUEST_ID.reset(token)
            route = getattr(scope.get("route"), "path", "unmatched")
            self._service.metrics.served(route, status or 500, time.perf_counter() - started)

    async def _enter(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        via = tuple(name for name in headers.get(VIA.encode(), b"").decode("latin-1").split(",") if name)
        self._check_browser(scope, headers)
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers and self._cors(headers):
            await Response(status_code=204, headers=_preflight(headers))(scope, receive, send)
            return
        scope[OWNER] = self._check_key(scope, headers)
        self._check(headers, via)
        most, taken = self._service.config.max_body, 0

        async def receive_bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"The body is longer than {most} bytes.")
            return message

        with came_through((*via, self._service.name)):
            await self._app(scope, receive_bounded, send)

    def _cors(self, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """Return the headers that let a page of an allowed origin read the response; none for other requests."""
        origin = headers.get(b"origin")
        if origin is None or not self._origins & {origin.decode("latin-1"), "*"}:
            return []
        return [(b"access-control-allow-origin", origin), (b"vary", b"Origin"), _EXPOSED]

    def _check_browser(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Refuse, without keys, another host, and requests of pages of another origin."""
        if self._keys:
            return
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not is_loopback(_PORT.sub("", host)):
            raise RefusedError(
                403, "wrong_host", f"Without keys, this service answers on loopback only, not as {host!r}."
            )
        if self._cors(headers) or (scope["path"] in _PUBLIC and scope["method"] == "GET"):
            return
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        foreign = (
            origin.partition("://")[2] != host
            if origin
            else b"cross-site" in headers.get(b"sec-fetch-site", b"").lower()
        )
        if foreign:
            raise RefusedError(
                403,
                "wrong_origin",
                f"Without keys, this service answers pages of its own only, not of {origin or 'another site'!r}; "
                "`origins` of [server] allows others.",
            )

    def _check_key(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Return the name of the client; refuse a request for the API without one of the keys."""
        owner = self._keys.owner(headers.get(b"authorization", b""))
        if owner is None and self._keys and _is_closed(scope):
            raise RefusedError(
                401, "invalid_api_key", "Send one of this service's keys as `Authorization: Bearer KEY`, once."
            )
        return owner or ""

    def _check(self, headers: dict[bytes, bytes], via: tuple[str, ...]) -> None:
        if self._service.name in via:
            raise RefusedError(400, "loop", "This ensemble is one of its own LLMs: take it out of them.")
        if len(via) >= _MOST_SERVICES:
            raise RefusedError(400, "loop", f"This request passed {len(via)} ensembles, which is taken for a loop.")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._service.config.max_body:
            raise RefusedError(413, "too_large", f"The body is longer than {self._service.config.max_body} bytes.")


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Join the values of headers that come more than once, as HTTP has it: no host, origin or key matches them then."""
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        joined[name] = joined[name] + b", " + value if name in joined else value
    return joined


def _is_closed(scope: Scope) -> bool:
    """Check whether a path needs a key: that of the API, or of a route that is not public."""
    path = scope["path"]
    if path in _PUBLIC:
        return False
    routes = scope["app"].router.routes
    return path.startswith(_API) or any(route.matches(scope)[0] != Match.NONE for route in routes)


def _preflight(headers: dict[bytes, bytes]) -> dict[str, str]:
    """Return the headers that allow a page's request; one with a key has to name its headers."""
    names = headers.get(b"access-control-request-headers", b"*").decode("latin-1")
    private = b"access-control-request-private-network" in headers
    more = {"access-control-allow-private-network": "true"} if private else {}
    return {**_PREFLIGHT, "access-control-allow-headers": names, **more}
