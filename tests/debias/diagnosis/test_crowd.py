"""Tests of debias.diagnosis.crowd."""

import numpy as np
import pytest

from debias.data import ClickLog
from debias.diagnosis.crowd import (
    Mixture,
    chances,
    fit_mixture,
    happened_cells,
    populations,
)
from debias.propensity.cells import cells
from simulators.behaviours import PositionBased
from simulators.clicks import simulate
from simulators.policies import PlackettLuce, expert
from simulators.populations import Population
from simulators.queries import generate

DATA = generate(queries=6, seed=3, least=5, median=6, most=8)
THETA = np.array([1.0, 0.8, 0.6, 0.5])


def simulated(behaviour, sessions=3000, seed=0):
    crowd = Population(((1.0, behaviour),))
    return simulate(DATA, PlackettLuce(expert, 1.0), crowd, sessions, seed, 4)


def tastes(sessions=3000, seed=0):
    """Two kinds of readers of one list of six: one wants even items, one odd ones."""
    rng = np.random.default_rng(seed)
    item = rng.permuted(np.tile(np.arange(6), (sessions, 1)), axis=1)[:, :4]
    kind = rng.random((sessions, 1)) < 0.4
    p = np.where((item % 2 == 0) == kind, 0.7, 0.1) * THETA
    return ClickLog(np.zeros(sessions, int), item, rng.random(item.shape) < p)


def test_one_population_is_enough_for_one():
    found = populations(simulated(PositionBased(tuple(THETA))))
    assert found.chosen == 1 and found.grade == "good"
    assert found.gain[0] == 0 and found.sessions == 600
    assert (found.gain[1:] < 2 * found.error[1:]).all()
    np.testing.assert_allclose(found.examination[0], THETA, atol=0.12)


def test_two_tastes_are_two_populations():
    found = populations(tastes(), most=3)
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
    found = populations(log, most=2)
    assert found.earlier > 0.1 and found.over_earlier < 0
    assert not found.verdict.startswith("More than one population")


def test_the_likelihood_of_a_session_by_hand():
    log = ClickLog([0, 0], [[0, 1], [1, -1]], [[1, 0], [1, 0]])
    counted = cells(log)
    gamma, theta = (
        np.array([[0.5, 0.2], [0.4, 0.8]]),
        np.array([[1.0, 0.6], [0.5, 0.9]]),
    )
    mixture = Mixture(gamma, theta, np.array([0.3, 0.7]))
    happened = happened_cells(counted, log.click)
    p = chances(counted, mixture)
    logs = happened @ np.concatenate([np.log(1 - p), np.log(p)])
    first = [0.5 * 1.0 * (1 - 0.4 * 0.5), 0.2 * 0.6 * (1 - 0.8 * 0.9)]
    second = [0.4 * 1.0, 0.8 * 0.6]  # the hole says nothing
    np.testing.assert_allclose(np.exp(logs), [first, second])


def test_more_components_fit_no_worse():
    log = tastes(400)
    counted = cells(log)
    happened = happened_cells(counted, log.click)
    rng = np.random.default_rng(0)
    one = fit_mixture(counted, happened, None, 1, rng)
    two = fit_mixture(counted, happened, one, 2, rng)

    def likelihood(mixture):
        p = chances(counted, mixture)
        each = happened @ np.concatenate([np.log(1 - p), np.log(p)])
        return np.log((np.exp(each) * mixture.share).sum(axis=1)).sum()

    assert likelihood(two) > likelihood(one) + 10
    assert two.share.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "options, wrong", [({"most": 0}, "most"), ({"held_out": 0.0}, "held_out")]
)
def test_rejects(options, wrong):
    with pytest.raises(ValueError, match=wrong):
        populations(tastes(40), **options)
