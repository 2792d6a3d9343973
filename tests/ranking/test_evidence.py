from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from llm_blender.errors import InputError
from llm_blender.ranking import (
    FEATURES,
    EvidenceWeights,
    Features,
    JudgedFeatures,
    Priors,
    Weights,
    add_evidence,
    agreement,
    consensus,
    fit_evidence,
    rank_with,
    reliability,
)
from llm_blender.testing import FakeRanker
from llm_blender.types import Ranking

SEVERAL = EvidenceWeights(several=Weights(model=0.5, consensus=10))
SUMS = [
    '{"answer": 15}',
    "I add them up.\nThe answer is 15.",
    "The answer is 12.",
    "It is hard to say what it could be.",
]


def nothing(pool, _):
    return [0.0] * len(pool)


def rank(texts, weights, *, compare=nothing, prompt="", strategy="full") -> Ranking:
    (ranking,) = rank_with([texts], compare, strategy=strategy, evidence_weights=weights, instructions=[prompt])
    return ranking


class TestFeatures:
    def test_the_situation_follows_from_the_texts_that_count(self):
        assert Features.read(["a b c", "x"]).situation == "two"
        assert Features.read(["a b c", "x", ""]).situation == "two"
        assert Features.read(["a b c", "x", " x\n"]).situation == "several"
        assert Features.read(["a b c", "x y", "a b d"]).situation == "several"
        assert Features.read(SUMS, "What is 7 + 8?").situation == "agreeing"

    def test_consensus_counts_by_its_reliability(self):
        texts = ["a b c", "a b d", "x y"]
        np.testing.assert_allclose(Features.read(texts).values[:, 0], consensus(texts) * reliability(3))
        assert reliability(3) == 0.5
        assert reliability(2) < reliability(3) < reliability(11) < 1

    def test_two_candidates_have_no_consensus_and_no_agreement(self):
        values = Features.read(["The answer is 3.", "The answer is 4."], "What is 1 + 2?").values
        assert not values[:, :2].any()

    def test_final_answers_are_those_of_agreement(self):
        found = Features.read(SUMS, "What is 7 + 8?")
        assert found.answers == ("15", "15", "12", None)
        np.testing.assert_allclose(found.values[:3, 1], agreement(found.answers)[:3])
        assert found.values[3, 1] < 0 == found.values[2, 1] < found.values[0, 1]  # no answer is behind a wrong one

    def test_length_is_logarithmic(self):
        values = Features.read(["a" * 9, "a" * 99]).values[:, FEATURES.index("length")]
        assert values[1] - values[0] == pytest.approx(np.log(10))


class TestRanking:
    def test_it_is_added_to_the_weighted_logits(self):
        texts = ["a b c", "a b d", "x y"]
        shares = consensus(texts) * reliability(3)

        def compare(pool, _):
            won = {(2, 0): 1.0, (0, 2): -1.0}
            return [won.get((left, right), 0.0) for _, left, right in pool]

        (plain,) = rank_with([texts], compare, strategy="full")
        agreeing = rank(texts, SEVERAL, compare=compare)
        assert plain.best == 2
        assert plain.evidence is None
        assert agreeing.best != 2
        gains = 10 * np.subtract.outer(shares, shares)
        np.testing.assert_allclose(agreeing.logits, plain.logits / 2 + gains, atol=1e-4)

    def test_two_candidates_have_their_own_weights(self):
        weights = dataclasses.replace(SEVERAL, two=Weights(length=2))
        ranking = rank(["long text", "x"], weights)
        assert ranking.logit(0, 1) == pytest.approx(2 * np.log(10 / 2), abs=1e-4)
        assert ranking.evidence.situation == "two"

    def test_the_parts_are_reported_and_sum_up_to_the_logits(self):
        weights = EvidenceWeights(several=Weights(consensus=10, length=-0.5))
        ranking = rank(["a b c", "a b d e", "x y"], weights)
        assert ranking.evidence.parts.keys() == {"consensus", "length"}
        total = np.sum([*ranking.evidence.parts.values()], axis=0)
        np.testing.assert_allclose(ranking.logits, np.subtract.outer(total, total) + np.diag([np.nan] * 3), atol=1e-4)
        assert all(abs(sum(part)) < 1e-5 for part in ranking.evidence.parts.values())

    def test_most_of_the_final_answers_win(self):
        weights = EvidenceWeights(agreeing=Weights(agreement=6))
        ranking = rank(SUMS, weights, prompt="What is 7 + 8?")
        assert set(ranking.order[:2]) == {0, 1}
        assert ranking.order[3] == 3
        assert ranking.evidence.answers == ("15", "15", "12", None)

    @pytest.mark.parametrize("strategy", ["knockout", "active", "top_k", "bubble"])
    def test_strategies_see_the_evidence(self, strategy):
        texts = [f"the sky looks blue today number {i}" for i in range(7)] + ["x"]
        weights = EvidenceWeights(several=Weights(consensus=10))
        assert rank(texts, weights, strategy=strategy).order[-1] == 7 or strategy != "full"
        assert rank(texts, weights, strategy=strategy).best != 7

    def test_the_default_weights_change_nothing(self):
        assert rank(SUMS, EvidenceWeights(), prompt="What is 7 + 8?").evidence is None

    def test_it_survives_json(self):
        ranking = rank(SUMS, EvidenceWeights(agreeing=Weights(agreement=6)), prompt="What is 7 + 8?")
        again = Ranking.from_dict(json.loads(json.dumps(ranking.to_dict())))
        assert again.evidence == ranking.evidence
        assert ranking.summary()["evidence"] == ranking.evidence.to_dict()
        assert "evidence" not in rank(SUMS, None).summary()


