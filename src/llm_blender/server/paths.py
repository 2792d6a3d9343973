"""Errors for paths that the service does not have: they name the path, or the setting of the client, to use."""

from __future__ import annotations

import re

from starlette.types import Receive, Scope, Send

from llm_blender.server.errors import RefusedError, error_response

_CHAT = "/v1/chat/completions"
ENDPOINTS = (_CHAT, "/v1/responses", "/v1/completions", "/v1/models", "/v1/rank", "/v1/compare", "/v1/fuse", "/rerank")
"""Paths to name where a path is unknown."""
_LONGEST = 200  # characters of a path in a message
_OPENAI = "choose the OpenAI-compatible provider of your client"
# Other APIs, and other parts of OpenAI's, by the begin of their paths.
_HINTS = {
    "/v1/responses/": "responses are not stored: send the whole conversation to /v1/responses as `input`",
    f"{_CHAT}/": "answers are not stored; those with `blend.keep` are in /v1/history",
    "/v1/messages": f"Anthropic's API is not served: {_OPENAI}",
    "/v1/complete": f"Anthropic's API is not served: {_OPENAI}",
    "/v1beta": f"Google's API is not served: {_OPENAI}",
    "/v1/models/": f"Google's API is not served: {_OPENAI}",
    "/api/": f"Ollama's API is not served: {_OPENAI}",
    "/openai/": f"Azure's paths are not served: {_OPENAI}",
    "/v1/engines": f"the model belongs into the body of {_CHAT} as `model`",
    "/v1/embeddings": "there are no embeddings; /rerank and /v1/rank put texts in order",
    "/v1/moderations": "there is no moderation",
    "/v1/images": "images are not supported",
    "/v1/videos": "videos are not supported",
    "/v1/audio": "audio is not supported",
    "/v1/realtime": "audio is not supported",
    "/v1/files": "files are not stored: send their text in the conversation",
    "/v1/uploads": "files are not stored: send their text in the conversation",
    "/v1/vector_stores": "files are not stored: send their text in the conversation",
    "/v1/conversations": "conversations are not stored: send the whole conversation with each request",
    "/v1/threads": "conversations are not stored: send the whole conversation with each request",
    "/v1/assistants": f"there are no assistants: send instructions and tools with each request to {_CHAT}",
    "/v1/batches": "there are no batches; `blend run` answers a file",
    "/v1/fine_tuning": "LLMs are not trained here; `blend train` trains rankers and fusers",
    "/v1/score": "/v1/rank and /v1/compare score texts",
}
_BASE = re.compile(r"(/v1|/openai)*(/chat/completions|/responses|/completions|/models|/rank|/compare|/fuse)+/?")


async def unknown_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request for a path without a route: with status 404, and what to use instead."""
    path: str = scope["path"]
    shown = path if len(path) <= _LONGEST else f"{path[:_LONGEST]}…"
    error = RefusedError(404, "http_404", f"There is nothing at {shown}: {_hint(path)}.")
    await error_response(error)(scope, receive, send)


def _hint(path: str) -> str:
    if right := _BASE.fullmatch(path):
        return f"the path is /v1{right[2]}; a client's base_url ends in /v1, once"
    for begin, hint in _HINTS.items():
        if path == begin or path.startswith(begin if begin.endswith("/") else f"{begin}/"):
            return f"{hint}. {_served()}"
    return f"{_served()}; a client's base_url ends in /v1"


def _served() -> str:
    return f"This service answers at {', '.join(ENDPOINTS)}"
