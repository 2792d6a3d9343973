"""Priors: strengths of LLMs, learned from judged answers and added to a ranker's evidence.

Evidence and strengths add up::

    P(i is better than j) = sigmoid(evidence(i, j) / temperature + weight · (strength_i − strength_j))

If the errors of evidence and strengths are independent, a weight of 1 is Bayes' rule. A ranker's evidence already
contains a part of the LLMs' strengths, so `fit_weight` fits the weight, and the temperature with it.

Strengths come from judged answers as games between the LLMs that wrote them. A tie is not a game: it carries no
information about which LLM is better. For a judge that only decides good or bad, the share of pairs with one good and
one bad answer does not depend on the difficulty of the instructions (Rasch, 1960), but the share of ties does.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import InputError, NotFoundError
from llm_blender.ranking.aggregation import Floats, Strengths, fit_strengths, sigmoid
from llm_blender.ranking.confidence import Interval, fit_temperature, log_loss, probability_matrix
from llm_blender.ranking.evidence import add_evidence, agreeing
from llm_blender.types import LabelledPair, Ranking

Models = Sequence[str | None]
"""LLM of each candidate; None if unknown."""


@dataclass(frozen=True)
class Game:
    """A judgement of two LLMs' answers to the same instruction.

    Attributes:
        a: an LLM.
        b: another LLM.
        share: share of the game that a won: 1, 0, or between if a ranker is not certain.
        weight: number of independent games it counts as.
    """

    a: str
    b: str
    share: float
    weight: float = 1.0


def games_from_ranking(ranking: Ranking, models: Models) -> list[Game]:
    """Return the games of a ranking: one per compared pair, its share the probability.

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
    """Return the games of the labelled pairs of one row.

    Args:
        pairs: of candidates.
        models: one per candidate.
    """
    won = {"a": 1.0, "b": 0.0, "tie": 0.5}
    return _games(models, [(pair.a, pair.b, won[pair.label]) for pair in pairs])


def pairs_from_scores(scores: ArrayLike) -> list[LabelledPair]:
    """Return all pairs of candidates of one row that have a score: the higher one is better, equal ones tie.

    Only the order of the scores counts: scores of one row must be comparable, those of different rows need not be.

    Args:
        scores: ``[N]``, NaN for a candidate without a score.
    """
    values = np.asarray(scores, dtype=np.float64)
    scored = np.flatnonzero(~np.isnan(values)).tolist()
    return [
        LabelledPair(i, j, "a" if values[i] > values[j] else "b" if values[i] < values[j] else "tie")
        for i, j in combinations(scored, 2)
    ]


def check_models(models: Models, candidates: int) -> None:
    """Refuse anything but one model per candidate.

    Raises:
        InputError: there are more models than candidates, or fewer.
    """
    if len(models) != candidates:
        raise InputError(f"A ranking of {candidates} candidates needs as many names of LLMs, not {len(models)}.")


