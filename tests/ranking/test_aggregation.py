import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm_blender import ranking as rk
from llm_blender.errors import InputError

NAN = np.nan
SETTINGS = settings(max_examples=10, deadline=None)

# A matrix, with the results of LLM-Blender 0.0.2.
ORIGINAL = np.array(
    [
        [0.0, -0.29, -0.48, -2.65, -0.01],
        [-0.32, 0.0, 0.32, 0.42, -1.07],
        [-0.89, -0.48, 0.0, 0.56, -1.31],
        [-1.12, 0.74, 1.57, 0.0, -0.68],
        [1.1, -0.31, 0.73, 1.55, 0.0],
    ]
)


def matrices(max_n=7, gaps=True):
    """Ordered logits [N, N], some of them missing."""
    logit = st.integers(-40, 40).map(lambda quarters: quarters / 4)
    entry = st.one_of(logit, st.just(NAN)) if gaps else logit
    return st.integers(1, max_n).flatmap(lambda n: arrays(np.float64, (n, n), elements=entry))


def test_max_logits_is_the_originals():
    assert rk.max_logits(ORIGINAL) == pytest.approx([-0.44, -0.062, -0.852, 0.126, 1.228])
    assert rk.ranks_from_scores(rk.max_logits(ORIGINAL)).tolist() == [4, 3, 5, 2, 1]


def test_max_logits_that_are_equal_in_decimals_tie():
    # As floats 0.1 + 0.2 - 0.3 is not 0.
    scores = rk.max_logits([[0, 0.1, 0.2, -0.3], [0.1, 0, 0, 0], [0.2, 0, 0, 0], [-0.3, 0, 0, 0]])
    assert scores.tolist() == [0, 0, 0, 0]
    assert rk.max_logits([[0, 0.1, 0.2], [0, 0, 0], [0, 0, 0]])[0] == rk.max_logits([[0, 0.3, 0], [0] * 3, [0] * 3])[0]


def test_max_wins_counts_both_places():
    assert rk.max_wins([[0, 1, -1], [2, 0, 0], [3, NAN, 0]]).tolist() == [1 + 0, 1 + 0, 1 + 1]


@SETTINGS
@given(matrices())
def test_missing_logits_add_nothing_to_max_logits(logits):
    off = ~np.eye(len(logits), dtype=bool)
    assert rk.max_logits(logits) == pytest.approx(rk.max_logits(np.where(np.isnan(logits) & off, 0, logits)))


@SETTINGS
@given(matrices())
def test_max_logits_is_the_sum_of_the_evidence_where_both_orders_are_known(logits):
    logits[np.isnan(logits) | np.isnan(logits.T)] = NAN
    assert rk.max_logits(logits) == pytest.approx(2 * np.nansum(rk.both_orders(logits), axis=1) / len(logits))


@SETTINGS
@given(matrices())
def test_evidence_is_the_rankings_logit(logits):
    ranking = rk.ranking_from_scores("any", np.zeros(len(logits)), logits)
    n = len(logits)
    expected = [[0.0 if i == j else ranking.logit(i, j) for j in range(n)] for i in range(n)]
    np.testing.assert_array_equal(rk.both_orders(logits), expected)


def won(logits):
    """Games (winner, loser), one for each logit; those of 0 are won by who was read first."""
    games = [(i, j) for i in range(len(logits)) for j in range(len(logits)) if i != j]
    return [(i, j) if logits[i, j] >= 0 else (j, i) for i, j in games]


@SETTINGS
@given(matrices(gaps=False), st.sampled_from([0.01, 0.3]))
def test_bradley_terry_is_where_the_penalised_likelihood_is_flat(logits, regularization):
    logits[logits == 0] = 0.25
    strengths = rk.bradley_terry(logits, regularization=regularization)
    slopes = 2 * regularization * strengths
    for winner, loser in won(logits):
        surprise = 1 / (1 + np.exp(strengths[winner] - strengths[loser]))
        slopes[winner] -= surprise
        slopes[loser] += surprise
    assert slopes == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(matrices(gaps=False), st.sampled_from([0.01, 0.3]))
