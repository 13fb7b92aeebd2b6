"""Tests of debias.diagnosis.mixtures."""

import numpy as np
import pytest

from debias.data import ClickLog
from debias.diagnosis.mixtures import (
    BINS,
    Mixture,
    chances,
    evidence,
    fit_mixture,
    fit_one,
    happened_cells,
    tally,
)
from debias.propensity.cells import cells


def shown(sessions, queries, seed=0, ranks=4):
    """Lists of `ranks` of six items of each query, and chance."""
    rng = np.random.default_rng(seed)
    query = rng.integers(0, queries, sessions)
    item = rng.permuted(np.tile(np.arange(6), (sessions, 1)), axis=1)[:, :ranks]
    return query, item + 6 * query[:, None], rng


def tastes(sessions):
    """Two kinds of readers of one list of six: one wants even items, one odd ones."""
    query, item, rng = shown(sessions, 1)
    p = np.where((item % 2 == 0) == (rng.random((sessions, 1)) < 0.4), 0.7, 0.1)
    return ClickLog(query, item, rng.random(item.shape) < p)


@pytest.mark.parametrize("repeated", [False, True])
def test_an_impression_does_not_choose_its_own_bin(repeated):
    """Of clicks by chance alone, those of others say nothing of a session's own.

    So the mean bin of its clicks is that of the rest, within four standard errors;
    also where a list shows one item twice.
    """
    query, item, rng = shown(4000, 2000)
    if repeated:
        item[:, 1] = item[:, 0]
    click = rng.random(item.shape) < 0.3
    log = ClickLog(query, item, click)
    found = evidence(cells(log), log.click, np.arange(4000))
    assert found.binned.min() == 0 and 5 < found.binned.max() < BINS
    some, rest = found.binned[click], found.binned[~click]
    error = np.sqrt(some.var() / len(some) + rest.var() / len(rest))
    assert abs(some.mean() - rest.mean()) < 4 * error


def test_bins_order_pairs_by_what_is_clicked():
    """Items 0 to 5 of each query are clicked more and more; so are their bins."""
    query, item, rng = shown(20_000, 50)
    click = rng.random(item.shape) < 0.1 + 0.15 * (item % 6)
    log = ClickLog(query, item, click)
    found = evidence(cells(log), log.click, np.arange(16_000))
    mean = found.bins.reshape(50, 6).mean(axis=0)  # pairs are numbered by item
    assert (np.diff(mean) > 1).all()
    # What is binned are impressions: about as many in each of the bins.
    counts = np.bincount(found.binned[:16_000].ravel())
    np.testing.assert_allclose(counts, 4 * 16_000 / BINS, rtol=0.1)


def test_padding_has_no_bin():
    log = ClickLog([0, 0, 1], [[-1, 1], [1, 2], [3, -1]], [[0, 1], [1, 0], [0, 0]])
    found = evidence(cells(log), log.click, np.arange(3))
    np.testing.assert_array_equal(found.binned >= 0, log.item >= 0)


def test_one_component_from_counts_is_a_fixed_point_of_em():
    query, item, rng = shown(2000, 6)
    p = np.linspace(0.2, 0.8, 6)[item % 6] * np.array([1.0, 0.8, 0.6, 0.5])
    log = ClickLog(query, item, rng.random(item.shape) < p)
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
    start = Mixture(*(np.repeat(each, 2, axis=0) for each in one[:2]), np.ones(2) / 2)
    two = fit_mixture(counted, happened, start, [one], rng)

    def likelihood(mixture):
        p = chances(counted, mixture).T
        each = happened @ np.concatenate([np.log(1 - p), np.log(p)])
        return np.log((np.exp(each) * mixture.share).sum(axis=1)).sum()

    assert likelihood(two) > likelihood(one) + 10
    assert two.share.sum() == pytest.approx(1.0)
