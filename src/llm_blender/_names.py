"""One wording for every name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from llm_blender.errors import InputError


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for `name`, with the nearest of the `known` names."""
    names = list(known)
    if not names:
        return InputError(f"Unknown {kind} {name!r}: there is none at all.")
    (nearest,) = get_close_matches(name, names, n=1, cutoff=0)
    return InputError(f"Unknown {kind} {name!r}: did you mean {nearest!r}? Known: {', '.join(names)}.")
