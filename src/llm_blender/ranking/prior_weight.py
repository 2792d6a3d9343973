"""How much the strengths of LLMs count beside a ranker's evidence, learned from rows that were judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError
from llm_blender.ranking._math import Floats, sigmoid
from llm_blender.ranking.confidence import Interval, fit_temperature, log_loss
from llm_blender.ranking.games import check_models
from llm_blender.ranking.priors import Priors
from llm_blender.types import LabelledPair, Ranking

__all__ = ["JudgedRanking", "WeightFit", "fit_weight"]

_MOST = 100.0
_LEAST_SCALE = 1e-3
_GRID = np.concatenate([[0.0], np.geomspace(1e-3, _MOST, 400)])  # 3 % a step
_RESAMPLES = 2000


@dataclass(frozen=True)
class JudgedRanking:
    """A ranking, and a judge's opinion of the same candidates.

    Attributes:
        ranking: without priors.
        models: who wrote each candidate.
        pairs: of candidates.
        group: number of the instruction; rows that share one are drawn together.
    """

    ranking: Ranking
    models: Sequence[str | None]
    pairs: Sequence[LabelledPair]
    group: int


@dataclass(frozen=True)
class WeightFit:
    """The weight that makes a judge's labels likeliest.

    Attributes:
        weight: from 0 to 100.
        ci95: its interval at this temperature, resampled by instruction.
        temperature: at which the ranker's evidence goes with the weight.
        pairs: judged pairs it rests on: without ties, both LLMs known, both candidates compared.
        log_loss: of these pairs with temperature and weight, in nats.
        log_loss_without: of these pairs by the ranker alone, at the temperature that suits it best then.
    """

    weight: float
    ci95: Interval
    temperature: float
    pairs: int
    log_loss: float
    log_loss_without: float


def fit_weight(priors: Priors, judged: Sequence[JudgedRanking], *, seed: int = 0) -> WeightFit:
    """The weight of `priors`, and the temperature beside it, that make the labels of dev rows likeliest.

    P(i is better than j) = sigmoid(evidence(i, j) / temperature + weight · (strength_i − strength_j)) has a log
    loss that is convex in weight and 1 / temperature, so each is found in turn, where its slope is 0, until both
    stay. Where the slope at weight 0 is not negative, the strengths do not help, and the weight is 0.

    The temperature is fitted along because a ranker that is too sure of itself on these rows would leave the
    strengths too little to say, however large their weight is by itself.

    Args:
        priors: their own weight and temperature are ignored.
        judged: rows that the strengths were not learned from.
        seed: of the bootstrap.

    Raises:
        InputError: no pair remains to learn from.
    """
    evidence, gap, wins, groups = _pairs(priors, judged)
    if not gap.any():
        raise InputError(
            "The weight of priors cannot be fitted: the rows hold no judged pair of two LLMs whose strengths differ."
        )

    def slope(direction: Floats, scale: float, weight: float) -> float:
        return float((direction * (sigmoid(scale * evidence + weight * gap) - wins)).sum())

    scale, weight = 1.0, 0.0
    for _ in range(200):  # some ten
        before = scale, weight
        scale = max(_zero(lambda x: slope(evidence, x, weight)), _LEAST_SCALE)  # noqa: B023 -- called at once
        weight = _zero(lambda x: slope(gap, scale, x))  # noqa: B023
        if max(abs(scale - before[0]), abs(weight - before[1])) < 1e-7:
            break
    return WeightFit(
        weight,
        _interval(scale * evidence, gap, wins, groups, seed),
        judged[0].ranking.temperature / scale,
        len(gap),
        log_loss(scale * evidence + weight * gap, wins),
        log_loss(evidence, wins, fit_temperature(evidence, wins)),
    )


def _zero(slope: Callable[[float], float]) -> float:
    """Where a slope that never falls is 0, from 0 to `_MOST`."""
    low, high = 0.0, _MOST
    if slope(low) >= 0:
        return low
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) >= 0 else (middle, high)
    return high


def _pairs(priors: Priors, judged: Sequence[JudgedRanking]) -> tuple[Floats, Floats, Floats, NDArray[np.intp]]:
    """Evidence over temperature, difference of strengths, label and group of each pair that teaches something."""
    found = []
    for row in judged:
        check_models(row.models, len(row.ranking))
        for pair in row.pairs:
            logit = row.ranking.logit(pair.a, pair.b)
            a, b = row.models[pair.a], row.models[pair.b]
            if pair.label == "tie" or np.isnan(logit) or a not in priors.strengths or b not in priors.strengths:
                continue
            found.append(
                (
                    logit / row.ranking.temperature,
                    priors.strength(a) - priors.strength(b),
                    float(pair.label == "a"),
                    float(row.group),
                )
            )
    evidence, gap, wins, groups = np.array(found, dtype=np.float64).reshape(-1, 4).T
    return evidence, gap, wins, np.unique(groups, return_inverse=True)[1]


def _interval(evidence: Floats, gap: Floats, wins: Floats, groups: NDArray[np.intp], seed: int) -> Interval:
    """Percentile bootstrap by group: each group's slope on a grid of weights, summed as drawn, crosses 0 somewhere."""
    size = int(groups.max()) + 1
    slopes = np.stack(
        [np.bincount(groups, gap * (sigmoid(evidence + weight * gap) - wins), minlength=size) for weight in _GRID],
        axis=1,
    )
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=_RESAMPLES)
    totals = drawn @ slopes  # [resamples, grid], rising from left to right
    after = np.clip((totals < 0).sum(axis=1), 1, len(_GRID) - 1)
    draw = np.arange(_RESAMPLES)
    left, right = totals[draw, after - 1], totals[draw, after]
    part = np.clip(np.divide(-left, right - left, out=np.zeros_like(left), where=right > left), 0, 1)
    weights = _GRID[after - 1] + part * (_GRID[after] - _GRID[after - 1])
    low, high = np.quantile(weights, [0.025, 0.975]).tolist()
    return Interval(low, high)
