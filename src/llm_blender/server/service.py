"""The state that the routes share: ensemble, admission, circuit breakers, metrics and history."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request

from llm_blender.config import ServerConfig
from llm_blender.ensemble import Ensemble
from llm_blender.errors import ConfigError, unknown_name
from llm_blender.history import History
from llm_blender.llms.openai_compatible import OpenAICompatibleLLM
from llm_blender.server.errors import RefusedError
from llm_blender.server.limits import Admission, CircuitBreakers
from llm_blender.types import Answer, Candidate, Failure, Usage

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Prometheus counters of one service."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter("blend_requests", "HTTP requests.", ["route", "status"], registry=registry)
        self._seconds = Histogram(
            "blend_request_seconds", "Duration of HTTP requests.", ["route"], registry=registry, buckets=_SECONDS
        )
        self._calls = Counter("blend_llm_calls", "Calls of LLMs, by outcome.", ["llm", "outcome"], registry=registry)
        self._call_seconds = Histogram(
            "blend_llm_seconds", "Duration of the LLMs' answers.", ["llm"], registry=registry, buckets=_SECONDS
        )
        self._tokens = Counter("blend_tokens", "Tokens read and written by LLMs.", ["kind"], registry=registry)
        self._cost = Counter("blend_cost_dollars", "Known costs of answers.", registry=registry)
        self._answers = Counter("blend_answers", "Answers, by mode.", ["mode", "degraded"], registry=registry)
        self.set_aside = Gauge("blend_llm_set_aside", "Whether an LLM is set aside.", ["llm"], registry=registry)
        self._comparisons = Counter("blend_comparisons", "Ordered pairs compared.", registry=registry)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Export a value that changes by itself."""
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def served(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def wrote(self, llm: str, candidate: Candidate, *, stored: bool) -> None:
        """Count an answer of an LLM."""
        self._calls.labels(llm, "stored" if stored else "answer").inc()
        if not stored and candidate.seconds is not None:
            self._call_seconds.labels(llm).observe(candidate.seconds)

    def failed(self, failure: Failure) -> None:
        """Count a failure of an LLM."""
        self._calls.labels(failure.model, failure.reason).inc()

    def answered(self, answer: Answer) -> None:
        """Count an answer of the ensemble, with its tokens and its cost."""
        self._answers.labels(answer.mode, str(answer.degraded).lower()).inc()
        self._comparisons.inc(answer.ranking.comparisons)
        self.paid(answer.usage, answer.cost)

    def paid(self, usage: Usage | None, cost: float | None) -> None:
        """Count tokens and dollars; None for unknown ones."""
        self._tokens.labels("prompt").inc(usage.prompt_tokens if usage else 0)
        self._tokens.labels("completion").inc(usage.completion_tokens if usage else 0)
        self._cost.inc(cost or 0.0)

    def page(self) -> bytes:
        """Render all counters in the text format of Prometheus."""
        return generate_latest(self.registry)


_T = TypeVar("_T")
_CONVERSATIONS = frozenset({"messages", "input", "instruction", "instructions", "prompt", "query"})
_MOST_VALUES = 100_000  # of one key of a body
_MOST_KEYS = 1000  # of a body
PRESETS = ("blend", "blend-fast", "blend-best")
"""Values of `model` that mean the ensemble: as configured, for a quick answer, and for the best answer."""
OWNER = "llm_blender.owner"
"""Key of a request's scope that holds the name of the client; the name is empty without API keys."""


class Service:
    """One ensemble behind HTTP.

    Args:
        ensemble: the ensemble that answers.
        config: limits of the service.

    Attributes:
        name: id that distinguishes this service from others in the headers of its calls.
        llms: names of the LLMs.
        admission: the queue of requests.
        breakers: the circuit breakers of the LLMs.
        metrics: the counters.
        history: answers and votes of the playground; None without a store, or without the playground.
        loaded: whether the ranker, the judge and the fuser are loaded.

    Raises:
        ConfigError: an LLM has a name that means the ensemble.
    """

    def __init__(self, ensemble: Ensemble, config: ServerConfig) -> None:
        self.ensemble, self.config = ensemble, config
        self.name = uuid.uuid4().hex[:12]
        self.llms = [member.llm.name for member in ensemble.members]
        for name in PRESETS:
            if name in self.llms:
                raise ConfigError(f"An LLM is named {name}, which means the ensemble: give it another name.")
        self.admission = admission = Admission(config.concurrency, config.queue, places(ensemble))
        self.breakers = CircuitBreakers(self.llms, config.failures, config.set_aside)
        self.metrics = Metrics()
        self.metrics.watch("blend_running", "Requests at work.", lambda: admission.running)
        self.metrics.watch("blend_waiting", "Requests waiting.", lambda: admission.admitted - admission.running)
        for name in self.llms:
            self.metrics.set_aside.labels(name).set_function(partial(self.breakers.is_open, name))
        store = ensemble.store
        self.history = History(store) if config.playground and store is not None else None
        self.loaded = False

    @classmethod
    def of(cls, request: Request) -> Service:
        """Return the service of a request."""
        service: Service = request.app.state.service
        return service

    def check_model(self, name: str) -> None:
        """Refuse a name that means neither the ensemble nor an LLM.

        Raises:
            RefusedError: the name is unknown.
        """
        known = [*PRESETS, *self.llms]
        if name not in known:
            raise RefusedError(404, "model_not_found", str(unknown_name("model", name, known)), param="model")

    def check_body(self, body: Any) -> None:
        """Refuse a body of too many parts, or with a conversation that is too long, before each part is validated.

        Raises:
            RefusedError: there are too many, or it is too long.
        """
        if isinstance(body, dict) and len(body) > _MOST_KEYS:
            raise RefusedError(400, "too_many", f"A request has at most {_MOST_KEYS} keys.")
        for key, value in body.items() if isinstance(body, dict) else ():
            if isinstance(value, list) and key in _CONVERSATIONS and len(value) > self.config.max_messages:
                raise RefusedError(
                    400, "too_many", f"A request has at most {self.config.max_messages} messages.", param=key
                )
            values, chars = _measure(value)
            if values > _MOST_VALUES:
                raise RefusedError(400, "too_many", f"A request has at most {_MOST_VALUES} values.", param=key)
            if key in _CONVERSATIONS and chars > self.config.max_chars:
                raise RefusedError(
                    400,
                    "too_long",
                    f"This has {chars} characters; the maximum is {self.config.max_chars}.",
                    param=key,
                )

    def check_texts(self, texts: Iterable[str], param: str, most: int | None = None) -> None:
        """Refuse too many texts, or texts that are too long.

        Args:
            texts: the texts.
            param: their key in the body.
            most: maximum number; None takes that of candidates.

        Raises:
            RefusedError: there are too many, or one is too long.
        """
        most = most or self.config.max_candidates
        for count, text in enumerate(texts, start=1):
            if count > most:
                raise RefusedError(400, "too_many", f"A request ranks at most {most} texts.", param=param)
            if len(text) > self.config.max_chars:
                raise RefusedError(
                    400,
                    "too_long",
                    f"Text {count - 1} has {len(text)} characters; the maximum is {self.config.max_chars}.",
                    param=param,
                )


def _measure(value: Any) -> tuple[int, int]:
    """Return the number of values inside a JSON value, itself included, and the number of characters of its texts."""
    values, chars, left = 0, 0, [value]
    while left:
        each = left.pop()
        values += 1
        if isinstance(each, str):
            chars += len(each)
        elif isinstance(each, dict):
            left.extend(each.values())
        elif isinstance(each, list):
            left.extend(each)
    return values, chars


def places(ensemble: Ensemble) -> dict[str, int]:
    """Return the maximum number of calls at once by LLM, for those that have one."""
    llms = [member.llm for member in ensemble.members]
    return {llm.name: llm.concurrency for llm in llms if isinstance(llm, OpenAICompatibleLLM)}


def most_at_once(ensemble: Ensemble) -> int | None:
    """Return the number of requests that all LLMs can take at once; None if no LLM has a maximum."""
    at_once = places(ensemble)
    limited = [member for member in ensemble.members if member.llm.name in at_once]
    takes = sorted((max(1, at_once[member.llm.name] // member.samples) for member in limited), reverse=True)
    quorum = ensemble.settings.limits.quorum or len(ensemble.members)
    needed = min(quorum - (len(ensemble.members) - len(limited)), len(limited))
    return takes[needed - 1] if needed > 0 else None


def owner(request: Request) -> str:
    """Return the name of the client, who owns the history."""
    name: str = request.scope[OWNER]
    return name


async def unless_gone(request: Request, task: asyncio.Task[_T]) -> _T:
    """Wait for the result of a task; cancel it if the client goes away.

    Raises:
        RefusedError: the client is gone.
    """
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RefusedError(499, "client_gone", "The client went away.")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