def _games(models: Models, outcomes: Sequence[tuple[int, int, float]]) -> list[Game]:
    """Return the games of one row.

    N answers have N(N − 1)/2 pairs but only N − 1 independent differences; all pairs together weigh that many games.
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

# The spread of strengths is learned from the games, starting from two pseudo-LLMs at ±0.5 logits: of two LLMs of
# neighbouring strength, the better one's answer is preferred in 60 % to 70 % of pairs.
_SPREAD, _PSEUDO_LLMS = 0.5, 2


@dataclass(frozen=True)
class Priors:
    """Strengths of LLMs and their weight next to a ranker's evidence.

    Attributes:
        strengths: by the LLM's name, in logits, their mean 0; any other LLM has strength 0.
        games: by name, number of judged pairs behind a strength.
        weight: of the strengths, see `apply`.
        weight_ci95: interval of the weight; None if it was not fitted.
        source: data that the strengths were learned from.
        ranker: the ranker whose judgements were used or whose weight was fitted; None without one.
        temperature: of the ranker's evidence when combined with the strengths; None for the ranker's own.
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
            raise InputError("The strength of an LLM must be a finite number.")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InputError(f"The temperature of priors must be a number above 0, not {self.temperature}.")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise InputError(f"The weight of priors must be a number of at least 0, not {self.weight}.")

    def strength(self, model: str | None) -> float:
        """Return the strength of an LLM in logits; 0, the mean, for an unknown LLM."""
        return 0.0 if model is None else self.strengths.get(model, 0.0)

    def apply(self, ranking: Ranking, models: Sequence[str | None]) -> Ranking:
        """Return the ranking with the LLMs' strengths added to the evidence, see `add_evidence`.

        Every known logit increases by temperature · weight · (strength_i − strength_j), and the probabilities with it;
        the temperature becomes that of the priors, if they have one. Where candidates agree on final answers, each
        vote counts exp(weight · strength): its LLM's odds to be right (Rasch, 1960). If weight or strengths add
        nothing, the ranking does not change.

        Args:
            ranking: of any strategy.
            models: LLM of each candidate; None if unknown.

        Raises:
            InputError: there are more or fewer models than candidates.
        """
        check_models(models, len(ranking))
        temperature = ranking.temperature if self.temperature is None else self.temperature
        strengths = self.weight * np.array([self.strength(model) for model in models])
        if not np.ptp(strengths):
            return ranking
        parts = {"priors": temperature * strengths}
        known = ranking.evidence
        if known is not None and known.answers:
            parts["agreement"] = known.agreement * agreeing(known.answers, np.exp(strengths))
        return add_evidence(ranking, parts, temperature=temperature)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, strongest LLM first."""
        strengths = dict(sorted(self.strengths.items(), key=lambda item: (-item[1], item[0])))
        return {**asdict(self), "strengths": strengths, "games": {name: self.games.get(name, 0) for name in strengths}}

    def save(self, path: str | Path) -> None:
        """Write the priors to a JSON file.

        Raises:
            InputError: the file is not writable.
        """
        text = json.dumps({"format": _FORMAT, "version": _VERSION, **self.to_dict()}, ensure_ascii=False, indent=2)
        try:
            Path(path).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file written by `save`.

        Raises:
            NotFoundError: there is no such file.
            InputError: it is not a file of priors, or has another version.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotFoundError(f"There is no file {path}: create one with `blend priors fit`.") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
        except ValueError:  # neither UTF-8 nor JSON
            values = None
        if not isinstance(values, dict) or values.get("format") != _FORMAT:
            raise InputError(f"{path} is not a file of priors: create one with `blend priors fit`.")
        if values.get("version") != _VERSION:
            raise InputError(f"{path} has version {values.get('version')!r}, not {_VERSION}: fit the priors again.")
        try:
            return cls(**_checked(values))
        except (InputError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): fit the priors again.") from None


def fit_priors(games: Iterable[Game], *, source: str = "") -> Priors:
    """Fit strengths of LLMs to their games, shrunk to the mean if games are few.

    This is a Bradley-Terry model with a Gaussian prior of mean 0 on the strengths. Its variance is learned by empirical
    Bayes: the mean square of the strengths, their uncertainty included, iterated until it converges (expectation
    maximisation, with a Gaussian approximation of the likelihood). Two pseudo-LLMs at ±0.5 logits are included, so that
    a few games, or games without a loss, do not make the spread 0 or infinite.

    Args:
        games: between LLMs, weighted by `Game.weight`.
        source: for `Priors.source`.

    Raises:
        InputError: there is no game.
    """
    played = list(games)
    if not played:
        raise InputError("There is no judged pair of two LLMs: candidates need a `model`, and different judgements.")
    count = Counter(name for game in played for name in (game.a, game.b))
    names = sorted(count)
    place = {name: i for i, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for game in played:
        a, b = place[game.a], place[game.b]
        wins[a, b] += game.weight * game.share
        wins[b, a] += game.weight * (1 - game.share)
    strengths = shrunk_strengths(wins).mean.round(_DECIMALS) + 0.0
    return Priors(dict(zip(names, strengths.tolist(), strict=True)), dict(sorted(count.items())), source=source)


def shrunk_strengths(wins: Floats) -> Strengths:
    """Fit the strengths of `fit_priors`, and their covariance.

    Args:
        wins: ``[N, N]``, weighted number of wins of i over j.
    """
    variance, strengths = 0.0, fit_strengths(wins, penalty=1 / (2 * _SPREAD**2))
    for _ in range(1000):  # about ten steps, but hundreds if a hundred LLMs have one game each
        spread = (strengths.mean**2 + np.diag(strengths.covariance)).sum()
        before, variance = variance, float(spread + _PSEUDO_LLMS * _SPREAD**2) / (len(wins) + _PSEUDO_LLMS)
        if abs(variance - before) < 1e-7 * variance:
            break
        strengths = fit_strengths(wins, penalty=1 / (2 * variance))
    return strengths


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the fields of a file to their types."""
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
_GRID = np.concatenate([[0.0], np.geomspace(1e-3, _MOST, 400)])  # steps of 3 %
_RESAMPLES = 2000


