"""Some LLMs are better than others: what is known of each of them before anybody reads its answer.

Evidence of a ranker and strengths of LLMs add up::

    P(i is better than j) = sigmoid(evidence(i, j) / temperature + weight · (strength_i − strength_j))

With an evidence and a strength that err independently, a weight of 1 is Bayes' rule. A ranker's evidence
knows something of the LLMs' strengths already, so the weight is better fitted, and the temperature with it:
`fit_weight`.

Judgements of answers as games between the LLMs that wrote them.

A tie is no game: it says nothing about who is better. Where a judge only says good or bad, how often one of the two
is good and the other bad does not depend on how hard the instructions were (Rasch, 1960), but ties do.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import InputError, NotFoundError
from llm_blender.ranking.aggregation import (
    Floats,
    Posterior,
    evidence,
    fit_strengths,
    max_logits,
    ranking_from_scores,
    sigmoid,
)
from llm_blender.ranking.confidence import Interval, fit_temperature, log_loss, probability_matrix
from llm_blender.types import LabelledPair, Ranking

__all__ = [
    "Game",
    "JudgedRanking",
    "Priors",
    "WeightFit",
    "fit_priors",
    "fit_weight",
    "games_from_pairs",
    "games_from_ranking",
    "games_from_votes",
    "pairs_from_scores",
]

Models = Sequence[str | None]
"""Who wrote each candidate; None where nobody knows."""


@dataclass(frozen=True)
class Game:
    """Two LLMs answered the same instruction, and one answer was found better.

    Attributes:
        a: an LLM.
        b: another one.
        share: how much of the game a won: 1 all of it, 0 nothing, in between where a ranker is in doubt.
        weight: how many independent games it counts as.
    """

    a: str
    b: str
    share: float
    weight: float = 1.0


def games_from_ranking(ranking: Ranking, models: Models) -> list[Game]:
    """What a ranker found: each pair that it compared, won in part, by its probability.

    Args:
        ranking: of one instruction; a pair with evidence 0 is a tie.
        models: one per candidate.

    Raises:
        InputError: there are more or fewer models than candidates.
    """
    check_models(models, len(ranking))
    shares = probability_matrix(ranking)
    pairs = combinations(range(len(models)), 2)
    return _games(models, [(i, j, float(shares[i, j])) for i, j in pairs if not np.isnan(shares[i, j])])


def games_from_pairs(pairs: Iterable[LabelledPair], models: Models) -> list[Game]:
    """What a judge found, in the labelled pairs of one row.

    Args:
        pairs: of candidates.
        models: one per candidate.
    """
    won = {"a": 1.0, "b": 0.0, "tie": 0.5}
    return _games(models, [(pair.a, pair.b, won[pair.label]) for pair in pairs])


def games_from_votes(votes: Iterable[tuple[str, str]]) -> list[Game]:
    """What people found, each vote about an instruction of its own.

    Args:
        votes: (the LLM whose answer was preferred, the other LLM); of one with itself, none.
    """
    return [Game(winner, loser, 1.0) for winner, loser in votes if winner != loser]


def pairs_from_scores(scores: ArrayLike) -> list[LabelledPair]:
    """All pairs of the candidates of one row that have a score, the higher one better, equal ones a tie.

    Only the order of the scores counts: those of one row have to be comparable, those of different rows need not be.

    Args:
        scores: ``[N]``, NaN where a candidate has none.
    """
    values = np.asarray(scores, dtype=np.float64)
    scored = np.flatnonzero(~np.isnan(values)).tolist()
    return [
        LabelledPair(i, j, "a" if values[i] > values[j] else "b" if values[i] < values[j] else "tie")
        for i, j in combinations(scored, 2)
    ]


def check_models(models: Models, candidates: int) -> None:
    """Refuse anything but one model per candidate."""
    if len(models) != candidates:
        raise InputError(f"A ranking of {candidates} candidates needs as many names of LLMs, not {len(models)}.")


def _games(models: Models, outcomes: Sequence[tuple[int, int, float]]) -> list[Game]:
    """The games of one row.

    N answers have N(N − 1)/2 pairs but only N − 1 independent differences; all pairs together count as that many.
    """
    decided = [
        (i, j, a, b, share)
        for i, j, share in outcomes
        if share != 0.5 and (a := models[i]) is not None and (b := models[j]) is not None and a != b
    ]
    answers = {index for i, j, *_ in decided for index in (i, j)}
    weight = min(1.0, (len(answers) - 1) / max(len(decided), 1))
    return [Game(a, b, share, weight) for _, _, a, b, share in decided]


_FORMAT, _VERSION = "llm-blender priors", 1
_DECIMALS = 9

# How much strengths differ is learned from the games, beginning with the knowledge of two LLMs at ±0.5 logits: of two
# answers by neighbouring LLMs the better one's is preferred in 60 to 70 of 100.
_SPREAD, _PSEUDO_LLMS = 0.5, 2


@dataclass(frozen=True)
class Priors:
    """Strengths of LLMs, and how much they count beside a ranker's evidence.

    Attributes:
        strengths: by the LLM's name, in logits, their mean 0; an LLM that is not named has strength 0.
        games: by name, how many judged pairs a strength rests on.
        weight: of the strengths, see `apply`.
        weight_ci95: interval of the weight; None where it was not fitted.
        source: what the strengths were learned from.
        ranker: the ranker that learned or was weighed, where one was.
        temperature: at which its evidence is read beside the strengths; None: at the ranker's own.
    """

    strengths: Mapping[str, float]
    games: Mapping[str, int] = field(default_factory=dict)
    weight: float = 1.0
    weight_ci95: Interval | None = None
    source: str = ""
    ranker: str | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.strengths.values())):
            raise InputError("The strength of an LLM is a finite number.")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InputError(f"The temperature of priors is a number above 0, not {self.temperature}.")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise InputError(f"The weight of priors is a number of at least 0, not {self.weight}.")

    def strength(self, model: str | None) -> float:
        """In logits; 0, the mean, for an LLM that is not known."""
        return 0.0 if model is None else self.strengths.get(model, 0.0)

    def apply(self, ranking: Ranking, models: Sequence[str | None]) -> Ranking:
        """The ranking once the LLMs' strengths are added to the evidence.

        Every logit that is known gains temperature · weight · (strength_i − strength_j), so the probabilities follow;
        the temperature becomes that of the priors, if they have one.
        With all pairs compared, the scores are MaxLogits of the new logits, whatever they were before. With some
        of them, the evidence about all candidates is what a Gaussian model makes of the pairs compared, as for the
        strategy ``active``, and the strengths are added to that: also somebody who went out early can be the
        best. Where nothing is added, by weight or by strengths, the ranking stays as it is.

        Args:
            ranking: of any strategy.
            models: who wrote each candidate, None where nobody knows.

        Raises:
            InputError: there are more or fewer models than candidates.
        """
        check_models(models, len(ranking))
        temperature = ranking.temperature if self.temperature is None else self.temperature
        offsets = temperature * self.weight * np.array([self.strength(model) for model in models])
        offsets -= offsets.mean()
        if not np.ptp(offsets):
            return ranking
        logits = ranking.logits + offsets[:, None] - offsets[None, :]
        if np.isnan(evidence(logits)).any():
            scores = (2 * (Posterior.of(ranking.logits).mean + offsets)).round(_DECIMALS) + 0.0
        else:
            scores = max_logits(logits)
        ranked = ranking_from_scores(ranking.strategy, scores, logits)
        return replace(
            ranking,
            best=ranked.best,
            order=ranked.order,
            ranks=ranked.ranks,
            scores=ranked.scores,
            logits=ranked.logits,
            temperature=temperature,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, strongest LLM first."""
        strengths = dict(sorted(self.strengths.items(), key=lambda item: (-item[1], item[0])))
        return {**asdict(self), "strengths": strengths, "games": {name: self.games.get(name, 0) for name in strengths}}

    def save(self, path: str | Path) -> None:
        """Write them to a JSON file.

        Raises:
            InputError: it cannot be written.
        """
        text = json.dumps({"format": _FORMAT, "version": _VERSION, **self.to_dict()}, ensure_ascii=False, indent=2)
        try:
            Path(path).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            NotFoundError: there is no such file.
            InputError: it is not a file of priors, or of a later version.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotFoundError(f"There is no file {path}: `blend priors fit` makes one.") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
        except ValueError:  # neither UTF-8 nor JSON
            values = None
        if not isinstance(values, dict) or values.get("format") != _FORMAT:
            raise InputError(f"{path} is not a file of priors: `blend priors fit` makes one.")
        if values.get("version") != _VERSION:
            raise InputError(f"{path} has version {values.get('version')!r}, this is {_VERSION}: fit the priors anew.")
        try:
            return cls(**_checked(values))
        except (InputError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): fit the priors anew.") from None


