"""Some LLMs are better than others: what is known of each of them before anybody reads its answer.

Evidence of a ranker and strengths of LLMs add up::

    P(i is better than j) = sigmoid(evidence(i, j) / temperature + weight · (strength_i − strength_j))

With an evidence and a strength that err independently, a weight of 1 is Bayes' rule. A ranker's evidence
knows something of the LLMs' strengths already, so the weight is better fitted, and the temperature with it:
`fit_weight`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from llm_blender.errors import InputError, NotFoundError
from llm_blender.ranking._bradley_terry import fit_strengths
from llm_blender.ranking._math import Floats
from llm_blender.ranking._posterior import Posterior
from llm_blender.ranking.aggregation import evidence, max_logits, ranking_from_scores
from llm_blender.ranking.confidence import Interval
from llm_blender.ranking.games import Game, check_models
from llm_blender.types import Ranking

__all__ = ["Priors", "fit_priors"]

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
