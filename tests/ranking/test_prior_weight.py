from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from llm_blender.errors import InputError
from llm_blender.ranking import (
    JudgedRanking,
    Priors,
    fit_weight,
    log_loss,
    pairs_from_scores,
    ranking_from_scores,
)
from llm_blender.types import LabelledPair

NAMES = ("a", "b", "c", "d")
PRIORS = Priors({"a": 1.0, "b": 0.3, "c": -0.3, "d": -1.0}, weight=7)


def judged(rows, weight, *, seed=0, temperature=1.0, helpful=1.0, groups=None):
    """Draw rows with labels from the model: evidence over temperature plus `weight` times the strengths."""
    rng = np.random.default_rng(seed)
    strengths = np.array([PRIORS.strength(name) for name in NAMES])
    found = []
    for row in range(rows):
        known = rng.normal(0, 1, len(NAMES))
        logits = temperature * (known[:, None] - known[None, :])
        ranking = replace(ranking_from_scores("full", known, logits), temperature=temperature)
        pairs = []
        for i, j in ((0, 1), (2, 3), (0, 3), (1, 2)):
            z = helpful * (known[i] - known[j]) + weight * (strengths[i] - strengths[j])
            pairs.append(LabelledPair(i, j, "a" if rng.random() < 1 / (1 + np.exp(-z)) else "b"))
        found.append(JudgedRanking(ranking, NAMES, pairs, row % (groups or rows)))
    return found


@pytest.mark.parametrize(
    ("rows", "weight", "temperature", "helpful"),
    [
        (1000, 0.5, 2.0, 1.0),
        (1000, 1.0, 0.5, 0.3),
        *(
            pytest.param(4000, *case, marks=pytest.mark.slow)
            for case in product([0.5, 1.0, 2.0], [0.5, 2.0], [0.3, 1.0])
        ),
    ],
)
def test_the_true_weight_is_found_with_the_temperature(rows, weight, temperature, helpful):
    fit = fit_weight(PRIORS, judged(rows, weight, temperature=temperature, helpful=helpful, groups=rows // 20))
    assert fit.temperature == pytest.approx(temperature / helpful, rel=0.15)
    assert fit.weight == pytest.approx(weight, abs=0.12)
    assert fit.ci95.low < fit.weight < fit.ci95.high < fit.ci95.low + 0.3
    assert fit.log_loss < fit.log_loss_without
    assert fit.pairs == 4 * rows


@pytest.mark.slow
def test_the_interval_holds_the_true_weight_most_times():
    fits = [fit_weight(PRIORS, judged(60, 1.0, seed=seed)) for seed in range(1000, 1040)]
    assert 34 <= sum(fit.ci95.low < 1 < fit.ci95.high for fit in fits) < 40


def test_no_other_weight_is_likelier():
    rows = judged(50, 1.0)
    fit = fit_weight(PRIORS, rows)

    def loss(weight, temperature=fit.temperature):
        z, y = [], []
        for row in rows:
            for pair in row.pairs:
                gap = PRIORS.strength(NAMES[pair.a]) - PRIORS.strength(NAMES[pair.b])
                z.append(row.ranking.logit(pair.a, pair.b) / temperature + weight * gap)
                y.append(pair.label == "a")
        return log_loss(z, y)

    assert fit.log_loss == pytest.approx(loss(fit.weight))
    assert fit.log_loss_without == pytest.approx(min(loss(0, temperature) for temperature in np.linspace(0.5, 3, 251)))
    assert all(loss(fit.weight) < loss(fit.weight, fit.temperature * change) for change in (0.5, 0.99, 1.01, 2))
    assert all(loss(fit.weight) < loss(other) for other in (0, fit.weight - 0.01, fit.weight + 0.01, 5))


def test_strengths_that_mislead_get_weight_0():
    fit = fit_weight(PRIORS, judged(300, -1.0))
    assert (fit.weight, fit.ci95) == (0, (0, 0))
    assert fit.log_loss == pytest.approx(fit.log_loss_without)


def test_evidence_that_misleads_leaves_the_word_to_the_strengths():
    fit = fit_weight(PRIORS, judged(300, 1.0, helpful=-1.0))
    assert fit.temperature == pytest.approx(1000)
    assert fit.weight > 0.5


def test_labels_that_always_follow_the_strengths_get_a_large_weight():
    pairs = pairs_from_scores([3, 2, 1, 0])
    rows = [JudgedRanking(ranking_from_scores("full", [0] * 4, np.zeros((4, 4))), NAMES, pairs, 0)]
    fit = fit_weight(PRIORS, rows)
    assert 20 < fit.weight <= 100
    assert 20 < fit.ci95.low <= fit.ci95.high <= 100
    assert fit.log_loss < 1e-6


def test_the_interval_is_by_instruction():
    rows = judged(40, 1.0)
    same = [JudgedRanking(row.ranking, row.models, row.pairs, row.group) for _ in range(3) for row in rows]
    other = [
        JudgedRanking(row.ranking, row.models, row.pairs, i)
        for i, row in enumerate(row for _ in range(3) for row in rows)
    ]

    def width(fit):
        return fit.ci95.high - fit.ci95.low

    assert fit_weight(PRIORS, same).weight == pytest.approx(fit_weight(PRIORS, other).weight)
    assert width(fit_weight(PRIORS, same)) == pytest.approx(width(fit_weight(PRIORS, rows)), rel=0.1)
    assert width(fit_weight(PRIORS, other)) < 0.7 * width(fit_weight(PRIORS, rows))


def test_the_seed_draws_the_interval_only():
    rows = judged(40, 1.0)
    one, again, other = (fit_weight(PRIORS, rows, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one.ci95 != other.ci95
    assert one.weight == other.weight


def test_ties_unknown_llms_and_pairs_not_compared_teach_nothing():
    logits = np.full((4, 4), np.nan)
    logits[0, 1], logits[1, 0] = 1.0, -1.0
    logits[0, 2], logits[2, 0] = 1.0, -1.0
    ranking = ranking_from_scores("any", [0] * 4, logits)
    pairs = [LabelledPair(0, 1, "a"), LabelledPair(0, 2, "a"), LabelledPair(1, 3, "a"), LabelledPair(1, 0, "tie")]
    fit = fit_weight(PRIORS, [JudgedRanking(ranking, ["a", "b", "zoe", "d"], pairs, 0)])
    assert fit.pairs == 1


@pytest.mark.parametrize("models", [[None] * 4, ["a"] * 4, ["zoe", "yan", "xia", "wu"]])
def test_nothing_to_learn_from(models):
    ranking = ranking_from_scores("full", [0] * 4, np.zeros((4, 4)))
    with pytest.raises(InputError, match="no judged pair of two LLMs whose strengths differ"):
        fit_weight(PRIORS, [JudgedRanking(ranking, models, pairs_from_scores([1, 2, 3, 4]), 0)])
    with pytest.raises(InputError, match="no judged pair"):
        fit_weight(PRIORS, [])
