"""Quality of the answer that each method selects, on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.rows import ScoredRow, group_ids
from llm_blender.errors import InputError
from llm_blender.rankers.heuristics import Consensus, First, Heuristic, Longest
from llm_blender.ranking import Interval, Priors, bootstrap_interval
from llm_blender.types import OnProgress, Ranker, Ranking

__all__ = ["Selection", "baseline_selections", "ranker_selections"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """How good the answers are that one method selects.

    Attributes:
        method: a ranker's name with its strategy, or a baseline.
        rows: instructions.
        quality: mean score of the answers selected, on the score's own scale.
        ci95: interval of `quality`, resampled by instruction.
        vs_random_ci95: interval of the difference to ``random`` on the same rows; None for ``random`` itself.
        comparisons: ordered pairs that went through the model, over all rows.
    """

    method: str
    rows: int
    quality: float
    ci95: Interval
    vs_random_ci95: Interval | None
    comparisons: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def ranker_selections(
    rows: Sequence[ScoredRow],
    ranker: Ranker,
    name: str,
    *,
    strategy: str = "auto",
    seed: int = 0,
    priors: Priors | None = None,
    progress: OnProgress | None = None,
) -> list[Selection]:
    """The answers that a ranker puts first; where some tie, the one that its ranking calls best.

    Args:
        rows: at least one.
        ranker: any.
        name: for `Selection.method`.
        strategy: one of `llm_blender.ranking.STRATEGIES`; a pointwise ranker needs none.
        seed: of strategy and bootstrap.
        priors: learned from other rows; None adds none.
        progress: called with comparisons done and expected.

    Returns:
        What the ranker selects; with priors also what it selects by the same comparisons and the LLMs' strengths.
    """
    prompts, texts = [row.prompt for row in rows], [row.texts for row in rows]
    rankings = ranker.rank_many(prompts, texts, strategy=strategy, seed=seed, progress=progress)
    selections = [_ranked(rows, rankings, f"{name}, {strategy}", seed)]
    if priors is not None:
        informed = [priors.apply(ranking, row.models) for row, ranking in zip(rows, rankings, strict=True)]
        selections.append(_ranked(rows, informed, f"{name} with priors, {strategy}", seed))
    return selections


def baseline_selections(
    rows: Sequence[ScoredRow], train: Sequence[ScoredRow] | None = None, *, seed: int = 0
) -> list[Selection]:
    """What needs no ranker.

    ``random`` is what is expected of a draw; ``longest`` and ``first`` go by characters and by place in the row;
    ``best single`` is that LLM of these rows which did best on `train`, whose answer is taken in every row;
    ``best in hindsight`` the one that did best on `rows`, which nobody can know before; ``oracle`` takes the best
    answer of each row.

    Args:
        rows: at least one.
        train: other rows, to choose the best single LLM on; without them there is no ``best single``.
        seed: of the bootstrap.

    Raises:
        InputError: `train` names none of the LLMs of these rows.
    """
    picks: dict[str, _Floats] = {
        "random": _picked(rows, _all),
        **{heuristic.name: _picked(rows, _best_by(heuristic)) for heuristic in (Longest(), Consensus(), First())},
    }
    if train is not None:
        best = _best_model(rows, train)
        if best is None:
            raise InputError("The rows to choose the best single LLM on name none of the LLMs of these rows.")
        picks[f"best single: {best}"] = _picked(rows, _by(best))
    if (best := _best_model(rows, rows)) is not None:
        picks[f"best in hindsight: {best}"] = _picked(rows, _by(best))
    picks["oracle"] = _picked(rows, _best)
    return [_selection(rows, method, qualities, seed) for method, qualities in picks.items()]


_Pick = Callable[[ScoredRow], Sequence[int]]
"""The candidates of a row that a baseline finds equally good; one of them is drawn."""


def _all(row: ScoredRow) -> Sequence[int]:
    return range(len(row.texts))


def _best_by(heuristic: Heuristic) -> _Pick:
    return lambda row: [i for i, rank in enumerate(heuristic.rank(row.prompt, row.texts).ranks) if rank == 1]


def _best(row: ScoredRow) -> Sequence[int]:
    return [row.qualities.index(max(row.qualities))]


def _by(model: str) -> _Pick:
    # An LLM without an answer here is neither punished nor favoured: anybody's answer is drawn.
    return lambda row: [i for i, name in enumerate(row.models) if name == model] or _all(row)


def _picked(rows: Sequence[ScoredRow], pick: _Pick) -> _Floats:
    """``[rows]``: the quality expected."""
    return np.array([np.mean([row.qualities[i] for i in pick(row)]) for row in rows])


def _best_model(rows: Sequence[ScoredRow], choose_on: Sequence[ScoredRow]) -> str | None:
    """The LLM of `rows` that did best on other rows; None where it has no name there or here."""
    here, there = ({model for row in part for model in row.models if model} for part in (rows, choose_on))
    return max(sorted(here & there), key=lambda model: float(_picked(choose_on, _by(model)).mean()), default=None)


def _ranked(rows: Sequence[ScoredRow], rankings: Sequence[Ranking], method: str, seed: int) -> Selection:
    selected = [row.qualities[ranking.best] for row, ranking in zip(rows, rankings, strict=True)]
    return _selection(rows, method, np.array(selected), seed, sum(ranking.comparisons for ranking in rankings))


def _selection(
    rows: Sequence[ScoredRow], method: str, qualities: _Floats, seed: int, comparisons: int = 0
) -> Selection:
    groups = group_ids(row.prompt for row in rows)
    gain = qualities - _picked(rows, _all)
    return Selection(
        method,
        len(rows),
        quality=float(qualities.mean()),
        ci95=bootstrap_interval(qualities, groups, seed=seed),
        vs_random_ci95=None if method == "random" else bootstrap_interval(gain, groups, seed=seed),
        comparisons=comparisons,
    )
