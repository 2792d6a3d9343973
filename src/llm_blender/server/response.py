"""An `Answer` in OpenAI's words, and under `blend` in our own."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from llm_blender.ensemble import Observer
from llm_blender.errors import StoreError
from llm_blender.llms.chat_response import tool_calls_text
from llm_blender.ranking import probability_matrix
from llm_blender.server.request import Question
from llm_blender.server.schemas import BlendOptions, ChatRequest
from llm_blender.server.service import Service
from llm_blender.types import Answer, Candidate, Failure, Ranking

__all__ = ["Watch", "choices_of", "finish_reason", "head", "message", "report", "reported", "standing", "usage"]

_FINISHES = frozenset({"stop", "length", "content_filter"})


def head(kind: str, model: str) -> dict[str, Any]:
    """What every answer begins with."""
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def choices_of(answer: Answer, count: int) -> list[Candidate]:
    """The answers that a client gets, best first: what was fused, if anything was, and then the candidates."""
    ranked = [answer.candidates[i] for i in answer.ranking.order]
    if answer.mode == "fuse":
        ranked.insert(0, Candidate(answer.text, finish_reason="stop"))
    return ranked[:count]


def message(candidate: Candidate) -> dict[str, Any]:
    """A candidate as the assistant's turn."""
    text = candidate.text.strip()
    if candidate.tool_calls is None:
        return {"role": "assistant", "content": text}
    said = text.removesuffix(tool_calls_text(candidate.tool_calls)).strip()
    return {"role": "assistant", "content": said or None, "tool_calls": list(candidate.tool_calls)}


def finish_reason(candidate: Candidate) -> str:
    """Why a candidate ends."""
    if candidate.tool_calls is not None:
        return "tool_calls"
    return candidate.finish_reason if candidate.finish_reason in _FINISHES else "stop"


def usage(answer: Answer) -> dict[str, int]:
    """Tokens of all calls."""
    read, written = answer.usage.prompt_tokens, answer.usage.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def report(question: Question, answer: Answer) -> dict[str, Any]:
    """What the answer rests on."""
    values = answer.to_dict()
    del values["text"]
    if answer.fusion is not None:
        values["fusion"]["message"] = answer.fusion.message
    return {**values, "ranking": standing(answer.ranking), "seed": question.seed}


def standing(ranking: Ranking) -> dict[str, Any]:
    """A ranking, with the probability that one candidate is better than another; null where not compared."""
    matrix = probability_matrix(ranking).tolist()
    rows = [[None if math.isnan(value) else round(value, 4) for value in row] for row in matrix]
    return {**ranking.summary(), "probabilities": rows}


logger = logging.getLogger(__name__)

_NOTHING = BlendOptions()


async def reported(
    service: Service, question: Question, answer: Answer, request: ChatRequest, id: str, owner: str
) -> dict[str, Any]:
    """What the client is told under `blend`; an answer that cannot be kept is told all the same.

    Args:
        service: whose history it is.
        question: that was asked.
        answer: to it.
        request: with the client's wishes.
        id: of the completion.
        owner: who asked.
    """
    options, values = request.blend or _NOTHING, report(question, answer)
    if options.keep and service.history is not None:
        try:
            await asyncio.to_thread(service.history.keep, id, question.prompt, answer.text, values, owner=owner)
        except StoreError as error:
            logger.error("an answer was not kept: %s", error)
            values["kept"] = False
        else:
            values["kept"] = True
    if not options.candidates:
        for candidate in values["candidates"]:
            candidate.pop("text")
            candidate.pop("reasoning", None)
    return values


Listener = Callable[[Mapping[str, Any]], None]


class Watch(Observer):
    """The observer of one question.

    Args:
        service: whose counters and breakers hear of it.
        question: which.
        tell: called in the event loop with each event, a JSON object whose `event` is its kind.
        pieces: also tell what is being written, piece by piece.
    """

    def __init__(
        self, service: Service, question: Question, tell: Listener = lambda event: None, *, pieces: bool = False
    ) -> None:
        self._service, self._tell, self._pieces = service, tell, pieces
        self._quorum = question.ensemble.limits.quorum
        self._answers = 0
        self._loop = asyncio.get_running_loop()

    def started(self, models: list[str]) -> None:
        """The calls begin."""
        self._tell({"event": "started", "llms": models})

    def writing(self, call: int, text: str) -> None:
        """A call has written a piece."""
        if self._pieces:
            self._tell({"event": "writing", "call": call, "text": text})

    def wrote(self, call: int, candidate: Candidate, *, stored: bool) -> None:
        """A call has its answer: a mark for its LLM."""
        name = candidate.model or ""
        self._answers += 1
        self._service.metrics.wrote(name, candidate, stored=stored)
        if not stored:
            self._service.breakers.answered(name)
        text = {"text": candidate.text} if self._pieces else {}  # pieces may begin anew, or never have come
        self._tell(
            {"event": "wrote", "call": call, "llm": name, "seconds": candidate.seconds, "stored": stored, **text}
        )

    def failed(self, call: int, failure: Failure) -> None:
        """A call has none: a mark against its LLM."""
        self._service.metrics.failed(failure)
        cut_off = failure.reason == "timeout" and self._quorum is not None and self._answers >= self._quorum
        if not cut_off:  # one that is only slower than the others stays
            self._service.breakers.failed(failure)
        self._tell({"event": "failed", "call": call, "llm": failure.model, "reason": failure.reason})

    def comparing(self, done: int, total: int) -> None:
        """Comparisons go on. Called from another thread."""
        event = {"event": "comparing", "done": done, "total": total}
        self._loop.call_soon_threadsafe(self._tell, event)

    def fusing(self, text: str) -> None:
        """The fuser has written a piece."""
        if self._pieces:
            self._tell({"event": "fusing", "text": text})
