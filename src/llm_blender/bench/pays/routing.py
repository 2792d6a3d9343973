"""Routing: one LLM an instruction, the one that did best on the most similar instructions known.

A nearest-neighbour router over TF-IDF, the plain one that learned routers are measured against. Written here, as
scikit-learn and SciPy would be 150 MB for these lines; only postings are kept, so that 100,000 rows are no trouble.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.scored import ScoredRow

__all__ = ["NearestRouter"]

_Floats = NDArray[np.float64]

_WORDS = re.compile(r"\w+")


class NearestRouter:
    """Chooses by what is known of the k nearest instructions.

    A word weighs as often as it occurs, times 1 + ln((1 + n) / (1 + n_word)); similarity is the cosine. An LLM's worth
    is its mean score on the neighbours that it answered; where LLMs tie, the one that did better on all known rows
    comes first. Neighbours that are equally similar come in the order of their rows, so nothing is left to chance.

    Args:
        known: n rows, at least one.
        order: the LLMs to choose from, best on the known rows first.
        nearest: k.
    """

    def __init__(self, known: Sequence[ScoredRow], order: Sequence[str], nearest: int = 20) -> None:
        self._known, self._order, self._nearest = known, order, nearest
        counts = [_count(row.prompt) for row in known]
        rows_with = Counter(word for row in counts for word in row)
        self._idf = {word: 1 + float(np.log((1 + len(known)) / (1 + rows))) for word, rows in rows_with.items()}
        postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for place, row in enumerate(counts):
            for word, weight in self._weighed(row).items():
                postings[word].append((place, weight))
        self._postings = {
            word: (np.array([place for place, _ in found]), np.array([weight for _, weight in found]))
            for word, found in postings.items()
        }

    def neighbours(self, prompt: str) -> list[int]:
        """Places of up to k known rows that share a word with the prompt, nearest first."""
        similarity: _Floats = np.zeros(len(self._known))
        for word, weight in self._weighed(_count(prompt)).items():
            places, weights = self._postings[word]
            similarity[places] += weight * weights
        nearest = np.argsort(-similarity.round(9), kind="stable")[: self._nearest]
        return [int(place) for place in nearest if similarity[place] > 0]

    def route(self, prompt: str, among: Collection[str | None]) -> str | None:
        """The LLM to ask.

        Args:
            prompt: any.
            among: who can be asked.

        Returns:
            One of them; None where nothing is known of any.
        """
        eligible = [model for model in self._order if model in among]
        scores: dict[str, list[float]] = {model: [] for model in eligible}
        for place in self.neighbours(prompt):
            row = self._known[place]
            for model, quality in zip(row.models, row.qualities, strict=True):
                if model in scores:
                    scores[model].append(quality)
        worth = {model: round(float(np.mean(found)), 9) for model, found in scores.items() if found}
        return max(worth, key=worth.__getitem__, default=eligible[0] if eligible else None)

    def _weighed(self, counts: Counter[str]) -> dict[str, float]:
        """Length 1; words that no known row has say nothing."""
        weights = {word: count * self._idf[word] for word, count in counts.items() if word in self._idf}
        length = float(np.sqrt(sum(weight * weight for weight in weights.values()))) or 1.0
        return {word: weight / length for word, weight in weights.items()}


def _count(text: str) -> Counter[str]:
    return Counter(_WORDS.findall(text.lower()))
