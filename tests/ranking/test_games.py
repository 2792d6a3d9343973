import numpy as np
import pytest

from llm_blender.errors import InputError
from llm_blender.ranking import (
    Game,
    games_from_pairs,
    games_from_ranking,
    pairs_from_scores,
    ranking_from_scores,
)
from llm_blender.types import LabelledPair

NAN = np.nan


def test_scores_become_labels_by_their_order():
    assert pairs_from_scores([3, NAN, 1, 3]) == [
        LabelledPair(0, 2, "a"),
        LabelledPair(0, 3, "tie"),
        LabelledPair(2, 3, "b"),
    ]


def test_the_scale_of_scores_does_not_matter():
    assert pairs_from_scores([0.1, 0.2, 0.1]) == pairs_from_scores([-7, 1000, -7])


def test_pairs_become_games_of_the_llms():
    pairs = [LabelledPair(0, 1, "a"), LabelledPair(1, 2, "b")]
    assert games_from_pairs(pairs, ["ann", "bob", "cy"]) == [Game("ann", "bob", 1), Game("bob", "cy", 0)]


def test_ties_unknown_llms_and_an_llm_against_itself_are_no_games():
    pairs = [LabelledPair(0, 1, "tie"), LabelledPair(0, 2, "a"), LabelledPair(0, 3, "b"), LabelledPair(0, 4, "a")]
    assert games_from_pairs(pairs, ["ann", "bob", None, "ann", "cy"]) == [Game("ann", "cy", 1)]


def test_all_pairs_of_n_answers_count_as_n_minus_1():
    models = [f"m{i}" for i in range(6)]
    games = games_from_pairs(pairs_from_scores(range(6)), models)
    assert len(games) == 15
    assert sum(game.weight for game in games) == pytest.approx(5)
    assert [game.weight for game in games_from_pairs([LabelledPair(3, 1, "a"), LabelledPair(0, 2, "a")], models)] == [
        1,
        1,
    ]


def test_a_ranker_wins_games_in_part():
    logits = np.array([[0, 3, NAN], [-1, 0, NAN], [1, NAN, 0]])
    ranking = ranking_from_scores("any", [0, 0, 0], logits)
    first, second = games_from_ranking(ranking, ["ann", "bob", "cy"])
    assert (first.a, first.b, first.share) == ("ann", "bob", pytest.approx(1 / (1 + np.exp(-2))))
    assert (second.a, second.b, second.share) == ("ann", "cy", pytest.approx(1 / (1 + np.exp(1))))


def test_evidence_of_0_is_no_game():
    ranking = ranking_from_scores("any", [0, 0], np.array([[0, 2], [2, 0]]))
    assert games_from_ranking(ranking, ["ann", "bob"]) == []


def test_one_model_per_candidate():
    with pytest.raises(InputError, match="2 candidates needs as many names"):
        games_from_ranking(ranking_from_scores("any", [0, 0], np.zeros((2, 2))), ["ann"])
