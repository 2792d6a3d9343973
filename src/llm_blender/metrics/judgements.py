"""What a judge said of one row's candidates, pair by pair, and the ranks that follow (GPT-Rank).

Source: arXiv 2306.02561; there ChatGPT is the judge of every pair of candidates, with one of four outcomes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError
from llm_blender.ranking import ranks_from_scores

__all__ = ["OUTCOMES", "GPTRanking", "gpt_ranking", "read_cmp_results"]

Floats = NDArray[np.float64]

OUTCOMES: dict[str, tuple[float, float]] = {
    "A is better": (1.0, -1.0),
    "B is better": (-1.0, 1.0),
    "Same good": (0.5, 0.5),
    "Same bad": (-0.5, -0.5),
}
"""The judge's four outcomes, and what each is worth to A and to B."""


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


def read_cmp_results(value: Mapping[str, str] | str | None) -> Mapping[str, str]:
    """A row's ``cmp_results`` in any of MixInstruct's spellings.

    Args:
        value: ``{"modelA,modelB": outcome}``, the same as a JSON text (as on the Hub), or nothing: None, an empty
            text, ``null``.

    Returns:
        Outcomes by pair; none for a row that was not judged.

    Raises:
        InputError: it is neither.
    """
    results: Any = value
    if isinstance(value, str):
        try:
            results = json.loads(value) if value.strip() else None
        except json.JSONDecodeError as error:
            raise InputError(f"`cmp_results` is a text but no JSON: {error}.") from None
    if results is None:
        return {}
    if not isinstance(results, Mapping):
        raise InputError(f"`cmp_results` must hold outcomes by pair of LLMs, not {type(results).__name__}.")
    return results


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
        a, b = _resolve(pair, names)
        if not isinstance(outcome, str) or outcome not in OUTCOMES:
            raise InputError(f"The outcome of {pair!r} is {outcome!r}; wanted is one of: {', '.join(OUTCOMES)}.")
        for i, j, worth in zip((a, b), (b, a), OUTCOMES[outcome], strict=True):
            matrix[i, j] += worth
            judgements[i, j] += 1
    return GPTRanking(names, np.where(judgements > 0, matrix / np.maximum(judgements, 1), np.nan))


def _resolve(pair: str, models: tuple[str, ...]) -> tuple[int, int]:
    """The two candidates that ``"modelA,modelB"`` names; a name may hold commas itself."""
    halves = [(pair[:place], pair[place + 1 :]) for place, letter in enumerate(pair) if letter == ","]
    known = [(a, b) for a, b in halves if a in models and b in models]
    if len(known) > 1:
        raise InputError(f"The pair {pair!r} can be read as {' or '.join(f'{a!r} and {b!r}' for a, b in known)}.")
    if not known:
        raise InputError(f"The pair {pair!r} does not name two candidates of the row; their LLMs: {', '.join(models)}.")
    a, b = known[0]
    if a == b:
        raise InputError(f"The pair {pair!r} compares a candidate with itself.")
    return models.index(a), models.index(b)
