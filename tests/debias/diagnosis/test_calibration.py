"""Tests of debias.diagnosis.calibration."""

import numpy as np
import pytest
from scipy.stats import binom

from debias.data import ClickLog
from debias.diagnosis.calibration import MATTERS, OFTEN, calibration


def log(sessions=4000, seed=0, slope=0.0, off=0.0):
    """Two queries; `slope` makes the second one's ranks decay faster.

    `off` is added at rank 1 and taken at rank 3 for the better items, and the other
    way round for the others: no item and no rank is clicked more for it.
    """
    rng = np.random.default_rng(seed)
    query = rng.integers(2, size=sessions)
    item = rng.permuted(np.tile(np.arange(4), (sessions, 1)), axis=1)[:, :3]
    theta = np.exp(-(0.3 + slope * query[:, None]) * np.arange(3))
    p = np.array([0.8, 0.6, 0.4, 0.2])[item] * theta
    p += off * np.where(item < 2, 1, -1) * [1, 0, -1]
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
    found = [calibration(log(600, seed), level=0.8) for seed in range(100)]
    claims = sum((each.error > each.chance).any() for each in found)
    assert claims <= binom.ppf(0.999, 100, 0.2)


def test_an_error_said_to_be_detectable_is_detected():
    null = [calibration(log(1500, seed), bins=2).detectable for seed in range(10)]
    reach = np.mean(null, axis=0)[0]
    # The fit takes up a part of what is added: so much is left of .1.
    left = calibration(log(100_000, off=0.1), bins=2).error[0] / 0.1
    off = reach / left
    found = [calibration(log(1500, s, off=off), bins=2) for s in range(100, 160)]
    hits = sum(each.error[0] > each.chance[0] for each in found)
    low, high = binom.ppf([0.001, 0.999], 60, 0.8)
    assert low <= hits <= high


def test_the_verdict_says_what_would_have_been_found():
    found = calibration(log())
    reach = (found.detectable / found.rate).max()
    assert found.grade == "good" and reach < MATTERS
    assert f"an error of {reach:.0%} of the click rate" in found.verdict
    np.testing.assert_allclose(found.rate, log().click.mean(axis=0), atol=0.02)


def test_ranks_at_which_an_error_would_not_show_are_unknown():
    found = calibration(log(1000))
    assert found.grade == "caution" and found.verdict.endswith("Unknown at rank 2-3.")
    few = calibration(log(250))
    assert few.grade == "unknown" and few.verdict.startswith("Unknown: this log")
    # One item in four is clicked so rarely that .01 is a multiple of its rate.
    rng = np.random.default_rng(0)
    query, item = rng.integers(0, 3, 9000), rng.integers(0, 5, (9000, 1))
    silent = ClickLog(query, item, np.arange(9000)[:, None] % 300 == 0)
    assert calibration(silent).grade == "unknown"


def test_a_verdict_rests_on_most_of_the_impressions():
    rng = np.random.default_rng(0)
    often = log(1000)
    rare = np.arange(9000).reshape(3000, 3) + 8
    item = np.concatenate([often.item, rare])
    click = np.concatenate(
        [often.click, rng.random(rare.shape) < 0.5 * np.exp(-0.3 * np.arange(3))]
    )
    query = np.concatenate([often.query, np.full(3000, 2)])
    found = calibration(ClickLog(query, item, click))
    assert found.covered == pytest.approx(0.25, abs=0.02)
    assert found.grade == "unknown" and f"enough ({OFTEN} times)" in found.verdict


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
