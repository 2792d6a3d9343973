"""LLMs behind the OpenAI chat API: Ollama, vLLM, llama.cpp, LM Studio, and the clouds."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import astuple, dataclass
from typing import Any, Self
from urllib.parse import urljoin
from weakref import WeakKeyDictionary

from llm_blender.config import OpenAIConfig, Price
from llm_blender.errors import ConfigError, FailureReason, LLMError
from llm_blender.llms.api_errors import CallError, classify, is_unpaid, read_error
from llm_blender.llms.chat_response import ChatResponse
from llm_blender.llms.http_client import ClosedError, HttpClient, Response
from llm_blender.llms.pacing import Backoff, BusyError, Load, Pacer, Place, retry_after, was_queued
from llm_blender.llms.refused_keys import TWINS, Changes
from llm_blender.types import Candidate, Message, OnText, Sampling, Usage

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
_PATH = "/chat/completions"
_TRANSIENT: frozenset[FailureReason] = frozenset({"connection", "rate_limit", "server"})
_OVERLOADED = frozenset({503, 529})  # statuses that close a server for a while, as a 429 does
_LONGEST_MESSAGE = 300  # characters
_LONGEST_REFUSAL = 65_536  # bytes read of it
_TAIL = 2.0  # seconds for what may follow the end of an answer, such as its usage
_MOST_CHANGES = 16  # of one request, because its server refuses keys
_BYTES_A_TOKEN, _USUAL_TOKENS = 4, 500  # of an English prompt; of an answer


@dataclass
class _Session:
    """The connections of one event loop, and the number of calls that use them."""

    client: HttpClient
    users: int = 0


@dataclass
class _Output:
    """The receiver of a call's text.

    Attributes:
        on_text: gets the text; None drops it.
        begun: whether a part of the answer was handed on.
        failed: the last failed attempt of the call; None if none has failed.
        usage: tokens of the attempt under way, as far as its server has counted them.
        spent: tokens of the attempts before it; None if none was counted.
    """

    on_text: OnText | None
    begun: bool = False
    failed: CallError | None = None
    usage: Usage | None = None
    spent: Usage | None = None

    def emit(self, piece: str) -> None:
        """Hand the next piece of the text on."""
        if piece and self.on_text is not None:
            self.begun = True
            self.on_text(piece)


class OpenAICompatibleLLM:
    """An LLM behind a server that speaks the OpenAI chat API.

    A call is retried after a lost connection, a 429 or a 5xx, as long as its timeout allows and no part of the
    answer was handed on; this is the only layer that retries. A refusal (429, 503) holds all calls back, see `Pacer`.
    A key that the server refuses is left out or renamed, in later calls, too; a warning names it once.

    One object works in several event loops, one after another or at once. Connections are closed with the last call
    under way; ``async with llm:`` keeps them open in between.

    Attributes:
        name: its name in the ensemble.
        model: name of the model on the server.
        base_url: URL up to and including ``/v1``.
        timeout: seconds for one call with its retries, without its time in the queue; also the maximum seconds that it
            waits because of refusals and rates.
        concurrency: maximum calls at once in one event loop; others are queued.
        streamed: whether the last answer was a stream; None before the first one.

    Args:
        name: see above.
        model: see above.
        base_url: see above.
        timeout: see above.
        concurrency: see above.
        api_key: key of the API; None if the server needs none, or if `api_key_env` is given.
        api_key_env: environment variable of the key.
        sampling: defaults for options that a call leaves None.
        system: system message for conversations without one.
        extra: further keys of the request's body, as they are; they replace those of a call.
        rpm: maximum calls a minute, spread evenly; None is no limit.
        tpm: maximum tokens a minute of prompts and answers, likewise.
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
        rpm: float | None = None,
        tpm: float | None = None,
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
        self.streamed: bool | None = None
        self._api_key, self._api_key_env = api_key, api_key_env
        self._sampling, self._system, self._extra = sampling, system, dict(extra or {})
        self._price, self._backoff, self._rpm, self._tpm = price, backoff, rpm, tpm
        self._changes = Changes()
        self._last_refusal: CallError | None = None  # of any call
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _Session] = WeakKeyDictionary()
        self._pacers: WeakKeyDictionary[asyncio.AbstractEventLoop, Pacer] = WeakKeyDictionary()

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
            rpm=config.rpm,
            tpm=config.tpm,
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

    @property
    def load(self) -> Load:
        """The calls in the running event loop; all places are free where none runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return Load(self.concurrency)
        return self._pacers[loop].load if loop in self._pacers else Load(self.concurrency)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            session = self._sessions[loop] = _Session(self._connect())
        session.users += 1
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        loop = asyncio.get_running_loop()
        session = self._sessions[loop]
        session.users -= 1
        if not session.users:
            del self._sessions[loop]
            await session.client.close()

    def _connect(self) -> HttpClient:
        headers = {"accept": "application/json", "content-type": "application/json", "user-agent": "llm-blender"}
        if self._api_key is not None:
            headers["authorization"] = f"Bearer {self._api_key}"
        return HttpClient(self.base_url, _PATH, headers)

    def _pacer(self) -> Pacer:
        loop = asyncio.get_running_loop()
        if (pacer := self._pacers.get(loop)) is None:
            pacer = self._pacers[loop] = Pacer(self.concurrency, rpm=self._rpm, tpm=self._tpm, backoff=self._backoff)
        return pacer

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling = _SAMPLING, *, on_text: OnText | None = None
    ) -> Candidate:
        """Answer a conversation; `on_text` gets the answer as it comes, without thoughts.

        The index of the sample is added to the seed, so that samples differ.

        Raises:
            LLMError: there is no answer, for its ``reason``. It is the cause of the `asyncio.CancelledError` of a call
                that is cancelled after a failed attempt, or while a refusal holds it back.
        """
        body, output = self._body(messages, sampling), _Output(on_text)
        if on_text is not None:
            body = {"stream": True, "stream_options": {"include_usage": True}, **body}
        try:
            async with self:
                response, seconds = await self._persist(body, output)
        except CallError as error:
            error.usage = _sum(output.spent, error.usage)
            raise self._error(error) from None
        except asyncio.CancelledError as cancelled:
            failed = output.failed or (self._refusal_of_all() if was_queued(cancelled) else None)
            raise cancelled from (None if failed is None else self._error(failed))
        usage = _sum(output.spent, response.usage)
        return Candidate(
            text=response.text,
            model=self.name,
            reasoning=response.reasoning,
            usage=usage,
            seconds=seconds,
            cost=self._cost(usage),
            finish_reason=response.finish_reason,
            tool_calls=response.tool_calls,
            refusal=response.refusal,
            extra=response.extra,
        )

    def most_cost(self, messages: Sequence[Message], sampling: Sampling = _SAMPLING) -> float | None:
        """Return the maximum cost of an answer in dollars; None if its price or its maximum tokens are unknown.

        The prompt counts a token per byte: no token is shorter. A price of zero needs no maximum.
        """
        if self._price is not None and not (self._price.input or self._price.output):
            return 0.0
        body = self._changes.apply(self._body(messages, sampling))
        longest = _most_tokens(body)
        if self._price is None or longest is None:
            return None
        return self._price.cost(Usage(_size(body), longest))

    def _body(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        turns = list(messages)
        if self._system is not None and not any(turn["role"] in ("system", "developer") for turn in turns):
            turns.insert(0, {"role": "system", "content": self._system})
        given = {key: value for key, value in sampling.to_dict().items() if value != []}
        options = {**self._sampling.to_dict(), **given}
        sample, extra = options.pop("sample"), options.pop("extra", {})
        if "seed" in options:
            options["seed"] += sample
        if not options["stop"]:
            del options["stop"]
        body = {**options, **extra, **self._extra}
        if all(twin in body for twin in TWINS):  # servers refuse both at once
            kept = next((twin for keys in (self._extra, extra) for twin in TWINS if twin in keys), TWINS[0])
            body = {key: value for key, value in body.items() if key not in TWINS or key == kept}
        return {**body, "model": self.model, "messages": turns}

    async def _persist(self, body: dict[str, Any], output: _Output) -> tuple[ChatResponse, float]:
        """Call until there is an answer, a lasting failure, or no time left; return the answer and its seconds."""
        clock, pacer = time.perf_counter, self._pacer()
        tokens = _size(body) / _BYTES_A_TOKEN + (_most_tokens(body) or _USUAL_TOKENS)
        left, patience = self.timeout, self.timeout  # seconds with the server, and in the queue after a refusal
        attempt, refused = 0, False
        began: float | None = None
        while True:
            queued = clock()
            try:
                async with pacer.place(tokens=tokens, patience=patience, first=refused) as place:
                    sent = clock()
                    patience -= sent - queued if refused else 0.0
                    began = sent if began is None else began
                    try:
                        return await self._attempt(place, body, output, left), clock() - began
                    finally:
                        left -= clock() - sent
            except BusyError as busy:
                full = f"its server accepts no more calls for now; the wait is {busy.wait:.0f} s"
                raise CallError("rate_limit", full, busy.wait, own=False) from None
            except CallError as error:
                output.failed, output.usage = error, None
                pause, counts = self._pause(error, attempt)
                refused = _is_refusal(error)
                if refused:
                    pause = None if pause is None else pacer.load.closed_for
                    error.retry_after = error.retry_after or pacer.load.closed_for
                if pause is None or output.begun or pause >= (patience if refused else left):
                    raise
                logger.info("%s; again in %.1f s", self._error(error), pause)
                output.spent = _sum(output.spent, error.usage)
            attempt += counts
            if not refused:  # else it waits in the queue, as all calls do
                left -= pause
                await asyncio.sleep(pause)

    def _pause(self, error: CallError, attempt: int) -> tuple[float | None, bool]:
        """Return the seconds before a failed call is tried again, None to give up; and whether that is an attempt."""
        if error.reason not in _TRANSIENT:
            return None, True
        if _is_refusal(error) and error.retry_after is not None:
            return error.retry_after, False
        pause = self._backoff.pause(attempt, error.retry_after)
        return 0.0 if pause is not None and isinstance(error, ClosedError) and not attempt else pause, True

    async def _attempt(self, place: Place, body: dict[str, Any], output: _Output, seconds: float) -> ChatResponse:
        """Make a call that has a place, and report to its pacer how it ends."""
        try:
            async with asyncio.timeout(seconds):
                response = await self._adapt(body, output)
        except TimeoutError:
            late = f"no answer within {self.timeout:g} s"
            error = CallError("timeout", f"{late}; raise its `timeout`, or lower `max_tokens`", public=late)
            error.usage = output.usage  # it is paid for
            raise error from None
        except CallError as error:
            if _is_refusal(error):
                self._last_refusal = error
                place.refuse(error.retry_after, too_many=error.reason == "rate_limit")
            raise
        place.succeed(None if response.usage is None else sum(astuple(response.usage)))
        return response

    def _refusal_of_all(self) -> CallError | None:
        """Return why the calls in the queue are held back; None if no refusal does it."""
        last, closed_for = self._last_refusal, self._pacer().load.closed_for
        if last is None or not closed_for:
            return None
        return CallError(last.reason, str(last), closed_for, own=False, public=last.public)

    async def _adapt(self, body: dict[str, Any], output: _Output) -> ChatResponse:
        """Make a call without the keys that the server refuses; learn which these are."""
        for _ in range(_MOST_CHANGES):
            sent = self._changes.apply(body)
            try:
                return await self._call(sent, output)
            except CallError as error:
                if output.begun or error.error is None:
                    raise
                changes = self._changes.after(error.error, sent)
                if changes is not None:
                    for words, differs in changes.added_to(self._changes):
                        level = logging.WARNING if differs else logging.INFO
                        logger.log(
                            level, "%s: its server refuses a part of the request: %s from now on", self.name, words
                        )
                    self._changes = changes
                elif self._changes.apply(body) == sent:  # no other call has learned it meanwhile
                    raise
        return await self._call(self._changes.apply(body), output)

    async def _call(self, body: dict[str, Any], output: _Output) -> ChatResponse:
        client = self._sessions[asyncio.get_running_loop()].client
        async with client.post(_json(body), via_header()) as raw:
            if not 200 <= raw.status < 300:
                raise await self._refusal(raw)
            response = ChatResponse(raw.headers.get("content-type", ""))
            try:
                try:
                    await _read(raw, response, output)
                except CallError as error:
                    if error.reason != "connection" or not response.has_end:
                        raise
                output.emit(response.close())
            except CallError as error:
                error.usage = response.usage  # it is paid for
                raise
            await raw.finish()
            self.streamed = response.streamed
            return response

    async def _refusal(self, raw: Response) -> CallError:
        """Return the error of a response without an answer."""
        if 300 <= raw.status < 400:
            location = raw.headers.get("location")
            if not location:
                return CallError(
                    "not_found", f"the server sends the call to another URL ({raw.status}) and does not name it"
                )
            target = urljoin(f"{self.base_url}{_PATH}", location).rstrip("/").removesuffix(_PATH)
            moved = f"moved to {target}: put that into its base_url ({raw.status})"
            return CallError("not_found", moved, public="its server has moved to another URL")
        content = bytearray()
        with suppress(CallError):  # the status alone says enough
            async with aclosing(raw.blocks()) as blocks:
                async for block in blocks:
                    content += block
                    if len(content) >= _LONGEST_REFUSAL:
                        break
        error = read_error(content[:_LONGEST_REFUSAL], raw.status)
        reason, status = classify(error), raw.status
        wait = retry_after(raw.headers)
        words = f": {error.message}" if error.message else ""
        match reason:
            case "auth" if is_unpaid(error):
                message = public = f"its account has no credit ({status}){words}"
            case "auth" if self._api_key is None:
                public = "its server wants a key"
                message = f"the server wants a key; name its variable with api_key_env{words}"
            case "auth":
                where = f"in {self._api_key_env}" if self._api_key_env else "that was given"
                message, public = f"the server refuses the key {where} ({status}){words}", "its server refuses its key"
            case "not_found":
                fix = f'does {self.base_url} end in /v1, and does the server have a model "{self.model}"?'
                message, public = f"not found ({status}); {fix}{words}", f"its model was not found ({status})"
            case "rate_limit":
                seconds = error.retry_after if wait is None else wait
                least = "" if seconds is None else f"; wait {seconds:.0f} s"
                message = public = f"the server refuses more requests ({status}){least}{words}"
            case "server":
                message = public = f"the server failed ({status}){words}"
            case _:
                message = public = f"the server refuses the request ({status}){words}"
        own = reason not in ("bad_request", "rate_limit")
        return CallError(reason, message, wait, error=error, own=own, public=public)

    def _error(self, error: CallError) -> LLMError:
        """Return the error for the user: one short line, without the key."""
        message, public = self._line(str(error)), self._line(_without_places(error.public or str(error)))
        own = error.own and error.reason not in ("bad_request", "rate_limit")
        cost = 0.0 if error.usage is None else self._cost(error.usage)
        return LLMError(
            self.name,
            error.reason,
            message,
            public=public,
            retry_after=error.retry_after,
            own=own,
            usage=error.usage,
            cost=cost,
        )

    def _cost(self, usage: Usage | None) -> float | None:
        return None if usage is None or self._price is None else self._price.cost(usage)

    def _line(self, text: str) -> str:
        line = " ".join(text.split())
        if self._api_key:
            line = line.replace(self._api_key, "***")
        return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + "…"


async def _read(raw: Response, response: ChatResponse, output: _Output) -> None:
    """Read an answer; do not wait for long after its end, because some servers never close the stream."""
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as tail, aclosing(raw.blocks()) as blocks:
            size = -1
            async for block in blocks:
                output.emit(response.feed(block))
                output.usage = response.usage
                if response.done:
                    break
                if response.has_end and response.size > size:  # some servers name an end in every chunk
                    size = response.size
                    tail.reschedule(asyncio.get_running_loop().time() + _TAIL)


def _is_refusal(error: CallError) -> bool:
    """Return whether a server accepts no calls for a while."""
    return error.reason == "rate_limit" or (error.error is not None and error.error.status in _OVERLOADED)


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    return other if one is None else one if other is None else one + other


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _size(body: Mapping[str, Any]) -> int:
    """Return the bytes of a request's body, as most of them are of its messages."""
    return len(json.dumps(body, ensure_ascii=False).encode(errors="replace"))


def _most_tokens(body: Mapping[str, Any]) -> int | None:
    """Return the maximum tokens of an answer, under either name; None without one."""
    longest = next((body[twin] for twin in TWINS if twin in body), None)
    return longest if isinstance(longest, int) else None


_PLACES = re.compile(
    r"\b[a-z][a-z0-9+.-]*://\S+|(?<![\w.:/])~?(?:/[\w.@-]+){2,}/?|\b[A-Za-z]:\\\S+"
    r"|\$?\b[A-Z][A-Z0-9_]*_(?:KEY|TOKEN|SECRET|PASSWORD|PASS|AUTH|CREDENTIALS)\b"
)


def _without_places(text: str) -> str:
    """Replace URLs, paths of files, and names of environment variables for keys."""
    return _PLACES.sub("…", text)
