"""Tests of debias.diagnosis.neighbours."""

import numpy as np
import pytest
from scipy.stats import binom

from debias.data import ClickLog, RankingData
from debias.diagnosis.neighbours import MATTERS, neighbours, noncentrality

ATTRACTION = np.array([0.8, 0.6, 0.4, 0.2, 0.1])
THETA = np.array([1.0, 0.8, 0.6])


def shown(sessions, seed, hurt=0.0, slope=0.0):
    """Three of five items in any order.

    The item above takes `hurt` of an item's appeal; `slope` is added for the mean
    attraction above, less its mean over the lists that show the item at the rank.
    """
    rng = np.random.default_rng(seed)
    item = rng.permuted(np.tile(np.arange(5), (sessions, 1)), axis=1)[:, :3]
    own = ATTRACTION[item]
    p = own * THETA
    p[:, 1:] *= 1 - hurt * own[:, :-1]
    p[:, 1:] += slope * above(item)[:, 1:]
    return ClickLog(np.zeros(sessions, int), item, rng.random(item.shape) < p)


def above(item):
    """Mean attraction above, around its mean given the item and the rank."""
    own = ATTRACTION[item]
    mean = np.stack([own[:, 0] * 0, own[:, 0], own[:, :2].mean(axis=1)], axis=1)
    return (mean - (ATTRACTION.sum() - own) / 4) * [0, 1, 1]


def claimed(found):
    """Whether an effect is said to be there, of whatever size."""
    return found.verdict.startswith(("Neighbours matter", "A neighbour effect"))


def test_no_effect_is_claimed_no_oftener_than_it_says():
    claims = [claimed(neighbours(shown(400, seed), level=0.9)) for seed in range(150)]
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


def test_an_effect_said_to_be_detectable_is_detected():
    null = [neighbours(shown(400, seed)) for seed in range(8)]
    reach = np.mean([found.detectable[0] for found in null])
    log = shown(50_000, 0)
    deviation = np.sqrt((above(log.item) ** 2).sum() / (2 * len(log)))
    # Cells with items below alone vary as well: of three ranks all vary on one side.
    deviation *= np.sqrt(2 / 3)
    slope = reach * log.click.mean() / deviation
    hits = [
        claimed(neighbours(shown(400, seed, slope=slope))) for seed in range(100, 200)
    ]
    low, high = binom.ppf([0.001, 0.999], 100, 0.8)
    assert low <= sum(hits) <= high


def test_the_noncentrality_of_a_normal_test():
    # Two-sided z test at 5%, power .8: 1.96 + .84.
    assert noncentrality(1.959964**2, 1, 10**8) ** 0.5 == pytest.approx(
        2.8016, abs=1e-3
    )


def thin(name):
    rng = np.random.default_rng(0)
    if name == "lists of one":
        click = np.arange(10_000)[:, None] < 38
        return ClickLog(
            rng.integers(0, 9, 10_000), rng.integers(0, 5, (10_000, 1)), click
        )
    if name == "nine lists":
        item = [[0, 1], [1, 0], [0, 2], [2, 0], [1, 2], [2, 1], [0, 1], [1, 0], [0, 2]]
        return ClickLog(np.zeros(9, int), item, rng.random((9, 2)) < 0.4)
    # Many lists of which 273 impressions are of items that move: they alone speak.
    still = np.tile([[2, 3]], (5000, 1))
    moved = np.array([[0, 1], [1, 0], [4, 0], [0, 4]] * 34)
    item = np.concatenate([still, moved])
    return ClickLog(np.zeros(len(item), int), item, rng.random(item.shape) < 0.3)


@pytest.mark.parametrize("name", ["lists of one", "nine lists", "few that move"])
def test_thin_logs_are_unknown(name):
    found = neighbours(thin(name))
    assert found.grade == "unknown" and found.verdict.startswith("Unknown")
    assert not (found.detectable <= MATTERS).any()


def test_a_well_powered_log_says_what_it_would_have_found():
    found = neighbours(shown(6000, 0))
    assert found.grade == "good" and found.verdict.startswith("No neighbour effect")
    assert found.detectable.max() < 0.04
    assert f"{found.detectable.max():.1%} would have been found" in found.verdict


def test_a_small_effect_is_found_and_said_to_be_small():
    found = neighbours(shown(40_000, 0, hurt=0.08))
    assert found.statistic > 5 and found.grade == "good"
    assert found.verdict.startswith(
        "A neighbour effect, but below the 10% that matter:"
    )


def test_noise_in_the_attraction_hides_an_effect():
    """As many clicks, of five hundred times as many items: little is known of each."""
    rng = np.random.default_rng(0)
    log = shown(3000, 0)
    query = rng.integers(0, 500, len(log))
    apart = ClickLog(query, log.item + 5 * query[:, None], log.click)
    few, many = neighbours(log), neighbours(apart)
    assert few.grade == "good" and many.grade == "unknown"
    ratio = (many.detectable / few.detectable) / (many.error / few.error)
    assert (ratio > 1.4).all()


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
    assert "nats per session" in found.verdict
    with pytest.raises(ValueError, match="at least 10 sessions"):
        neighbours(shown(4, 0), data)


def test_rejects():
    with pytest.raises(ValueError, match="level"):
        neighbours(shown(10, 0), level=1.0)
