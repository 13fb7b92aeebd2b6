"""Tests of debias.diagnosis.populations."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from debias.data import ClickLog
from debias.diagnosis.populations import (
    Mixture,
    chances,
    fit_mixture,
    fit_one,
    happened_cells,
    populations,
    tally,
)
from debias.propensity.cells import cells
from simulators.behaviours import PositionBased
from simulators.clicks import simulate
from simulators.policies import PlackettLuce, expert
from simulators.populations import Population
from simulators.queries import generate

DATA = generate(queries=6, seed=3, min_items=5, median_items=6, max_items=8)
THETA = np.array([1.0, 0.8, 0.6, 0.5])


def simulated(behaviour, sessions=3000, seed=0, attraction="graded"):
    crowd = Population(((1.0, behaviour),))
    policy = PlackettLuce(expert, 1.0)
    return simulate(DATA, policy, crowd, sessions, seed, 4, attraction)


def tastes(sessions=3000, seed=0):
    """Two kinds of readers of one list of six: one wants even items, one odd ones."""
    rng = np.random.default_rng(seed)
    item = rng.permuted(np.tile(np.arange(6), (sessions, 1)), axis=1)[:, :4]
    kind = rng.random((sessions, 1)) < 0.4
    p = np.where((item % 2 == 0) == kind, 0.7, 0.1) * THETA
    return ClickLog(np.zeros(sessions, int), item, rng.random(item.shape) < p)


def test_one_population_is_enough_for_one():
    log = simulated(PositionBased(tuple(THETA)), attraction="informational")
    found = populations(log)
    assert found.chosen == 1 and found.grade == "good"
    assert found.gain[0] == 0 and found.sessions == 600
    assert (found.gain[1:] < 2 * found.error[1:]).all()
    np.testing.assert_allclose(found.examination[0], THETA, atol=0.12)
    # The verdict says what would have been found, and how surely.
    assert f"{found.planted:+.4f}" in found.verdict
    assert found.planted > (norm.ppf(1 - 0.05 / 3) + 0.84) * found.planted_error


def restless(log, seed, ratio=10.0):
    """The lists of a log clicked by two halves, one `ratio` times as often."""
    rng = np.random.default_rng(seed)
    p = log.attraction * THETA
    often = np.minimum(2 * ratio / (1 + ratio) * p, (1 + p) / 2)
    kind = rng.random((len(log), 1)) < 0.5
    click = rng.random(p.shape) < np.where(kind, often, 2 * p - often)
    return ClickLog(log.query, log.item, click)


def test_the_gain_that_is_said_to_be_found_is_found():
    """The stated gain and error give a power; as many logs of two halves show them."""
    behaviour = PositionBased(tuple(THETA))
    log = simulated(behaviour, 500, attraction="navigational")
    found = [populations(log, 2, seed=seed) for seed in range(12)]
    z = [each.planted / each.planted_error for each in found]
    power = norm.cdf(np.array(z) - norm.ppf(0.95)).mean()
    assert 0.3 < power < 0.95
    hits = sum(populations(restless(log, seed), 2).chosen == 2 for seed in range(40))
    low, high = binom.ppf([0.001, 0.999], 40, power)
    assert low <= hits <= high


@pytest.mark.parametrize("name", ["lists of one", "nine lists", "few clicks"])
def test_thin_logs_are_unknown(name):
    rng = np.random.default_rng(0)
    if name == "lists of one":
        query, item = rng.integers(0, 9, 2000), rng.integers(0, 5, (2000, 1))
        log = ClickLog(query, item, rng.random((2000, 1)) < 0.4)
    elif name == "nine lists":
        item = [[0, 1], [1, 0], [0, 2], [2, 0], [1, 2], [2, 1], [0, 1], [1, 0], [0, 2]]
        log = ClickLog(np.zeros(9, int), item, rng.random((9, 2)) < 0.4)
    else:
        item = rng.permuted(np.tile(np.arange(6), (2000, 1)), axis=1)[:, :4]
        log = ClickLog(np.zeros(2000, int), item, rng.random(item.shape) < 0.005)
    found = populations(log, max_populations=2)
    assert found.grade == "unknown" and found.verdict.startswith("Unknown")


def test_one_component_from_counts_is_a_fixed_point_of_em():
    log = simulated(PositionBased(tuple(THETA)), 2000)
    counted = cells(log)
    happened = happened_cells(counted, log.click)
    assert (tally(counted, happened).clicked == counted.clicked).all()
    assert (tally(counted, happened[:50]).shown.sum()) == log.mask[:50].sum()
    one = fit_one(counted)
    gamma, theta = one.gamma[0], one.theta[0]
    both = gamma[counted.pair] * theta[counted.rank]
    skipped = (counted.shown - counted.clicked) / (1 - both)
    seen = counted.by_rank(counted.clicked + skipped * (theta[counted.rank] - both))
    want = (seen + 1) / (counted.by_rank(counted.shown) + 2)
    np.testing.assert_allclose(theta, want, atol=2e-3)


def test_two_tastes_are_two_populations():
    found = populations(tastes(), max_populations=3)
    assert found.chosen == 2 and found.verdict.startswith("More than one population: 2")
    np.testing.assert_allclose(found.share, [0.6, 0.4], atol=0.06)
    np.testing.assert_allclose(found.examination, [THETA, THETA], atol=0.12)
    assert found.gain[1] > 5 * found.error[1]
    assert found.over_earlier > 0.05


def test_readers_who_stop_are_not_taken_for_a_crowd():
    rng = np.random.default_rng(0)
    item = rng.permuted(np.tile(np.arange(6), (3000, 1)), axis=1)[:, :4]
    click = rng.random(item.shape) < np.linspace(0.2, 0.7, 6)[item]
    gone = np.cumsum(click, axis=1) - click > 0
    log = ClickLog(np.zeros(3000, int), item, click & ~gone)
    found = populations(log, max_populations=2)
    assert found.earlier > 0.1 and found.over_earlier < 0
    assert not found.verdict.startswith("More than one population")


def test_the_likelihood_of_a_session_by_hand():
    log = ClickLog([0, 0], [[0, 1], [1, -1]], [[1, 0], [1, 0]])
    counted = cells(log)
    gamma, theta = (
        np.array([[0.5, 0.2], [0.4, 0.8]]),
        np.array([[1.0, 0.6], [0.5, 0.9]]),
    )
    mixture = Mixture(gamma.T, theta.T, np.array([0.3, 0.7]))
    happened = happened_cells(counted, log.click)
    p = chances(counted, mixture).T
    logs = happened @ np.concatenate([np.log(1 - p), np.log(p)])
    first = [0.5 * 1.0 * (1 - 0.4 * 0.5), 0.2 * 0.6 * (1 - 0.8 * 0.9)]
    second = [0.4 * 1.0, 0.8 * 0.6]  # the hole says nothing
    np.testing.assert_allclose(np.exp(logs), [first, second])


def test_more_components_fit_no_worse():
    log = tastes(400)
    counted = cells(log)
    happened = happened_cells(counted, log.click)
    rng = np.random.default_rng(0)
    one = fit_one(counted)
    two = fit_mixture(counted, happened, one, 2, rng)

    def likelihood(mixture):
        p = chances(counted, mixture).T
        each = happened @ np.concatenate([np.log(1 - p), np.log(p)])
        return np.log((np.exp(each) * mixture.share).sum(axis=1)).sum()

    assert likelihood(two) > likelihood(one) + 10
    assert two.share.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "options, wrong",
    [({"max_populations": 0}, "max_populations"), ({"held_out": 0.0}, "held_out")],
)
def test_rejects(options, wrong):
    with pytest.raises(ValueError, match=wrong):
        populations(tastes(40), **options)