class TestFurtherEvidence:
    def test_offsets_are_added_to_logits_and_parts(self):
        texts = ["a b c", "a b d", "x y"]
        ranking = rank(texts, SEVERAL)
        more = add_evidence(ranking, {"judge": [0, 0, 9]})
        assert more.best == 2
        assert more.evidence.parts["judge"] == (-3, -3, 6)
        assert more.evidence.parts["consensus"] == ranking.evidence.parts["consensus"]
        assert more.logit(2, 0) == pytest.approx(ranking.logit(2, 0) + 9)

    def test_a_part_is_replaced_and_not_added_twice(self):
        ranking = rank(["a b c", "a b d", "x y"], SEVERAL)
        once = add_evidence(ranking, {"judge": [0, 0, 9]})
        np.testing.assert_allclose(add_evidence(once, {"judge": [0, 0, 9]}).logits, once.logits)
        np.testing.assert_allclose(add_evidence(once, {"judge": [0, 0, 0]}).logits, ranking.logits, atol=1e-9)

    @pytest.mark.parametrize("strategy", ["full", "knockout", "top_k"])
    def test_parts_one_after_the_other_make_the_ranking_of_all_at_once(self, strategy):
        rng = np.random.default_rng(2)
        texts = [f"{word} {n}" for n, word in enumerate("abcdefghijkl")]
        for _ in range(20):
            drawn = dict(zip(texts, rng.normal(size=12).tolist(), strict=True))
            ranking = FakeRanker(drawn).rank("q", texts, strategy=strategy)
            priors, judge = rng.normal(size=12), np.where(np.arange(12) < 2, [1, -1] * 6, 0)
            once = add_evidence(ranking, {"priors": priors, "judge": judge})
            then = add_evidence(add_evidence(ranking, {"priors": priors}), {"judge": judge})
            assert then.order == once.order
            np.testing.assert_allclose(then.scores, once.scores, atol=1e-5)

    def test_priors_that_count_already_change_nothing(self):
        texts, models = ["The answer is 15.", "15", "It is 14.", "I think 15 is right.", "fifteen"], [*"ababa"]
        ranker = FakeRanker({text: float(n) for n, text in enumerate(texts)})
        ranker.evidence_weights = EvidenceWeights(agreeing=Weights(agreement=13.6))
        ranking = ranker.rank("What is 7 + 8?", texts, strategy="knockout")
        for strength in np.arange(1, 40) / 7:
            priors = Priors({"a": float(strength), "b": -float(strength)})
            once = priors.apply(ranking, models)
            assert once.evidence.parts["agreement"] != ranking.evidence.parts["agreement"]
            assert priors.apply(once, models) is once

    def test_equal_offsets_change_nothing(self):
        ranking = rank(["a b c", "a b d", "x y"], SEVERAL)
        assert add_evidence(ranking, {"judge": [4, 4, 4]}) is ranking

    def test_a_ranking_without_evidence_gets_some(self):
        (plain,) = rank_with([["a", "b"]], nothing)
        more = add_evidence(plain, {"judge": [0, 1]})
        assert (more.best, more.evidence.parts) == (1, {"judge": (-0.5, 0.5)})


def test_parts_can_be_left_out():
    weights = EvidenceWeights(two=Weights(length=1), several=Weights(consensus=2, length=1))
    assert weights.without(["length"]) == EvidenceWeights(several=Weights(consensus=2))
    with pytest.raises(InputError, match=r"'lenght'.*length"):
        weights.without(["lenght"])


