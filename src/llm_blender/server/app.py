"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from llm_blender.config import ServerConfig
from llm_blender.ensemble import Ensemble
from llm_blender.errors import ConfigError
from llm_blender.server import chat, completions, history, playground, rank, responses, standings, status
from llm_blender.server.auth import AuthMiddleware, Keys
from llm_blender.server.errors import add_handlers
from llm_blender.server.paths import unknown_path
from llm_blender.server.schemas import Problem
from llm_blender.server.service import Service

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "The request is wrong, or above a limit."},
    "5XX": {"model": Problem, "description": "The LLMs, or the service, failed."},
}

_LEARN_EVERY = 600.0  # seconds


def create_app(ensemble: Ensemble, config: ServerConfig | None = None, keys: Keys | None = None) -> FastAPI:
    """Make the service of an ensemble, for any ASGI server; `serve` runs it with graceful shutdown.

    The application opens the ensemble's connections and loads its ranker, judge and fuser at startup.

    Args:
        ensemble: the ensemble that answers.
        config: limits of the service; None takes the defaults.
        keys: API keys of the clients; None admits clients of this machine without a key.

    Raises:
        ConfigError: an LLM has a name that means the ensemble, or all origins are allowed without a key.
    """
    service = Service(ensemble, config or ServerConfig())
    if "*" in service.config.origins and not keys:
        raise ConfigError("Pages of all origins may use a service with keys only: name the `origins`, or add a key.")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with ensemble:
            await asyncio.to_thread(ensemble.load, fuser=ensemble.fuses)  # requests may use it in any mode
            service.loaded = True
            learning = asyncio.create_task(_learn_again(ensemble)) if ensemble.settings.priors == "auto" else None
            yield
            if learning is not None:
                learning.cancel()
            await service.admission.drain(0)

    app = FastAPI(
        title="LLM-Blender",
        summary="Several LLMs behind one endpoint: it ranks their answers and returns the best one.",
        version=version("llm-blender"),
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other hosts
        redoc_url=None,
        responses=_ERRORS,
    )
    app.state.service = service
    for part in (chat, responses, completions, rank, history, standings, status):
        app.include_router(part.router)
    if service.config.playground:
        app.include_router(playground.router)
    app.router.default = unknown_path
    add_handlers(app)
    app.add_middleware(AuthMiddleware, service=service, keys=keys or Keys())
    return app


async def _learn_again(ensemble: Ensemble) -> None:
    """Learn the priors ``auto`` anew from time to time, as the record grows."""
    while True:
        await asyncio.to_thread(ensemble.learn)
        await asyncio.sleep(_LEARN_EVERY)
