from __future__ import annotations

import numpy as np
import pytest

from llm_blender.errors import InputError
from llm_blender.rankers import load_ranker
from llm_blender.ranking import LogitWeights, consensus, fit_evidence, rank_with


def test_recall_of_words_and_of_pairs_of_words():
    texts = ["a b c d", "a b", "A, x"]  # {a b c d} {ab bc cd}, {a b} {ab}, {a , x} {a, ,x}
    words = [(2 / 2 + 1 / 3) / 2, (2 / 4 + 1 / 3) / 2, (1 / 4 + 1 / 2) / 2]
    pairs = [(1 / 1 + 0) / 2, (1 / 3 + 0) / 2, 0]
    np.testing.assert_allclose(consensus(texts), np.add(words, pairs) / 2)


def test_what_is_said_counts_once_however_often_it_is_said():
    np.testing.assert_allclose(consensus(["a b a b", "a b a d", "a"]), consensus(["a b a b a b a", "a b a d", "a"]))


@pytest.mark.parametrize("texts", [[], ["one"], ["one", "two"], ["one", "two", "one"], ["one", " one\n", "two"]])
def test_two_cannot_agree_against_each_other(texts):
    assert consensus(texts).tolist() == [0.0] * len(texts)


def test_equal_answers_are_votes():
    shares = consensus(["it is 4", "it is 4", "it is 5", "no"])
    assert shares[0] == shares[1] > shares[2] > shares[3]


LOOP = "the same four words " * 20
TRUE = "The sky is blue because air scatters blue light most."


@pytest.mark.parametrize("loops", [[LOOP, LOOP], [LOOP, f"Well, {LOOP}"], [LOOP, LOOP, "x" * 90], [LOOP, ""]])
@pytest.mark.parametrize("answers", [[TRUE], [TRUE, "Blue light is scattered most by the air."]])
def test_loops_have_no_vote(loops, answers):
    shares = consensus([*loops, *answers])
    assert shares.tolist() == [0.0] * len(loops) + [0.5] * len(answers)


def test_answers_beside_a_loop_agree_as_without_it():
    answers = ["a b c d", "a b", "a x"]
    np.testing.assert_allclose(consensus([LOOP, *answers, ""]), [0, *consensus(answers), 0])


def test_two_loops_do_not_outvote_an_answer():
    ranking = load_ranker("consensus").rank("Why is the sky blue?", [LOOP, LOOP, TRUE])
    assert ranking.best == 2


def test_scripts_without_spaces_are_read_by_character():
    shares = consensus(["天空是蓝色的", "天空很蓝", "不知道"])
    assert shares[0] > shares[1] > shares[2] == 0


def test_it_is_added_to_the_logits_by_weight():
    texts = ["a b c", "a b d", "x y"]
    shares = consensus(texts)

    def compare(pool, _):
        return [1.0 if (left, right) == (2, 0) else -1.0 if (left, right) == (0, 2) else 0.0 for _, left, right in pool]

    (plain,) = rank_with([texts], compare, strategy="full")
    (agreeing,) = rank_with([texts], compare, strategy="full", evidence_weights=LogitWeights(10, 0.5))
    assert plain.best == 2
    assert agreeing.best != 2
    gains = 10 * np.subtract.outer(shares, shares)
    np.testing.assert_allclose(agreeing.logits, plain.logits / 2 + gains, atol=1e-4)


@pytest.mark.parametrize("texts", [["a b c", "x"], ["a", "b", "c"], ["a b", "a b", "x"]])
def test_without_a_consensus_the_ranker_decides_alone(texts):
    def compare(pool, _):
        return [float(left - right) for _, left, right in pool]

    (plain,) = rank_with([texts], compare, strategy="full")
    (agreeing,) = rank_with([texts], compare, strategy="full", evidence_weights=LogitWeights(10, 0.5))
    np.testing.assert_array_equal(agreeing.logits, plain.logits)


def test_no_weight_of_the_consensus_is_the_ranker_in_full():
    assert LogitWeights(0, 0.5).evidence(np.array([2.0, 3.0]), np.array([0.1, np.nan])).tolist() == [2.0, 3.0]


