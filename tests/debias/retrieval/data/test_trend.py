"""Tests of debias.retrieval.data.trend: what is taken lately beyond what always was."""

import numpy as np
import pytest

from debias.retrieval.data.interactions import from_columns
from debias.retrieval.data.trend import STRENGTH, trend


def test_the_ratio_of_shares_shrinks_to_none_with_few_events():
    item = np.array(["a"] * 6 + ["b"] * 2)
    log = from_columns(np.arange(8), item, np.arange(8))
    often = np.array([7, 3]) / 10  # 6 + 1 and 2 + 1 of 8 + 2
    late = np.array([0, 2])  # of the latest quarter
    wanted = np.log((late + STRENGTH * often) / (2 + STRENGTH) / often)
    np.testing.assert_allclose(trend(log, 0.25), wanted, atol=1e-6)
    assert abs(wanted).max() < 0.01


def test_the_whole_log_is_no_trend():
    rng = np.random.default_rng(0)
    log = from_columns(np.arange(9000), rng.integers(9, size=9000), np.arange(9000))
    assert np.abs(trend(log, 1.0)).max() < 0.01


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_share_is_a_share(share):
    log = from_columns(["u"], ["i"], [1])
    with pytest.raises(ValueError, match="share must be above 0 and at most 1"):
        trend(log, share)
