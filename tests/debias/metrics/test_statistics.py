"""Tests of debias.metrics.statistics."""

import numpy as np
import pytest
from scipy import stats

from debias.metrics import effective_sample_size, estimate, paired_difference
from debias.metrics.statistics import holm


def rng(seed=0):
    return np.random.default_rng(seed)


def test_estimate_equals_scipy():
    values = rng().normal(0.4, 0.1, 10)
    found = estimate([*values, np.nan], confidence=0.9)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose(found[:3], [values.mean(), *interval])
    assert found[3:] == (10, 1)


def test_interval_covers_as_often_as_it_says():
    draws = rng(1).normal(3.0, 2.0, (4000, 5))
    inside = [found.low < 3.0 < found.high for found in map(estimate, draws)]
    assert abs(np.mean(inside) - 0.95) < 4 * (0.95 * 0.05 / 4000) ** 0.5


def test_paired_difference_equals_scipy():
    ours, other = rng(2).normal(0.5, 0.1, (2, 10))
    found = paired_difference(ours, other)
    test = stats.ttest_rel(ours, other)
    expected = [(ours - other).mean(), *test.confidence_interval(), test.pvalue]
    np.testing.assert_allclose(found[:4], expected)
    shares = paired_difference(ours, other, relative=True)
    np.testing.assert_allclose(shares[:3], estimate(ours / other - 1)[:3])


def test_pairs_with_a_nan_are_left_out():
    found = paired_difference([1.0, np.nan, 3.0, 9.0], [0.0, 1.0, 1.0, np.nan])
    assert (found.mean, found.n, found.left_out) == (1.5, 2, 2)


def test_one_value_has_no_interval_and_equal_differences_a_point():
    assert np.isnan(estimate([0.3])[1:3]).all() and estimate([0.3]).mean == 0.3
    assert np.isnan(estimate([]).mean)
    assert paired_difference([2.0, 3.0], [1.0, 2.0])[:4] == (1, 1, 1, 0)
    assert paired_difference([1.0, 2.0], [1.0, 2.0])[:4] == (0, 0, 0, 1)


def test_statistics_reject():
    with pytest.raises(ValueError, match="confidence"):
        estimate([1.0], confidence=95)
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([1.0, 2.0], [1.0])


def test_effective_sample_size():
    assert effective_sample_size([2, 2, 2]) == pytest.approx(3)
    assert effective_sample_size([[1, 0], [3, 0]]) == pytest.approx(16 / 10)
    for bad in ([0, 0], [1, -1], []):
        with pytest.raises(ValueError, match="weights"):
            effective_sample_size(bad)


def test_holm_by_hand():
    """Of five, ascending: 5 x .005, 4 x .01, 3 x .03, 2 x .04 (no less), 1 x .9."""
    values = [0.03, 0.005, 0.9, 0.01, 0.04]
    expected = [0.09, 0.025, 0.9, 0.04, 0.09]
    np.testing.assert_allclose(holm(values), expected, rtol=1e-12)
    np.testing.assert_allclose(holm([0.5, 0.6]), [1.0, 1.0])  # 2 x .5, never above 1
    np.testing.assert_array_equal(holm([0.02, float("nan")]), [0.02, float("nan")])
    assert holm([]).shape == (0,)
    for wrong in ([-0.1], [1.1], [[0.1]]):
        with pytest.raises(ValueError, match="p_values must be"):
            holm(wrong)


def test_holm_rejects_nothing_true_in_95_of_100_families():
    """Twenty true hypotheses a family; a share of .05 of the families rejects one."""
    rng = np.random.default_rng(0)
    wrong = [(holm(rng.random(20)) < 0.05).any() for _ in range(4000)]
    exact = 1 - (1 - 0.05 / 20) ** 20  # of independent tests
    assert abs(np.mean(wrong) - exact) < 4 * np.sqrt(exact * (1 - exact) / 4000)
