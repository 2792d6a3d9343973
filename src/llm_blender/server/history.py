"""Routes of the history: questions of the playground, their answers, and votes on them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.responses import JSONResponse

from llm_blender.data import VoteFormat, vote_records
from llm_blender.errors import NotFoundError
from llm_blender.history import History, KeptAnswer
from llm_blender.server.errors import StrictRoute
from llm_blender.server.schemas import OpenAnswer, StrictRequest
from llm_blender.server.service import Service, owner

Index = Annotated[int, Field(ge=0, le=1_000_000)]


class VoteRequest(StrictRequest):
    """A vote: a candidate is better than others.

    Attributes:
        preferred: index of the better candidate; the fused text comes after the candidates. None, with `tie` or `bad`,
            means all pairs of candidates.
        over: indices of the worse candidates; all others if left out.
        tie: whether they are equally good instead.
        bad: whether they are equally bad instead.
        blind: whether the voter saw neither the names of the LLMs nor the ranks.
    """

    preferred: Index | None = None
    over: Annotated[list[Index], Field(min_length=1)] | None = None
    tie: bool = False
    bad: bool = False
    blind: bool = False


class _Vote(OpenAnswer):
    a: int
    b: int
    label: Literal["a", "b", "tie"]
    blind: bool
    bad: bool


class _Summary(OpenAnswer):
    """A question with the begin of its answer, and the LLM that was picked: null if the answer was fused.

    `first` is the first question of the conversation, and `turn` the number of this one in it. `match` is the text
    around a word that was searched and is in neither `prompt` nor `answer`; null if there is none.
    """

    id: str
    created: int
    prompt: str
    answer: str
    llm: str | None
    votes: int
    first: str
    turn: int
    match: str | None


class Kept(OpenAnswer):
    """A question, its answer as the client received it, the votes, and the keys of the request."""

    id: str
    created: int
    messages: list[dict[str, Any]]
    text: str
    blend: dict[str, Any]
    votes: list[_Vote]
    settings: dict[str, Any]


class KeptTurns(OpenAnswer):
    """For each turn of the assistant before a question, the kept answer that it comes from; null if there is none."""

    data: list[Kept | None]


class KeptList(OpenAnswer):
    """The newest questions, newest first; `more`: whether there are older ones."""

    data: list[_Summary]
    more: bool


router = APIRouter(route_class=StrictRoute)

_T = TypeVar("_T")
_SHOWN = 200  # characters of a prompt, and of an answer, in the list
_AROUND = 60  # characters before a word that was found
_LINES = {"description": "JSON Lines.", "content": {"application/jsonl": {"schema": {"type": "string"}}}}


@router.get("/v1/history", responses={200: {"model": KeptList}})
async def latest(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: str | None = None,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    q: Annotated[str, Query(max_length=500)] = "",
) -> Response:
    """List the newest questions of this key, newest first; `q` are words that question or answers contain.

    With the id of one as `before`, the older ones are listed; `offset` leaves out as many.
    """

    def found(history: History, name: str) -> list[KeptAnswer]:
        return history.search(q.split(), limit + 1, offset=offset, before=before, owner=name)

    answers = await _with(request, found)
    data = [_summary(answer, q.split()) for answer in answers[:limit]]
    return JSONResponse({"data": data, "more": len(answers) > limit})


@router.get("/v1/history/{id}", responses={200: {"model": Kept}})
async def one(id: str, request: Request) -> Response:
    """Return a question with its answer, the details of the answer, and the votes."""
    return _kept(await _with(request, lambda history, name: history.get(id, owner=name)))


@router.get("/v1/history/{id}/earlier", responses={200: {"model": KeptTurns}})
async def earlier(id: str, request: Request) -> Response:
    """List the kept answers that the conversation before a question consists of, oldest first."""

    def find(history: History, name: str) -> list[KeptAnswer | None]:
        return history.earlier(history.get(id, owner=name), owner=name)

    found = await _with(request, find)
    return JSONResponse({"data": [answer and _values(answer) for answer in found]})


@router.delete("/v1/history/{id}", status_code=204, response_class=Response, response_model=None)
async def remove(id: str, request: Request) -> None:
    """Delete a question, its answer and the votes; for five minutes they can be restored."""
    await _with(request, lambda history, name: history.remove(id, owner=name))


@router.post("/v1/history/{id}/restore", responses={200: {"model": Kept}})
async def restore(id: str, request: Request) -> Response:
    """Restore a question that was deleted in the last five minutes."""
    return _kept(await _with(request, lambda history, name: history.restore(id, owner=name)))


@router.post("/v1/history/{id}/votes", responses={200: {"model": Kept}})
async def vote(id: str, body: VoteRequest, request: Request) -> Response:
    """Prefer a candidate to others; replaces earlier votes on the same pairs."""

    def record(history: History, name: str) -> KeptAnswer:
        return history.vote(id, **body.model_dump(), owner=name)

    return _kept(await _with(request, record))


@router.delete("/v1/history/{id}/votes", responses={200: {"model": Kept}})
async def take_back(id: str, request: Request) -> Response:
    """Delete all votes on an answer."""
    return _kept(await _with(request, lambda history, name: history.take_back(id, owner=name)))


@router.get("/v1/votes", responses={200: _LINES}, response_class=Response)
async def export(request: Request, format: VoteFormat = "rows", blind_only: bool = False) -> Response:
    """Export all votes of this key, or the blind ones only: rows to train rankers from, or preference records."""

    def lines(history: History, name: str) -> list[str]:
        examples = (answer.example for answer in history.voted(blind_only=blind_only, owner=name))
        return [json.dumps(record) for record in vote_records(examples, format)]

    text = "".join(f"{line}\n" for line in await _with(request, lines))
    headers = {"content-disposition": 'attachment; filename="votes.jsonl"'}
    return Response(text, media_type="application/jsonl", headers=headers)


async def _with(request: Request, work: Callable[[History, str], _T]) -> _T:
    """Work with the history, in a thread: the file may be slow, or held by another process."""
    history, name = Service.of(request).history, owner(request)
    if history is None:
        raise NotFoundError("This service keeps no history: it has no playground, or no store.")
    return await asyncio.to_thread(work, history, name)


def _summary(answer: KeptAnswer, words: Sequence[str]) -> dict[str, Any]:
    best = answer.report["candidates"][answer.report["ranking"]["best"]]
    questions = [turn["content"] for turn in answer.messages if turn["role"] == "user"]
    prompt, text = answer.messages[-1]["content"][:_SHOWN], answer.text.strip()[:_SHOWN]
    return {
        "id": answer.id,
        "created": int(answer.created_at.timestamp()),
        "prompt": prompt,
        "answer": text,
        "llm": None if answer.report["mode"] == "fuse" else best.get("model"),
        "votes": len(answer.votes),
        "first": (questions or [prompt])[0][:_SHOWN],
        "turn": max(len(questions), 1),
        "match": _match(answer, words, f"{prompt}\n{text}"),
    }


def _match(answer: KeptAnswer, words: Sequence[str], shown: str) -> str | None:
    """Return the text around the first word that is not in `shown`; None if all are."""
    word = next((word.casefold() for word in words if word.casefold() not in shown.casefold()), None)
    texts = (*(turn["content"] for turn in answer.messages), answer.text, *(each.text for each in answer.candidates))
    text = next((text for text in texts if word is not None and word in text.casefold()), None)
    if word is None or text is None:
        return None
    begin = max(text.casefold().find(word) - _AROUND, 0)
    end = begin + _SHOWN
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"


def _kept(answer: KeptAnswer) -> Response:
    return JSONResponse(_values(answer))


def _values(answer: KeptAnswer) -> dict[str, Any]:
    return {
        "id": answer.id,
        "created": int(answer.created_at.timestamp()),
        "messages": list(answer.messages),
        "text": answer.text,
        "blend": answer.report,
        "votes": [asdict(vote) for vote in answer.votes],
        "settings": answer.settings,
    }
