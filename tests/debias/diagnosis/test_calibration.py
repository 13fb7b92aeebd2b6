"""Tests of debias.diagnosis.calibration."""

import numpy as np
import pytest

from debias.data import ClickLog
from debias.diagnosis.calibration import calibration


def log(sessions=4000, seed=0, slope=0.0):
    """Two queries; `slope` makes the second one's ranks decay faster."""
    rng = np.random.default_rng(seed)
    query = rng.integers(2, size=sessions)
    item = rng.permuted(np.tile(np.arange(4), (sessions, 1)), axis=1)[:, :3]
    theta = np.exp(-(0.3 + slope * query[:, None]) * np.arange(3))
    p = np.array([0.8, 0.6, 0.4, 0.2])[item] * theta
    return ClickLog(query, item + 4 * query[:, None], rng.random(item.shape) < p)


def test_the_error_is_that_of_the_bins():
    found = calibration(log())
    assert found.impressions.sum(axis=1).tolist() == [2000] * 3
    assert found.covered == 1.0
    gap = np.nan_to_num(np.abs(found.observed - found.predicted))
    want = (gap * found.impressions).sum(axis=1) / 2000
    np.testing.assert_allclose(found.error, want)
    clicks = np.nansum(found.observed * found.impressions, axis=1)
    assert (clicks == clicks.round(6)).all() and clicks[0] > clicks[2] > 0
    assert (found.lower <= found.upper).all()


def test_chance_is_exceeded_no_oftener_than_it_says():
    found = [calibration(log(600, seed), level=0.8) for seed in range(40)]
    assert sum((each.error > each.chance).any() for each in found) <= 14  # of 8


def test_a_wrong_model_is_noticed():
    found = calibration(log(slope=1.0))
    assert found.grade == "caution" and found.verdict.startswith("Miscalibrated")
    assert (found.error > found.chance)[1:].all() and (found.lower[1:] > 0.02).all()
    assert calibration(log()).grade == "good"


def test_rare_pairs_are_left_out():
    alone = ClickLog(np.zeros(40, int), np.arange(80).reshape(40, 2), np.eye(40, 2) > 0)
    found = calibration(alone)
    assert found.covered == 0 and found.verdict.startswith("Unknown")
    assert np.isnan(found.error).all()


@pytest.mark.parametrize(
    "options, wrong", [({"bins": 0}, "bins"), ({"level": 0.0}, "level")]
)
def test_rejects(options, wrong):
    with pytest.raises(ValueError, match=wrong):
        calibration(log(20), **options)
    with pytest.raises(ValueError, match="two sessions"):
        calibration(log(1))
