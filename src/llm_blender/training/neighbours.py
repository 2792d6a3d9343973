"""Which instructions are alike, by their rarer words."""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

__all__ = ["nearest"]

_RAREST = 8  # words of a text by which others are found
_COMMON = 4.0  # idf under which a word tells little: that of one text in 55
_FEW = 4  # texts with a word that is never common, however few texts there are


def nearest(texts: Sequence[str], k: int) -> list[list[int]]:
    """For each text up to `k` others, the most similar first.

    Similarity is the cosine of tf-idf vectors; others are looked for among those that share one of the text's rarest
    words, so a text may find fewer than `k`, or none.
    """
    words = [Counter(re.findall(r"\w+", text.lower())) for text in texts]
    places: dict[str, list[int]] = defaultdict(list)
    for index, counts in enumerate(words):
        for word in counts:
            places[word].append(index)
    idf = {word: float(np.log(len(texts) / len(found))) for word, found in places.items()}
    weights = [{word: count * idf[word] for word, count in counts.items()} for counts in words]
    norms = [max(float(np.sqrt(sum(w * w for w in vector.values()))), 1e-9) for vector in weights]
    result: list[list[int]] = []
    for index, vector in enumerate(weights):
        similar: dict[int, float] = defaultdict(float)
        for word in _telling(vector, idf, places):
            for other in places[word]:
                similar[other] += vector[word] * weights[other][word] / norms[other]
        similar.pop(index, None)
        result.append(heapq.nsmallest(k, similar, key=lambda other: (-similar[other], other)))
    return result


def _telling(words: Collection[str], idf: Mapping[str, float], places: Mapping[str, Sequence[int]]) -> list[str]:
    """The rarest words; common ones only where there is no other."""
    rarest = heapq.nsmallest(_RAREST, words, key=lambda word: (-idf[word], word))
    rare = [word for word in rarest if idf[word] >= _COMMON or len(places[word]) <= _FEW]
    return rare or rarest[:1]