def test_bradley_terry_agrees_with_choix(logits, regularization):
    import choix

    n = len(logits)
    logits[logits == 0] = 0.25
    wins = won(logits)
    theirs = choix.opt_pairwise(n, wins, alpha=regularization, tol=1e-10) if n > 1 else np.zeros(1)
    assert rk.bradley_terry(logits, regularization=regularization) == pytest.approx(theirs, abs=1e-4)


def test_bradley_terry_recovers_strengths_from_soft_wins():
    strengths = np.array([1.5, -0.5, 0.0, -1.0])
    logits = strengths[:, None] - strengths[None, :]
    assert rk.bradley_terry(logits, regularization=1e-9, soft=True) == pytest.approx(strengths, abs=1e-6)


def test_bradley_terry_of_a_missing_pair_goes_through_the_third():
    logits = [[NAN, 1, NAN], [-1, NAN, 1], [NAN, -1, NAN]]
    first, second, third = rk.bradley_terry(logits)
    assert first > second > third
    assert second == 0


def test_bradley_terry_stays_finite_for_who_wins_everything():
    n = 50
    logits = np.sign(np.arange(n)[None, :] - np.arange(n)[:, None])
    strengths = rk.bradley_terry(logits, regularization=1e-6)
    assert np.isfinite(strengths).all()
    assert rk.ranks_from_scores(strengths).tolist() == list(range(1, n + 1))


def test_bradley_terry_needs_a_regularization():
    with pytest.raises(InputError, match="above zero"):
        rk.bradley_terry(ORIGINAL, regularization=0)


@SETTINGS
@given(matrices(gaps=False), st.sampled_from(sorted(rk.AGGREGATIONS)), st.randoms())
def test_equal_candidates_get_equal_scores(logits, aggregation, random):
    i, j = random.choices(range(len(logits)), k=2)
    logits[j], logits[:, j] = logits[i], logits[:, i]
    logits[i, j] = logits[j, i] = logits[j, j] = 0
    scores = rk.AGGREGATIONS[aggregation](logits)
    assert scores[i] == scores[j]


def test_an_unknown_aggregation_is_told_the_nearest():
    with pytest.raises(InputError, match=r"'max_logit': did you mean 'max_logits'\?"):
        rk.find_aggregation("max_logit")


@SETTINGS
@given(st.lists(st.integers(-3, 3), min_size=1))
def test_a_rank_is_one_more_than_the_number_of_better_ones(scores):
    expected = [1 + sum(other > score for other in scores) for score in scores]
    assert rk.ranks_from_scores(scores).tolist() == expected


def test_nan_has_no_rank():
    with pytest.raises(InputError, match="NaN"):
        rk.ranks_from_scores([1, NAN])


def test_ties_stand_in_order_of_their_index():
    ranking = rk.ranking_from_scores("any", [1, 2, 1, 2], np.zeros((4, 4)))
    assert (ranking.best, ranking.order, ranking.ranks) == (1, (1, 3, 0, 2), (3, 1, 3, 1))
    assert ranking.comparisons == 12
    assert np.isnan(np.diag(ranking.logits)).all()


def test_out_later_is_better_and_out_together_ties():
    ranking = rk.ranking_from_elimination("any", [[0, 3], [2], [3], [1]], np.full((4, 4), NAN))
    assert ranking.order == (1, 3, 2, 0)
    assert ranking.ranks == (4, 1, 3, 2)
    assert ranking.scores == (0, 3, 1, 2)
    assert rk.ranking_from_elimination("any", [[0, 2], [1]], np.zeros((3, 3))).ranks == (2, 1, 2)


@pytest.mark.parametrize("shape", [(0, 0), (3,), (2, 3)])
def test_logits_have_to_be_square(shape):
    with pytest.raises(InputError, match=r"shape \[N, N\]"):
        rk.max_logits(np.zeros(shape))
