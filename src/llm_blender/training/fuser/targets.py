"""Answers to learn that hold nothing but what the candidates say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llm_blender.fusers.consensus_fuser import Offer, agreement, gram_counts, merge, offers
from llm_blender.fusers.texts import WORDS, sentences

__all__ = ["closest_merge"]


def closest_merge(best: str, others: Sequence[str], reference: str, *, gain: float = 0.004, most: int = 12) -> str:
    """The best candidate, with sentences left out and sentences of the others put in, closer to the reference.

    Of all sentences to leave out or put in, the one that brings the text closest is, then the next one: the greedy
    search that makes labels for extractive summaries (Nallapati et al. 2017, arXiv 1611.04230), from the best
    candidate on. Closeness is the F1 of words and pairs of words, as `ConsensusFuser` measures it.

    Args:
        best: the candidate to begin with.
        others: candidates.
        reference: what to come close to.
        gain: of F1, 0 to 1, that a move must bring.
        most: moves.
    """
    kept = [unit for unit in sentences(best.strip()) if WORDS.search(unit)]
    if not kept:
        return best
    pool = [Offer(unit, 0, 0.0) for unit in kept] + [
        replace(offer, source=offer.source + 1) for offer in offers(others)
    ]
    counts = gram_counts([*(offer.text for offer in pool), reference])
    said, wanted = counts[:-1], counts[-1:]
    inside = np.array([offer.source == 0 for offer in pool])
    text = said[inside].sum(axis=0, keepdims=True)
    close = agreement(text, wanted)[0, 0]
    for _ in range(most):
        moved = text + np.where(inside, -1, 1)[:, None] * said
        after = agreement(moved, wanted)[:, 0]
        best_move = int(after.argmax())
        if after[best_move] < close + gain:
            break
        inside[best_move] = not inside[best_move]
        text, close = moved[best_move : best_move + 1], after[best_move]
    stay = [unit for unit, stays in zip(kept, inside[: len(kept)], strict=True) if stays]
    return merge(stay, [offer for offer, stays in zip(pool, inside, strict=True) if stays and offer.source])
