"""GPT-Rank: ranks of candidates by a judge's pairwise outcomes, and how a selection method fares in them.

Source: arXiv 2306.02561, table 2 (right half). There ChatGPT judges every pair of candidates with one of four outcomes.
A method selects one candidate per row; a single LLM is the method that always selects its own. Its measures are the
mean GPT-Rank, how often it is on top, and how often it is at least as good as a given LLM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llm_blender._cmp_results import OUTCOMES, read_cmp_results, resolve_pair
from llm_blender.errors import InputError
from llm_blender.ranking import ranks_from_scores

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GPTRanking:
    """Candidates of one row, ranked by a judge's pairwise outcomes.

    Attributes:
        models: LLM of each of c candidates, all different.
        matrix: ``[c, c]``; ``[i, j]`` is the value of the outcome of i and j for i (`OUTCOMES`), 0 on the diagonal,
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
        """Return the index of an LLM's candidate; None if it has none in this row."""
        return self.models.index(model) if model in self.models else None

    def keep(self, models: Sequence[str]) -> GPTRanking:
        """Keep only these LLMs' candidates, ranked among themselves; ignore LLMs without a candidate in this row."""
        kept = [place for place, name in enumerate(self.models) if name in models]
        return GPTRanking(tuple(self.models[place] for place in kept), self.matrix[np.ix_(kept, kept)])


def gpt_ranking(cmp_results: Mapping[str, str] | str | None, models: Sequence[str]) -> GPTRanking:
    """Compute the GPT-Rank of one row.

    Args:
        cmp_results: the judge's outcomes, in any spelling of `read_cmp_results`. A pair judged in both orders counts
            as the mean of the two.
        models: name of each candidate's LLM, in the order of the candidates.

    Raises:
        InputError: two candidates share a name, a pair does not name two of `models`, or an outcome is unknown.
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


Selected = Sequence[int | None] | str
"""Selection of a method: a 0-based index per row (None: none), or the LLM whose candidate it always selects."""

Outcome = Literal["win", "same_good", "same_bad", "tie", "loss", "itself"]
"""Outcome of a selected candidate against a given LLM's: ``tie`` if two judgements contradict each other, ``itself``
if the selected candidate is that LLM's own."""


@dataclass(frozen=True)
class Reading:
    """Credit of ties in the rate "at least as good as", in which a win counts 1 and a loss 0.

    The authors' later script (yuchenlin/LLM-Blender#6) uses a third reading: ``Reading(0.5, 0, 0.5)``.

    Attributes:
        tie: credit if neither is better.
        same_bad: credit if neither is better and both are bad.
        itself: credit if the selected candidate is the other LLM's own.
    """

    tie: float
    same_bad: float
    itself: float


TIES_AS_WINS = Reading(1.0, 1.0, 1.0)
"""Ties count in full, as "at least as good" says."""
TIES_AS_HALF = Reading(0.5, 0.5, 0.5)
"""A tie is half a win, so a method against itself has 0.5, and the two rates of a pair add up to 1."""


@dataclass(frozen=True)
class Versus:
    """Outcomes of a method's selection against one LLM's candidates.

    Attributes:
        base: name of the LLM.
        outcomes: per row; None if the two were not compared.
    """

    base: str
    outcomes: tuple[Outcome | None, ...]

    @property
    def rows(self) -> int:
        """Number of rows that count."""
        return len(self.outcomes) - self.count(None)

    def count(self, outcome: Outcome | None) -> int:
        """Count the rows with an outcome."""
        return self.outcomes.count(outcome)

    def credits(self, reading: Reading = TIES_AS_WINS) -> Floats:
        """Return ``[n]``, the credit of each of n rows from 0 to 1, NaN for those that do not count, for intervals."""
        worth = {
            "win": 1.0,
            "same_good": reading.tie,
            "same_bad": reading.same_bad,
            "tie": reading.tie,
            "loss": 0.0,
            "itself": reading.itself,
            None: np.nan,
        }
        return np.array([worth[outcome] for outcome in self.outcomes])

    def rate(self, reading: Reading = TIES_AS_WINS) -> float:
        """Compute the share of rows in which the selected candidate is at least as good as the LLM's.

        Raises:
            InputError: the two were not compared in any row.
        """
        if not self.rows:
            raise InputError(f"No selected candidate was compared with a candidate of {self.base!r}.")
        return float(np.nanmean(self.credits(reading)))


def selected_ranks(rankings: Sequence[GPTRanking], selected: Selected) -> Floats:
    """Return the GPT-Ranks of the candidates that a method selects.

    Args:
        rankings: one per row.
        selected: by the method.

    Returns:
        ``[rows]``; NaN if no candidate is selected, or the selected one was not judged.

    Raises:
        InputError: rows and selected indices differ in number, or there is no such candidate.
    """
    places = _places(rankings, selected)
    ranks = [np.nan if place is None else row.ranks[place] for row, place in zip(rankings, places, strict=True)]
    return np.array(ranks, dtype=np.float64)


def versus(rankings: Sequence[GPTRanking], selected: Selected, base: str) -> Versus:
    """Compare a method's selection with the candidates of one LLM, by the judge's outcomes.

    Args:
        rankings: one per row.
        selected: by the method.
        base: name of the LLM.

    Raises:
        InputError: as for `selected_ranks`.
    """
    places = _places(rankings, selected)
    return Versus(base, tuple(_outcome(row, place, base) for row, place in zip(rankings, places, strict=True)))


def _outcome(row: GPTRanking, place: int | None, base: str) -> Outcome | None:
    other = row.index(base)
    if place is None or other is None:
        return None
    if place == other:
        return "itself"
    mine, its = row.matrix[place, other], row.matrix[other, place]
    if np.isnan(mine):
        return None
    if mine != its:
        return "win" if mine > its else "loss"
    return "tie" if mine == 0 else "same_good" if mine > 0 else "same_bad"


def _places(rankings: Sequence[GPTRanking], selected: Selected) -> list[int | None]:
    if isinstance(selected, str):
        return [row.index(selected) for row in rankings]
    if len(selected) != len(rankings):
        raise InputError(f"{len(rankings)} rows need as many selected candidates, not {len(selected)}.")
    for number, (row, place) in enumerate(zip(rankings, selected, strict=True)):
        if place is not None and not 0 <= place < len(row.models):
            raise InputError(f"Row {number} (counted from 0) has {len(row.models)} candidates: none has index {place}.")
    return list(selected)
