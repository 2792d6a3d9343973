"""Routes about the service itself: models, health, metrics."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from llm_blender.ensemble.settings import MODES
from llm_blender.server.errors import StrictRoute
from llm_blender.server.schemas import EnsembleInfo, Health, Model, ModelList
from llm_blender.server.service import PRESETS, Service

router = APIRouter(route_class=StrictRoute)
OPEN = frozenset({"/healthz", "/readyz"})
"""Paths that need no key."""

_STARTED = int(time.time())


@router.get("/v1/models", responses={200: {"model": ModelList}})
async def models(request: Request) -> Response:
    """List the values of `model`: the ensemble with its presets, and each LLM."""
    names = [*PRESETS, *Service.of(request).llms]
    return JSONResponse({"object": "list", "data": [_model(name) for name in names]})


@router.get("/v1/models/{name:path}", responses={200: {"model": Model}})
async def model(name: str, request: Request) -> Response:
    """Return one of them."""
    Service.of(request).check_model(name)
    return JSONResponse(_model(name))


@router.get("/v1/ensemble", responses={200: {"model": EnsembleInfo}})
async def ensemble(request: Request) -> Response:
    """Describe the ensemble: its LLMs, its default mode and strategy, and the modes that it supports."""
    service = Service.of(request)
    ensemble = service.ensemble
    return JSONResponse(
        {
            "llms": [{"name": member.llm.name, "samples": member.samples} for member in ensemble.members],
            "mode": ensemble.settings.mode,
            "modes": list(MODES if ensemble.fuses else MODES[:1]),
            "strategy": ensemble.settings.strategy,
            "history": service.history is not None,
        }
    )


@router.get("/healthz", responses={200: {"model": Health}})
async def healthz() -> Response:
    """Confirm that the process is alive."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", responses={200: {"model": Health}, 503: {"model": Health}})
async def readyz(request: Request) -> Response:
    """Confirm that the service takes requests: its models are loaded, and an LLM is available."""
    service = Service.of(request)
    available = not all(service.breakers.is_open(name) for name in service.llms)
    ready = service.loaded and not service.admission.closed and available
    return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)


@router.get(
    "/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}, response_class=Response
)
async def metrics(request: Request) -> Response:
    """Render the counters for Prometheus."""
    return Response(Service.of(request).metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "llm-blender"}
