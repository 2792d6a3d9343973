"""`/v1/chat/completions`: the ensemble as if it were one model, answered as JSON or as a stream of events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from llm_blender.errors import NoAnswerError
from llm_blender.server.errors import BodyRoute, error_body
from llm_blender.server.request import Question, read_question
from llm_blender.server.response import (
    Events,
    blend_json,
    choices_of,
    complete,
    fingerprint,
    finish_reason,
    head,
    message,
    usage,
)
from llm_blender.server.schemas import ChatCompletion, ChatRequest
from llm_blender.server.service import Service, owner, unless_gone
from llm_blender.types import Answer, Candidate

router = APIRouter(route_class=BodyRoute)

DONE = b"data: [DONE]\n\n"
"""Last event of a stream of chunks."""
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
_RESPONSE = {
    "model": ChatCompletion,
    "description": "The answer; with `stream`, the events of OpenAI's streams.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


@router.post("/v1/chat/completions", responses={200: _RESPONSE})
async def chat(body: ChatRequest, request: Request) -> Response:
    """Ask the LLMs, rank their answers, return the best one or what is fused from the best ones."""
    service = Service.of(request)
    question = read_question(service, body)
    if body.stream:
        return stream_answer(service, question, owner(request), _Chunks(question, fingerprint(service)))
    answer = await whole_answer(request, service, question)
    choices = [
        {"index": index, "message": message(candidate), "logprobs": None, "finish_reason": finish_reason(candidate)}
        for index, candidate in enumerate(choices_of(answer, question.choices))
    ]
    begin = {**head("chat.completion", question.model), "system_fingerprint": fingerprint(service)}
    blend = await blend_json(service, question, answer, begin["id"], owner(request))
    return JSONResponse({**begin, "choices": choices, "usage": usage(answer), "blend": blend})


def admit(service: Service, question: Question, work: Callable[[], Awaitable[Answer]]) -> asyncio.Task[Answer]:
    """Answer a question as soon as the service and the LLMs have a place for it.

    Raises:
        RefusedError: the queue is full, or the wait would be too long.
    """
    calls = {member.llm.name: member.samples for member in question.members}
    limits = question.settings.limits
    return service.admission.begin(work, limits.deadline, calls, enough=limits.quorum)


async def whole_answer(request: Request, service: Service, question: Question) -> Answer:
    """Answer a question whose client waits for the whole answer.

    Raises:
        RefusedError: the queue is full, the deadline has passed, or the client is gone.
        InputError, NoAnswerError: as for `answer_question`.
    """

    async def work() -> Answer:
        return await answer_question(service, question, Events(service, question))

    answer = await unless_gone(request, admit(service, question, work))
    service.metrics.answered(answer)
    return answer


async def answer_question(service: Service, question: Question, events: Events) -> Answer:
    """Answer a question with the ensemble, in the time that its wait in the queue has left.

    Raises:
        InputError: the prompt is empty, or there is a maximum cost and an LLM without a price.
        NoAnswerError: no LLM gave an answer.
    """
    limits = question.settings.limits
    left = max(0.0, limits.deadline - (time.monotonic() - question.begun))
    try:
        answer = await service.ensemble.aask(
            question.prompt,
            seed=question.seed,
            observer=events,
            settings=replace(question.settings, limits=replace(limits, deadline=left, total=left)),
            members=question.members,
            fuser=question.fuser,
            cache=question.cache,
            form=question.form,
            strategy_seed=None if question.cache else 0,  # a random one would put each request in a batch of its own
        )
    except NoAnswerError as error:
        service.metrics.paid(error.usage, error.cost)
        failures = (*question.left_out, *error.failures)
        raise NoAnswerError(str(error), failures, cost=error.cost, usage=error.usage) from None
    finally:
        events.ended()
    return complete(question, answer)


class Renderer(Protocol):
    """Events of one streamed answer, in the format of one API.

    Attributes:
        id: id of the answer.
    """

    id: str

    def begin(self) -> list[bytes]:
        """Render the events before the text."""

    def text(self, text: str) -> list[bytes]:
        """Render a piece of the text of the only answer, while an LLM writes it."""

    def end(self, answer: Answer, sent: str, blend: Mapping[str, Any]) -> list[bytes]:
        """Render the rest of the answer: `sent` is the text so far, `blend` the details."""

    def fail(self, error: Exception) -> list[bytes]:
        """Render an error in place of the answer."""


def stream_answer(service: Service, question: Question, owner: str, renderer: Renderer) -> StreamingResponse:
    """Begin to answer, and return the response that streams the answer.

    Raises:
        RefusedError: the queue is full.
    """
    events: asyncio.Queue[bytes] = asyncio.Queue()
    live = _LiveText()

    def send(event: Mapping[str, Any]) -> None:
        events.put_nowait(b": blend " + json.dumps(event).encode() + b"\n\n")

    def put(lines: list[bytes]) -> None:
        for line in lines:
            events.put_nowait(line)

    def on_text(text: str) -> None:
        if question.single and (new := live.feed(text)):
            put(renderer.text(new))

    async def work() -> Answer:
        return await answer_question(service, question, Events(service, question, send, on_text))

    task = admit(service, question, work)
    put(renderer.begin())

    async def lines() -> AsyncIterator[bytes]:
        async for line in _until_done(task, events, service.config.heartbeat):
            yield line
        try:
            answer = task.result()
        except Exception as error:
            rest = renderer.fail(error)
        else:
            service.metrics.answered(answer)
            blend = await blend_json(service, question, answer, renderer.id, owner)
            rest = renderer.end(answer, live.sent, blend)
        for line in rest:
            yield line

    return _EventStream(lines(), task)


async def _until_done(
    task: asyncio.Task[Answer], events: asyncio.Queue[bytes], heartbeat: float
) -> AsyncIterator[bytes]:
    """Yield events until the task is done; a comment after every `heartbeat` seconds without an event."""
    task.add_done_callback(lambda _: events.put_nowait(b""))
    while True:
        try:
            async with asyncio.timeout(heartbeat):
                event = await events.get()
        except TimeoutError:
            yield b": heartbeat\n\n"
            continue
        if event:
            yield event
        elif task.done() and events.empty():
            return


class _LiveText:
    """The text of a single answer while an LLM writes it, without leading and trailing white space.

    Attributes:
        sent: what `feed` has returned so far.
    """

    def __init__(self) -> None:
        self._held = self.sent = ""

    def feed(self, piece: str) -> str:
        """Add a piece, and return what can be sent: white space is held back until more text follows."""
        self._held += piece if self.sent or self._held else piece.lstrip()
        new = self._held.rstrip()
        self._held = self._held[len(new) :] if new else self._held
        self.sent += new
        return new


class _Chunks:
    """OpenAI's events of one answer.

    Attributes:
        id: id of the completion.
    """

    def __init__(self, question: Question, fingerprint: str) -> None:
        self._head = {**head("chat.completion.chunk", question.model), "system_fingerprint": fingerprint}
        self.id: str = self._head["id"]
        self._usage, self._choices = question.usage, question.choices
        self._begun: set[int] = set()

    def begin(self) -> list[bytes]:
        """Render nothing: the first choice begins with its text."""
        return []

    def text(self, text: str) -> list[bytes]:
        """Render a piece of the first choice."""
        return [self._delta(0, {"content": text})]

    def fail(self, error: Exception) -> list[bytes]:
        """Render an error."""
        return [sse_data(error_body(error)), DONE]

    def end(self, answer: Answer, sent: str, blend: Mapping[str, Any]) -> list[bytes]:
        """Render the rest of the answer: `sent` is the text sent so far; `blend` goes with the last choice."""
        choices = choices_of(answer, self._choices)
        lines = []
        for index, candidate in enumerate(choices):
            lines += [self._delta(index, delta) for delta in _deltas(candidate, sent if index == 0 else "")]
            more = {"blend": blend} if index == len(choices) - 1 else {}
            lines.append(self._delta(index, {}, finish_reason(candidate), more))
        if self._usage:
            lines.append(sse_data({**self._head, "choices": [], "usage": usage(answer)}))
        return [*lines, DONE]

    def _delta(
        self, index: int, delta: dict[str, Any], finish: str | None = None, more: Mapping[str, Any] = {}
    ) -> bytes:
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", **delta}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        unused = {"usage": None} if self._usage else {}
        return sse_data({**self._head, "choices": [choice], **unused, **more})


def unsent(text: str, sent: str) -> str:
    """Return what of an answer's text is not sent yet.

    Thoughts without an opening tag are recognised only at their end: `sent` holds them then, and all the text.
    """
    return text.removeprefix(sent) if text.startswith(sent) else ""


def _deltas(candidate: Candidate, sent: str) -> list[dict[str, Any]]:
    """Split a turn into deltas, the thoughts first; `sent` is the text sent so far."""
    turn = message(candidate)
    delta = {**turn, "content": unsent(turn["content"] or "", sent)}
    del delta["role"]
    names = ("reasoning_content", "reasoning")  # in one delta, because clients read either
    thoughts: dict[str, Any] = {key: delta.pop(key) for key in names if key in delta}
    if "tool_calls" in turn:
        delta["tool_calls"] = [{**call, "index": index} for index, call in enumerate(turn["tool_calls"])]
    return [thoughts, delta] if thoughts else [delta]


def sse_data(value: Mapping[str, Any]) -> bytes:
    """Render an event whose data is JSON."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


class _EventStream(StreamingResponse):
    """A response that cancels its work when the client goes away, even before the first event."""

    def __init__(self, lines: AsyncIterator[bytes], task: asyncio.Task[Answer]) -> None:
        super().__init__(lines, media_type="text/event-stream", headers=_HEADERS)
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
