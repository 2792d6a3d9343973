"""Best and worst of n, for 2(n − 1) comparisons an input instead of n(n − 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import MissingExtraError, unknown_name
from llm_blender.ranking import Advance, Pool, knockout, rank_many

from ._reading import FORWARD, Reader
from ._texts import Texts

__all__ = ["bubble", "by_bubble", "by_knockout", "contest", "start_orders"]

Order = list[int]
"""Indices of candidates, the one that is looked for first."""
Step = tuple[int, int, int]
"""Who stands, who challenges, who goes on."""


def contest(kind: str, reader: Reader, texts: Texts, batch_size: int, *, worst: bool) -> list[Order]:
    """Orders of each source's candidates, the best one first, or the worst, by the original's ``pairrm_cmp_type``.

    A pointwise ranker knows one kind.

    Raises:
        InputError: the kind is unknown.
    """
    kinds = ("bubble", "full", "reference")
    if kind not in kinds:
        raise unknown_name("pairrm_cmp_type", kind, kinds)
    if kind == "full" or not reader.pairwise:
        sign = 1 if worst else -1
        return [np.argsort(sign * row, kind="stable").tolist() for row in reader.scores(texts)]
    return (
        by_knockout(reader, texts, worst=worst)
        if kind == "bubble"
        else by_bubble(reader, texts, batch_size, worst=worst)
    )


def by_knockout(reader: Reader, texts: Texts, *, worst: bool) -> list[Order]:
    """By cups over all inputs at once; the other candidates by how late they went out, which does not rank them."""
    sign = -1.0 if worst else 1.0

    def compare(pool: Pool, advance: Advance) -> NDArray[np.float64]:
        return sign * reader.compare(texts, pool, FORWARD).astype(np.float64)

    rankings = rank_many(texts.candidates, [knockout(size) for size in texts.sizes], compare)
    return [list(ranking.order) for ranking in rankings]


def by_bubble(reader: Reader, texts: Texts, batch_size: int, *, worst: bool) -> list[Order]:
    """As 0.0.2 did: the start order is drawn, and the others follow in the order in which they lost."""
    starts = start_orders(texts.sizes, batch_size)
    steps = bubble(reader, texts, starts, worst=worst)
    return [
        [row[-1][2] if row else start[0], *(challenger if stays == on else stays for stays, challenger, on in row)]
        for row, start in zip(steps, starts, strict=True)
    ]


def bubble(reader: Reader, texts: Texts, starts: Sequence[Order], *, worst: bool = False) -> list[list[Step]]:
    """One candidate stands and meets the next (arXiv 2306.02561, section 4.2); in a tie the next one goes on.

    Args:
        reader: of the texts.
        texts: sources and candidates.
        starts: of each source, its candidates in the order in which they meet.
        worst: look for the worst instead of the best.

    Returns:
        The steps of each source.
    """
    steps: list[list[Step]] = [[] for _ in starts]
    standing = [start[0] for start in starts]
    for place in range(1, max(map(len, starts))):
        matches = [(i, standing[i], start[place]) for i, start in enumerate(starts) if place < len(start)]
        for (i, stays, challenger), logit in zip(matches, reader.compare(texts, matches).tolist(), strict=True):
            standing[i] = stays if (-logit if worst else logit) > 0 else challenger
            steps[i].append((stays, challenger, standing[i]))
    return steps


def start_orders(sizes: Sequence[int], batch_size: int) -> list[Order]:
    """Drawn by torch's global generator, one for each batch of inputs, as 0.0.2 drew them.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("The start order of the reference", "torch") from error
    torch.empty((), dtype=torch.int64).random_()  # its DataLoader took a number first
    starts: list[Order] = []
    for first in range(0, len(sizes), batch_size):
        batch = sizes[first : first + batch_size]
        order = torch.randperm(max(batch)).tolist()
        starts += [[place for place in order if place < size] for size in batch]
    return starts
