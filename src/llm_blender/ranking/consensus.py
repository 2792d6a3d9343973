"""Consensus of candidates: an answer that agrees with the others is rarely wrong.

A ranker that reads two candidates at a time cannot see this; an ensemble gets it for free.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.ranking.answers import regex
from llm_blender.ranking.form import is_degenerate

_LONGEST = 20_000  # characters of a text that count
_BLOCK = 4096  # different items at a time, which bounds the memory
_LEAST = 3  # number of candidates from which on there is a consensus

# Scripts without spaces between words: each character counts as one.
_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKENS = regex(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


def consensus(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return for each candidate its share of the content of the others, from 0 to 1.

    For candidate i this is the mean over the others of |V_i ∩ V_j| / |V_j|, where V is the set of a text's words and
    punctuation marks in lower case, averaged with the same for bigrams: the recall of ROUGE-1 and ROUGE-2 on sets,
    with every other candidate as a reference. Choosing the highest is minimum Bayes risk decoding (Kumar and Byrne
    2004, aclanthology.org/N04-1022), with the candidates as the sample and this as the gain. It favours longer answers
    as far as their content is in the others too.

    A degenerate text (empty, or a loop) has no vote: its share is 0, and it counts for no other candidate. Beside it,
    texts that are too few for a consensus all have the share 1/2.

    Args:
        texts: N candidates of one prompt; equal texts count as often as they occur.

    Returns:
        ``[N]``; all 0 if N is below three.
    """
    votes = [place for place, text in enumerate(texts) if not is_degenerate(text)]
    shares = np.zeros(len(texts))
    if len(votes) >= _LEAST:
        tokens = [_TOKENS.findall(texts[place][:_LONGEST].lower()) for place in votes]
        bigrams = _recall([set(itertools.pairwise(words)) for words in tokens])
        shares[votes] = (_recall([set(words) for words in tokens]) + bigrams) / 2
    elif len(votes) < len(texts) and len(texts) >= _LEAST:
        shares[votes] = 0.5
    return shares


def _recall(sets: Sequence[AbstractSet[Any]]) -> NDArray[np.float64]:
    """Return ``[N]``, the mean share of the other sets that each set contains."""
    numbers: dict[Any, int] = {}
    rows = [np.sort([numbers.setdefault(item, len(numbers)) for item in items]).astype(np.int64) for items in sets]
    common = np.zeros((len(sets), len(sets)))
    for start in range(0, len(numbers), _BLOCK):
        held = np.zeros((len(sets), _BLOCK))
        for row, columns in enumerate(rows):
            held[row, columns[slice(*np.searchsorted(columns, (start, start + _BLOCK)))] - start] = 1
        common += held @ held.T
    shares = common / np.maximum(np.array([len(items) for items in sets]), 1)
    np.fill_diagonal(shares, 0)
    return np.asarray(shares.sum(axis=1) / (len(sets) - 1))
