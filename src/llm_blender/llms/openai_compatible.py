"""LLMs behind the OpenAI chat API: Ollama, vLLM, llama.cpp, LM Studio, and the clouds."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from llm_blender.config import OpenAIConfig, Price
from llm_blender.errors import ConfigError, FailureReason, LLMError
from llm_blender.llms.api_errors import CallError
from llm_blender.llms.chat_response import ChatResponse
from llm_blender.types import Candidate, Message, OnText, Sampling, Usage

if TYPE_CHECKING:
    import ssl

    import httpx


@dataclass(frozen=True)
class Backoff:
    """Exponential pauses between the attempts of a call.

    Attributes:
        attempts: maximum attempts of a call, including the first.
        first: seconds before the second attempt; each later pause doubles.
        longest: maximum seconds of a pause, unless the server asks for more.
        jitter: returns numbers from 0 to 1; a pause is between a half and the whole of its length, so that the
            clients of a server that recovers do not all come back at once.
    """

    attempts: int = 4
    first: float = 0.5
    longest: float = 8.0
    jitter: Callable[[], float] = random.random

    def pause(self, attempt: int, least: float | None = None) -> float | None:
        """Return seconds to wait after failed `attempt` (0-based), at least `least`; None to give up."""
        if attempt + 1 >= self.attempts:
            return None
        pause = min(self.longest, self.first * 2.0**attempt) * (1 + self.jitter()) / 2
        return max(pause, least or 0.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a response's ``Retry-After``, a number or a date; None without one."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    seconds: float = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds)


VIA = "x-llm-blender-via"
"""Header with the names of the services that a call came through, separated by commas."""

_via: ContextVar[tuple[str, ...]] = ContextVar("llm_blender_via", default=())


def via_header() -> dict[str, str]:
    """Return the `VIA` header of a call; empty outside of `came_through`."""
    return {VIA: ",".join(_via.get())} if _via.get() else {}


@contextmanager
def came_through(services: tuple[str, ...]) -> Iterator[None]:
    """Add these services to the `VIA` header of calls in the ``with`` block and in tasks that begin there."""
    token = _via.set(services)
    try:
        yield
    finally:
        _via.reset(token)


logger = logging.getLogger(__name__)

_SAMPLING, _BACKOFF = Sampling(), Backoff()
_TRANSIENT: frozenset[FailureReason] = frozenset({"connection", "rate_limit", "server"})
_OPTIONAL = ("stream_options", "seed")  # some servers refuse them; the call is repeated without
_LONGEST_MESSAGE = 300  # characters
_PATIENCE = 0.05  # seconds
_LONGEST_REFUSAL = 65_536  # bytes read of it
_IDLE = 100  # connections kept for later calls


@dataclass
class _Session:
    """The connections of one event loop, and the number of calls that use them."""

    client: httpx.AsyncClient
    slots: asyncio.Semaphore
    users: int = 0


class OpenAICompatibleLLM:
    """An LLM behind a server that speaks the OpenAI chat API.

    A call is retried after a lost connection, a 429 or a 5xx, as long as its timeout allows and no part of the
    answer was handed on; this is the only layer that retries. One object works in several event loops, one after
    another or at once. Connections are closed with the last call under way; ``async with llm:`` keeps them open in
    between.

    Attributes:
        name: its name in the ensemble.
        model: name of the model on the server.
        base_url: URL up to and including ``/v1``.
        timeout: seconds for one call with its retries, without its time in the queue.
        concurrency: maximum calls at once in one event loop; others are queued.

    Args:
        name, model, base_url, timeout, concurrency: see above.
        api_key: key of the API; None if the server needs none, or if `api_key_env` is given.
        api_key_env: environment variable of the key.
        sampling: defaults for options that a call leaves None.
        system: system message for conversations without one.
        extra: further keys of the request's body, as they are.
        price: price of the tokens, for `Candidate.cost`; None if unknown.
        backoff: number of attempts and pauses between them.

    Raises:
        ConfigError: the variable `api_key_env` is not set, or the key has characters that no key has.
    """

    def __init__(
        self,
        name: str,
        model: str,
        base_url: str,
        *,
        api_key: str | None = None,
        api_key_env: str | None = None,
        sampling: Sampling = _SAMPLING,
        system: str | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: float = 60.0,
        concurrency: int = 4,
        price: Price | None = None,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        if api_key_env is not None and api_key is None:
            api_key = os.environ.get(api_key_env, "").strip()
            if not api_key:
                raise ConfigError(f"{name}: put its API key into the environment variable {api_key_env}.")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            where = api_key_env or "api_key"
            raise ConfigError(f"{name}: the key in {where} holds characters that no key has; copy it again.")
        self.name, self.model, self.base_url = name, model, base_url.rstrip("/")
        self.timeout, self.concurrency = timeout, concurrency
        self._api_key, self._api_key_env = api_key, api_key_env
        self._sampling, self._system, self._extra = sampling, system, dict(extra or {})
        self._price, self._backoff = price, backoff
        self._refused: frozenset[str] = frozenset()
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _Session] = WeakKeyDictionary()

    @classmethod
    def from_config(cls, config: OpenAIConfig) -> Self:
        """Make the LLM of an ``[[llm]]`` of ``blend.toml``.

        Raises:
            ConfigError: the environment variable of the key is not set.
        """
        return cls(
            config.name,
            config.model,
            config.base_url,
            api_key_env=config.api_key_env,
            sampling=config.sampling,
            system=config.system,
            extra=config.extra,
            timeout=config.timeout,
            concurrency=config.concurrency,
            price=config.price,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.model!r}, {self.base_url!r})"

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that its answers depend on, apart from messages and sampling; part of `call_key`."""
        return {
            "provider": "openai",
            "base_url": self.base_url,
            "model": self.model,
            "sampling": self._sampling.to_dict(),
            "system": self._system,
            "extra": self._extra,
        }

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            session = self._sessions[loop] = self._connect()
        session.users += 1
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        loop = asyncio.get_running_loop()
        session = self._sessions[loop]
        session.users -= 1
        if not session.users:
            del self._sessions[loop]
            await session.client.aclose()

    def _connect(self) -> _Session:
        import httpx

        headers = {"accept": "application/json", "content-type": "application/json", "user-agent": "llm-blender"}
        if self._api_key is not None:
            headers["authorization"] = f"Bearer {self._api_key}"
        # `generate` has the timeout and the queue.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=_IDLE)
        client = httpx.AsyncClient(headers=headers, timeout=None, limits=limits, verify=_tls(), follow_redirects=True)
        return _Session(client, asyncio.Semaphore(self.concurrency))

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        """Answer a conversation; `on_text` gets the answer as it comes, without thoughts.

        The index of the sample is added to the seed, so that samples differ.

        Raises:
            LLMError: there is no answer, for its ``reason``.
        """
        async with self:
            session = self._sessions[asyncio.get_running_loop()]
            async with session.slots:
                started = time.perf_counter()
                body = self._body(messages, sampling)
                try:
                    async with asyncio.timeout(self.timeout):
                        response = await self._persist(session.client, body, on_text)
                except TimeoutError:
                    late = f"no answer within {self.timeout:g} s; raise its `timeout`, or lower `max_tokens`"
                    raise self._error(CallError("timeout", late)) from None
                except CallError as error:
                    raise self._error(error) from None
                seconds = time.perf_counter() - started
        usage = response.usage
        return Candidate(
            text=response.text,
            model=self.name,
            reasoning=response.reasoning,
            usage=usage,
            seconds=seconds,
            cost=None if usage is None or self._price is None else self._price.cost(usage),
            finish_reason=response.finish_reason,
            tool_calls=response.tool_calls,
            refusal=response.refusal,
            extra=response.extra,
        )

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float | None:
        """Return the maximum cost of an answer in dollars; None if its price or its maximum tokens are unknown.

        The prompt counts a token per byte: no token is shorter.
        """
        body = self._body(messages, sampling)
        longest = body.get("max_completion_tokens", body.get("max_tokens"))
        if self._price is None or not isinstance(longest, int):
            return None
        return self._price.cost(Usage(len(json.dumps(body, ensure_ascii=False).encode(errors="replace")), longest))

    def _body(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        turns = list(messages)
        if self._system is not None and not any(turn["role"] == "system" for turn in turns):
            turns.insert(0, {"role": "system", "content": self._system})
        given = {key: value for key, value in sampling.to_dict().items() if value != []}
        options = {**self._sampling.to_dict(), **given}
        sample, extra = options.pop("sample"), options.pop("extra", {})
        if "seed" in options:
            options["seed"] += sample
        if not options["stop"]:
            del options["stop"]
        return {**options, **self._extra, **extra, "model": self.model, "messages": turns}

    async def _persist(self, client: httpx.AsyncClient, body: dict[str, Any], on_text: OnText | None) -> ChatResponse:
        """Call until there is an answer, a lasting failure, or no time left for another attempt."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.timeout
        attempt, handed_on = 0, False

        def emit(piece: str) -> None:
            nonlocal handed_on
            if piece and on_text is not None:
                handed_on = True
                on_text(piece)

        if on_text is not None:
            body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        while True:
            sent = {key: value for key, value in body.items() if key not in self._refused}
            try:
                return await self._call(client, sent, emit)
            except CallError as error:
                if refused := _refused_options(error, sent):
                    self._refused |= refused
                    continue
                if handed_on or error.reason not in _TRANSIENT:
                    raise
                pause = self._backoff.pause(attempt, error.retry_after)
                if pause is None or clock() + pause >= deadline:
                    raise
                logger.info("%s; again in %.1f s", self._error(error), pause)
            attempt += 1
            await asyncio.sleep(pause)

    async def _call(self, client: httpx.AsyncClient, body: dict[str, Any], emit: OnText) -> ChatResponse:
        import httpx

        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        url = f"{self.base_url}/chat/completions"
        try:
            async with client.stream("POST", url, content=content, headers=via_header()) as raw:
                blocks = raw.aiter_bytes()
                if not raw.is_success:
                    raise self._refusal(raw.status_code, raw.headers, await _server_message(blocks))
                response = ChatResponse(raw.headers.get("content-type", ""))
                while not response.done and (block := await _next(blocks)):
                    emit(response.feed(block))
                emit(response.close())
                await _finish(blocks)
                return response
        except (httpx.RequestError, httpx.InvalidURL):
            where = f"no connection to {self.base_url}; is the server running?"
            raise CallError("connection", where) from None

    def _refusal(self, status: int, headers: Mapping[str, str], message: str) -> CallError:
        match status:
            case 401 | 403 if self._api_key is None:
                return CallError("auth", f"the server wants a key; name its variable with api_key_env{message}")
            case 401 | 403:
                where = f"in {self._api_key_env}" if self._api_key_env else "that was given"
                return CallError("auth", f"the server refuses the key {where} ({status}){message}")
            case 404:
                fix = f'does {self.base_url} end in /v1, and does the server have a model "{self.model}"?'
                return CallError("not_found", f"not found (404); {fix}{message}")
            case 429:
                pause = retry_after(headers)
                wait = "" if pause is None else f"; wait {pause:.0f} s"
                return CallError("rate_limit", f"the server refuses more requests (429){wait}{message}", pause)
            case status if status >= 500:
                return CallError("server", f"the server failed ({status}){message}", retry_after(headers))
            case status:
                return CallError("bad_request", f"the server refuses the request ({status}){message}")

    def _error(self, error: CallError) -> LLMError:
        """Return the error for the user: one short line, without the key."""
        message = " ".join(str(error).split())
        if self._api_key:
            message = message.replace(self._api_key, "***")
        if len(message) > _LONGEST_MESSAGE:
            message = message[:_LONGEST_MESSAGE] + "…"
        return LLMError(self.name, error.reason, message)


@cache
def _tls() -> ssl.SSLContext:
    """Return the trusted certificates; reading them takes longer than a short call."""
    import httpx

    return httpx.create_ssl_context()


async def _server_message(blocks: AsyncIterator[bytes]) -> str:
    """Return the server's message in a refusal, after a colon; empty without one."""
    content = bytearray()
    while len(content) < _LONGEST_REFUSAL and (block := await _next(blocks)):
        content += block
    text = content.decode(errors="replace")
    try:
        body = json.loads(text)
    except ValueError:
        return f": {text}" if text.strip() else ""
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) else error
    return f": {message}" if message else ""


async def _finish(blocks: AsyncIterator[bytes]) -> None:
    """Read what may follow the answer, mostly nothing: a connection is reused only if its response was read to the end.

    Give up on a server that is slow to end or goes on writing.
    """
    with suppress(CallError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await _next(blocks)


async def _next(blocks: AsyncIterator[bytes]) -> bytes:
    """Return the next bytes; none at the end."""
    import httpx

    try:
        return await anext(blocks, b"")
    except httpx.RequestError as error:
        message = f"the connection broke during the answer ({type(error).__name__})"
        raise CallError("connection", message) from None


def _refused_options(error: CallError, body: Mapping[str, Any]) -> set[str]:
    if error.reason != "bad_request":
        return set()
    return {option for option in _OPTIONAL if option in body and option in str(error)}
