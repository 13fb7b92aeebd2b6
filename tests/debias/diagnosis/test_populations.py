"""Tests of debias.diagnosis.populations."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from debias.data import ClickLog
from debias.diagnosis.populations import populations
from simulators.behaviours import PositionBased
from simulators.clicks import simulate
from simulators.policies import PlackettLuce, expert
from simulators.populations import Population, named
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
    assert found.planted > (norm.ppf(1 - 0.05 / 6) + 0.84) * found.planted_error


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
    log = simulated(behaviour, 800, attraction="navigational")
    found = [populations(log, 2, seed=seed) for seed in range(6)]
    z = [each.planted / each.planted_error for each in found if each.chosen == 1]
    power = norm.cdf(np.array(z) - norm.ppf(0.975)).mean()
    assert 0.2 < power < 0.95
    hits = sum(populations(restless(log, seed), 2).chosen == 2 for seed in range(24))
    low, high = binom.ppf([0.001, 0.999], 24, power)
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


def test_two_tastes_are_two_populations():
    found = populations(tastes(), max_populations=3)
    assert found.chosen == 2 and found.verdict.startswith("More than one population: 2")
    np.testing.assert_allclose(found.share, [0.6, 0.4], atol=0.06)
    np.testing.assert_allclose(found.examination, [THETA, THETA], atol=0.12)
    assert found.gain[1] > 5 * found.error[1]
    assert found.over_earlier > 0.05


def crowd_of(name, sessions, queries, seed):
    data = generate(queries=queries, seed=seed + 100)
    policy = PlackettLuce(expert, 1.0)
    return simulate(data, policy, named(name), sessions, seed, 10, "graded")


@pytest.mark.parametrize("queries", [400, 40])
def test_a_mixed_crowd_shows_where_pairs_have_few_impressions(queries):
    """A third each: by rank and item, by rank alone, by item alone.

    With 400 queries a pair has one or two impressions.
    """
    log = crowd_of("mixed", 4000, queries, 0)
    found = populations(log)
    assert found.verdict.startswith("More than one population: 3")
    np.testing.assert_allclose(found.share, 1 / 3, atol=0.15)
    # One of the three looks as far as the last rank, which the others hardly see.
    last = np.sort(found.examination[:, -1])
    assert last[2] > 0.5 and last[1] < 0.3


@pytest.mark.parametrize("queries", [400, 40])
def test_queries_that_differ_are_no_populations(queries):
    """Attractive lists make clicks of a session alike, though all users are."""
    for seed in range(2):
        log = crowd_of("pbm", 1500, queries, seed)
        assert populations(log, seed=seed).chosen == 1


@pytest.mark.parametrize("kinds", ["of users", "of queries"])
def test_queries_of_one_session_cannot_be_told_from_users(kinds):
    """Half the lists are clicked ten times as often.

    With twenty sessions a query it shows whether that is the query.
    """
    rng = np.random.default_rng(0)
    item = rng.permuted(np.tile(np.arange(6), (6000, 1)), axis=1)[:, :4]
    draws = rng.random(item.shape)
    alone, kind = np.arange(6000), rng.random(6000) < 0.5
    for query, unclear in ((alone, True), (alone // 20, False)):
        often = kind if kinds == "of users" else kind[query]
        click = draws < np.where(often, 0.6, 0.06)[:, None]
        log = ClickLog(query, item + 6 * query[:, None], click)
        found = populations(log, 2)
        if kinds == "of users" and not unclear:
            assert found.chosen == 2
        elif unclear:
            assert found.verdict.startswith("Unknown: clicks within a session")
        else:
            assert found.chosen == 1


def test_readers_who_stop_are_not_taken_for_a_crowd():
    rng = np.random.default_rng(0)
    item = rng.permuted(np.tile(np.arange(6), (3000, 1)), axis=1)[:, :4]
    click = rng.random(item.shape) < np.linspace(0.2, 0.7, 6)[item]
    gone = np.cumsum(click, axis=1) - click > 0
    log = ClickLog(np.zeros(3000, int), item, click & ~gone)
    found = populations(log, max_populations=2)
    assert found.earlier > 0.1 and found.over_earlier < 0
    assert not found.verdict.startswith("More than one population")


@pytest.mark.parametrize(
    "options, wrong",
    [({"max_populations": 0}, "max_populations"), ({"held_out": 0.0}, "held_out")],
)
def test_rejects(options, wrong):
    with pytest.raises(ValueError, match=wrong):
        populations(tastes(40), **options)
