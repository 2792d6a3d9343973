"""Evidence: all that is known about two candidates, as one logit.

A ranker reads two candidates at a time. The texts show more: what the others say too (`consensus`), what most of them
finally answer (`agreement`), flaws of form (`form`), and the length. Each of these is a number per candidate, so that

    evidence(i, j) = model · logit(i, j) + offset_i − offset_j
    P(i is better than j) = sigmoid(evidence(i, j) / temperature)

with offset_i the weighted sum of the numbers of candidate i. Strengths of LLMs (`priors`) and verdicts of a judge
(`judge`) are further offsets. The weights are a logistic regression on judged pairs (`fit_evidence`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llm_blender.errors import InputError, unknown_name
from llm_blender.ranking.aggregation import Floats, Posterior, both_orders, max_logits, ranking_from_scores, sigmoid
from llm_blender.ranking.agreement import agreement, final_answers
from llm_blender.ranking.confidence import Interval
from llm_blender.ranking.consensus import consensus
from llm_blender.ranking.form import form, is_degenerate
from llm_blender.types import Evidence, Ranking

Situation = Literal["two", "several", "agreeing"]
"""Kind of prompt: two candidates; three or more; three or more with final answers to agree on."""
SITUATIONS: tuple[Situation, ...] = get_args(Situation)
FEATURES = ("consensus", "agreement", "form", "length")
"""Numbers per candidate beside the model's logit."""

_DECIMALS = 9
_DECIMALS_OF_PARTS = 6
# Log-odds that a candidate without the flaw is preferred to one with it, on training and development rows: items 79 of
# 92 pairs, too_long 44 of 52, too_short 36 of 53, language 20 of 27, not_yes_or_no 7 of 10. The others are set: too few
# pairs have them, and a program that reads JSON has no use for anything else.
_COSTS = {
    "empty": 4.0,
    "no_answer": 3.0,
    "loop": 4.0,
    "cut_off": 1.0,
    "items": 1.8,
    "too_long": 1.7,
    "language": 1.0,
    "miscalculated": 4.0,
    "not_haiku": 1.0,
    "not_json": 3.0,
    "too_short": 0.75,
    "not_yes_or_no": 0.85,
}
_NO_ANSWER = -0.25  # agreement of a candidate without a final answer where others have one
_MOST = 50  # instructions of a file that count
_STEPS = 100
_LEAST_SLOPE = 1e-3  # 1 / temperature of an uninformative ranker


@dataclass(frozen=True)
class Weights:
    """Weights of the parts of the evidence in one situation, in logits of the ranker.

    Attributes:
        model: of the ranker's logit.
        consensus: of the share of the others' content, see `consensus`.
        agreement: of the share of the others that give the same final answer, see `agreement`.
        form: of the flaws of form, by their cost.
        length: of log(1 + characters).
    """

    model: float = 1.0
    consensus: float = 0.0
    agreement: float = 0.0
    form: float = 0.0
    length: float = 0.0


@dataclass(frozen=True)
class EvidenceWeights:
    """Weights of the evidence by situation; without arguments the ranker's logit alone counts.

    Attributes:
        two: for prompts with two candidates, which have no consensus.
        several: for prompts with three or more.
        agreeing: for those among them whose candidates have final answers to agree on.
    """

    two: Weights = field(default_factory=Weights)
    several: Weights = field(default_factory=Weights)
    agreeing: Weights = field(default_factory=Weights)

    def __getitem__(self, situation: Situation) -> Weights:
        weights: Weights = getattr(self, situation)
        return weights

    def without(self, names: Sequence[str]) -> Self:
        """Return the weights with those of some features set to 0.

        Args:
            names: of `FEATURES`.

        Raises:
            InputError: a name is unknown.
        """
        for name in names:
            if name not in FEATURES:
                raise unknown_name("part of the evidence", name, FEATURES)
        none = dict.fromkeys(names, 0.0)
        return replace(self, **{name: replace(self[name], **none) for name in SITUATIONS})

    def rounded(self) -> Self:
        """Return the weights with four decimals, as a ``config.json`` has them."""
        return replace(
            self,
            **{
                name: Weights(**{part: round(value, 4) for part, value in asdict(self[name]).items()})
                for name in SITUATIONS
            },
        )


def reliability(n: int) -> float:
    """Return the reliability of a mean over n − 1 other candidates: (n − 1) / (n + 1), 1 for very many.

    This is the Spearman-Brown formula for candidates whose own reliability is 1/3, which fits 3 to 16 candidates.
    """
    return (n - 1) / (n + 1)


