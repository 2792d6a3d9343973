"""Route of the standings: how often the ranker and people prefer each LLM, and at what kind of prompt."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from llm_blender.ensemble import Ensemble
from llm_blender.errors import NotFoundError
from llm_blender.history import History, KeptAnswer
from llm_blender.ranking import wilson_interval
from llm_blender.record import Learned, models_of
from llm_blender.server.errors import StrictRoute
from llm_blender.server.schemas import OpenAnswer
from llm_blender.server.service import Service, owner

router = APIRouter(route_class=StrictRoute)


class Share(OpenAnswer):
    """Number of prompts or votes, how many of them an LLM won, and the 95 % interval of the share of these.

    A tied vote is half a win. `ci95` is null without a prompt or vote.
    """

    count: int
    won: float
    ci95: tuple[float, float] | None


class LLMStanding(OpenAnswer):
    """Results of one LLM.

    `ranker` are its prompts and first places, also by kind of prompt (`kinds`); `votes` those on its answers against
    another LLM's, which are `blind` or `open`; `comparisons` the number of recorded comparisons with another LLM, from
    which `strength`, in logits, follows with its 95 % interval.
    """

    llm: str
    model: str
    ranker: Share
    votes: Share
    blind: Share
    open: Share
    comparisons: int
    strength: float | None
    ci95: tuple[float, float] | None
    kinds: dict[Literal["answer", "code", "other"], Share]


class Voted(OpenAnswer):
    """Numbers of votes of each kind; the preference for one of n answers is one vote and n − 1 comparisons."""

    blind: int
    open: int


class Standings(OpenAnswer):
    """Results of the ensemble's LLMs, strongest first, from `rankings` recorded rankings and the votes of this key.

    `voted` are the numbers of answers with votes; `missing` is the number of rankings that priors from the record still
    lack, and `used` whether they count.
    """

    data: list[LLMStanding]
    rankings: int
    voted: Voted
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
    tallies, voted = _count(() if history is None else history.voted(owner=name))
    data = [_standing(llm, model, learned, tallies[llm]) for llm, model in models.items()]
    data.sort(key=lambda each: -9e9 if each["strength"] is None else each["strength"], reverse=True)
    used = ensemble.settings.priors == "auto" and learned.usable is not None
    return {"data": data, **learned.to_dict(), "voted": {kind: voted[kind] for kind in ("blind", "open")}, "used": used}


def _standing(llm: str, model: str, learned: Learned, tallies: _Tallies) -> dict[str, Any]:
    found = learned.standings[llm]
    games = 0 if learned.priors is None else learned.priors.games.get(llm, 0)
    return {
        "llm": llm,
        "model": model,
        "ranker": _share(found.prompts, found.first, found.prompts),
        **{kind: _share(each.count, each.won, each.effective) for kind, each in tallies.items()},
        "comparisons": games,
        "strength": found.strength,
        "ci95": found.ci95,
        "kinds": {kind: _share(count, won, count) for kind, (count, won) in found.kinds.items()},
    }


def _share(count: int, won: float, effective: float) -> dict[str, Any]:
    return {"count": count, "won": won, "ci95": wilson_interval(won / count, effective) if count else None}


@dataclass
class _Tally:
    """Votes on the answers of one LLM."""

    count: int = 0
    won: float = 0.0
    squares: int = 0  # sum over prompts of the squared number of votes

    @property
    def effective(self) -> float:
        """Number of independent votes: (Σ m)² / Σ m² for m votes on a prompt (Kish, Survey Sampling, 1965, 8.2).

        The votes on a prompt come from one look at its answers: "A is the best of five" is four votes and one trial.
        """
        return self.count**2 / self.squares if self.squares else 0.0


_Tallies = dict[Literal["votes", "blind", "open"], _Tally]


def _count(answers: Iterable[KeptAnswer]) -> tuple[defaultdict[str, _Tallies], Counter[str]]:
    """Count the votes on each LLM's answers against another LLM, and the wins; and the answers with votes by kind."""
    voted: Counter[str] = Counter()
    found: defaultdict[str, _Tallies] = defaultdict(lambda: {"votes": _Tally(), "blind": _Tally(), "open": _Tally()})
    for answer in answers:
        names = [candidate.get("model") for candidate in answer.report["candidates"]]  # not the fused text
        counts: Counter[tuple[str, Literal["votes", "blind", "open"]]] = Counter()
        for vote in answer.votes:
            if max(vote.a, vote.b) >= len(names) or names[vote.a] == names[vote.b]:
                continue
            won = {"a": 1.0, "b": 0.0, "tie": 0.5}[vote.label]
            for name, share in ((str(names[vote.a]), won), (str(names[vote.b]), 1 - won)):
                for kind in ("votes", "blind" if vote.blind else "open"):
                    found[name][kind].won += share
                    counts[name, kind] += 1
        for (name, kind), count in counts.items():
            found[name][kind].count += count
            found[name][kind].squares += count**2
        voted.update({kind for _, kind in counts})
    return found, voted
