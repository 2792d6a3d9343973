"""What a judge said of one row's candidates, pair by pair, and the ranks that follow (GPT-Rank).

Source: arXiv 2306.02561; there ChatGPT is the judge of every pair of candidates, with one of four outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_blender._cmp_results import OUTCOMES, read_cmp_results, resolve_pair
from llm_blender.errors import InputError
from llm_blender.ranking import ranks_from_scores

__all__ = ["OUTCOMES", "GPTRanking", "gpt_ranking", "read_cmp_results"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GPTRanking:
    """The candidates of one row, ranked by a judge's pairwise outcomes.

    Attributes:
        models: the LLMs, one a candidate; c of them, all different.
        matrix: ``[c, c]``; ``[i, j]`` is what the outcome of i and j is worth to i (`OUTCOMES`), 0 on the diagonal,
            NaN where the pair was not judged.
    """

    models: tuple[str, ...]
    matrix: Floats

    @property
    def judged(self) -> NDArray[np.bool_]:
        """``[c]``: whether a candidate was compared with any other."""
        return np.asarray(np.count_nonzero(~np.isnan(self.matrix), axis=1) > 1)

    @property
    def scores(self) -> Floats:
        """``[c]``: Σ_j (M[i,j] − M[j,i]), which is 2 · (wins − losses): both kinds of "same" cancel out."""
        known = np.nan_to_num(self.matrix)
        return np.asarray((known - known.T).sum(axis=1))

    @property
    def ranks(self) -> Floats:
        """``[c]``: GPT-Rank among the judged candidates, 1 is best, ties share the smaller; NaN for the others."""
        judged = self.judged
        ranks = np.full(len(self.models), np.nan)
        ranks[judged] = ranks_from_scores(self.scores[judged])
        return ranks

    def index(self, model: str) -> int | None:
        """The place of an LLM's candidate; None where it has none in this row."""
        return self.models.index(model) if model in self.models else None

    def keep(self, models: Sequence[str]) -> GPTRanking:
        """Only these LLMs' candidates, ranked among themselves; who has none in this row is left out."""
        kept = [place for place, name in enumerate(self.models) if name in models]
        return GPTRanking(tuple(self.models[place] for place in kept), self.matrix[np.ix_(kept, kept)])


def gpt_ranking(cmp_results: Mapping[str, str] | str | None, models: Sequence[str]) -> GPTRanking:
    """GPT-Rank of one row.

    Args:
        cmp_results: the judge's outcomes, in any spelling of `read_cmp_results`. A pair that is there in both orders
            counts as the mean of the two.
        models: name of each candidate's LLM, in the order of the candidates.

    Raises:
        InputError: two candidates share a name, a pair is not one of two of `models`, or an outcome is unknown.
    """
    names = tuple(models)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{twice[0]!r} names {names.count(twice[0])} candidates: outcomes by name need one each.")
    matrix = np.zeros((len(names), len(names)))
    judgements = np.eye(len(names))  # a candidate is as good as itself: the diagonal is 0
    for pair, outcome in read_cmp_results(cmp_results).items():
        a, b = resolve_pair(pair, names)
        if not isinstance(outcome, str) or outcome not in OUTCOMES:
            raise InputError(f"The outcome of {pair!r} is {outcome!r}; wanted is one of: {', '.join(OUTCOMES)}.")
        for i, j, worth in zip((a, b), (b, a), OUTCOMES[outcome], strict=True):
            matrix[i, j] += worth
            judgements[i, j] += 1
    return GPTRanking(names, np.where(judgements > 0, matrix / np.maximum(judgements, 1), np.nan))
