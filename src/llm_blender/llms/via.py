"""Which services a request came through: sent along to the LLMs, so that an ensemble can see that it asks itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["VIA", "came_through", "via_header"]

VIA = "x-llm-blender-via"
"""The header: names of services, separated by commas."""

_via: ContextVar[tuple[str, ...]] = ContextVar("llm_blender_via", default=())


def via_header() -> dict[str, str]:
    """The header of a call that is made now; empty outside of `came_through`."""
    return {VIA: ",".join(_via.get())} if _via.get() else {}


@contextmanager
def came_through(services: tuple[str, ...]) -> Iterator[None]:
    """Calls made inside, and in the tasks that begin inside, name these services."""
    token = _via.set(services)
    try:
        yield
    finally:
        _via.reset(token)