def agreeing(answers: Sequence[str | None], weights: ArrayLike | None = None) -> Floats:
    """Return ``[N]`` the agreement of candidates, see `agreement`; one without an answer is behind all others."""
    answered = np.array([answer is not None for answer in answers], bool)
    return np.where(answered, agreement(answers, weights), _NO_ANSWER)


@dataclass(frozen=True)
class Features:
    """The features of the N candidates of one prompt.

    Attributes:
        situation: kind of prompt.
        values: ``[N, 4]``, in the order of `FEATURES`; only differences between candidates count.
        answers: final answer of each candidate; empty unless the situation is ``agreeing``.
        flaws: flaws of form of each candidate.
    """

    situation: Situation
    values: Floats
    answers: tuple[str | None, ...]
    flaws: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, texts: Sequence[str], instruction: str = "") -> Self:
        """Read the features of candidates.

        Args:
            texts: N candidates of one prompt.
            instruction: the prompt, as a text.
        """
        # Equal texts are votes; a degenerate one has none, and leaves two candidates two.
        n, several = len(texts), sum(not is_degenerate(text) for text in texts) > 2
        answers = final_answers(texts, instruction) if several else ()
        answered = np.array([answer is not None for answer in answers], bool)
        found = form(texts, instruction)
        costs = np.array([sum(_COSTS[flaw] for flaw in of_text) for of_text in found], np.float64)
        values = np.zeros((n, len(FEATURES)))
        if several:
            values[:, 0] = consensus(texts) * reliability(n)
        if answered.any():
            values[:, 1] = agreeing(answers)
        values[:, 2] = -costs
        values[:, 3] = np.log1p([len(text) for text in texts])
        situation: Situation = "two" if not several else "agreeing" if answered.any() else "several"
        return cls(situation, values, answers if answered.any() else (), found)

    def weigh(self, weights: EvidenceWeights) -> Evidence:
        """Weigh the features to offsets, each part with mean 0."""
        own = weights[self.situation]
        parts = {}
        for name, column in zip(FEATURES, self.values.T, strict=True):
            offsets = getattr(own, name) * (column - column.mean())
            if np.ptp(offsets):
                parts[name] = tuple((offsets.round(_DECIMALS_OF_PARTS) + 0.0).tolist())
        return Evidence(
            situation=self.situation,
            model=own.model,
            parts=parts,
            answers=self.answers,
            flaws=self.flaws if any(self.flaws) else (),
            agreement=own.agreement if self.answers else 0.0,
        )


def offsets_of(found: Evidence, n: int) -> Floats:
    """Return ``[n]``, the sum of all parts of the evidence for each candidate."""
    return np.asarray(np.sum([np.zeros(n), *map(np.asarray, found.parts.values())], axis=0))


def _added(found: Evidence, n: int) -> Floats:
    """Return ``[n]``, what `add_evidence` has added so far: all offsets without those that the comparisons saw."""
    first = {name: np.asarray(part) for name, part in found.parts.items() if name in FEATURES}
    if found.answers:  # priors weigh the votes
        votes = agreeing(found.answers)
        first["agreement"] = (found.agreement * (votes - votes.mean())).round(_DECIMALS_OF_PARTS)
    return np.asarray(offsets_of(found, n) - np.sum([np.zeros(n), *first.values()], axis=0))


def add_evidence(ranking: Ranking, parts: Mapping[str, ArrayLike], *, temperature: float | None = None) -> Ranking:
    """Return a ranking with further offsets in its evidence; a part that it has already is replaced.

    Every known logit l(i, j) increases by offset_i − offset_j. If all pairs were compared, the scores are MaxLogits of
    the new logits, whatever they were before. Otherwise a Gaussian model infers the evidence about all candidates from
    the compared pairs, as in the strategy ``active``, and the offsets are added to it, with those of earlier calls: a
    candidate that was eliminated early can become the best. Parts that are added one after the other make the same
    ranking as all at once. If the parts change nothing, neither does the ranking.

    Args:
        ranking: of N candidates, of any strategy.
        parts: by name, ``[N]`` offsets in logits.
        temperature: of the new ranking; None for that of `ranking`.
    """
    n, known = len(ranking), ranking.evidence or Evidence()
    given = {name: np.asarray(values, np.float64) for name, values in parts.items()}
    centred = {name: values - values.mean() for name, values in given.items()}
    new = {name: tuple((values.round(_DECIMALS_OF_PARTS) + 0.0).tolist()) for name, values in centred.items()}
    change, visible = np.zeros(n), np.zeros(n)  # that of the parts as they are kept
    for name, values in centred.items():
        before = np.asarray(known.parts.get(name, np.zeros(n)))
        change += values - before
        visible += np.asarray(new[name]) - before
    if not np.ptp(visible.round(_DECIMALS_OF_PARTS)):
        return ranking
    logits = ranking.logits + change[:, None] - change[None, :]
    if np.isnan(both_orders(logits)).any():
        added = _added(known, n)
        compared = ranking.logits - (added[:, None] - added[None, :])
        scores = (2 * (Posterior.of(compared).mean + added + change)).round(_DECIMALS) + 0.0
    else:
        scores = max_logits(logits)
    return replace(
        ranking_from_scores(ranking.strategy, scores, logits),
        comparisons=ranking.comparisons,
        temperature=ranking.temperature if temperature is None else temperature,
        truncated=ranking.truncated,
        evidence=replace(known, parts={**known.parts, **new}),
    )


