from __future__ import annotations

import numpy as np
import pytest

from llm_blender.rankers import load_ranker
from llm_blender.ranking import consensus, rank_with


def test_recall_against_each_of_the_others():
    texts = ["a b c d", "a b", "A, x"]  # the sets {a b c d}, {a b}, {a , x}
    expected = [(2 / 2 + 1 / 3) / 2, (2 / 4 + 1 / 3) / 2, (1 / 4 + 1 / 2) / 2]
    np.testing.assert_allclose(consensus(texts), expected)


def test_a_word_counts_once_however_often_it_is_said():
    np.testing.assert_allclose(consensus(["a b c", "a b d", "a"]), consensus(["a b c c c c", "a a b d", "a"]))


@pytest.mark.parametrize("texts", [[], ["one"], ["one", "two"], ["one", "two", "one"], ["one", " one\n", "two"]])
def test_two_cannot_agree_against_each_other(texts):
    assert consensus(texts).tolist() == [0.0] * len(texts)


def test_equal_answers_are_votes():
    shares = consensus(["it is 4", "it is 4", "it is 5", "no"])
    assert shares[0] == shares[1] > shares[2] > shares[3]


def test_empty_answers_agree_with_nobody():
    shares = consensus(["", "a b", "a c"])
    assert shares[0] == 0
    assert shares[1] == shares[2] == 0.25


def test_scripts_without_spaces_are_read_by_character():
    shares = consensus(["天空是蓝色的", "天空很蓝", "不知道"])
    assert shares[1] == 0.25  # three of six characters, and none of three
    assert shares.tolist() == [0.375, 0.25, 0]


def test_it_is_added_to_the_logits_by_weight():
    texts = ["a b c", "a b d", "x y"]
    shares = consensus(texts)

    def compare(pool, _):
        return [1.0 if (left, right) == (2, 0) else -1.0 if (left, right) == (0, 2) else 0.0 for _, left, right in pool]

    (plain,) = rank_with([texts], compare, strategy="full")
    (agreeing,) = rank_with([texts], compare, strategy="full", consensus_weight=10)
    assert plain.best == 2
    assert agreeing.best != 2
    gains = 10 * np.subtract.outer(shares, shares)
    np.testing.assert_allclose(agreeing.logits, plain.logits + gains, atol=1e-4)


def test_as_a_ranker():
    ranking = load_ranker("consensus").rank("q", ["a b c", "x", "a b"])
    assert ranking.order == (0, 2, 1)
    assert ranking.comparisons == 0
    assert load_ranker("consensus").compare("q", "a b", "x").winner == "tie"
