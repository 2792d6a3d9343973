"""An ensemble behind an OpenAI-compatible HTTP service.

A chat request passes the middleware of `auth` and the `schemas`; `request` reads it, it waits for admission (`limits`),
`chat` has the ensemble answer it, and `response` renders the answer. `responses` and `completions` translate requests
of OpenAI's newer and older API to chat requests, and the answers back. `rank`, `history`, `status` and `playground` are
the other routes, `paths` answers for those that do not exist, `errors` renders all errors, `service` holds the state
that the routes share, `app` puts them together, and `serve` runs the app with graceful shutdown.
"""

from llm_blender.errors import MissingExtraError

try:
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError:
    raise MissingExtraError("The service", "server") from None

from llm_blender.server.app import create_app
from llm_blender.server.serve import serve
from llm_blender.server.service import most_at_once

__all__ = ["create_app", "most_at_once", "serve"]
