"""Methods of all benches: what each one selects, as a share of each candidate."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.resampling import Floats
from llm_blender.bench.rows import BenchRow
from llm_blender.errors import InputError
from llm_blender.rankers.heuristics import Heuristic
from llm_blender.ranking import RankerOptions, rank_best
from llm_blender.types import Ranker, Ranking


@dataclass(frozen=True, eq=False)
class Method:
    """The selection of one method in n rows.

    Attributes:
        name: an LLM, a baseline, an oracle, or a ranker.
        kind: ``LLM``, ``baseline``, ``oracle`` or ``ranker``.
        shares: ``[n, c]``: 1 for the candidate selected, equal parts where several are equally good to the method
            (the expectation of a draw among them); a row of zeros where it selects nothing.
        comparisons: pairs that went through a model, over all rows.
    """

    name: str
    kind: str
    shares: Floats
    comparisons: int = 0

    def expect(self, values: Floats) -> Floats:
        """Return ``[n]`` Σ share · value, from ``[n, c]`` values.

        NaN where nothing is selected, or a selected candidate has no value.
        """
        unknown = (np.isnan(values) & (self.shares > 0)).any(axis=1) | ~self.shares.any(axis=1)
        return np.where(unknown, np.nan, (self.shares * np.nan_to_num(values)).sum(axis=1))


def equal_shares(chosen: NDArray[np.bool_]) -> Floats:
    """Return ``[n, c]``, equal shares of the candidates ``[n, c]`` chosen in each row; zeros where there are none."""
    return np.asarray(chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1))


def best_shares(values: Floats) -> Floats:
    """Return ``[n, c]``, equal shares of the candidates with the highest of ``[n, c]`` values; NaN is no candidate."""
    known = np.where(np.isnan(values), -np.inf, values)
    return equal_shares(values == known.max(axis=1, keepdims=True))


class CandidateGrid:
    """Layout of the candidates of n rows in arrays ``[n, c]``.

    A column is an LLM, for rows with at most one candidate of each; without `models`, it is a place in the row, and
    there are as many as the longest row has candidates.
    """

    def __init__(self, rows: Sequence[BenchRow], models: Sequence[str] = ()) -> None:
        column: dict[str | None, int] = {model: place for place, model in enumerate(models)}
        self.rows = rows
        self.places = [
            [column[model] for model in row.models] if models else list(range(len(row.candidates))) for row in rows
        ]
        self.shape = len(rows), len(models) or max(map(len, self.places))
        self.present = ~np.isnan(self.fill([0.0] * len(row.candidates) for row in rows))

    def fill(self, values: Iterable[Sequence[float] | Floats]) -> Floats:
        """Return ``[n, c]`` with one value for each candidate of each row; NaN where a row has no candidate."""
        array = np.full(self.shape, math.nan)
        for number, (places, of_row) in enumerate(zip(self.places, values, strict=True)):
            array[number, places] = of_row
        return array

    def qualities(self) -> Floats:
        """Return ``[n, c]``, the scores of all candidates; NaN where a row has no candidate."""
        return self.fill(row.qualities for row in self.rows)

    def random(self) -> Method:
        """Return ``random``: the expectation of a draw among all candidates of a row."""
        return Method("random", "baseline", equal_shares(self.present))

    def heuristic(self, heuristic: Heuristic) -> Method:
        """Return the method that selects what a heuristic ranks first, with equal shares for ties."""
        ranks = self.fill(ranking.ranks for ranking in rank_rows(self.rows, heuristic))
        return Method(heuristic.name, "baseline", equal_shares(ranks == 1))

    def ranker(self, name: str, rankings: Sequence[Ranking]) -> Method:
        """Return the method that selects what each ranking calls best."""
        shares = self.one_hot([ranking.best for ranking in rankings])
        return Method(name, "ranker", shares, sum(ranking.comparisons for ranking in rankings))

    def one_hot(self, best: Sequence[int]) -> Floats:
        """Return ``[n, c]``, 1 for one candidate of each row, by its place in the row, and 0 for the others."""
        shares = np.zeros(self.shape)
        for number, (places, place) in enumerate(zip(self.places, best, strict=True)):
            shares[number, places[place]] = 1
        return shares

    def by_models(self, wanted: Iterable[Collection[str | None]]) -> NDArray[np.bool_]:
        """Return ``[n, c]``: which candidates come from the LLMs wanted in each row.

        Where none of them has a candidate, it is all candidates: a missing answer is neither a loss nor a gain.
        """
        found = [[model in of_row for model in row.models] for row, of_row in zip(self.rows, wanted, strict=True)]
        return np.asarray(self.fill(of_row if any(of_row) else [True] * len(of_row) for of_row in found) == 1)

    def model(self, name: str, model: str) -> Method:
        """Return the method that always selects the candidate of one LLM; any of a row in which it has none."""
        return Method(name, "LLM", equal_shares(self.by_models([[model]] * len(self.rows))))


def order_models(rows: Sequence[BenchRow], known: Sequence[BenchRow]) -> list[str]:
    """Return the LLMs of `rows` by their mean score on other rows, best first and ties by name.

    Raises:
        InputError: `rows` name no LLM, or `known` has none of theirs.
    """
    here, there = ({model for row in part for model in row.models if model} for part in (rows, known))
    if not here:
        raise InputError("No candidate has a `model`, so there is no single LLM: name the LLMs in the rows.")
    if not here & there:
        raise InputError("The rows to choose the best single LLM on name none of the LLMs of these rows.")
    grid = CandidateGrid(known)
    qualities = grid.qualities()
    worth = {model: float(grid.model(model, model).expect(qualities).mean()) for model in here & there}
    return sorted(worth, key=lambda model: (-worth[model], model))


def rank_rows(
    rows: Sequence[BenchRow], ranker: Ranker, *, k: int | None = None, **options: Unpack[RankerOptions]
) -> list[Ranking]:
    """Rank the candidates of each row, by the full matrix (``full``) unless a strategy is named; see `rank_best`."""
    options.setdefault("strategy", "full")
    return rank_best(ranker, [row.prompt for row in rows], [row.texts for row in rows], k, **options)