class TestFit:
    """Labels drawn from known weights."""

    def drawn(self, n: int, temperature: float = 1, *, situation="several", model=1.0, seed=0, **weights):
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 2, n)
        scale = {"consensus": 0.2, "agreement": 0.4, "form": 0.5, "length": 0.7}
        gains = np.stack([rng.normal(0, scale[name], n) for name in FEATURES], -1)
        if situation == "two":
            gains[:, :2] = 0
        elif situation == "several":
            gains[:, 1] = 0
        evidence = model * logits + gains @ [weights.get(name, 0.0) for name in FEATURES]
        labels = rng.random(n) < 1 / (1 + np.exp(-evidence / temperature))
        return JudgedFeatures([situation] * n, logits, gains, labels.astype(float), np.arange(n) // 5)

    def test_the_weights_are_found_again(self):
        fit = fit_evidence(
            [
                self.drawn(4_000, 1.5, model=0.4, consensus=8, length=-0.5),
                self.drawn(4_000, 1.5, situation="two", seed=1, length=0.6),
            ],
            resamples=20,
        )
        slopes = {name: value / fit.temperature for name, value in dataclasses.asdict(fit.weights.several).items()}
        assert slopes["consensus"] == pytest.approx(8 / 1.5, rel=0.1)
        assert slopes["model"] == pytest.approx(0.4 / 1.5, rel=0.1)
        assert slopes["length"] == pytest.approx(-0.5 / 1.5, rel=0.25)
        found = fit.situations["several"]
        assert found.ci95["consensus"].low < fit.weights.several.consensus < found.ci95["consensus"].high
        assert found.without["consensus"] > found.without["length"] > found.log_loss
        assert found.pairs == 4_000
        assert fit.situations["two"].pairs == 8_000  # those of several count as if there were no others

    def test_agreement_has_weights_of_its_own(self):
        files = [
            self.drawn(3_000, situation="agreeing", agreement=6),
            self.drawn(3_000, consensus=8, length=-0.4, seed=1),
        ]
        fit = fit_evidence(files, resamples=5)
        assert fit.weights.agreeing.agreement == pytest.approx(6 * fit.temperature, rel=0.15)
        assert fit.weights.several.agreement == 0
        # Beside agreement, consensus and length break ties.
        assert fit.weights.agreeing.consensus == pytest.approx(fit.weights.several.consensus / 10)
        assert fit.weights.agreeing.length == pytest.approx(fit.weights.several.length / 10)

    def test_a_situation_without_pairs_takes_the_weights_of_the_simpler_one(self):
        fit = fit_evidence([self.drawn(1_000, situation="two", length=1)], resamples=5)
        assert fit.weights.several == fit.weights.two
        assert fit.weights.two.length > 0

    def test_a_consensus_that_does_harm_gets_no_weight(self):
        assert fit_evidence([self.drawn(1_000, consensus=-3)], resamples=5).weights.several.consensus == 0

    def test_costs_of_flaws_are_log_odds(self):
        fit = fit_evidence([self.drawn(1_000, 2)], resamples=5)
        assert fit.weights.several.form == fit.weights.two.form == fit.temperature

    def test_a_model_that_does_harm_gets_none_beside_the_consensus(self):
        fit = fit_evidence([self.drawn(1_000, model=-1, consensus=8)], resamples=5)
        assert fit.weights.several.model < 0.1 * fit.weights.several.consensus

    def test_files_count_alike_whatever_their_size(self):
        fit = fit_evidence([self.drawn(2_000, consensus=2), self.drawn(250, consensus=14, seed=1)], resamples=5)
        assert 5 < fit.weights.several.consensus / fit.weights.several.model < 11

    def test_earlier_weights_stay_where_there_are_no_pairs(self):
        fit = fit_evidence([self.drawn(1_000, 2, situation="two", length=1)], resamples=5)
        before = EvidenceWeights(several=Weights(0.5, consensus=10), agreeing=Weights(agreement=6))
        after = fit.over(before, 4.0)
        assert after.weights.two == fit.weights.two
        scale = fit.temperature / 4
        assert after.weights.agreeing == Weights(scale, agreement=6 * scale)
        assert after.weights.several == Weights(0.5 * scale, consensus=10 * scale)
        assert fit.over(EvidenceWeights(), 4.0) is fit

    def test_nothing_to_learn_from(self):
        with pytest.raises(InputError, match="no judged pair"):
            fit_evidence([JudgedFeatures([], [], np.zeros((0, 4)), [], [])])

    def test_labels_that_are_all_foretold(self):
        logits = np.array([1.0, -1.0, 2.0])
        file = JudgedFeatures(["two"] * 3, logits, np.zeros((3, 4)), (logits > 0).astype(float), np.arange(3))
        assert 0 < fit_evidence([file], resamples=5).temperature < 0.2
