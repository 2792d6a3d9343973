"""What the service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llm_blender.types import Answer, Candidate, Failure

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter("blend_requests", "HTTP requests.", ["route", "status"], registry=registry)
        self._seconds = Histogram(
            "blend_request_seconds", "Duration of HTTP requests.", ["route"], registry=registry, buckets=_SECONDS
        )
        self._calls = Counter(
            "blend_llm_calls", "Answers asked for, by what came of them.", ["llm", "outcome"], registry=registry
        )
        self._call_seconds = Histogram(
            "blend_llm_seconds", "Duration of the LLMs' answers.", ["llm"], registry=registry, buckets=_SECONDS
        )
        self._tokens = Counter("blend_tokens", "Tokens read and written by LLMs.", ["kind"], registry=registry)
        self._cost = Counter("blend_cost_dollars", "Known costs of answers.", registry=registry)
        self._answers = Counter("blend_answers", "Answers, by mode.", ["mode", "degraded"], registry=registry)
        self._aside = Gauge("blend_llm_set_aside", "Whether an LLM is set aside.", ["llm"], registry=registry)
        self._comparisons = Counter("blend_comparisons", "Ordered pairs compared.", registry=registry)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show a value that changes by itself."""
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def watch_llm(self, llm: str, aside: Callable[[], bool]) -> None:
        """Show whether an LLM is set aside."""
        self._aside.labels(llm).set_function(lambda: float(aside()))

    def served(self, route: str, status: int, seconds: float) -> None:
        """A request is over."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def wrote(self, llm: str, candidate: Candidate, *, stored: bool) -> None:
        """An LLM gave an answer."""
        self._calls.labels(llm, "stored" if stored else "answer").inc()
        if not stored and candidate.seconds is not None:
            self._call_seconds.labels(llm).observe(candidate.seconds)

    def failed(self, failure: Failure) -> None:
        """An LLM gave none."""
        self._calls.labels(failure.model, failure.reason).inc()

    def answered(self, answer: Answer) -> None:
        """The ensemble gave an answer."""
        self._answers.labels(answer.mode, str(answer.degraded).lower()).inc()
        self._comparisons.inc(answer.ranking.comparisons)
        self._tokens.labels("prompt").inc(answer.usage.prompt_tokens)
        self._tokens.labels("completion").inc(answer.usage.completion_tokens)
        self._cost.inc(answer.cost or 0.0)

    def page(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
