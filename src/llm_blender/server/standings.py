"""Route of the standings: how often the ranker and people prefer each LLM, and at what kind of prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from llm_blender.ensemble import Ensemble
from llm_blender.errors import NotFoundError
from llm_blender.history import History, KeptAnswer
from llm_blender.record import Learned, models_of
from llm_blender.server.errors import StrictRoute
from llm_blender.server.schemas import OpenAnswer
from llm_blender.server.service import Service, owner

router = APIRouter(route_class=StrictRoute)


class Share(OpenAnswer):
    """Number of prompts or votes, and how many of them an LLM won; a tied vote is half a win."""

    count: int
    won: float


class LLMStanding(OpenAnswer):
    """Results of one LLM: first places by the ranker, votes, and the strength in logits with its 95 % interval."""

    llm: str
    model: str
    ranker: Share
    votes: Share
    strength: float | None
    ci95: tuple[float, float] | None
    kinds: dict[Literal["answer", "code", "other"], Share]


class Standings(OpenAnswer):
    """Results of the ensemble's LLMs, strongest first, from `rankings` recorded rankings and the votes of this key.

    `missing` is the number of rankings that priors from the record still lack, and `used` whether they count.
    """

    data: list[LLMStanding]
    rankings: int
    missing: int
    used: bool


@router.get("/v1/standings", responses={200: {"model": Standings}})
async def standings(request: Request) -> Response:
    """List the ensemble's LLMs with their first places, votes and strengths, strongest first."""
    service = Service.of(request)
    if service.ensemble.store is None:
        raise NotFoundError("This service keeps no record: it has no store.")
    return JSONResponse(await asyncio.to_thread(_read, service.ensemble, service.history, owner(request)))


def _read(ensemble: Ensemble, history: History | None, name: str) -> dict[str, Any]:
    models = models_of([member.llm for member in ensemble.members])
    learned = ensemble.recorded()
    votes = _count(() if history is None else history.voted(owner=name))
    data = [_standing(llm, model, learned, votes.get(llm, (0, 0.0))) for llm, model in models.items()]
    data.sort(key=lambda each: -9e9 if each["strength"] is None else each["strength"], reverse=True)
    used = ensemble.settings.priors == "auto" and learned.usable is not None
    return {"data": data, **learned.to_dict(), "used": used}


def _standing(llm: str, model: str, learned: Learned, votes: tuple[int, float]) -> dict[str, Any]:
    found = learned.standings[llm]
    return {
        "llm": llm,
        "model": model,
        "ranker": _share(found.prompts, found.first),
        "votes": _share(*votes),
        "strength": found.strength,
        "ci95": found.ci95,
        "kinds": {kind: _share(*counts) for kind, counts in found.kinds.items()},
    }


def _share(count: int, won: float) -> dict[str, Any]:
    return {"count": count, "won": won}


def _count(answers: Iterable[KeptAnswer]) -> dict[str, tuple[int, float]]:
    """Count the votes on each LLM's answers against another LLM, and the wins."""
    found: dict[str, tuple[int, float]] = {}
    for answer in answers:
        names = [candidate.get("model") for candidate in answer.report["candidates"]]  # not the fused text
        for vote in answer.votes:
            if max(vote.a, vote.b) >= len(names) or names[vote.a] == names[vote.b]:
                continue
            won = {"a": 1.0, "b": 0.0, "tie": 0.5}[vote.label]
            for name, share in ((names[vote.a], won), (names[vote.b], 1 - won)):
                count, wins = found.get(str(name), (0, 0.0))
                found[str(name)] = count + 1, wins + share
    return found
