"""Orders and dwell: drawn on clicks alone, as often and as long as they are told."""

import numpy as np
import pytest
from scipy.stats import norm

import simulators
from debias.data import ClickLog
from simulators import with_dwell, with_orders

DATA = simulators.generate(queries=30, seed=2)
POLICY = simulators.RandTopN(simulators.expert, 10)
LOG = simulators.simulate(DATA, POLICY, "pbm", 8000, seed=2)
CONVERSION = np.random.default_rng(0).uniform(0, 0.4, DATA.items)


def within(drawn, chance):
    error = np.sqrt((chance * (1 - chance)).sum())
    assert abs(drawn.sum() - chance.sum()) < 4 * error


def test_orders_are_drawn_on_clicks_by_the_conversion_of_the_item():
    order = with_orders(LOG, seed=1, conversion=CONVERSION).targets["order"]
    assert set(np.unique(order)) == {0, 1} and not order[~LOG.click].any()
    chance = CONVERSION[LOG.item]
    within(order[LOG.click], chance[LOG.click])
    for rank in (0, 5):  # wherever it stood
        clicked = LOG.click[:, rank]
        within(order[clicked, rank], chance[clicked, rank])
    dear = LOG.click & (chance > 0.3)
    within(order[dear], chance[dear])


def test_an_order_holds_the_value_of_its_item():
    value = np.arange(DATA.items, dtype=float)
    order = with_orders(LOG, 1, 1.0, value, name="revenue").targets["revenue"]
    np.testing.assert_allclose(order, np.where(LOG.click, LOG.item, 0))


def test_seconds_are_log_normal_around_the_median_of_the_item():
    median = np.random.default_rng(1).uniform(5, 50, DATA.items)
    dwell = with_dwell(LOG, seed=3, seconds=median, spread=0.8).targets["dwell"]
    assert (dwell[~LOG.click] == 0).all() and (dwell[LOG.click] > 0).all()
    chance = norm.cdf(np.log(median[LOG.item] / 30) / 0.8)
    within((dwell > 30)[LOG.click], chance[LOG.click])


def test_the_seed_names_the_draws_and_targets_add_up():
    first, again, other = (
        with_orders(LOG, seed, CONVERSION).targets["order"] for seed in (1, 1, 2)
    )
    assert (first == again).all() and (first != other).any()
    both = with_dwell(with_orders(LOG, 1, CONVERSION), 1, 9.0)
    assert list(both.targets) == ["order", "dwell"]


def test_padding_holds_nothing():
    log = ClickLog([0], [[0, -1]], [[1, 0]])
    assert with_orders(log, 0, [1.0]).targets["order"].tolist() == [[1, 0]]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: with_orders(LOG, 0, 1.5), "conversion must be in .0, 1., got 1.5"),
        (lambda: with_orders(LOG, 0, np.ones(3)), "one for each of .* got shape .3,"),
        (lambda: with_orders(LOG, 0, 1, np.nan), "value must be 0 or more and finite"),
        (lambda: with_dwell(LOG, 0, 0.0), "seconds must be above 0, got 0"),
        (lambda: with_dwell(LOG, 0, 9.0, -1), "spread must be 0 or more, got -1"),
    ],
)
def test_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()
