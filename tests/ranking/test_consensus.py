from __future__ import annotations

import numpy as np
import pytest

from llm_blender.rankers import load_ranker
from llm_blender.ranking import consensus


def test_recall_of_words_and_of_pairs_of_words():
    texts = ["a b c d", "a b", "A, x"]  # {a b c d} {ab bc cd}, {a b} {ab}, {a , x} {a, ,x}
    words = [(2 / 2 + 1 / 3) / 2, (2 / 4 + 1 / 3) / 2, (1 / 4 + 1 / 2) / 2]
    pairs = [(1 / 1 + 0) / 2, (1 / 3 + 0) / 2, 0]
    np.testing.assert_allclose(consensus(texts), np.add(words, pairs) / 2)


def test_what_is_said_counts_once_however_often_it_is_said():
    np.testing.assert_allclose(consensus(["a b a b", "a b a d", "a"]), consensus(["a b a b a b a", "a b a d", "a"]))


@pytest.mark.parametrize("texts", [[], ["one"], ["one", "two"]])
def test_two_cannot_agree_against_each_other(texts):
    assert consensus(texts).tolist() == [0.0] * len(texts)


def test_equal_answers_are_votes():
    shares = consensus(["it is 4", "it is 4", "it is 5", "no"])
    assert shares[0] == shares[1] > shares[2] > shares[3]
    np.testing.assert_allclose(consensus(["it is 4", "it is 5", " it is 4\n"]), [19 / 24, 7 / 12, 19 / 24])


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


def test_as_a_ranker():
    ranking = load_ranker("consensus").rank("q", ["a b c", "x", "a b"])
    assert ranking.order == (0, 2, 1)
    assert ranking.comparisons == 0
    assert load_ranker("consensus").compare("q", "a b", "x").winner == "tie"
