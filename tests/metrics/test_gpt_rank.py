import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_blender.errors import InputError
from llm_blender.metrics import (
    OUTCOMES,
    TIES_AS_HALF,
    TIES_AS_WINS,
    Reading,
    gpt_ranking,
    selected_ranks,
    versus,
)

NAN = np.nan
MODELS = ("ann", "bob", "cy")

ROWS = [
    # ann 1, cy 2, bob 3
    gpt_ranking({"ann,bob": "A is better", "cy,ann": "B is better", "bob,cy": "B is better"}, MODELS),
    # all 1
    gpt_ranking({"ann,bob": "Same good", "cy,ann": "Same bad", "bob,cy": "Same bad"}, MODELS),
    # bob 1, ann 2, cy 2
    gpt_ranking({"ann,bob": "B is better", "cy,ann": "Same good", "bob,cy": "A is better"}, MODELS),
    gpt_ranking("null", MODELS),
]


def test_a_single_llms_ranks():
    ann, bob, cy = (selected_ranks(ROWS, model) for model in MODELS)
    np.testing.assert_array_equal(ann, [1, 1, 2, NAN])
    np.testing.assert_array_equal(bob, [3, 1, 1, NAN])
    np.testing.assert_array_equal(cy, [2, 1, 2, NAN])


def test_a_methods_selection_may_differ_from_row_to_row():
    np.testing.assert_array_equal(selected_ranks(ROWS, [1, 2, 1, 0]), [3, 1, 1, NAN])
    np.testing.assert_array_equal(selected_ranks(ROWS, [1, None, 1, 0]), [3, NAN, 1, NAN])


def test_the_oracle_always_has_rank_one():
    oracle = [int(np.nanargmin(row.ranks)) if row.judged.any() else None for row in ROWS]
    np.testing.assert_array_equal(selected_ranks(ROWS, oracle), [1, 1, 1, NAN])


def test_a_row_without_the_llm_is_left_out():
    rows = [*ROWS, gpt_ranking({"bob,cy": "A is better"}, ["bob", "cy"])]
    np.testing.assert_array_equal(selected_ranks(rows, "ann"), [1, 1, 2, NAN, NAN])
    assert versus(rows, "cy", "ann").outcomes[-1] is None
    assert versus(rows, "ann", "bob").outcomes[-1] is None


def test_outcomes_against_one_llm():
    found = versus(ROWS, [0, 0, 2, 0], "bob")
    assert found.outcomes == ("win", "same_good", "loss", None)
    assert (found.rows, found.count("win"), found.count(None)) == (3, 1, 1)
    assert versus(ROWS, [1, 2, 1, 1], "bob").outcomes == ("itself", "same_bad", "itself", "itself")


def test_a_contradicted_judgement_is_a_tie():
    row = gpt_ranking({"ann,bob": "A is better", "bob,ann": "A is better"}, ("ann", "bob"))
    assert versus([row], "ann", "bob").outcomes == ("tie",)


def test_a_judgement_that_one_order_supports_is_a_win():
    row = gpt_ranking({"ann,bob": "A is better", "bob,ann": "Same good"}, ("ann", "bob"))
    assert versus([row], "ann", "bob").outcomes == ("win",)
    assert versus([row], "bob", "ann").outcomes == ("loss",)


def test_both_readings_of_at_least_as_good():
    found = versus(ROWS, [2, 0, 1, 0], "bob")  # win, same good, itself, not judged
    assert found.rate() == found.rate(TIES_AS_WINS) == 1
    assert found.rate(TIES_AS_HALF) == pytest.approx(2 / 3)
    np.testing.assert_array_equal(found.credits(TIES_AS_HALF), [1, 0.5, 0.5, NAN])
    bad = versus(ROWS, "cy", "ann")  # loss, same bad, same good
    assert bad.rate(TIES_AS_WINS) == pytest.approx(2 / 3)
    assert bad.rate(TIES_AS_HALF) == pytest.approx(1 / 3)
    assert bad.rate(Reading(tie=0.5, same_bad=0, itself=0.5)) == pytest.approx(1 / 6)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*OUTCOMES]), min_size=1))
def test_two_rates_of_the_same_pair(outcomes):
    rows = [gpt_ranking({"ann,bob": outcome}, ("bob", "ann")) for outcome in outcomes]
    ours, theirs = versus(rows, "ann", "bob"), versus(rows, "bob", "ann")
    assert ours.rate(TIES_AS_HALF) + theirs.rate(TIES_AS_HALF) == pytest.approx(1)
    assert ours.rate() == pytest.approx(1 - outcomes.count("B is better") / len(outcomes))
    assert versus(rows, "ann", "ann").rate(TIES_AS_HALF) == 0.5


def test_what_was_never_judged_has_no_rate():
    with pytest.raises(InputError, match="compared with a candidate of 'dan'"):
        versus(ROWS, "ann", "dan").rate()


def test_a_selection_has_to_fit_the_rows():
    with pytest.raises(InputError, match="4 rows need as many selected candidates, not 2"):
        selected_ranks(ROWS, [0, 1])
    with pytest.raises(InputError, match=r"Row 2 .* none has index 3"):
        versus(ROWS, [0, 1, 3, 0], "ann")
    with pytest.raises(InputError, match="none has index -1"):
        selected_ranks(ROWS, [0, -1, 0, 0])
