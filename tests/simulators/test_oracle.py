"""Tests of simulators.oracle."""

from itertools import product

import numpy as np
import pytest

from simulators.behaviours import RankCTR
from simulators.oracle import (
    click_probability,
    conditional_click_probability,
    expected_clicks,
    ideal_score,
    log_likelihood,
)
from simulators.populations import (
    POPULATIONS,
    Observed,
    Population,
    Situation,
    by_device,
    by_query,
    named,
)

EVERY = pytest.mark.parametrize("crowd", POPULATIONS.values(), ids=POPULATIONS)
LIST = np.array([0.9, 0.3, 0.0, 0.6, 0.2])
GRADES = np.array([0.1, 0.16, 0.28, 0.52, 1.0])
VECTORS = np.array(list(product((False, True), repeat=5)))
LISTS = np.tile(LIST, (len(VECTORS), 1))


@EVERY
def test_the_mixture_is_a_distribution_and_its_parts_agree(crowd):
    probability = np.exp(log_likelihood(crowd, LISTS, VECTORS))
    assert probability.sum() == pytest.approx(1)
    marginal = click_probability(crowd, LIST[None])[0]
    np.testing.assert_allclose(marginal, probability @ VECTORS, atol=1e-12)
    clicks = probability @ VECTORS.sum(axis=1)
    assert expected_clicks(crowd, LIST[None])[0] == pytest.approx(clicks)


@EVERY
def test_next_clicks_multiply_to_the_session(crowd):
    """So a prediction weighs types by the clicks above only, not by the whole."""
    conditional = conditional_click_probability(crowd, LISTS, VECTORS)
    joint = np.where(VECTORS, conditional, 1 - conditional).prod(axis=1)
    expected = np.exp(log_likelihood(crowd, LISTS, VECTORS))
    np.testing.assert_allclose(joint, expected, atol=1e-12)


def test_satisfaction_of_items_reaches_the_oracle():
    """Of two items that all click, the first satisfies one user in four."""
    crowd, lists = named("sdbn"), np.array([[1.0, 1.0]])
    own = {"satisfaction": np.array([[0.25, 0.0]])}
    assert click_probability(crowd, lists, **own).tolist() == [[1, 0.75]]
    assert expected_clicks(crowd, lists, **own).tolist() == [1.75]
    clicks = np.array([[1, 0]], bool)
    found = log_likelihood(crowd, lists, clicks, **own)[0]
    assert found == pytest.approx(np.log(0.25))
    every = np.array([[1, 1]], bool)
    above = conditional_click_probability(crowd, lists, every, **own)
    assert above.tolist() == [[1, 0.75]]


def test_what_is_observed_sharpens_the_oracle():
    crowd = Population(
        by_device(1.0, {1: RankCTR((1.0,)), 2: RankCTR((0.0,))}),
        (Situation(0.25, device=1), Situation(0.75, device=2)),
    )
    lists = np.array([[0.5], [0.5]])
    assert click_probability(crowd, lists).tolist() == [[0.25], [0.25]]
    seen = Observed(device=np.array([1, 2]))
    assert click_probability(crowd, lists, observed=seen).tolist() == [[1.0], [0.0]]


def test_shares_of_the_query():
    crowd = Population(
        by_query(1.0, np.array([0, 1]), [RankCTR((1.0,)), RankCTR((0.5,))])
    )
    lists = np.array([[0.5], [0.5]])
    query = np.array([1, 0])
    assert expected_clicks(crowd, lists, query=query).tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="pass query"):
        expected_clicks(crowd, lists)


@EVERY
def test_padding_is_as_if_the_list_ended(crowd):
    padded = np.array([[0.9, 0.3, 0.5], [0.4, 0.5, 0.5]])
    click = np.array([[1, 0, 0], [0, 1, 0]], bool)
    mask = np.array([[True, True, False], [True, True, True]])
    short, full = padded[:1, :2], padded[1:]
    found = click_probability(crowd, padded, mask)
    np.testing.assert_allclose(found[0, :2], click_probability(crowd, short)[0])
    assert found[0, 2] == 0
    np.testing.assert_allclose(found[1:], click_probability(crowd, full))
    np.testing.assert_allclose(
        log_likelihood(crowd, padded, click, mask),
        [
            log_likelihood(crowd, short, click[:1, :2])[0],
            log_likelihood(crowd, full, click[1:])[0],
        ],
    )


@EVERY
def test_ideal_score_orders_by_attraction(crowd):
    if not all(isinstance(b, RankCTR) for b in crowd.behaviours):
        assert (np.diff(ideal_score(crowd, GRADES)) > 0).all()


BAD = np.array([[0.5, 1.2]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: click_probability(c, BAD), r"in \[0, 1\], got 1.2 at \(0, 1\)"),
        (lambda c: expected_clicks(c, BAD), r"in \[0, 1\]"),
        (
            lambda c: expected_clicks(c, BAD - 0.5, satisfaction=BAD),
            r"satisfaction must .* got 1.2 at \(0, 1\)",
        ),
        (
            lambda c: expected_clicks(c, BAD - 0.5, satisfaction=BAD[:, :1] - 0.5),
            r"shape of attraction, \(1, 2\), got \(1, 1\)",
        ),
        (lambda c: expected_clicks(c, BAD * 1j), "attraction must be floats"),
        (lambda c: click_probability(c, np.array([[np.nan]])), r"got nan at \(0, 0\)"),
        (
            lambda c: log_likelihood(c, np.ones((1, 2)), np.ones((1, 3))),
            r"shape of attraction, \(1, 2\), got \(1, 3\)",
        ),
        (
            lambda c: click_probability(c, np.ones((1, 2)), np.array([[False, True]])),
            "padding at the end",
        ),
        (
            lambda c: click_probability(c, np.ones((1, 2)), np.array([[False, False]])),
            "leaves list 0 without an item",
        ),
        (
            lambda c: log_likelihood(
                c, np.ones((1, 2)), np.ones((1, 2)), np.array([[True, False]])
            ),
            "false at padding",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(named("document-ctr"))