@dataclass(frozen=True)
class JudgedFeatures:
    """The judged pairs (a, b) of one file, for `fit_evidence`.

    Attributes:
        situations: ``[n]`` of the prompts.
        logits: ``[n]``, the ranker's logit that a is better.
        gains: ``[n, 4]``, features of a minus those of b, in the order of `FEATURES`.
        labels: ``[n]``, 1 where a is better, 0 where b is; between them where that is not certain.
        groups: ``[n]``, number of the instruction.
    """

    situations: Sequence[Situation]
    logits: ArrayLike
    gains: ArrayLike
    labels: ArrayLike
    groups: ArrayLike


@dataclass(frozen=True)
class SituationFit:
    """Fit of the weights in one situation.

    Attributes:
        pairs: number of judged pairs.
        log_loss: of these pairs, in nats, weighted as in the fit.
        without: by feature, the log loss of the best weights without it.
        ci95: by feature, the interval of its weight, resampled by instruction.
    """

    pairs: int
    log_loss: float
    without: Mapping[str, float]
    ci95: Mapping[str, Interval]


@dataclass(frozen=True)
class EvidenceFit:
    """Fitted weights of the evidence.

    Attributes:
        temperature: of the evidence.
        weights: in logits of the ranker.
        situations: fit of each situation that has pairs.
    """

    temperature: float
    weights: EvidenceWeights
    situations: Mapping[Situation, SituationFit]

    def over(self, weights: EvidenceWeights, temperature: float) -> Self:
        """Return the fit with earlier weights where it has no pairs, so that these keep their probabilities.

        Args:
            weights: fitted before; the default ones are not kept.
            temperature: to which they belong.
        """
        if weights == EvidenceWeights():
            return self
        scale = self.temperature / temperature
        kept = {
            name: Weights(**{part: scale * value for part, value in asdict(weights[name]).items()})
            for name in SITUATIONS
            if name not in self.situations
        }
        return replace(self, weights=replace(self.weights, **kept))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


_NAMES = ("model", *FEATURES)
_FITTED: dict[Situation, tuple[str, ...]] = {
    "two": ("model", "length"),
    "several": ("model", "consensus", "length"),
    "agreeing": ("model", "agreement"),
}
_TIES = 0.1  # share of the weights of consensus and length that breaks ties of agreement


def fit_evidence(files: Sequence[JudgedFeatures], *, seed: int = 0, resamples: int = 200) -> EvidenceFit:
    """Fit the temperature and the `EvidenceWeights` of maximum likelihood to a judge's labels.

    P(a is better than b) = sigmoid(evidence(a, b) / temperature). One logistic regression for each situation, by
    Newton's method. That of two candidates is fitted on the pairs of several, too, as if there were no others, and its
    weight of the model gives the temperature. Only the length may have a weight below 0. The costs of flaws are not
    fitted here. All instructions of a file have equal weight, and those of a large file no more than fifty.

    Args:
        files: the pairs of each file.
        seed: of the bootstrap.
        resamples: number of bootstrap draws for the intervals.

    Raises:
        InputError: there is no pair.
    """
    parts = [_File.of(file) for file in files if len(np.asarray(file.labels))]
    if not parts:
        raise InputError("There is no judged pair to calibrate on.")
    rng = np.random.default_rng(seed)
    slopes: dict[Situation, Floats] = {}
    fits: dict[Situation, SituationFit] = {}
    temperature = 1.0
    for situation in SITUATIONS:
        # Two candidates: all pairs as if there were no others, but those of tasks with a final answer.
        wanted = ("two", "several") if situation == "two" else (situation,)
        here = [file.only(wanted) for file in parts]
        here = [file for file in here if len(file.labels)]
        if not here:
            continue
        fitted = _FITTED[situation]
        found = slopes[situation] = _fit(here, fitted)
        if situation == "two":
            temperature = float(1 / found[0])
        drawn = [_fit([file.drawn(rng) for file in here], fitted) * temperature for _ in range(resamples)]
        ends = np.quantile(drawn, [0.025, 0.975], axis=0).T.tolist() if drawn else [(np.nan, np.nan)] * len(_NAMES)
        fits[situation] = SituationFit(
            sum(len(file.labels) for file in here),
            _loss(here, found),
            {name: _loss(here, _fit(here, [other for other in fitted if other != name])) for name in fitted},
            {name: Interval(*ends[_NAMES.index(name)]) for name in fitted},
        )
    return EvidenceFit(temperature, _weights(slopes, temperature), fits)


