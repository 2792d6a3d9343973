"""Random texts to rank, in words of no language."""

from __future__ import annotations

import random
from dataclasses import dataclass

LENGTHS = {"short": (5, 40), "mixed": (5, 300)}  # words
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvwz" for vowel in "aeiou"]


@dataclass(frozen=True)
class Workload:
    """Texts to rank."""

    inputs: list[str]
    candidates: list[list[str]]

    @classmethod
    def make(cls, inputs: int, candidates: int, lengths: tuple[int, int], seed: int) -> Workload:
        """Draw random texts of `lengths` in words, evenly spread."""
        draw = random.Random(seed)
        words = vocabulary()
        weights = [1 / (rank + 3) for rank in range(len(words))]  # as in any language (Zipf)

        def text() -> str:
            return " ".join(draw.choices(words, weights, k=draw.randint(*lengths)))

        return cls([text() for _ in range(inputs)], [[text() for _ in range(candidates)] for _ in range(inputs)])

    @property
    def texts(self) -> list[str]:
        """All texts."""
        return [*self.inputs, *(text for texts in self.candidates for text in texts)]


def vocabulary(size: int = 3_000) -> list[str]:
    """Return words of no language, the frequent ones short."""
    draw = random.Random(0)
    words = dict.fromkeys("".join(draw.choices(_SYLLABLES, k=draw.randint(1, 4))) for _ in range(4 * size))
    return sorted(words, key=len)[:size]
