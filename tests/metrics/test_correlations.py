import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm_blender import metrics
from llm_blender.errors import InputError
from llm_blender.metrics import pearson, set_based, spearman

FEW = st.integers(-3, 3).map(float)


@st.composite
def tables(draw, elements=FEW):
    """Draw two tables [n, c] of few different values, so that many tie and some columns are constant."""
    shape = (draw(st.integers(2, 8)), draw(st.integers(1, 4)))
    return draw(arrays(np.float64, shape, elements=elements)), draw(arrays(np.float64, shape, elements=elements))


def permutations(a):
    return np.argsort(np.argsort(a, axis=1, kind="stable"), axis=1) + 1


def varied(column):
    return len(set(column.tolist())) > 1


@settings(deadline=None)
@given(tables())
@pytest.mark.parametrize(("ours", "theirs"), [(pearson, "pearsonr"), (spearman, "spearmanr")])
def test_correlations_are_scipys_over_the_columns_that_vary(ours, theirs, two):
    stats = pytest.importorskip("scipy.stats")
    pairs = [(x, y) for x, y in zip(two[0].T, two[1].T, strict=True) if varied(x) and varied(y)]
    found = ours(*two)
    if pairs:
        assert found == pytest.approx(np.mean([getattr(stats, theirs)(x, y).statistic for x, y in pairs]), abs=1e-9)
    else:
        assert math.isnan(found)


def test_columns_not_rows_are_correlated():
    a = [[1, 9], [2, 8], [3, 7]]
    b = [[10, 1], [20, 2], [30, 3]]
    assert metrics.column_correlations(a, b).tolist() == pytest.approx([1, -1])
    assert pearson(a, b) == pytest.approx(0)


def test_spearman_sees_only_the_order():
    a, b = [[1.0], [2.0], [3.0]], [[1.0], [10.0], [1000.0]]
    assert spearman(a, b) == pytest.approx(1)
    assert pearson(a, b) < 0.9


def test_spearman_gives_equal_values_their_mean_rank():
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert spearman([[1], [2], [2], [5]], [[1], [2], [3], [4]]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_a_constant_column_is_left_out():
    a, b = [[1, 5], [2, 5], [3, 5]], [[1, 1], [2, 2], [4, 3]]
    assert np.isnan(metrics.column_correlations(a, b)).tolist() == [False, True]
    assert pearson(a, b) == metrics.column_correlations(a, b)[0]
    assert spearman(a, b) == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e300, 1e-300])
def test_a_constant_is_seen_whatever_its_rounding(value):
    assert math.isnan(pearson([[value]] * 7, [[i] for i in range(7)]))
    assert math.isnan(spearman([[i] for i in range(7)], [[value]] * 7))


def test_one_example_has_no_correlation():
    assert math.isnan(pearson([[1, 2, 3]], [[1, 2, 3]]))
    assert math.isnan(spearman([[1, 2, 3]], [[1, 2, 3]]))


@settings(deadline=None)
@given(tables(elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_any_finite_numbers_give_a_correlation_between_minus_one_and_one(two):
    for measure in (pearson, spearman):
        found = measure(*two)
        assert math.isnan(found) or -1 <= found <= 1


@settings(deadline=None)
@given(tables(), st.integers(1, 5), st.integers(-5, 5))
def test_scale_and_shift_do_not_matter(two, scale, shift):
    a, b = two
    for measure in (pearson, spearman):
        assert measure(a, scale * b + shift) == pytest.approx(measure(a, b), nan_ok=True)
        assert measure(a, -b) == pytest.approx(-measure(a, b), nan_ok=True)
        assert measure(b, a) == pytest.approx(measure(a, b), nan_ok=True)


def test_footrule_adds_up_a_rows_distances():
    assert metrics.spearman_footrule([[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [3, 2, 1]]) == 2
    assert metrics.spearman_footrule([[1, 1, 3]], [[1, 2, 3]]) == 1


def test_set_based_compares_the_best_k():
    # k = 1: {0} and {1} share nothing; k = 2: {0, 2} and {1, 0} share one of three; k = 3: all.
    assert set_based([[1, 3, 2]], [[2, 1, 3]]) == pytest.approx((0 + 1 / 3 + 1) / 3)
    # Among equals the earlier column is first: the same as ranks 1, 2, 3 against 3, 1, 2.
    assert set_based([[1, 1, 1]], [[3, 1, 2]]) == pytest.approx((0 + 1 / 3 + 1) / 3)


@settings(deadline=None)
@given(tables())
def test_set_based_is_the_mean_jaccard_index(two):
    a, b = map(permutations, two)
    c = a.shape[1]
    overlaps = []
    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        for k in range(1, c + 1):
            ours, theirs = ({j for j in range(c) if ranks[j] <= k} for ranks in (one, other))
            overlaps.append(len(ours & theirs) / len(ours | theirs))
    assert set_based(a, b) == pytest.approx(np.mean(overlaps))


@settings(deadline=None)
@given(tables())
def test_a_ranking_agrees_with_itself(two):
    ranks = permutations(two[0])
    assert metrics.spearman_footrule(ranks, ranks) == 0
    assert set_based(ranks, ranks) == 1
    assert pearson(ranks, ranks) == pytest.approx(1) or not any(map(varied, ranks.T))


@pytest.mark.parametrize("name", sorted(metrics.CORRELATIONS))
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([[1, 2]], [[1, 2, 3]], "same shape"),
        ([1, 2], [1, 2], "same shape"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "same shape"),
        ([[1, np.nan]], [[1, 2]], "NaN or infinity"),
        ([[1, 2]], [[1, np.inf]], "NaN or infinity"),
    ],
)
def test_tables_have_to_be_comparable(name, a, b, message):
    with pytest.raises(InputError, match=message):
        metrics.CORRELATIONS[name](a, b)
