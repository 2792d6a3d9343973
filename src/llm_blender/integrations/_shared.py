"""Shared code of the integrations: loading a ranker, and the error for a missing library."""

from __future__ import annotations

import os

from llm_blender.errors import InputError, MissingExtraError
from llm_blender.rankers import load_ranker
from llm_blender.types import Ranker

__all__ = ["MissingLibraryError", "as_ranker"]


class MissingLibraryError(MissingExtraError):
    """The library of an integration is not installed; the message contains the pip command."""

    def __init__(self, what: str, packages: str) -> None:
        super().__init__(what, packages)
        self.args = (f"{what} needs another library: pip install {packages}",)


def as_ranker(ranker: Ranker | str | os.PathLike[str]) -> Ranker:
    """Return a ranker unchanged, or load it by name.

    Args:
        ranker: any `Ranker`, or a name for `load_ranker`: ``bundled``, a folder, a Hub repository.

    Raises:
        InputError: the value is neither; see also `load_ranker`.
    """
    if isinstance(ranker, str | os.PathLike):
        return load_ranker(ranker)
    if not isinstance(ranker, Ranker):
        raise InputError(f"A {type(ranker).__name__} is no ranker: give one with `rank_many`, or a name.")
    return ranker
