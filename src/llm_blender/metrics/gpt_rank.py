"""How a method fares in a judge's ranks (the right half of table 2 of arXiv 2306.02561).

Its mean GPT-Rank, how often it is on top, and how often it is at least as good as a given LLM.
A method selects one candidate a row. A single LLM is the method that always selects its own.

What a judge said of one row's candidates, pair by pair, and the ranks that follow (GPT-Rank).

Source: arXiv 2306.02561; there ChatGPT is the judge of every pair of candidates, with one of four outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llm_blender._cmp_results import OUTCOMES, read_cmp_results, resolve_pair
from llm_blender.errors import InputError
from llm_blender.ranking import ranks_from_scores

__all__ = [
    "OUTCOMES",
    "TIES_AS_HALF",
    "TIES_AS_WINS",
    "GPTRankSummary",
    "GPTRanking",
    "Outcome",
    "Reading",
    "Selected",
    "Versus",
    "gpt_ranking",
    "mean_gpt_rank",
    "read_cmp_results",
    "selected_ranks",
    "versus",
]

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


Selected = Sequence[int | None] | str
"""What a method selects: a candidate's 0-based index per row (None: none), or the LLM whose candidate it always is."""

Outcome = Literal["win", "same_good", "same_bad", "tie", "loss", "itself"]
"""A selected candidate beside a given LLM's: ``tie`` where two judgements contradict each other, ``itself`` where it
is that LLM's own."""


@dataclass(frozen=True)
class GPTRankSummary:
    """A method's standing in the judge's ranks.

    Attributes:
        mean: GPT-Rank, averaged over rows; 1 is best.
        top1: share of rows in which what it selects has rank 1, alone or with others.
        top2: rank 2 or better.
        top3: rank 3 or better.
        rows: that count.
        left_out: rows in which it selects nothing that was judged.
    """

    mean: float
    top1: float
    top2: float
    top3: float
    rows: int
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """What an outcome that is no win counts in the rate "at least as good as"; a win counts 1, a loss 0.

    Beside the two below there is that of the authors' later script (yuchenlin/LLM-Blender#6): ``Reading(0.5, 0, 0.5)``.

    Attributes:
        tie: neither is better.
        same_bad: neither is better and both are bad.
        itself: the candidate selected is the other LLM's own.
    """

    tie: float
    same_bad: float
    itself: float


TIES_AS_WINS = Reading(1.0, 1.0, 1.0)
"""At least as good, taken at its word."""
TIES_AS_HALF = Reading(0.5, 0.5, 0.5)
"""A tie is half a win, so that a method against itself has 0.5, and two rates of the same pair add up to 1."""


@dataclass(frozen=True)
class Versus:
    """What a method selects beside one LLM's candidates.

    Attributes:
        base: the LLM.
        outcomes: per row; None where the two were not compared.
    """

    base: str
    outcomes: tuple[Outcome | None, ...]

    @property
    def rows(self) -> int:
        """Rows that count."""
        return len(self.outcomes) - self.count(None)

    def count(self, outcome: Outcome | None) -> int:
        """Rows with that outcome."""
        return self.outcomes.count(outcome)

    def credits(self, reading: Reading = TIES_AS_WINS) -> Floats:
        """What each row counts, NaN where the two were not compared: ``[rows and left out]``, for intervals."""
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
        """Share of rows in which what is selected is at least as good as the LLM's.

        Raises:
            InputError: the two were not compared in any row.
        """
        if not self.rows:
            raise InputError(f"Nothing that was selected was compared with a candidate of {self.base!r}.")
        return float(np.nanmean(self.credits(reading)))


def selected_ranks(rankings: Sequence[GPTRanking], selected: Selected) -> Floats:
    """The judge's rank of what a method selects.

    Args:
        rankings: one a row.
        selected: by the method.

    Returns:
        ``[rows]``; NaN where nothing is selected, or what is selected was not judged.

    Raises:
        InputError: rows and selected indices differ in number, or there is no such candidate.
    """
    places = _places(rankings, selected)
    ranks = [np.nan if place is None else row.ranks[place] for row, place in zip(rankings, places, strict=True)]
    return np.array(ranks, dtype=np.float64)


def mean_gpt_rank(rankings: Sequence[GPTRanking], selected: Selected) -> GPTRankSummary:
    """A method's mean GPT-Rank and how often it is among the first one, two and three.

    Args:
        rankings: one a row.
        selected: by the method.

    Raises:
        InputError: as for `selected_ranks`, or no row counts.
    """
    ranks = selected_ranks(rankings, selected)
    counted = ranks[~np.isnan(ranks)]
    if not len(counted):
        raise InputError(f"In none of {len(ranks)} rows was a candidate judged that is selected: there is no GPT-Rank.")
    top1, top2, top3 = (float(np.mean(counted <= k)) for k in (1, 2, 3))
    return GPTRankSummary(float(counted.mean()), top1, top2, top3, len(counted), len(ranks) - len(counted))


def versus(rankings: Sequence[GPTRanking], selected: Selected, base: str) -> Versus:
    """What a method selects beside the candidates of one LLM, by the judge.

    Args:
        rankings: one a row.
        selected: by the method.
        base: the LLM.

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
