"""Routes around the ranker alone: rank, compare, fuse what the client brings, and rerank documents."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from llm_blender.calls import Budget
from llm_blender.ensemble import Ensemble
from llm_blender.fusers import GuardedFuser
from llm_blender.fusers.chat_fuser import within_budget
from llm_blender.server.errors import RefusedError, StrictRoute
from llm_blender.server.request import conversation
from llm_blender.server.response import standing
from llm_blender.server.schemas import (
    ChatMessage,
    CompareRequest,
    Comparison,
    Fused,
    FuseRequest,
    Ranked,
    RankRequest,
    Reranked,
    RerankRequest,
    ScoredText,
)
from llm_blender.server.service import Service, unless_gone
from llm_blender.types import Comparison as Compared
from llm_blender.types import FusionReport, Instruction, Ranking, to_messages

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)

_T = TypeVar("_T")


@router.post("/v1/rank", responses={200: {"model": Ranked}})
async def rank(body: RankRequest, request: Request) -> Response:
    """Put candidates in order."""
    service, prompt = Service.of(request), _instruction(body.instruction)
    ensemble = _with(service, body.strategy, body.budget)
    service.check_texts(body.candidates, "candidates")
    ranking = await _work(request, lambda: ensemble.arank(prompt, body.candidates, seed=_seed(body.seed)))
    return JSONResponse({**standing(ranking), "order": list(ranking.order)})


@router.post("/v1/compare", responses={200: {"model": Comparison}})
async def compare(body: CompareRequest, request: Request) -> Response:
    """Say which of two answers is better, and how surely."""
    service, prompt = Service.of(request), _instruction(body.instruction)
    service.check_texts([body.a, body.b], "a")
    ensemble = _with(service, "full", None)
    ranking = await _work(request, lambda: ensemble.arank(prompt, [body.a, body.b], seed=_seed(body.seed)))
    forward, backward = float(ranking.logits[0, 1]), float(ranking.logits[1, 0])
    result = Compared.from_logits(forward, backward, ranking.temperature)
    return JSONResponse({"winner": result.winner, "probability": result.probability, "logit": result.logit})


@router.post("/v1/fuse", responses={200: {"model": Fused}})
async def fuse(body: FuseRequest, request: Request) -> Response:
    """Make one answer of the best candidates, and give it back where the ranker prefers it to the best one."""
    service, prompt = Service.of(request), _instruction(body.instruction)
    base, limits = service.ensemble, service.ensemble.limits
    if not base.fuses:
        raise RefusedError(400, "no_fuser", "This service has no fuser: name one in [fuser] of its blend.toml.")
    service.check_texts(body.candidates, "candidates")
    budget = Budget(limits.max_cost, allow_unpriced=limits.allow_unpriced)

    async def work() -> tuple[Ranking, FusionReport]:
        fuser = await asyncio.to_thread(lambda: base.fuser)
        guarded = GuardedFuser(
            within_budget(fuser, budget),
            base.ranker,
            mode=body.mode,
            top_k=body.top_k or base.top_k,
            guard=base.guard if body.guard is None else body.guard,
            rule=base.rule,
        )
        seed = _seed(body.seed)
        ranking = await base.arank(prompt, body.candidates, seed=seed)
        deadline = 0.8 * limits.deadline  # the rest is for the ranker
        return ranking, await guarded.afuse(prompt, body.candidates, ranking, seed=seed, deadline=deadline)

    ranking, report = await _work(request, work)
    values = {"text": report.answer, "mode": report.returned, "ranking": standing(ranking), "fusion": report.to_dict()}
    return JSONResponse(values)


_RERANKED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Reranked | list[ScoredText],
        "description": "To `documents` as Cohere and Jina answer, to `texts` as TEI does.",
    }
}


@router.post("/rerank", responses=_RERANKED)
@router.post("/v1/rerank", responses=_RERANKED)
@router.post("/v2/rerank", responses=_RERANKED)
async def rerank(body: RerankRequest, request: Request) -> Response:
    """Put documents in order, best first, as Cohere, Jina or TEI would."""
    service = Service.of(request)
    texts = _documents(body)
    prompt = _instruction(body.query)
    service.check_texts(texts, "documents" if body.texts is None else "texts")
    ranking = await _work(request, lambda: service.ensemble.arank(prompt, texts))
    places = ranking.order[: body.top_n]
    if body.texts is not None:
        scores = ranking.scores if body.raw_scores else _relevance(ranking)
        shown = [{"index": i, "score": scores[i], **({"text": texts[i]} if body.return_text else {})} for i in places]
        return JSONResponse(shown)
    relevance = _relevance(ranking)
    results = [
        {
            "index": i,
            "relevance_score": relevance[i],
            **({"document": {"text": texts[i]}} if body.return_documents else {}),
        }
        for i in places
    ]
    return JSONResponse({"id": uuid.uuid4().hex, "model": body.model or "blend", "results": results})


def _documents(body: RerankRequest) -> list[str]:
    if (body.texts is None) == (body.documents is None):
        raise RefusedError(400, "invalid_value", "Give either `documents` (Cohere, Jina) or `texts` (TEI).")
    if body.texts is not None:
        return body.texts
    texts = [document if isinstance(document, str) else document.get("text") for document in body.documents or ()]
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise RefusedError(400, "invalid_value", f"Document {place} has no `text`.", param="documents")
    return [str(text) for text in texts]


def _relevance(ranking: Ranking) -> list[float]:
    """Scores between 0 and 1, in the order of the ranks: the sigmoid of the mean score against the others."""
    others = max(len(ranking) - 1, 1)
    return [_sigmoid(score / others / ranking.temperature) for score in ranking.scores]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _instruction(given: str | Sequence[ChatMessage]) -> Instruction:
    prompt: Instruction = given if isinstance(given, str) else conversation(given)
    to_messages(prompt)  # refuses an empty one
    return prompt


def _with(service: Service, strategy: str | None, budget: int | None) -> Ensemble:
    ensemble = service.ensemble
    return Ensemble(
        ensemble.members,
        service.ranker,
        strategy=strategy or ensemble.strategy,
        budget=budget or ensemble.budget,
        limits=ensemble.limits,
    )


def _seed(given: int) -> int:
    return given % 2**31


async def _work(request: Request, work: Callable[[], Awaitable[_T]]) -> _T:
    service = Service.of(request)
    return await unless_gone(request, service.gate.begin(work, service.ensemble.limits.deadline))
