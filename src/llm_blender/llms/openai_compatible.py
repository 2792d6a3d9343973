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
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from llm_blender.config import OpenAIConfig, Price
from llm_blender.errors import ConfigError, FailureReason, LLMError
from llm_blender.llms.chat_response import CallError, ChatResponse
from llm_blender.types import Candidate, Message, OnText, Sampling, Usage

if TYPE_CHECKING:
    import ssl

    import httpx

__all__ = ["VIA", "Backoff", "OpenAICompatibleLLM", "came_through", "retry_after", "via_header"]


@dataclass(frozen=True)
class Backoff:
    """Exponential pauses between the attempts of a call.

    Attributes:
        attempts: how often a call is tried, the first time included.
        first: seconds before the second attempt; each later pause doubles.
        longest: most seconds of a pause, but for one that the server asks for.
        jitter: gives numbers from 0 to 1; a pause is between a half and the whole of its length, so that the
            callers of a server that recovers do not all come back at once.
    """

    attempts: int = 4
    first: float = 0.5
    longest: float = 8.0
    jitter: Callable[[], float] = random.random

    def pause(self, attempt: int, asked: float | None = None) -> float | None:
        """Seconds to wait after failed `attempt` (0-based), at least `asked`; None to give up."""
        if attempt + 1 >= self.attempts:
            return None
        pause = min(self.longest, self.first * 2.0**attempt) * (1 + self.jitter()) / 2
        return max(pause, asked or 0.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response's ``Retry-After`` asks for, as a number or a date; None if it does not."""
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
"""The header: names of services, separated by commas."""

_via: ContextVar[tuple[str, ...]] = ContextVar("llm_blender_via", default=())


def via_header() -> dict[str, str]:
    """The header of a call that is made now; empty outside of `came_through`."""
    return {VIA: ",".join(_via.get())} if _via.get() else {}


@contextmanager
def came_through(services: tuple[str, ...]) -> Iterator[None]:
    """Calls made inside, and in the tasks that begin inside, name these services."""
    token = _via.set(services)
    try:
        yield
    finally:
        _via.reset(token)


logger = logging.getLogger(__name__)

_SAMPLING, _BACKOFF = Sampling(), Backoff()
_TRANSIENT: frozenset[FailureReason] = frozenset({"connection", "rate_limit", "server"})
_OPTIONAL = ("stream_options", "seed")  # some servers refuse them; the call is worth making without
_LONGEST_MESSAGE = 300  # characters
_PATIENCE = 0.05  # seconds
_LONGEST_REFUSAL = 65_536  # bytes of it that are read
_IDLE = 100  # connections that are kept for the next call


@dataclass
class _Session:
    """What belongs to one event loop: its connections, and how many calls use them."""

    client: httpx.AsyncClient
    slots: asyncio.Semaphore
    users: int = 0


class OpenAICompatibleLLM:
    """An LLM behind a server that speaks the OpenAI chat API.

    A call is tried again after a lost connection, a 429 or a 5xx, as long as its timeout allows and nothing
    of the answer was handed on; this is the only layer that does so. The same object works in several event
    loops, one after another or at once. Connections are closed with the last call that is under way;
    ``async with llm:`` keeps them open in between.

    Attributes:
        name: its name in the ensemble.
        model: the name under which the server knows the model.
        base_url: up to and including ``/v1``.
        timeout: seconds for one call with its retries, counted from when it has one of the free places.
        concurrency: most calls at once in one event loop; others wait for their turn.

    Args:
        name: see above, as `model`, `base_url`, `timeout` and `concurrency`.
        model: see above.
        base_url: see above.
        api_key: None if the server wants no key, or if `api_key_env` is given.
        api_key_env: the environment variable that holds the key.
        sampling: used where a call's own sampling says None.
        system: system message for conversations that bring none.
        extra: further keys for the request's body, as they are.
        timeout: see above.
        concurrency: see above.
        price: for `Candidate.cost`; None if unknown.
        backoff: how often and when a call is tried again.

    Raises:
        ConfigError: the variable `api_key_env` is not set, or the key cannot be one.
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
        """From an ``[[llm]]`` of ``blend.toml``.

        Raises:
            ConfigError: the variable that should hold the key is not set.
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
        """What its answers depend on besides messages and sampling; for `call_key`."""
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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        # Time is kept by `generate` alone, and calls wait for their turn there.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=_IDLE)
        client = httpx.AsyncClient(headers=headers, timeout=None, limits=limits, verify=_tls(), follow_redirects=True)
        return _Session(client, asyncio.Semaphore(self.concurrency))

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        """Answer a conversation; `on_text` gets the answer as it comes, without thoughts.

        A seed is counted up by the index of the sample, so that samples differ.

        Raises:
            LLMError: there is no answer; ``reason`` says why.
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
        )

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float | None:
        """Dollars that an answer costs at most; None where the price or the most tokens of an answer are unknown.

        No token is shorter than a byte.
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
        """Call until there is an answer, a lasting fault, or no time left for another attempt."""
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
                    raise self._refusal(raw.status_code, raw.headers, await _said(blocks))
                response = ChatResponse(raw.headers.get("content-type", ""))
                while not response.done and (block := await _next(blocks)):
                    emit(response.feed(block))
                emit(response.close())
                await _finish(blocks)
                return response
        except (httpx.RequestError, httpx.InvalidURL):
            where = f"no connection to {self.base_url}; is the server running?"
            raise CallError("connection", where) from None

    def _refusal(self, status: int, headers: Mapping[str, str], said: str) -> CallError:
        match status:
            case 401 | 403 if self._api_key is None:
                return CallError("auth", f"the server wants a key; name its variable with api_key_env{said}")
            case 401 | 403:
                where = f"in {self._api_key_env}" if self._api_key_env else "that was given"
                return CallError("auth", f"the server refuses the key {where} ({status}){said}")
            case 404:
                fix = f'does {self.base_url} end in /v1, and has the server a model "{self.model}"?'
                return CallError("not_found", f"not found (404); {fix}{said}")
            case 429:
                asked = retry_after(headers)
                wait = "" if asked is None else f", asks to wait {asked:.0f} s"
                return CallError("rate_limit", f"the server is asked too much (429){wait}{said}", asked)
            case status if status >= 500:
                return CallError("server", f"the server failed ({status}){said}", retry_after(headers))
            case status:
                return CallError("bad_request", f"the server refuses the request ({status}){said}")

    def _error(self, error: CallError) -> LLMError:
        """For the user: one line of bearable length, without the key."""
        message = " ".join(str(error).split())
        if self._api_key:
            message = message.replace(self._api_key, "***")
        if len(message) > _LONGEST_MESSAGE:
            message = message[:_LONGEST_MESSAGE] + "…"
        return LLMError(self.name, error.reason, message)


@cache
def _tls() -> ssl.SSLContext:
    """The certificates that are trusted: reading them takes longer than a short call."""
    import httpx

    return httpx.create_ssl_context()


async def _said(blocks: AsyncIterator[bytes]) -> str:
    """What a refusal says, to be put behind other words."""
    content = bytearray()
    while len(content) < _LONGEST_REFUSAL and (block := await _next(blocks)):
        content += block
    text = content.decode(errors="replace")
    try:
        body = json.loads(text)
    except ValueError:
        return f": {text}" if text.strip() else ""
    said = body.get("error", body) if isinstance(body, dict) else body
    said = said.get("message") if isinstance(said, dict) else said
    return f": {said}" if said else ""


async def _finish(blocks: AsyncIterator[bytes]) -> None:
    """Read what may follow the answer, mostly nothing: a connection is used again if its response was read to the end.

    A server that lets one wait for it, or goes on writing, is not waited for.
    """
    with suppress(CallError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await _next(blocks)


async def _next(blocks: AsyncIterator[bytes]) -> bytes:
    """The next bytes, none at the end."""
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
