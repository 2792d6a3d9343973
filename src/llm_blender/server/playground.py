"""The page at `/` and its files, which hold no data and need no key."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response

router = APIRouter(include_in_schema=False)

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page/past.js": ("past.js", "text/javascript; charset=utf-8"),
    "/page/results.js": ("results.js", "text/javascript; charset=utf-8"),
    "/page/standings.js": ("standings.js", "text/javascript; charset=utf-8"),
    "/page/standings.css": ("standings.css", "text/css; charset=utf-8"),
    "/page/service.js": ("service.js", "text/javascript; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
PATHS = frozenset(_FILES)
"""Paths that need no key."""

# No resources of other hosts, nothing inline, no text that becomes markup.
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
        "trusted-types 'none'",
    ]
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def _add(path: str, name: str, media_type: str) -> None:
    content = files("llm_blender.server").joinpath("page", name).read_bytes()

    @router.get(path)
    async def show() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)


for _path, (_name, _media_type) in _FILES.items():
    _add(_path, _name, _media_type)
