"""An ensemble behind an OpenAI-compatible HTTP service.

A request comes in through `door` (who may, how much), is understood by `schemas`, becomes an ensemble of its own in
`asking`, waits for its turn at the `gate`, and leaves as JSON by `chat` or as a stream by `streaming`. `comparing` and
`status` are the other routes, `app` puts all of it together, and `running` gives it a port and an end.
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

__all__ = ["create_app", "serve"]
