"""Debiased attraction of pairs: counts, posteriors, order."""

import numpy as np
import pytest
from scipy import integrate
from scipy.special import expit

from debias.data import ClickLog
from debias.propensity import Propensities, judge
from debias.propensity.cells import cells
from debias.propensity.judgments import GRID, _Model, _normal

THETA = np.array([1.0, 0.5, 0.25])


def simulated(sessions=6000, queries=20, seed=0):
    """Five items a query, three shown, the same ones more often high."""
    rng = np.random.default_rng(seed)
    gamma = np.clip(rng.beta(1.0, 3.0, queries * 5), 0.02, 1.0)
    query = rng.integers(0, queries, sessions)
    keys = rng.gumbel(size=(sessions, 5)) + np.linspace(1.5, 0, 5)
    item = query[:, None] * 5 + np.argsort(-keys, axis=1)[:, :3]
    click = rng.random(item.shape) < gamma[item] * THETA
    return ClickLog(query, item, click), gamma


def test_many_impressions_speak_for_themselves():
    """4,000 at rank 1 with 1,200 clicks, 4,000 at rank 2 with 600: .3 either way."""
    item = np.tile([[0, 1], [1, 0]], (4000, 1))
    click = np.zeros((8000, 2), bool)
    click[0:2400:2, 0] = True  # item 0 at rank 1
    click[1:1200:2, 1] = True  # item 0 at rank 2
    found = judge(ClickLog(np.zeros(8000, int), item, click), Propensities.of([1, 0.5]))
    own = found.item == 0
    assert found.attraction[own][0] == pytest.approx(0.3, abs=0.003)
    # Information n theta / (gamma (1 - theta gamma)): 4000/.21 + 2000/.255
    error = 1 / np.sqrt(4000 / (0.3 * 0.7) + 2000 / (0.3 * 0.85))
    assert found.standard_error[own][0] == pytest.approx(error, rel=0.1)
    assert found.impressions.tolist() == [8000, 8000] and found.clicks[0] == 1800
    # COEC: the mean item has 1200 / 8000 clicks at rank 1 and 600 / 8000 at rank 2.
    assert found.coec[own][0] == pytest.approx(1800 / (4000 * 0.15 + 4000 * 0.075))
    assert found.ctr[own][0] == 1800 / 8000


def test_posteriors_are_those_of_an_integral():
    log = ClickLog([0] * 5, [[0, 1], [1, 0], [0, 1], [1, 0], [0, 1]], np.eye(5, 2) > 0)
    counted = cells(log)
    model = _Model(counted, THETA[counted.rank], np.zeros(len(counted.rank)))
    mean = np.array([-1.0, -0.5])
    first, error, low, high = model.posterior(mean, _normal(0.8), 0.9)

    def density(x, pair):
        own = counted.pair == pair
        p = THETA[counted.rank[own]] * expit(x)
        c, n = counted.clicked[own], counted.shown[own]
        return np.prod(p**c * (1 - p) ** (n - c)) * np.exp(
            -0.5 * ((x - mean[pair]) / 0.8) ** 2
        )

    for pair in (0, 1):
        whole = integrate.quad(density, -9, 7, args=(pair,))[0]
        one = integrate.quad(lambda x, p=pair: expit(x) * density(x, p), -9, 7)[0]
        two = integrate.quad(lambda x, p=pair: expit(x) ** 2 * density(x, p), -9, 7)[0]
        assert first[pair] == pytest.approx(one / whole, rel=2e-3)
        assert error[pair] ** 2 == pytest.approx(
            two / whole - (one / whole) ** 2, rel=0.02
        )
        for end, tail in ((low[pair], 0.05), (high[pair], 0.95)):
            at = np.log(end / (1 - end))
            share = integrate.quad(density, -9, at, args=(pair,))[0] / whole
            assert share == pytest.approx(tail, abs=0.01)


def test_intervals_hold_and_beat_click_rates_in_order():
    log, gamma = simulated()
    found = judge(log, Propensities.of(THETA))
    truth = gamma[found.item]
    inside = (found.low <= truth) & (truth <= found.high)
    assert 0.9 <= inside.mean() <= 1.0
    off = np.abs(found.attraction - truth).mean()
    assert off < np.abs(found.ctr - truth).mean()
    ranked = np.diff(found.query) == 0
    assert (np.diff(found.attraction)[ranked] <= 0).all()


