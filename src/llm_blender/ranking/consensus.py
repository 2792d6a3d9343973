"""What the candidates themselves say of each other: an answer that says what the others say too is rarely wrong.

A ranker that reads two candidates at a time cannot see this, an ensemble has it for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["consensus"]

_LEAST = 3  # different candidates from which on there are others to agree

# Scripts without spaces between words: each character counts as one.
_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKENS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


def consensus(texts: Sequence[str]) -> NDArray[np.float64]:
    """How much of what the other candidates say each one says, from 0 to 1.

    For candidate i the mean over the others of |V_i ∩ V_j| / |V_j|, where V is the set of a text's words and
    punctuation marks in lower case: the recall of ROUGE-1 on sets, with every other candidate as a reference. To choose
    the highest is minimum Bayes risk decoding (Kumar and Byrne 2004, aclanthology.org/N04-1022), with the candidates as
    the sample and this as the gain. It favours answers that say more, as far as the others say it too.

    Args:
        texts: N candidates of one prompt; equal ones count as often as they occur.

    Returns:
        ``[N]``; all 0 where fewer than three are different.
    """
    if len({text.strip() for text in texts}) < _LEAST:
        return np.zeros(len(texts))
    words = [set(_TOKENS.findall(text.lower())) for text in texts]
    numbers = {word: number for number, word in enumerate(sorted(set().union(*words)))}
    said = np.zeros((len(texts), len(numbers)))
    for row, found in enumerate(words):
        said[row, [numbers[word] for word in found]] = 1
    shared = said @ said.T
    recall = shared / np.maximum(said.sum(axis=1), 1)
    np.fill_diagonal(recall, 0)
    return np.asarray(recall.sum(axis=1) / (len(texts) - 1))
