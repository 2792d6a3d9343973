"""What the routes of the history take and give."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llm_blender.server.schemas import OpenAnswer, StrictRequest

__all__ = ["Kept", "KeptList", "VoteRequest"]

Index = Annotated[int, Field(ge=0, le=1_000_000)]


class VoteRequest(StrictRequest):
    """A candidate is better than others.

    Attributes:
        preferred: index of the better one among the candidates, after which comes what was fused of them.
        over: the worse ones; all others if left out.
        tie: they are equally good.
    """

    preferred: Index
    over: Annotated[list[Index], Field(min_length=1)] | None = None
    tie: bool = False


class _Vote(OpenAnswer):
    a: int
    b: int
    label: Literal["a", "b", "tie"]


class _Summary(OpenAnswer):
    id: str
    created: int
    prompt: str
    votes: int


class Kept(OpenAnswer):
    """A question and its answer, as they were told."""

    id: str
    created: int
    messages: list[dict[str, Any]]
    text: str
    blend: dict[str, Any]
    votes: list[_Vote]


class KeptList(OpenAnswer):
    """The newest questions, newest first; `more` tells whether there are older ones."""

    data: list[_Summary]
    more: bool
