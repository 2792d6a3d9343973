"""Calibration: the temperature of a PairRanker and the weights of its evidence, fitted to judged pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llm_blender.bench import JudgedPairs
from llm_blender.bench.resampling import Floats
from llm_blender.rankers.pair_ranker import PairRankerConfig
from llm_blender.ranking import (
    FEATURES,
    EvidenceFit,
    EvidenceWeights,
    JudgedFeatures,
    Situation,
    Weights,
    fit_evidence,
)

FEW = 20
"""Instructions; fewer determine neither a temperature nor weights better than those of a trained ranker."""
TEMPERATURES = (2e-3, 500.0)
"""Bounds of a temperature that was found; `fit_temperature` searches from 0.001 to 1000."""
_FOLDS = 5
_SPREAD = 0.5  # standard deviation of the slope, before anything is known
_SLOPES = np.linspace(0.0, 1.0, 101)
_FITTED_AS: dict[Situation, str] = {"several": "consensus", "agreeing": "agreement"}


def calibrate(
    config: PairRankerConfig, files: Sequence[JudgedFeatures], *, seed: int = 0, resamples: int = 200
) -> tuple[PairRankerConfig, EvidenceFit]:
    """Fit temperature and weights to the pairs of each file, see `fit_evidence`.

    Args:
        config: of the ranker; a situation without pairs keeps its weights.
        files: judged pairs.
        seed: of the bootstrap.
        resamples: number of bootstrap draws for the intervals.

    Raises:
        InputError: there is no pair.
    """
    fit = fit_evidence(files, seed=seed, resamples=resamples).over(config.evidence_weights, config.temperature)
    return replace(config, temperature=round(fit.temperature, 4), evidence_weights=fit.weights.rounded()), fit


@dataclass(frozen=True)
class TrainedPairs:
    """Held-out pairs, with the logits of a ranker that was trained on and of the one that it started from.

    Attributes:
        judged: n pairs.
        logits: ``[n]`` of the trained model alone.
        start: ``[n]`` log-odds of the ranker that it started from, with its evidence.
    """

    judged: JudgedPairs
    logits: Floats
    start: Floats

    @property
    def instructions(self) -> int:
        """Number of different instructions."""
        return len(set(self.judged.groups))

    def take(self, kept: Floats) -> TrainedPairs:
        """Return the pairs where ``[n]`` `kept` is true."""
        places = np.flatnonzero(kept)
        return TrainedPairs(self.judged.take(places), self.logits[places], self.start[places])


def log_odds(config: PairRankerConfig, judged: JudgedPairs, logits: Floats) -> Floats:
    """Return ``[n]`` log-odds that a is better, from the model's logits ``[n]`` and the evidence."""
    weights = config.evidence_weights
    pairs = zip(judged.gains, logits, strict=True)
    evidence = [weights[gain.situation].model * logit + gain.weigh(weights) for gain, logit in pairs]
    return np.array(evidence) / config.temperature


def recalibrate(config: PairRankerConfig, found: TrainedPairs) -> tuple[PairRankerConfig, float]:
    """Fit a ranker that was trained on to its held-out pairs, which are few.

    In log-odds, the model has one weight in each situation, and the general evidence of the start (consensus, agreement
    and length together) another one, from 0. Two candidates have the model alone. A situation of three or more with at
    least `FEW` instructions is fitted (`fit_evidence`). Any other follows from what all pairs show: the general
    evidence keeps the share

        ρ = γ · L / log 2

    of its log-odds, with L the log loss of the trained model on the pairs (log 2 of a coin: what the model explains
    leaves nothing to the evidence), and γ, from 0 to 1, the slope at which the log-odds of the start suit the labels,
    with the prior N(1, 0.5²) (0 where the judgements contradict the start, whose evidence is made for the same judges).
    The weight of the model moves likewise from its share beside all evidence, ρ = 1, to that of the model alone, ρ = 0.
    The agreement on final answers keeps its log-odds, as no taste changes facts; so do flaws of form.

    Labels are (n + 1) / (n + 2) and 1 / (n + 2) for n instructions, so that a ranker that is right everywhere has a
    finite temperature (Platt 1999, section 2.2).

    Args:
        config: of the trained ranker, with temperature and weights of its start.
        found: held-out pairs.

    Returns:
        The new configuration, and ρ.
    """
    old, judged, n = config.evidence_weights, found.judged, found.instructions
    general = replace(config, evidence_weights=old.without(["form"]))
    offsets = log_odds(general, judged, np.zeros(len(found.logits)))
    labels = (n * np.array(judged.a_wins, np.float64) + 1) / (n + 2)
    features = judged.features(found.logits)
    situations, gains = np.array(features.situations, dtype=object), np.zeros((len(labels), len(FEATURES)))
    for situation, name in _FITTED_AS.items():
        here = situations == situation
        if len(set(np.array(judged.groups)[here])) < FEW:
            situations[here] = "two"
        else:
            gains[here, FEATURES.index(name)] = offsets[here]
    smooth = replace(features, situations=situations.tolist(), labels=labels, gains=gains)
    fitted, fit = calibrate(config, [smooth], resamples=0)
    loss = fit.situations["two"].log_loss / np.log(2) if "two" in fit.situations else 1.0
    kept = float(min(loss, 1.0) * _slope(found.start, judged))
    scale, alone = fit.temperature / config.temperature, fit.weights.two.model
    weights = {"two": Weights(model=alone, form=scale * old.two.form)}
    for situation, name in _FITTED_AS.items():
        own = old[situation]
        if situation in fit.situations:
            model = fit.weights[situation].model
            agreement = share = getattr(fit.weights[situation], name) / fit.temperature
        else:
            relative = own.model / old.two.model if old.two.model else 1.0
            model, agreement, share = alone * (1 - kept * (1 - relative)), 1.0, kept
        weights[situation] = Weights(
            model=model,
            consensus=scale * share * own.consensus,
            agreement=scale * agreement * own.agreement,
            form=scale * own.form,
            length=scale * share * own.length,
        )
    return replace(fitted, evidence_weights=EvidenceWeights(**weights).rounded()), kept


def cross_fitted(config: PairRankerConfig, found: TrainedPairs) -> Floats:
    """Return ``[n]`` log-odds of each pair, with a calibration that other instructions gave (five folds)."""
    folds, odds = np.array(found.judged.groups) % _FOLDS, np.zeros(len(found.logits))
    for fold in set(folds.tolist()):
        here = folds == fold
        part, _ = recalibrate(config, found.take(~here))
        odds[here] = log_odds(part, found.judged.take(np.flatnonzero(here)), found.logits[here])
    return odds


def _slope(odds: Floats, judged: JudgedPairs) -> float:
    """Return the likeliest slope from 0 to 1 of log-odds, with the prior of `recalibrate`; instructions count alike."""
    sizes = np.bincount(judged.groups)[list(judged.groups)]
    losses = np.logaddexp(0, -_SLOPES[:, None] * (odds * judged.sides)) @ (1 / sizes)
    return float(_SLOPES[np.argmin(losses + ((_SLOPES - 1) / _SPREAD) ** 2 / 2)])
