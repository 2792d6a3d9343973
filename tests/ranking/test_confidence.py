import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_blender import ranking as rk
from llm_blender.errors import InputError

NAN = np.nan
SETTINGS = settings(max_examples=10, deadline=None)


def ranking(logits):
    return rk.ranking_from_scores("any", np.zeros(len(logits)), logits)


def test_probability_is_the_sigmoid_without_overflow():
    assert rk.probability([0, np.log(3), -1e6, 1e6]) == pytest.approx([0.5, 0.75, 0, 1])
    assert rk.probability(2 * np.log(3), temperature=2) == pytest.approx(0.75)
    assert np.isnan(rk.probability(NAN))


def test_the_probabilities_of_a_pair_sum_to_one():
    matrix = rk.probability_matrix(ranking([[NAN, 1, NAN], [3, NAN, 2], [NAN, NAN, NAN]]))
    assert matrix[0, 1] == pytest.approx(1 / (1 + np.exp(1)))
    assert matrix[0, 1] + matrix[1, 0] == pytest.approx(1)
    assert matrix[2, 1] == pytest.approx(1 / (1 + np.exp(2)))  # one order only
    assert np.isnan(matrix[0, 2])
    assert np.diag(matrix).tolist() == [0.5] * 3


def test_win_probabilities_are_means_over_who_was_met():
    log3 = np.log(3)
    given = ranking([[NAN, log3, 0, NAN], [-log3, NAN, NAN, NAN], [0, NAN, NAN, NAN], [NAN] * 4])
    assert rk.win_probabilities(given) == pytest.approx([0.625, 0.25, 0.5, NAN], nan_ok=True)


def test_nobody_to_win_against():
    assert np.isnan(rk.win_probabilities(ranking([[NAN]]))).all()


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_fit_temperature_finds_the_temperature_and_the_least_log_loss(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=20_000)
    labels = rng.random(20_000) < rk.probability(logits, temperature)
    fitted = rk.fit_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.1)
    assert all(
        rk.log_loss(logits, labels, fitted) <= rk.log_loss(logits, labels, fitted * x) for x in (0.5, 0.99, 1.01, 2)
    )


def test_fit_temperature_at_its_ends():
    assert rk.fit_temperature([1, -2], [1, 0]) == pytest.approx(0.001)
    assert rk.fit_temperature([1, -2], [0, 1]) == pytest.approx(1000)


def test_log_loss_and_brier_of_a_coin():
    assert rk.log_loss([0, 0, 0], [1, 0, 0.5]) == pytest.approx(np.log(2))
    assert rk.brier_score([0.5, 0.5], [1, 0]) == 0.25
    assert rk.brier_score([1, 0, 0.8], [1, 0, 0]) == pytest.approx(0.64 / 3)


def test_calibration_bins_have_equal_mass_and_keep_equals_together():
    low, high = rk.calibration_bins([0.9, 0.2, 0.7, 0.1], [1, 0, 0, 1], bins=2)
    assert (low.members.tolist(), low.promised, low.happened) == ([1, 3], pytest.approx(0.15), 0.5)
    assert (high.members.tolist(), high.promised, high.happened) == ([0, 2], pytest.approx(0.8), 0.5)
    p = np.random.default_rng(0).random(1000)
    assert [len(part.members) for part in rk.calibration_bins(p, p > 0.5)] == [100] * 10
    (only,) = rk.calibration_bins([0.6] * 30, [1] * 30)
    assert len(only.members) == 30


def test_calibration_error_by_hand():
    assert rk.expected_calibration_error([0.9, 0.9, 0.2, 0.2], [1, 0, 0, 0], bins=2) == pytest.approx(0.3)
    assert rk.expected_calibration_error([0.75] * 4, [1, 1, 1, 0]) == 0


@SETTINGS
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40), st.randoms())
def test_calibration_error_does_not_depend_on_the_order(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    error, again = (
        rk.expected_calibration_error([p / 8 for p, _ in given], [y for _, y in given], bins=4)
        for given in (pairs, shuffled)
    )
    assert error == pytest.approx(again)
    assert 0 <= error <= 1


def test_calibration_error_of_honest_probabilities_is_small():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    labels = rng.random(20_000) < p
    assert rk.expected_calibration_error(p, labels) < 0.02
    assert rk.expected_calibration_error(p**3, labels) > 0.2


def test_bootstrap_is_as_wide_as_theory():
    values = np.random.default_rng(1).normal(size=1000)
    low, high = rk.bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(1000), rel=0.1)


def test_bootstrap_draws_groups_together():
    values = np.repeat(np.random.default_rng(2).normal(size=50), 20)
    groups = np.repeat([f"instruction {i}" for i in range(50)], 20)
    alone, together = rk.bootstrap_interval(values), rk.bootstrap_interval(values, groups)
    assert together.high - together.low == pytest.approx(np.sqrt(20) * (alone.high - alone.low), rel=0.15)


def test_bootstrap_weighs_unequal_groups_by_their_size():
    low, high = rk.bootstrap_interval([0, 0, 0, 1], ["a", "a", "a", "b"], resamples=5000)
    assert (low, high) == (0, 1)
    assert rk.bootstrap_interval([2, 2, 2], [0, 0, 1]) == (2, 2)


def test_bootstrap_is_seeded_and_works_in_blocks():
    values = np.arange(30.0)
    whole = rk.bootstrap_interval(values, seed=3)
    assert rk.bootstrap_interval(values, seed=3, cells=100) == whole
    assert rk.bootstrap_interval(values, seed=4) != whole
    narrow = rk.bootstrap_interval(values, seed=3, level=0.5)
    assert whole.low < narrow.low < narrow.high < whole.high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rk.probability(1, temperature=0), "temperature"),
        (lambda: rk.log_loss([1], [1, 0]), "equal length"),
        (lambda: rk.fit_temperature([], []), "equal length"),
        (lambda: rk.brier_score([0.5], [2]), "label"),
        (lambda: rk.expected_calibration_error([0.5], [1], bins=0), "bin"),
        (lambda: rk.bootstrap_interval([]), "at least one"),
        (lambda: rk.bootstrap_interval([1], [1, 2]), "as many groups"),
        (lambda: rk.bootstrap_interval([1], level=95), "level"),
    ],
)
def test_wrong_input_is_told(call, message):
    with pytest.raises(InputError, match=message):
        call()
