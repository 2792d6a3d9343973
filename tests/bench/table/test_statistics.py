import numpy as np
import pytest

from llm_blender.bench.resampling import Resampling
from llm_blender.bench.table.statistics import resampled_correlations
from llm_blender.metrics import pearson, spearman
from llm_blender.ranking import bootstrap_interval


def test_intervals_are_those_of_the_one_at_a_time_bootstrap():
    rng = np.random.default_rng(1)
    values, groups = rng.normal(size=(60, 2)), rng.integers(25, size=60).tolist()
    found = [mean.ci95 for mean in Resampling(groups, seed=3).means(values)]
    assert found == [pytest.approx(bootstrap_interval(column, groups, seed=3)) for column in values.T]


def test_what_is_nan_does_not_count():
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [1.0, np.nan]])
    one, none = Resampling([0, 1, 2]).means(values)
    assert (one.value, one.ci95, one.rows, none) == (1, (1, 1), 2, None)


def test_a_draw_that_holds_every_row_once_has_the_correlation_itself():
    rng = np.random.default_rng(2)
    one, other = rng.integers(1, 5, size=(2, 30, 4)).astype(float)
    found = resampled_correlations(one, other, np.ones((1, 30)))
    assert found["pearson"][0] == pytest.approx(pearson(one, other))
    assert found["spearman"][0] == pytest.approx(spearman(one, other))


def test_a_draw_is_correlated_as_its_rows_are():
    rng = np.random.default_rng(3)
    one, other = rng.integers(1, 5, size=(2, 12, 3)).astype(float)
    drawn = rng.integers(12, size=12)
    weights = np.bincount(drawn, minlength=12)[None].astype(float)
    found = resampled_correlations(one, other, weights)
    assert found["pearson"][0] == pytest.approx(pearson(one[drawn], other[drawn]))
    assert found["spearman"][0] == pytest.approx(spearman(one[drawn], other[drawn]))
    constant = resampled_correlations(np.ones((12, 3)), other, weights)
    assert np.isnan(constant["pearson"]).all()
