"""Turn an answer of the ensemble into OpenAI's JSON, with its details under `blend`, and its progress into events."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from llm_blender.conversations import tool_calls_text
from llm_blender.ensemble import Observer
from llm_blender.errors import StoreError
from llm_blender.ranking import probability_matrix
from llm_blender.server.errors import public_failure
from llm_blender.server.request import Question
from llm_blender.server.service import Service
from llm_blender.types import Answer, Candidate, Failure, Ranking

logger = logging.getLogger(__name__)

_SOON = 0.05  # share of the deadline
_FINISHES = frozenset({"stop", "length", "content_filter"})


def complete(question: Question, answer: Answer) -> Answer:
    """Add the LLMs that were left out to the failures."""
    failures = (*question.left_out, *answer.failures)
    return replace(answer, failures=failures, degraded=answer.degraded or bool(question.left_out))


def head(kind: str, model: str, prefix: str = "chatcmpl-") -> dict[str, Any]:
    """Make the keys that every object of OpenAI's API begins with, and a new id."""
    return {"id": f"{prefix}{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def fingerprint(service: Service) -> str:
    """Return the same `system_fingerprint` for the same LLMs and version of this package."""
    return _fingerprint(*service.llms)


@cache
def _fingerprint(*names: str) -> str:
    return "fp_" + hashlib.sha256("\0".join((version("llm-blender"), *names)).encode()).hexdigest()[:12]


def choices_of(answer: Answer, count: int) -> list[Candidate]:
    """List the answers for the client, best first: the fused text, if it is the answer, then the candidates."""
    ranked = [answer.candidates[i] for i in answer.ranking.order]
    if answer.mode == "fuse":
        ranked.insert(0, Candidate(answer.text, finish_reason="stop"))
    return ranked[:count]


def message(candidate: Candidate) -> dict[str, Any]:
    """Render a candidate as a turn of the assistant, with all keys that its API may need back on the next turn."""
    text: str | None = candidate.text.strip()
    turn: dict[str, Any] = {}
    if candidate.reasoning is not None:
        turn["reasoning_content"] = candidate.reasoning
    if candidate.refusal is not None:
        text, turn["refusal"] = None, candidate.refusal
    if candidate.tool_calls is not None:
        text = (text or "").removesuffix(tool_calls_text(candidate.tool_calls)).strip() or None
        turn["tool_calls"] = list(candidate.tool_calls)
    further = {key: value for key, value in (candidate.extra or {}).items() if key not in _OWN}
    return {"role": "assistant", "content": text, **further, **turn}


_OWN = frozenset({"role", "content", "tool_calls", "reasoning_content", "refusal"})


def finish_reason(candidate: Candidate) -> str:
    """Return why a candidate ends, as one of OpenAI's reasons."""
    if candidate.tool_calls is not None:
        return "tool_calls"
    return candidate.finish_reason if candidate.finish_reason in _FINISHES else "stop"


def usage(answer: Answer) -> dict[str, int]:
    """Count the tokens of all calls."""
    read, written = answer.usage.prompt_tokens, answer.usage.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def ranking_json(ranking: Ranking) -> dict[str, Any]:
    """Render a ranking with the probability that one candidate is better than another; null if not compared."""
    return {**_public(ranking.summary(), ranking), "probabilities": _probabilities(ranking)}


def _public(summary: dict[str, Any], ranking: Ranking) -> dict[str, Any]:
    """Replace the failure of a judge by what a client may read of it."""
    judging = None if ranking.evidence is None else ranking.evidence.judging
    if judging is not None and judging.failure is not None:
        summary["evidence"]["judging"]["failure"] = public_failure(judging.failure)
    return summary


def _probabilities(ranking: Ranking) -> list[list[float | None]]:
    matrix = probability_matrix(ranking).tolist()
    return [[None if math.isnan(value) else round(value, 4) for value in row] for row in matrix]


async def blend_json(service: Service, question: Question, answer: Answer, id: str, owner: str) -> dict[str, Any]:
    """Render the details of an answer, and add them to the history if the request says so.

    An answer that cannot be written to the history is logged and returned all the same, with `kept` false.

    Args:
        service: the service, whose history it is.
        question: the question.
        answer: its answer.
        id: id of the completion.
        owner: name of the client.
    """
    values = {**answer.to_dict(), "seed": question.seed}
    values["ranking"] = ranking_json(answer.ranking)
    values["failures"] = [public_failure(failure) for failure in answer.failures]
    del values["text"]
    if question.ignored:
        values["ignored"] = list(question.ignored)
    if answer.fusion is not None:
        values["fusion"]["message"] = answer.fusion.message
    if question.options.keep and service.history is not None:
        keep = partial(service.history.keep, settings=question.given, owner=owner)
        try:
            await asyncio.to_thread(keep, id, question.prompt, answer.text, values)
        except StoreError as error:
            logger.error("an answer was not kept: %s", error)
            values["kept"] = False
        else:
            values["kept"] = True
    if not question.options.candidates:
        for part in (*values["candidates"], *values["failures"]):
            for key in ("text", "reasoning", "refusal", "tool_calls", "extra"):
                part.pop(key, None)
    return values


class Events(Observer):
    """An observer of one question: it counts calls, updates the circuit breakers, and sends events to the client.

    Args:
        service: the service, with its counters and circuit breakers.
        question: the question.
        send: called in the event loop with each event, a JSON object whose `event` is its kind.
        on_text: called in the event loop with each piece of text that an LLM writes.
    """

    def __init__(
        self,
        service: Service,
        question: Question,
        send: Callable[[Mapping[str, Any]], None] = lambda event: None,
        on_text: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._service, self._send, self._on_text = service, send, on_text
        self._quorum, self._pieces = question.settings.limits.quorum, question.options.watch
        self._answered = set[str]()
        self._loop = asyncio.get_running_loop()
        usual, own = service.ensemble.settings, question.settings
        narrower = own.limits.deadline < usual.limits.deadline or (own.mode != "pick" and usual.mode == "pick")
        whole = not narrower and time.monotonic() - question.begun < _SOON * usual.limits.deadline
        names = [member.llm.name for member in question.members]
        # An LLM without a word in the whole time hangs; no other time-out at the deadline is its fault.
        self._may_hang = {name for name in names if whole and service.admission.has_room(name)}
        self._heard: set[int] = set()
        self._probes = {name for name in names if service.breakers.probe(name)}

    def started(self, models: list[str]) -> None:
        """Send the names of the LLMs."""
        self._send({"event": "started", "llms": models})

    def writing(self, call: int, text: str) -> None:
        """Send a piece of text if the client watches."""
        self._heard.add(call)
        if self._pieces:
            self._send({"event": "writing", "call": call, "text": text})
        self._on_text(text)

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        """Count an answer, and close the circuit breaker of its LLM."""
        name = candidate.model or ""
        self._answered.add(name)
        self._service.metrics.wrote(name, candidate, stored=stored)
        self._service.admission.call_ended(name, usual=not stored)
        if not stored:
            self._probes.discard(name)
            self._service.breakers.succeeded(name)
        text = {"text": candidate.text} if self._pieces else {}  # pieces may begin anew, or never have come
        self._send(
            {"event": "wrote", "call": call, "llm": name, "seconds": candidate.seconds, "stored": stored, **text}
        )

    def failed(self, call: int, failure: Failure) -> None:
        """Count a failure, also in the circuit breaker of its LLM."""
        self._service.metrics.failed(failure)
        self._service.admission.call_ended(failure.model, usual=failure.own)
        enough = self._quorum is not None and len(self._answered) >= self._quorum  # the others are only slower
        hangs = failure.reason == "timeout" and failure.model in self._may_hang and call not in self._heard
        counted = replace(failure, own=True) if hangs and not enough else failure
        self._service.breakers.failed(counted, probe=failure.model in self._probes)
        self._probes.discard(failure.model)
        self._send({"event": "failed", "call": call, "llm": failure.model, "reason": failure.reason})

    def ended(self) -> None:
        """Give back the attempts at LLMs that were set aside, where a call ended without a result."""
        for name in self._probes:
            self._service.breakers.release(name)

    def comparing(self, done: int, total: int) -> None:
        """Send the number of comparisons. Called from another thread."""
        event = {"event": "comparing", "done": done, "total": total}
        self._loop.call_soon_threadsafe(self._send, event)

    def fusing(self, text: str) -> None:
        """Send a piece of the fused text if the client watches."""
        if self._pieces:
            self._send({"event": "fusing", "text": text})
