"""`/v1/chat/completions`: the ensemble as if it were one model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from llm_blender.server.errors import StrictRoute, problem_body
from llm_blender.server.request import Question, question
from llm_blender.server.response import Watch, choices_of, finish_reason, head, message, reported, usage
from llm_blender.server.schemas import ChatCompletion, ChatRequest
from llm_blender.server.service import Service, owner, unless_gone
from llm_blender.types import Answer, Candidate

__all__ = ["router", "stream"]

_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def stream(service: Service, question: Question, request: ChatRequest, owner: str) -> StreamingResponse:
    """Begin to answer, and the response that tells of it.

    Raises:
        RefusedError: there is no place for the request.
    """
    events: asyncio.Queue[bytes] = asyncio.Queue()
    chunks = _Chunks(question, request)
    live = _Live(question.alone)

    def tell(event: Mapping[str, Any]) -> None:
        events.put_nowait(b": blend " + json.dumps(event).encode() + b"\n\n")

    class Told(Watch):
        def writing(self, call: int, text: str) -> None:
            super().writing(call, text)
            if new := live.feed(text):
                events.put_nowait(chunks.text(0, new))

    watched = bool(request.blend and request.blend.watch)

    async def work() -> Answer:
        return await question.ask(Told(service, question, tell, pieces=watched))

    task = service.gate.begin(work, question.deadline)

    async def lines() -> AsyncIterator[bytes]:
        async for line in _until_done(task, events, service.config.heartbeat):
            yield line
        try:
            answer = task.result()
        except Exception as error:
            yield _data(problem_body(error))
        else:
            service.metrics.answered(answer)
            blend = await reported(service, question, answer, request, chunks.id, owner)
            for line in chunks.end(answer, live.told, blend):
                yield line
        yield b"data: [DONE]\n\n"

    return _EventStream(lines(), task)


async def _until_done(
    task: asyncio.Task[Answer], events: asyncio.Queue[bytes], heartbeat: float
) -> AsyncIterator[bytes]:
    """What is told until the task is over; a comment whenever nothing was told for a while."""
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


class _Live:
    """The text of an only answer while it is written, without white space around it."""

    def __init__(self, active: bool) -> None:
        self._active, self._held = active, ""
        self.told = ""

    def feed(self, piece: str) -> str:
        """What can be told of it now."""
        if not self._active:
            return ""
        self._held += piece if self.told or self._held else piece.lstrip()
        new = self._held.rstrip()
        self._held = self._held[len(new) :] if new else self._held
        self.told += new
        return new


class _Chunks:
    """OpenAI's events of one answer."""

    def __init__(self, question: Question, request: ChatRequest) -> None:
        self._question = question
        self._head = head("chat.completion.chunk", question.model)
        options = request.stream_options
        self._usage = options is not None and options.include_usage
        self._begun: set[int] = set()

    @property
    def id(self) -> str:
        """Of the completion."""
        return str(self._head["id"])

    def text(self, index: int, text: str) -> bytes:
        """A piece of a choice."""
        return self._delta(index, {"content": text})

    def end(self, answer: Answer, told: str, blend: Mapping[str, Any]) -> list[bytes]:
        """What is still to be told: `told` has been, of the first choice; `blend` goes with the last."""
        choices = choices_of(answer, self._question.choices)
        lines = []
        for index, candidate in enumerate(choices):
            lines.append(self._delta(index, _rest(candidate, told if index == 0 else "")))
            more = {"blend": blend} if index == len(choices) - 1 else {}
            lines.append(self._delta(index, {}, finish_reason(candidate), more))
        if self._usage:
            lines.append(_data({**self._head, "choices": [], "usage": usage(answer)}))
        return lines

    def _delta(
        self, index: int, delta: dict[str, Any], finish: str | None = None, more: Mapping[str, Any] = {}
    ) -> bytes:
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", **delta}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        unused = {"usage": None} if self._usage else {}
        return _data({**self._head, "choices": [choice], **unused, **more})


def _rest(candidate: Candidate, told: str) -> dict[str, Any]:
    said = message(candidate)
    text = said["content"] or ""
    # Thoughts that began without a tag are recognised at their end alone: what was told then holds them, and all else.
    delta: dict[str, Any] = {"content": text.removeprefix(told) if text.startswith(told) else ""}
    if "tool_calls" in said:
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(said["tool_calls"])]
    return delta


def _data(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


class _EventStream(StreamingResponse):
    """A response whose work ends when its client goes away, whether it has begun to read or not."""

    def __init__(self, lines: AsyncIterator[bytes], task: asyncio.Task[Answer]) -> None:
        super().__init__(lines, media_type="text/event-stream", headers=_HEADERS)
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


router = APIRouter(route_class=StrictRoute)

_RESPONSE = {
    "model": ChatCompletion,
    "description": "The answer; with `stream`, the events of OpenAI's streams.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


@router.post("/v1/chat/completions", responses={200: _RESPONSE})
async def chat(body: ChatRequest, request: Request) -> Response:
    """Ask the LLMs, rank their answers, give back the best one or what is fused of the best ones."""
    service = Service.of(request)
    asked = question(service, body)
    if body.stream:
        return stream(service, asked, body, owner(request))

    async def work() -> Answer:
        return await asked.ask(Watch(service, asked))

    answer = await unless_gone(request, service.gate.begin(work, asked.deadline))
    service.metrics.answered(answer)
    choices = [
        {"index": index, "message": message(candidate), "logprobs": None, "finish_reason": finish_reason(candidate)}
        for index, candidate in enumerate(choices_of(answer, asked.choices))
    ]
    begin = head("chat.completion", asked.model)
    blend = await reported(service, asked, answer, body, begin["id"], owner(request))
    return JSONResponse({**begin, "choices": choices, "usage": usage(answer), "blend": blend})
