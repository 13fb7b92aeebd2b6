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


def test_times_as_coarse_as_days_count_their_last_day_whole():
    """A tenth of the events are of the last day, all of another item."""
    day = np.repeat(np.arange(10), 1000)
    item = np.where(day == 9, "new", "old")
    log = from_columns(np.arange(10_000), item, day)
    new, old = trend(log, 0.05)
    often = np.array([1001, 9001]) / 10_002
    wanted = np.log((np.array([1000, 0]) + STRENGTH * often) / 2000 / often)
    np.testing.assert_allclose([new, old], wanted, atol=1e-6)


def test_what_a_window_drops_counts_among_all_events():
    user = np.repeat(np.arange(10), 300)
    item = np.tile(np.repeat(["a", "b"], [200, 100]), 10)
    log = from_columns(user, item, np.tile(np.arange(300), 10))
    np.testing.assert_allclose(trend(log.latest(150), 0.1), trend(log, 0.1), atol=1e-6)