def _weights(slopes: Mapping[Situation, Floats], temperature: float) -> EvidenceWeights:
    """Turn slopes into weights; a situation without pairs takes those of the next simpler one.

    Costs of flaws are log-odds already. Where candidates agree on answers, consensus and length only break ties: the
    words that the same candidates share would count the votes twice.
    """
    weights: dict[str, Weights] = {}
    last = Weights()
    for situation in SITUATIONS:
        if situation in slopes:
            found = replace(
                Weights(**dict(zip(_NAMES, (slopes[situation] * temperature).tolist(), strict=True))), form=temperature
            )
            if situation == "agreeing":
                found = replace(found, consensus=_TIES * last.consensus, length=_TIES * last.length)
            last = found
        weights[situation] = last
    return EvidenceWeights(**weights)


@dataclass(frozen=True)
class _File:
    situations: NDArray[np.str_]
    features: Floats  # [n, 5]: the logit, and the gains
    labels: Floats
    groups: NDArray[np.int64]
    weights: Floats  # sum 1
    share: float  # of the file's weight among others

    @classmethod
    def of(cls, file: JudgedFeatures) -> _File:
        features = np.concatenate([np.asarray(file.logits, np.float64)[:, None], np.asarray(file.gains)], axis=1)
        return cls._weighted(np.asarray(file.situations), features, np.asarray(file.labels), np.asarray(file.groups))

    @classmethod
    def _weighted(cls, situations: Any, features: Floats, labels: Any, groups: Any) -> _File:
        _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        weights = 1 / (sizes[numbers] * len(sizes))
        return cls(situations, features, np.asarray(labels, np.float64), numbers, weights, min(len(sizes), _MOST))

    def only(self, situations: Sequence[str]) -> _File:
        """Keep the pairs of some situations."""
        kept = np.isin(self.situations, situations)
        return self._weighted(self.situations[kept], self.features[kept], self.labels[kept], self.groups[kept])

    def drawn(self, rng: np.random.Generator) -> _File:
        """Draw as many instructions, with replacement."""
        times = np.bincount(rng.integers(self.groups.max() + 1, size=self.groups.max() + 1), minlength=len(self.groups))
        weights = self.weights * times[self.groups]
        return replace(self, weights=weights / weights.sum())


def _loss(files: Sequence[_File], slopes: Floats) -> float:
    """Return the weighted log loss."""
    features, labels, weights = _joined(files)
    odds = features @ slopes
    return float(weights @ (labels * np.logaddexp(0, -odds) + (1 - labels) * np.logaddexp(0, odds)))


def _joined(files: Sequence[_File]) -> tuple[Floats, Floats, Floats]:
    """Return the features, labels and weights of all files; the weights sum to 1."""
    features, labels = (np.concatenate([getattr(file, name) for file in files]) for name in ("features", "labels"))
    weights = np.concatenate([file.share * file.weights for file in files])
    return features, labels, weights / weights.sum()


def _fit(files: Sequence[_File], names: Sequence[str]) -> Floats:
    """Fit ``[5]`` slopes, in which log loss is convex; that of a part without a name, or without a difference, is 0."""
    features, labels, weights = _joined(files)
    wanted = np.array([name in names for name in _NAMES]) & features.any(axis=0)
    least = np.array([_LEAST_SLOPE if name == "model" else -np.inf if name == "length" else 0.0 for name in _NAMES])
    slopes: Floats = np.where(np.array(_NAMES) == "model", np.maximum(wanted.astype(float), _LEAST_SLOPE), 0.0)
    for _ in range(_STEPS):
        promised = sigmoid(features @ slopes)
        gradient = features.T @ (weights * (promised - labels))
        curvature = (features.T * (weights * promised * (1 - promised))) @ features
        free = wanted & ((slopes > least) | (gradient < 0))
        step = np.zeros(len(_NAMES))
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)] + 1e-9 * np.eye(free.sum()), gradient[free])
        moved = np.maximum(slopes - np.clip(step, -2, 2), least)
        if np.abs(moved - slopes).max() < 1e-9:
            break
        slopes = moved
    return slopes
