"""`/v1/completions`: OpenAI's older API. The prompt becomes a message of the user: the LLMs are chat models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from llm_blender.server.chat import DONE, sse_data, stream_answer, unsent, whole_answer
from llm_blender.server.errors import BodyRoute, error_body
from llm_blender.server.request import Question, read_question
from llm_blender.server.response import blend_json, choices_of, finish_reason, head, message, usage
from llm_blender.server.responses import translate, unsupported
from llm_blender.server.schemas import ChatRequest, Completion, CompletionRequest
from llm_blender.server.service import Service, owner
from llm_blender.types import Answer, Candidate

router = APIRouter(route_class=BodyRoute)

_RESPONSE = {
    "model": Completion,
    "description": "The answer; with `stream`, the events of OpenAI's streams.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_CHAT = "/v1/chat/completions"
# Keys that the chat request does not have, and those of chats that have no place in the answer.
_REFUSED = {
    "suffix": "a text in the middle is not supported",
    "echo": "the answer cannot begin with the prompt",
    "logprobs": "log probabilities are not supported",
    "tools": f"send it to {_CHAT}",
    "response_format": f"send it to {_CHAT}",
}
_HEAD = ("text_completion", "cmpl-")


@router.post("/v1/completions", responses={200: _RESPONSE})
async def complete(body: CompletionRequest, request: Request) -> Response:
    """Answer a prompt as `/v1/chat/completions` does, as plain text."""
    service = Service.of(request)
    question = read_question(service, _chat_request(body))
    if body.stream:
        return stream_answer(service, question, owner(request), _Chunks(question))
    answer = await whole_answer(request, service, question)
    kind, prefix = _HEAD
    begin = head(kind, question.model, prefix)
    choices = [_choice(index, _text(each), each) for index, each in enumerate(choices_of(answer, question.choices))]
    blend = await blend_json(service, question, answer, begin["id"], owner(request))
    return JSONResponse({**begin, "choices": choices, "usage": usage(answer), "blend": blend})


def _chat_request(body: CompletionRequest) -> ChatRequest:
    values = body.model_dump(exclude_none=True, exclude={"prompt", "best_of", "blend"})
    for key, reason in _REFUSED.items():
        given = values.pop(key, None)
        if given not in (None, "", []) and given is not False:
            raise unsupported(key, reason)
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise unsupported("best_of", "it is not supported: `blend.samples` sets the number of answers of each LLM")
    values |= {"messages": [{"role": "user", "content": _prompt(body.prompt)}], "blend": body.blend}
    return translate(values, lambda place: ("prompt",) if place[0] == "messages" else place)


def _prompt(given: Any) -> str:
    match given:
        case str(prompt) | [str(prompt)]:
            return prompt
        case [str(), *_]:
            raise unsupported("prompt", "send one prompt a request")
        case _:
            raise unsupported("prompt", "a text is wanted: tokens are not supported")


def _text(candidate: Candidate) -> str:
    turn = message(candidate)
    text: str = turn.get("content") or turn.get("refusal") or ""
    return text


def _choice(index: int, text: str, candidate: Candidate | None = None) -> dict[str, Any]:
    finish = None if candidate is None else finish_reason(candidate)
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


class _Chunks:
    """OpenAI's events of one answer.

    Attributes:
        id: id of the completion.
    """

    def __init__(self, question: Question) -> None:
        kind, prefix = _HEAD
        self._head = head(kind, question.model, prefix)
        self.id: str = self._head["id"]
        self._usage, self._choices = question.usage, question.choices

    def begin(self) -> list[bytes]:
        """Render nothing: a text has no begin."""
        return []

    def text(self, text: str) -> list[bytes]:
        """Render a piece of the first choice."""
        return [self._chunk([_choice(0, text)])]

    def end(self, answer: Answer, sent: str, blend: Mapping[str, Any]) -> list[bytes]:
        """Render the rest of the answer: `sent` is the text sent so far; `blend` goes with the last choice."""
        lines, choices = [], choices_of(answer, self._choices)
        for index, candidate in enumerate(choices):
            text = unsent(_text(candidate), sent if index == 0 else "")
            more = {"blend": blend} if index == len(choices) - 1 else {}
            lines += [self._chunk([_choice(index, text)]), self._chunk([_choice(index, "", candidate)], more)]
        if self._usage:
            lines.append(sse_data({**self._head, "choices": [], "usage": usage(answer)}))
        return [*lines, DONE]

    def fail(self, error: Exception) -> list[bytes]:
        """Render an error."""
        return [sse_data(error_body(error)), DONE]

    def _chunk(self, choices: list[dict[str, Any]], more: Mapping[str, Any] = {}) -> bytes:
        unused = {"usage": None} if self._usage else {}
        return sse_data({**self._head, "choices": choices, **unused, **more})
