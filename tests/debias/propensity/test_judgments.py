"""Debiased attraction of pairs: counts, posteriors, order."""

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import expit

from debias.data import ClickLog
from debias.propensity import Propensities, judge
from debias.propensity.attraction import (
    BINS,
    Around,
    Beta,
    Counts,
    Normal,
    fit_prior,
    posteriors,
)
from debias.propensity.cells import cells

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


def priors():
    """log prior density of a logit x around -3 and -.5, written out."""
    phi, mu = 4.0, expit(np.array([-3.0, -0.5]))
    return {
        "normal": (
            Normal(),
            0.8,
            lambda x, k: -0.5 * ((x - (-3.0, -0.5)[k]) / 0.8) ** 2,
        ),
        "beta": (
            Beta(),
            0.5,
            lambda x, k: (
                stats.beta.logpdf(expit(x), phi * mu[k], phi * (1 - mu[k]))
                + np.log(expit(x) * expit(-x))
            ),
        ),
    }


@pytest.mark.parametrize("name", ["normal", "beta"])
def test_posteriors_are_those_of_an_integral(name):
    log = ClickLog([0] * 5, [[0, 1], [1, 0], [0, 1], [1, 0], [0, 1]], np.eye(5, 2) > 0)
    counted = cells(log)
    counts = Counts(counted, THETA[counted.rank], np.zeros(len(counted.rank)))
    shape, spread, prior = priors()[name]
    around = Around(
        shape, np.array([-3.0, -0.5]), np.full(2, spread), np.zeros(len(BINS))
    )
    first, error, low, high = posteriors(counts, around, 0.9)

    def density(x, pair):
        own = counted.pair == pair
        p = THETA[counted.rank[own]] * expit(x)
        c, n = counted.clicked[own], counted.shown[own]
        return np.prod(p**c * (1 - p) ** (n - c)) * np.exp(prior(x, pair))

    for pair in (0, 1):
        whole = integrate.quad(density, -15, 9, args=(pair,))[0]
        one = integrate.quad(lambda x, p=pair: expit(x) * density(x, p), -15, 9)[0]
        two = integrate.quad(lambda x, p=pair: expit(x) ** 2 * density(x, p), -15, 9)[0]
        assert first[pair] == pytest.approx(one / whole, rel=5e-3)
        assert error[pair] ** 2 == pytest.approx(
            two / whole - (one / whole) ** 2, rel=0.02
        )
        x = np.linspace(-15, 9, 4801)
        mass = np.cumsum([density(each, pair) for each in x])
        ends = np.array([low[pair], high[pair]])
        share = np.interp(np.log(ends / (1 - ends)), x, mass / mass[-1])
        assert share[1] - share[0] == pytest.approx(0.9, abs=0.01)
        tails = np.linspace(1e-4, 0.1 - 1e-4, 400)
        others = expit(np.interp([tails, tails + 0.9], mass / mass[-1], x))
        width = others[1] - others[0]
        assert ends[1] - ends[0] == pytest.approx(width.min(), rel=0.02)
        assert pair or width[200] > 1.05 * width.min()  # equal tails


@pytest.mark.parametrize("name", ["normal", "beta"])
def test_the_prior_is_found_again(name):
    """1,500 pairs of 100 queries, drawn from the prior with w = (-2, .6), t = .4."""
    rng = np.random.default_rng(0)
    query = np.repeat(np.arange(100), 15)
    known = rng.normal(size=len(query))
    centre = -2 + 0.6 * known + rng.normal(0, 0.4, 100)[query]
    mu = expit(centre)
    gamma = {
        "normal": lambda: expit(rng.normal(centre, 0.8)),
        "beta": lambda: rng.beta(10 * mu, 10 * (1 - mu)),
    }[name]()
    item = np.tile(np.arange(len(query))[:, None], (100, 1))
    log = ClickLog(np.tile(query, 100), item, rng.random(item.shape) < gamma[item])
    counted = cells(log)
    counts = Counts(counted, np.ones(len(counted.pair)), np.zeros(len(counted.pair)))
    found = fit_prior(counts, query, np.stack([np.ones(len(query)), known], axis=1))
    assert type(found.shape).__name__.lower() == name
    np.testing.assert_allclose(found.weights, [-2, 0.6], atol=0.12)
    assert found.query_spread == pytest.approx(0.4, abs=0.08)
    spread = {"normal": 0.8, "beta": 10**-0.5}[name]
    assert found.spread == pytest.approx(spread, rel=0.12)


