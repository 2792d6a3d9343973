"""Which candidate the others are compared with, in `Blender.rank_with_ref`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ._reading import Match
from ._texts import Texts, texts_of

__all__ = ["REF_MODES", "references"]


def _by_length(texts: list[str]) -> list[int]:
    return sorted(range(len(texts)), key=lambda place: len(texts[place]))


REF_MODES: dict[str, Callable[[list[str]], int]] = {
    "longest": lambda texts: max(range(len(texts)), key=lambda place: len(texts[place])),
    "shortest": lambda texts: _by_length(texts)[0],
    "median_length": lambda texts: _by_length(texts)[len(texts) // 2],
    "first": lambda texts: 0,
    "last": lambda texts: len(texts) - 1,
}
"""From candidates to the one that is the reference; lengths in characters, of equal ones the first."""


def references(texts: Texts, mode: str, given: Sequence[str] | None) -> tuple[Texts, list[Match]]:
    """The references, and whom they meet.

    Args:
        texts: sources and candidates.
        mode: one of `REF_MODES`.
        given: a reference for each source, instead of one of its candidates.

    Returns:
        The texts with the reference behind the candidates of each, and for each candidate of each source the match
        (source, reference, candidate).

    Raises:
        InputError: there are more or fewer references than sources, or one is no text.
    """
    choose = REF_MODES[mode]
    if given is None:
        chosen = [row[choose(row)] for row in texts.candidates]
    else:
        chosen = texts_of(given, "ref_candidates", len(texts.sources))
    rows = [[*row, reference] for row, reference in zip(texts.candidates, chosen, strict=True)]
    matches = [(i, size, place) for i, size in enumerate(texts.sizes) for place in range(size)]
    return Texts(texts.sources, rows), matches
