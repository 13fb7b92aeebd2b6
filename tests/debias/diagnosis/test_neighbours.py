"""Tests of debias.diagnosis.neighbours."""

import numpy as np
import pytest
from scipy.stats import binom

from debias.data import ClickLog, RankingData
from debias.diagnosis.neighbours import neighbours

ATTRACTION = np.array([0.8, 0.6, 0.4, 0.2, 0.1])
THETA = np.array([1.0, 0.8, 0.6])


def shown(sessions, seed, hurt=0.0):
    """Three of five items in any order; the item above takes `hurt` of its appeal."""
    rng = np.random.default_rng(seed)
    item = rng.permuted(np.tile(np.arange(5), (sessions, 1)), axis=1)[:, :3]
    p = ATTRACTION[item] * THETA
    p[:, 1:] *= 1 - hurt * ATTRACTION[item[:, :-1]]
    return ClickLog(np.zeros(sessions, int), item, rng.random(item.shape) < p)


def test_no_effect_is_claimed_no_oftener_than_it_says():
    claims = [
        neighbours(shown(400, seed), level=0.9).grade == "caution"
        for seed in range(150)
    ]
    low, high = binom.ppf([0.001, 0.999], 150, 0.1)
    assert low <= sum(claims) <= high


def test_an_attractive_item_above_takes_clicks():
    found = neighbours(shown(6000, 0, hurt=0.5))
    assert (
        found.grade == "caution" and "less often when the items above" in found.verdict
    )
    assert found.effect[0] < -5 * found.error[0]
    assert abs(found.effect[1]) < 4 * found.error[1]
    assert np.isnan(found.gain)


def test_the_effect_by_regression_on_strata():
    """Least squares with a free mean for each item at each rank finds the same."""
    log = shown(4000, 1, hurt=0.5)
    found = neighbours(log)
    above = np.zeros(log.item.shape)
    above[:, 1] = ATTRACTION[log.item[:, 0]]
    above[:, 2] = ATTRACTION[log.item[:, :2]].mean(axis=1)
    below = np.zeros(log.item.shape)
    below[:, 0] = ATTRACTION[log.item[:, 1:]].mean(axis=1)
    below[:, 1] = ATTRACTION[log.item[:, 2]]
    stratum = np.eye(15)[(log.item * 3 + np.arange(3)).ravel()]
    x = np.column_stack([above.ravel(), below.ravel()])
    x -= stratum @ np.linalg.lstsq(stratum, x, rcond=None)[0]
    slope = np.linalg.lstsq(x, log.click.ravel().astype(float), rcond=None)[0]
    scale = np.sqrt((x**2).sum(axis=0) / 12_000) / log.click.mean()
    assert found.effect[0] == pytest.approx((slope * scale)[0], rel=0.15)


def test_attention_between_positions_is_tried_where_there_are_features():
    features = np.eye(5, dtype="float32")
    data = RankingData(features, None, np.array([0, 5]))
    found = neighbours(shown(600, 0), data, epochs=1)
    assert np.isfinite(found.gain) and found.gain_error > 0
    assert "nats a session" in found.verdict
    with pytest.raises(ValueError, match="at least 10 sessions"):
        neighbours(shown(4, 0), data)


def test_rejects():
    with pytest.raises(ValueError, match="level"):
        neighbours(shown(10, 0), level=1.0)