def shown_by_a_ranker(seed, sessions=4000):
    """Lists of 6 of 12 items by a ranker that knows something; about 4% of clicks."""
    rng = np.random.default_rng(seed)
    gamma = rng.beta(1.0, 8.0, 60 * 12)
    known = np.log(gamma) * 0.5 + rng.normal(0, 0.5, len(gamma))
    query = rng.integers(0, 60, sessions)
    keys = known.reshape(60, 12)[query] + 0.5 * rng.gumbel(size=(sessions, 12))
    item = query[:, None] * 12 + np.argsort(-keys, axis=1)[:, :6]
    theta = 1 / np.arange(1, 7)
    click = rng.random(item.shape) < gamma[item] * theta
    return ClickLog(query, item, click), gamma, theta


def test_of_a_log_whose_order_tells_much_judgments_order_better_than_click_rates():
    gains, inside = [], []
    for seed in range(3):
        log, gamma, theta = shown_by_a_ranker(seed)
        found = judge(log, Propensities.of(theta))
        truth = gamma[found.item]
        own, raw = (
            stats.spearmanr(value, truth).statistic
            for value in (found.attraction, found.ctr)
        )
        gains.append(own - raw)
        inside.append(((found.low <= truth) & (truth <= found.high)).mean())
    assert min(gains) > 0.01
    assert 0.9 < np.mean(inside) < 0.99


def test_pieces_make_no_difference(monkeypatch):
    log, _, theta = shown_by_a_ranker(0, 1500)
    whole = judge(log, Propensities.of(theta))
    monkeypatch.setattr("debias.propensity.attraction.PIECE", 50)
    parts = judge(log, Propensities.of(theta))
    one, other = (each.attraction[np.argsort(each.item)] for each in (whole, parts))
    np.testing.assert_allclose(other, one, rtol=1e-3)


def test_the_error_of_scores_on_new_clicks_is_in_the_interval():
    """Scores that repeat the clicks of four fifths of the queries, and guess others."""
    log, gamma, theta = shown_by_a_ranker(0)
    counted = cells(log)
    rate = (counted.by_pair(counted.clicked) + 0.2) / (
        counted.by_pair(counted.shown * theta[counted.rank]) + 4
    )
    scores = np.random.default_rng(0).normal(-2.2, 0.5, len(gamma))
    fresh = log.query >= 48
    learned = counted.names.item[counted.names.query < 48]
    scores[learned] = np.log(rate[counted.names.query < 48])
    given = {"scores": scores, "offsets": np.arange(0, 721, 12)}
    naive, honest = (
        judge(log, Propensities.of(theta), **given, fresh=each)
        for each in (None, fresh)
    )
    cover = [
        ((each.low <= gamma[each.item]) & (gamma[each.item] <= each.high)).mean()
        for each in (naive, honest)
    ]
    assert cover[1] > cover[0] + 0.05 and cover[1] > 0.85
    with pytest.raises(ValueError, match="fresh must be 4000 bools"):
        judge(log, Propensities.of(theta), **given, fresh=fresh[:7])


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
    with pytest.raises(ValueError, match="no click is at a rank with known"):
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


def test_rows_are_shuffled_within_queries():
    log = ClickLog(
        np.repeat([0, 1], 40), [[0, 1, 2]] * 40 + [[3, 4, 5]] * 40, [[1, 0, 1]] * 80
    )
    found = judge(log, Propensities.of([1.0, 0.5, 0.3]))
    orders = [found.shuffled(seed) for seed in range(9)]
    for order in orders:
        assert sorted(order[:3]) == [0, 1, 2] and sorted(order[3:]) == [3, 4, 5]
    assert len({tuple(order[:3]) for order in orders}) > 2
