"""`/v1/chat/completions`: the ensemble as if it were one model."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from llm_blender.server.answering import choices_of, finish_reason, head, message, usage
from llm_blender.server.asking import question
from llm_blender.server.keeping import reported
from llm_blender.server.schemas import ChatCompletion, ChatRequest
from llm_blender.server.service import Service, owner, unless_gone
from llm_blender.server.streaming import stream
from llm_blender.server.strict_json import StrictRoute
from llm_blender.server.watching import Watch
from llm_blender.types import Answer

__all__ = ["router"]

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