@dataclass(frozen=True)
class JudgedRanking:
    """A ranking, and a judge's labels of the same candidates.

    Attributes:
        ranking: without priors.
        models: LLM of each candidate; None if unknown.
        pairs: labelled pairs of candidates.
        group: number of the instruction; rows that share one are drawn together.
    """

    ranking: Ranking
    models: Sequence[str | None]
    pairs: Sequence[LabelledPair]
    group: int


@dataclass(frozen=True)
class WeightFit:
    """Fitted weight of the strengths.

    Attributes:
        weight: from 0 to 100.
        ci95: its interval at this temperature, resampled by instruction.
        temperature: of the ranker's evidence, fitted with the weight.
        pairs: number of judged pairs: without ties, both LLMs known, both candidates compared.
        log_loss: of these pairs with temperature and weight, in nats.
        log_loss_without: of these pairs by the ranker only, at its best temperature.
    """

    weight: float
    ci95: Interval
    temperature: float
    pairs: int
    log_loss: float
    log_loss_without: float


def fit_weight(priors: Priors, judged: Sequence[JudgedRanking], *, seed: int = 0) -> WeightFit:
    """Fit the weight of `priors`, and the temperature with it, by maximum likelihood on development rows.

    The log loss of P(i is better than j) = sigmoid(evidence(i, j) / temperature + weight · (strength_i − strength_j))
    is convex in weight and 1 / temperature: each is set in turn to the zero of its slope until both converge. If the
    slope at weight 0 is not negative, the strengths do not help, and the weight is 0.

    The temperature is fitted too, because an overconfident ranker would leave the strengths too little influence,
    however large their own weight.

    Args:
        priors: their weight and temperature are ignored.
        judged: rows outside the data that the strengths were learned from.
        seed: of the bootstrap.

    Raises:
        InputError: there is no usable pair.
    """
    evidence, gap, wins, groups = _pairs(priors, judged)
    if not gap.any():
        raise InputError(
            "The weight of priors cannot be fitted: the rows contain no judged pair of two LLMs whose strengths differ."
        )

    def slope(direction: Floats, scale: float, weight: float) -> float:
        return float((direction * (sigmoid(scale * evidence + weight * gap) - wins)).sum())

    scale, weight = 1.0, 0.0
    for _ in range(200):  # about ten steps
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
    """Find the zero of a nondecreasing slope between 0 and `_MOST`."""
    low, high = 0.0, _MOST
    if slope(low) >= 0:
        return low
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) >= 0 else (middle, high)
    return high


def _pairs(priors: Priors, judged: Sequence[JudgedRanking]) -> tuple[Floats, Floats, Floats, NDArray[np.intp]]:
    """Return evidence over temperature, difference of strengths, label and group of each usable pair."""
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
    """Return the percentile bootstrap by group: the zeros of slopes summed over drawn groups, on a grid of weights."""
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
