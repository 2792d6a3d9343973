"""The page at `/` and its files, which hold no data and need no key."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Response

router = APIRouter(include_in_schema=False)

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# No resources of other hosts, nothing inline, and no markup but what DOMPurify leaves of the Markdown of models: the
# only Trusted Types policy is its own, which no other script can reach.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    ]
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}
_FRESH, _FOREVER = "no-cache", "public, max-age=31536000, immutable"


def _add(path: str, file: Traversable, media_type: str, caching: str) -> None:
    content, headers = file.read_bytes(), {**_HEADERS, "cache-control": caching}

    @router.get(path)
    async def show() -> Response:
        return Response(content, media_type=media_type, headers=headers)


def _add_folder(folder: Traversable, prefix: str, caching: str) -> list[str]:
    """Add a route for each file of a known type, and list the paths."""
    paths = []
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        media_type = _TYPES.get(file.name[file.name.rfind(".") :])
        if media_type is not None:
            paths.append("/" if file.name == "index.html" else f"{prefix}{file.name}")
            _add(paths[-1], file, media_type, caching)
    return paths


_PAGE = files("llm_blender.server").joinpath("page")
# The names of libraries hold their versions, so that browsers can keep the files.
PATHS = frozenset(
    [*_add_folder(_PAGE, "/page/", _FRESH), *_add_folder(_PAGE.joinpath("vendor"), "/page/vendor/", _FOREVER)]
)
"""Paths that need no key."""
