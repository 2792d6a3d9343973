"""Routes for texts of the client: rank, compare and fuse candidates, and rerank documents."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from llm_blender.ensemble import EnsembleSettings, Observer
from llm_blender.ranking.aggregation import sigmoid
from llm_blender.server.errors import RefusedError, StrictRoute
from llm_blender.server.request import override, read_seed
from llm_blender.server.response import ranking_json
from llm_blender.server.schemas import (
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
from llm_blender.types import Candidate, FusionReport, Instruction, Ranking
from llm_blender.types import Comparison as Compared

router = APIRouter(route_class=StrictRoute)

_T = TypeVar("_T")
_META = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}  # as Cohere's clients read it


class _Paid(Observer):
    """Observer that counts what a judge costs."""

    def __init__(self, service: Service) -> None:
        self._metrics = service.metrics

    def paid(self, candidate: Candidate) -> None:
        self._metrics.paid(candidate.usage, candidate.cost)


@router.post("/v1/rank", responses={200: {"model": Ranked}})
async def rank(body: RankRequest, request: Request) -> Response:
    """Put candidates in order."""
    service, prompt = Service.of(request), body.instruction
    settings = override(service.ensemble.settings, body)
    ranking = await _rank(
        request, prompt, [candidate.text for candidate in body.candidates], "candidates", settings, body.seed
    )
    return JSONResponse({**ranking_json(ranking), "order": list(ranking.order)})


@router.post("/v1/compare", responses={200: {"model": Comparison}})
async def compare(body: CompareRequest, request: Request) -> Response:
    """Compare two answers: which is better, and with what probability."""
    service, prompt = Service.of(request), body.instruction
    settings = replace(service.ensemble.settings, strategy="full")
    ranking = await _rank(request, prompt, [body.a.text, body.b.text], "a", settings, body.seed)
    forward, backward = float(ranking.logits[0, 1]), float(ranking.logits[1, 0])
    result = Compared.from_logits(forward, backward, ranking.temperature)
    return JSONResponse({"winner": result.winner, "probability": result.probability, "logit": result.logit})


@router.post("/v1/fuse", responses={200: {"model": Fused}})
async def fuse(body: FuseRequest, request: Request) -> Response:
    """Fuse the best candidates, and return the fused text if the ranker prefers it to the best candidate."""
    service, prompt = Service.of(request), body.instruction
    ensemble, seed = service.ensemble, read_seed(body.seed)
    if not ensemble.fuses:
        raise RefusedError(400, "no_fuser", "This service has no fuser: name one in [fuser] of its blend.toml.")
    texts = [candidate.text for candidate in body.candidates]
    service.check_texts(texts, "candidates")
    settings = override(ensemble.settings, body)

    async def work() -> tuple[Ranking, FusionReport]:
        started, limits = time.perf_counter(), settings.limits
        ranking = await ensemble.arank(prompt, texts, seed=seed, settings=settings, observer=_Paid(service))
        left = max(0.0, limits.deadline - (time.perf_counter() - started))
        rest = replace(settings, limits=replace(limits, total=left))  # leaves the ranker its share
        return ranking, await ensemble.afuse(prompt, texts, ranking, seed=seed, settings=rest)

    ranking, report = await _admit(request, work)
    answer = {"text": report.answer, "mode": report.returned}
    return JSONResponse({**answer, "ranking": ranking_json(ranking), "fusion": report.to_dict()})


_RERANKED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Reranked | list[ScoredText],
        "description": "For `documents` the answer of Cohere and Jina, for `texts` that of TEI.",
    }
}


@router.post("/rerank", responses=_RERANKED)
@router.post("/v1/rerank", responses=_RERANKED)
@router.post("/v2/rerank", responses=_RERANKED)
async def rerank(body: RerankRequest, request: Request) -> Response:
    """Put documents in order, best first, with the API of Cohere, Jina or TEI; of many, only the best ones are sure."""
    texts, prompt, service = _documents(body), body.query, Service.of(request)
    settings, most = service.ensemble.settings, service.config.max_documents
    # Documents are no answers: they do not vote for each other, and no judge compares them.
    settings = replace(settings, close_calls=replace(settings.close_calls, pairs=0), evidence=False)
    if len(texts) > service.config.max_candidates:
        settings = replace(settings, strategy="knockout")  # whose comparisons grow with the number, not its square
    param = "documents" if body.texts is None else "texts"
    ranking = await _rank(request, prompt, texts, param, settings, most=most)
    places = ranking.order[: body.top_n]
    if body.texts is not None:
        scores = ranking.scores if body.raw_scores else _relevance(ranking)
        shown = [{"index": i, "score": scores[i], **({"text": texts[i]} if body.return_text else {})} for i in places]
        return JSONResponse(shown)
    relevance = _relevance(ranking)
    results: list[dict[str, Any]] = [{"index": i, "relevance_score": relevance[i]} for i in places]
    if body.return_documents:
        results = [{**result, "document": {"text": texts[result["index"]]}} for result in results]
    answer = {"id": uuid.uuid4().hex, "model": body.model or "blend", "results": results}
    return JSONResponse({**answer, "meta": _META})


def _documents(body: RerankRequest) -> list[str]:
    if (body.texts is None) == (body.documents is None):
        raise RefusedError(400, "invalid_value", "Give either `documents` (Cohere, Jina) or `texts` (TEI).")
    return body.texts or body.documents or []


def _relevance(ranking: Ranking) -> list[float]:
    """Compute scores between 0 and 1 in the order of the ranks: sigmoids of the mean score against the others."""
    others = max(len(ranking) - 1, 1)
    relevance: list[float] = sigmoid(np.array(ranking.scores) / others / ranking.temperature).tolist()
    return relevance


async def _rank(
    request: Request,
    prompt: Instruction,
    texts: Sequence[str],
    param: str,
    settings: EnsembleSettings,
    seed: int = 0,
    most: int | None = None,
) -> Ranking:
    """Rank texts, at most `most`, that come in the key `param` of a request."""
    service = Service.of(request)
    service.check_texts(texts, param, most)
    settings = replace(settings, mode="pick")  # leaves no time to a fuser

    def work() -> Awaitable[Ranking]:
        return service.ensemble.arank(prompt, texts, seed=read_seed(seed), settings=settings, observer=_Paid(service))

    return await _admit(request, work)


async def _admit(request: Request, work: Callable[[], Awaitable[_T]]) -> _T:
    service = Service.of(request)
    return await unless_gone(request, service.admission.begin(work, service.ensemble.settings.limits.deadline))