def fit_priors(games: Iterable[Game], *, source: str = "") -> Priors:
    """Strengths of LLMs from their games, drawn to the mean where games are few.

    Bradley and Terry's model with strengths that are Gaussian around 0. How far they spread is learned as well, by
    empirical Bayes: the variance is the mean square of the strengths, their uncertainty included, found again
    until it stays (expectation maximisation, with the Gaussian approximation of what the games say). Two LLMs of
    ±0.5 logits are counted in, so that neither a handful of games nor none lost makes the spread 0 or infinite.

    Args:
        games: between LLMs; those of one row count as `Game.weight` says.
        source: for `Priors.source`.

    Raises:
        InputError: there is no game.
    """
    played = list(games)
    if not played:
        raise InputError("There is no judged pair of two LLMs: candidates need a `model`, and their judgements differ.")
    count = Counter(name for game in played for name in (game.a, game.b))
    names = sorted(count)
    place = {name: i for i, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for game in played:
        a, b = place[game.a], place[game.b]
        wins[a, b] += game.weight * game.share
        wins[b, a] += game.weight * (1 - game.share)
    strengths = _shrunk(wins).round(_DECIMALS) + 0.0
    return Priors(dict(zip(names, strengths.tolist(), strict=True)), dict(sorted(count.items())), source=source)


def _shrunk(wins: Floats) -> Floats:
    variance, strengths = 0.0, fit_strengths(wins, penalty=1 / (2 * _SPREAD**2))
    for _ in range(1000):  # some ten, but hundreds where a hundred LLMs played a game each
        spread = (strengths.mean**2 + np.diag(strengths.covariance)).sum()
        before, variance = variance, float(spread + _PSEUDO_LLMS * _SPREAD**2) / (len(wins) + _PSEUDO_LLMS)
        if abs(variance - before) < 1e-7 * variance:
            break
        strengths = fit_strengths(wins, penalty=1 / (2 * variance))
    return strengths.mean


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a file, each of the type it should have."""
    interval, ranker, temperature = (values.get(key) for key in ("weight_ci95", "ranker", "temperature"))
    return {
        "strengths": {str(name): float(value) for name, value in values["strengths"].items()},
        "games": {str(name): int(value) for name, value in dict(values.get("games") or {}).items()},
        "weight": float(values["weight"]),
        "weight_ci95": None if interval is None else Interval(*map(float, interval)),
        "source": str(values.get("source") or ""),
        "ranker": None if ranker is None else str(ranker),
        "temperature": None if temperature is None else float(temperature),
    }


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
