"""Baselines that need no model: length, order, chance and consensus."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from llm_blender.ranking import BaseRanker, RankOptions, consensus, ranking_from_scores
from llm_blender.types import Instruction, Ranking, instruction_text

_DECIMALS = 9


class Heuristic(BaseRanker):
    """Base of the heuristics: a score for each candidate; a logit is a difference of scores.

    Attributes:
        name: value of `Ranking.strategy`.
    """

    name: ClassVar[str]
    quick = True

    @abstractmethod
    def _scores(self, prompt: str, texts: Sequence[str], seed: int) -> list[float]:
        """Score the candidates of one prompt; higher is better."""

    def _rank_many(
        self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]], options: RankOptions
    ) -> list[Ranking]:
        rankings = [
            self._ranking(self._scores(instruction_text(instruction), texts, options["seed"]))
            for instruction, texts in zip(instructions, candidates, strict=True)
        ]
        if (progress := options["progress"]) is not None:
            total = sum(map(len, candidates))
            progress(total, total)
        return rankings

    def _ranking(self, scores: list[float]) -> Ranking:
        logits = np.subtract.outer(scores, scores)
        return replace(ranking_from_scores(self.name, scores, logits), comparisons=0)


class Longest(Heuristic):
    """Prefers the candidate with more characters.

    The score is log(characters + 1), so that the probability of a candidate against another is its share of the
    characters of both.

    Examples:
        >>> Longest().rank("Why is the sky blue?", ["Blue light scatters most.", "Because."]).best
        0
    """

    name = "longest"

    def _scores(self, prompt: str, texts: Sequence[str], seed: int) -> list[float]:
        return [math.log1p(len(text)) for text in texts]


class Shortest(Heuristic):
    """Prefers the candidate with fewer characters; the opposite of `Longest`."""

    name = "shortest"

    def _scores(self, prompt: str, texts: Sequence[str], seed: int) -> list[float]:
        return [-math.log1p(len(text)) for text in texts]


class Consensus(Heuristic):
    """Prefers the candidate that overlaps most with the others; see `llm_blender.ranking.consensus`.

    One or two candidates tie. The logits are not calibrated.
    """

    name = "consensus"

    def _scores(self, prompt: str, texts: Sequence[str], seed: int) -> list[float]:
        # The last digits of a sum of floats depend on their order; equal texts must tie.
        scores: list[float] = consensus(texts).round(_DECIMALS).tolist()
        return scores


class First(Heuristic):
    """Prefers the first candidate; a score is minus the 0-based position."""

    name = "first"

    def _scores(self, prompt: str, texts: Sequence[str], seed: int) -> list[float]:
        return [-float(place) for place in range(len(texts))]


class Random(Heuristic):
    """Draws a score from 0 to 1 for each text.

    The draw depends on the seed, the instruction and the text, not on other candidates or their order; equal texts of
    one instruction tie.

    Args:
        seed: added to the seed of a call.
    """

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _scores(self, prompt: str, texts: Sequence[str], seed: int) -> list[float]:
        return [self._draw(prompt, text, self.seed + seed) for text in texts]

    @staticmethod
    def _draw(prompt: str, text: str, seed: int) -> float:
        parts = (str(seed).encode(), *(part.encode("utf-8", "surrogatepass") for part in (prompt, text)))
        drawn = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
        return int.from_bytes(drawn[:6], "big") / 2**48


HEURISTICS: dict[str, type[Heuristic]] = {kind.name: kind for kind in (Longest, Shortest, Consensus, First, Random)}
"""Heuristics by name; `llm_blender.rankers.load_ranker` accepts these names."""
