import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_blender.errors import InputError
from llm_blender.metrics import OUTCOMES, gpt_ranking, read_cmp_results

NAN = np.nan
MODELS = ("ann", "bob", "cy")
RESULTS = {"ann,bob": "A is better", "cy,ann": "Same good", "bob,cy": "Same bad"}


@st.composite
def judged_rows(draw, complete=False):
    """Draw models and outcomes of some of their pairs, each pair in either order."""
    models = [f"m{i}" for i in range(draw(st.integers(2, 6)))]
    results = {}
    for pair in combinations(models, 2):
        outcome = draw(st.sampled_from([*OUTCOMES] if complete else [*OUTCOMES, None]))
        if outcome is not None:
            results[",".join(draw(st.permutations(pair)))] = outcome
    return models, results


def test_each_outcome_has_its_worth():
    ranking = gpt_ranking(RESULTS, MODELS)
    assert ranking.matrix.tolist() == [[0, 1, 0.5], [-1, 0, -0.5], [0.5, -0.5, 0]]
    assert ranking.scores.tolist() == [2, -2, 0]
    assert ranking.ranks.tolist() == [1, 3, 2]


def test_b_is_better_turns_the_pair_round():
    turned = gpt_ranking({**RESULTS, "ann,bob": "B is better"}, MODELS)
    assert turned.matrix[0, 1] == -1
    assert turned.matrix[1, 0] == 1
    same = gpt_ranking({"bob,ann": "B is better"}, MODELS)
    np.testing.assert_array_equal(same.matrix, gpt_ranking({"ann,bob": "A is better"}, MODELS).matrix)


def test_the_order_of_the_models_is_the_callers():
    assert gpt_ranking(RESULTS, ("cy", "bob", "ann")).ranks.tolist() == [2, 3, 1]


@settings(deadline=None)
@given(judged_rows())
def test_a_score_is_twice_wins_less_losses(row):
    models, results = row
    net = dict.fromkeys(models, 0)
    for pair, outcome in results.items():
        sign = {"A is better": 1, "B is better": -1}.get(outcome, 0)
        a, b = pair.split(",")
        net[a] += 2 * sign
        net[b] -= 2 * sign
    assert gpt_ranking(results, models).scores.tolist() == [net[model] for model in models]


@settings(deadline=None)
@given(judged_rows(complete=True))
def test_a_rank_is_one_more_than_the_number_of_higher_scores(row):
    models, results = row
    ranking = gpt_ranking(results, models)
    scores = ranking.scores
    assert ranking.ranks.tolist() == [1 + int((scores > score).sum()) for score in scores]


@settings(deadline=None)
@given(judged_rows(), st.randoms())
def test_ranks_follow_the_models_into_another_order(row, random):
    models, results = row
    shuffled = random.sample(models, len(models))
    ranks = dict(zip(models, gpt_ranking(results, models).ranks, strict=True))
    np.testing.assert_array_equal(gpt_ranking(results, shuffled).ranks, [ranks[model] for model in shuffled])


@settings(deadline=None)
@given(judged_rows())
def test_the_hubs_json_text_says_the_same(row):
    models, results = row
    np.testing.assert_array_equal(gpt_ranking(json.dumps(results), models).matrix, gpt_ranking(results, models).matrix)


@pytest.mark.parametrize("nothing", [None, "", "  ", "null", "{}", {}])
def test_a_row_that_was_not_judged_has_no_ranks(nothing):
    assert read_cmp_results(nothing) == {}
    ranking = gpt_ranking(nothing, MODELS)
    assert not ranking.judged.any()
    assert np.isnan(ranking.ranks).all()


def test_who_was_never_compared_has_no_rank_and_takes_none_away():
    ranking = gpt_ranking({"cy,bob": "A is better"}, MODELS)
    assert ranking.judged.tolist() == [False, True, True]
    np.testing.assert_array_equal(ranking.ranks, [NAN, 2, 1])  # ann's score of 0 is better than bob's -2
    np.testing.assert_array_equal(ranking.matrix[0], [0, NAN, NAN])


@pytest.mark.parametrize(
    ("first", "second", "worths"),
    [
        ("A is better", "B is better", (1, -1)),  # both orders agree
        ("A is better", "A is better", (0, 0)),  # whoever is read first
        ("A is better", "Same good", (0.75, -0.25)),
        ("Same bad", "Same bad", (-0.5, -0.5)),
    ],
)
def test_a_pair_judged_in_both_orders_counts_once(first, second, worths):
    ranking = gpt_ranking({"ann,bob": first, "bob,ann": second}, ("ann", "bob"))
    assert (ranking.matrix[0, 1], ranking.matrix[1, 0]) == worths


def test_names_may_hold_commas():
    ranking = gpt_ranking({"a, large,b": "A is better"}, ["b", "a, large"])
    assert ranking.ranks.tolist() == [2, 1]


def test_a_pair_with_two_readings_is_refused():
    with pytest.raises(InputError, match=r"'a,b,b' can be read as 'a' and 'b,b' or 'a,b' and 'b'"):
        gpt_ranking({"a,b,b": "A is better"}, ["a", "b", "a,b", "b,b"])


@pytest.mark.parametrize("pair", ["ann,dan", "dan,ann", "ann", "", ",", "ann;bob", "ann, bob"])
def test_an_unknown_llm_is_named_with_the_rows_own(pair):
    with pytest.raises(InputError, match=rf"{pair!r} does not name two candidates of the row; .*: ann, bob, cy"):
        gpt_ranking({pair: "A is better"}, MODELS)


@pytest.mark.parametrize("outcome", ["A is worse", "a is better", "", None, 1, ["A is better"]])
def test_an_unknown_outcome_is_named_with_its_pair(outcome):
    with pytest.raises(InputError, match=r"The outcome of 'ann,bob' is .*: A is better, B is better, Same good"):
        gpt_ranking({"ann,bob": outcome}, MODELS)


def test_a_candidate_is_not_compared_with_itself():
    with pytest.raises(InputError, match="'ann,ann' compares a candidate with itself"):
        gpt_ranking({"ann,ann": "Same good"}, MODELS)


def test_two_candidates_of_one_llm_cannot_be_told_apart():
    with pytest.raises(InputError, match="'ann' names 2 candidates"):
        gpt_ranking({}, ["ann", "bob", "ann"])


@pytest.mark.parametrize(
    ("value", "message"), [("{", "no JSON"), ("[]", "not list"), ("3", "not int"), ([RESULTS], "not list")]
)
def test_what_holds_no_outcomes_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        read_cmp_results(value)


def test_some_llms_are_ranked_among_themselves():
    kept = gpt_ranking(RESULTS, MODELS).keep(["cy", "bob", "dan"])
    assert kept.models == ("bob", "cy")
    assert kept.matrix.tolist() == [[0, -0.5], [-0.5, 0]]
    assert kept.ranks.tolist() == [1, 1]


@settings(deadline=None)
@given(judged_rows(), st.data())
def test_keeping_some_is_judging_only_them(row, data):
    models, results = row
    some = data.draw(st.sets(st.sampled_from(models), min_size=1))
    only = [model for model in models if model in some]
    among = {pair: outcome for pair, outcome in results.items() if set(pair.split(",")) <= some}
    kept = gpt_ranking(results, models).keep(only)
    assert kept.models == tuple(only)
    np.testing.assert_array_equal(kept.matrix, gpt_ranking(among, only).matrix)