def test_few_impressions_without_a_click_stay_near_their_query():
    log, _ = simulated(60)
    found = judge(log, Propensities.of(THETA))
    once = (found.impressions == 1) & (found.clicks == 0)
    mean = found.clicks.sum() / (found.impressions * 0.58).sum()
    assert once.any() and (found.attraction[once] > mean / 6).all()


def test_errors_of_propensities_widen_the_intervals():
    log, _ = simulated()
    exact = Propensities.of(THETA)
    rough = Propensities(**{**vars(exact), "standard_error": np.array([0.0, 0.2, 0.1])})
    one, two = judge(log, exact), judge(log, rough)
    assert (two.standard_error >= one.standard_error).all()
    assert two.standard_error.mean() > 1.1 * one.standard_error.mean()


def test_trust_is_taken_off():
    rng = np.random.default_rng(0)
    item = np.tile([[0, 1], [1, 0]], (20_000, 1))
    p = 0.1 * np.array([1, 0.5]) + np.array([0.6, 0.2])[item] * [0.8, 0.4]
    log = ClickLog(np.zeros(len(item), int), item, rng.random(item.shape) < p)
    found = judge(log, Propensities.of([0.8, 0.4], trust=[0.1, 0.05]))
    np.testing.assert_allclose(found.attraction, [0.6, 0.2], atol=0.02)


def test_scores_fill_what_was_never_shown():
    log, gamma = simulated(2000)
    shown = np.setdiff1d(np.arange(100), np.arange(4, 100, 5))
    log = log.take(~np.isin(log.item, np.arange(4, 100, 5)).any(axis=1))
    offsets = np.arange(0, 101, 5)
    found = judge(log, Propensities.of(THETA), scores=gamma, offsets=offsets)
    unseen = found.impressions == 0
    assert sorted(found.item) == list(range(100)) and unseen.sum() == 100 - len(shown)
    assert np.isnan(found.coec[unseen]).all()
    assert np.corrcoef(found.attraction[unseen], gamma[found.item[unseen]])[0, 1] > 0.9
    assert (found.low[unseen] < found.attraction[unseen]).all()


def test_places_of_unknown_examination_are_left_out():
    log, _ = simulated()
    found = judge(log, Propensities.of([1.0, 0.5, np.nan]))
    assert found.left_out == pytest.approx(1 / 3)
    assert found.impressions.sum() == 3 * log.sessions


def test_what_cannot_be_judged():
    log, gamma = simulated(100)
    with pytest.raises(ValueError, match="no click stands at a rank of known"):
        judge(log, Propensities.of([np.nan] * 3))
    with pytest.raises(ValueError, match="scores must be one number for each of"):
        judge(log, Propensities.of(THETA), scores=gamma[:3])
    with pytest.raises(ValueError, match="scores must be finite, got nan of item 7"):
        judge(
            log, Propensities.of(THETA), scores=np.where(np.arange(100) == 7, np.nan, 1)
        )
    with pytest.raises(ValueError, match="level must be"):
        judge(log, Propensities.of(THETA), level=1.0)
    with pytest.raises(ValueError, match="highest"):
        judge(log, Propensities.of(THETA)).grades(0)


def test_gains_of_grades_are_linear_in_attraction():
    log, _ = simulated()
    found = judge(log, Propensities.of(THETA))
    gain = (2.0 ** found.grades() - 1) / 15
    low, high = np.quantile(found.attraction, [0.01, 0.99])
    share = np.clip((found.attraction - low) / (high - low), 0, 1)
    exact = np.log2(1 + 15 * share)
    assert np.abs(found.grades() - exact).max() <= 0.5
    assert np.corrcoef(gain, share)[0, 1] > 0.9


def test_the_prior_is_a_distribution():
    assert _normal(0.8).sum() == pytest.approx(1.0)
    assert _normal(0.8) @ GRID == pytest.approx(0.0, abs=1e-3)
