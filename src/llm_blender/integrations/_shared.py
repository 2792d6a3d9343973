"""What the integrations share: their ranker, and the error where a library is missing."""

from __future__ import annotations

import os

from llm_blender.errors import InputError, MissingExtraError
from llm_blender.rankers import load_ranker
from llm_blender.types import Ranker

__all__ = ["MissingLibraryError", "as_ranker"]


class MissingLibraryError(MissingExtraError):
    """The library that a module is made for is not installed; the message holds the pip line that installs it."""

    def __init__(self, what: str, packages: str) -> None:
        super().__init__(what, packages)
        self.args = (f"{what} needs another library: pip install {packages}",)


def as_ranker(ranker: Ranker | str | os.PathLike[str]) -> Ranker:
    """A ranker as it is, or the one of that name.

    Args:
        ranker: any `Ranker`, or what `load_ranker` takes: ``bundled``, a folder, a Hub repository.

    Raises:
        InputError: it is neither; and see `load_ranker`.
    """
    if isinstance(ranker, str | os.PathLike):
        return load_ranker(ranker)
    if not isinstance(ranker, Ranker):
        raise InputError(f"A {type(ranker).__name__} is no ranker: give one with `rank_many`, or a name.")
    return ranker