def test_as_a_ranker():
    ranking = load_ranker("consensus").rank("q", ["a b c", "x", "a b"])
    assert ranking.order == (0, 2, 1)
    assert ranking.comparisons == 0
    assert load_ranker("consensus").compare("q", "a b", "x").winner == "tie"


class TestFit:
    """Labels drawn from known numbers: a model that is right of two candidates counts less where others are there."""

    def fit(self, *parts):
        return fit_evidence(*map(list, zip(*parts, strict=True)), resamples=20)

    def drawn(self, n: int, temperature: float, weight: float, model: float = 1.0, seed: int = 0):
        rng = np.random.default_rng(seed)
        logits, gains = rng.normal(0, 2, n), rng.normal(0, 0.2, n)
        labels = rng.random(n) < 1 / (1 + np.exp(-(model * logits + weight * gains) / temperature))
        return logits, gains, labels.astype(float), np.arange(n) // 5

    def alone(self, n: int, temperature: float):
        logits, gains, labels, groups = self.drawn(n, temperature, 0, seed=7)
        return logits, np.full_like(gains, np.nan), labels, groups

    def test_the_numbers_are_found_again(self):
        fit = self.fit(self.drawn(3_000, 1.5, 8, 0.4), self.alone(3_000, 1.5))
        slope_alone = 1 / fit.temperature  # between that of pairs without a consensus and the smaller one with it
        assert 0.4 / 1.5 * 0.8 < slope_alone < 1 / 1.5
        assert fit.weights.consensus / fit.temperature == pytest.approx(8 / 1.5, rel=0.08)
        assert fit.weights.model / fit.temperature == pytest.approx(0.4 / 1.5, rel=0.08)
        assert fit.ci95[0] < fit.weights.consensus < fit.ci95[1]
        assert fit.log_loss < fit.log_loss_without
        assert fit.pairs == 6_000

    def test_a_consensus_that_does_harm_gets_no_weight(self):
        fit = self.fit(self.drawn(1_000, 1, -5))
        assert fit.weights == LogitWeights()
        assert fit.log_loss == pytest.approx(fit.log_loss_without)

    def test_a_model_that_does_harm_gets_none_beside_it(self):
        fit = self.fit(self.drawn(1_000, 1, 8, -1))
        assert fit.weights.model < 0.1 * fit.weights.consensus
        assert fit.log_loss < fit.log_loss_without

    def test_without_consensus_it_is_the_temperature_alone(self):
        from llm_blender.ranking import fit_temperature

        logits, gains, labels, groups = self.alone(3_000, 2)
        fit = self.fit((logits, gains, labels, groups))
        assert fit.weights == LogitWeights()
        assert fit.temperature == pytest.approx(fit_temperature(logits, labels), rel=1e-4)

    def test_files_count_alike_whatever_their_size(self):
        large, small = self.drawn(2_000, 1, 2), self.drawn(200, 1, 14, seed=1)
        fit = self.fit(large, small)
        assert 6 < fit.weights.consensus / fit.weights.model < 10

    def test_instructions_count_alike_whatever_their_pairs(self):
        logits, gains, labels, groups = self.drawn(600, 1, 6)
        again = [np.concatenate([part, part[:300]]) for part in (logits, gains, labels, groups)]
        assert fit_evidence(*([part] for part in again)).weights.consensus == pytest.approx(
            fit_evidence([logits], [gains], [labels], [groups]).weights.consensus, rel=1e-4
        )

    def test_nothing_to_learn_from(self):
        with pytest.raises(InputError, match="no judged pair"):
            fit_evidence([np.zeros(0)], [np.zeros(0)], [np.zeros(0)], [np.zeros(0, int)])

    def test_labels_that_are_all_foretold(self):
        logits = np.array([1.0, -1.0, 2.0])
        fit = fit_evidence([logits], [np.zeros(3)], [(logits > 0).astype(float)], [np.arange(3)])
        assert 0 < fit.temperature < 0.2
