"""Tests of simulators.oracle."""

import numpy as np
import pytest

from simulators.behaviours import Cascade, DocumentCTR, PositionBased, RankCTR
from simulators.chance import generator
from simulators.oracle import (
    click_probability,
    click_table,
    conditional_click_probability,
    every_click_vector,
    expected_clicks,
    expected_log_likelihood,
    ideal_score,
    log_likelihood,
    posterior,
    singular_ratio,
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
VECTORS = every_click_vector(5)
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


@EVERY
def test_no_predictor_beats_the_entropy(crowd):
    log = log_likelihood(crowd, LISTS, VECTORS)
    likely = np.exp(log) > 0
    if len(crowd.situations) == 1:
        expected = (np.exp(log) * np.where(likely, log, 0)).sum()
        found = expected_log_likelihood(crowd, LIST[None])[0]
        assert found == pytest.approx(expected)


def test_satisfaction_of_items_reaches_the_oracle():
    """Of two items that all click, the first satisfies one user in four."""
    crowd, lists = named("sdbn"), np.array([[1.0, 1.0]])
    own = {"satisfaction": np.array([[0.25, 0.0]])}
    assert click_probability(crowd, lists, **own).tolist() == [[1, 0.75]]
    assert expected_clicks(crowd, lists, **own).tolist() == [1.75]
    clicks = np.array([[1, 0]], bool)
    found = log_likelihood(crowd, lists, clicks, **own)[0]
    assert found == pytest.approx(np.log(0.25))
    entropy = 0.25 * np.log(0.25) + 0.75 * np.log(0.75)
    assert expected_log_likelihood(crowd, lists, **own)[0] == pytest.approx(entropy)
    every = np.array([[1, 1]], bool)
    above = conditional_click_probability(crowd, lists, every, **own)
    assert above.tolist() == [[1, 0.75]]
    both = Population(((0.5, crowd.behaviours[0]), (0.5, DocumentCTR())))
    # The first satisfies one in four of half the users: .5 (1 - .25), .5 at all.
    who = posterior(both, lists, every, **own)[0]
    assert who == pytest.approx([0.375 / 0.875, 0.5 / 0.875])
    # Among items of mean satisfaction .4: at rank 2 behind one of them, 1 - .4.
    table = click_table(crowd, np.ones(2), 2, satisfaction=np.array([0.8, 0.0]))
    assert table == pytest.approx(np.array([[1, 0.6], [1, 0.6]]))


def test_posterior_by_hand():
    crowd = Population(((0.3, RankCTR((0.5, 0.5))), (0.7, DocumentCTR())))
    found = posterior(crowd, np.array([[0.9, 0.2]]), np.array([[1, 0]]))[0]
    one, other = 0.3 * 0.5 * 0.5, 0.7 * 0.9 * 0.8
    np.testing.assert_allclose(found, [one / (one + other), other / (one + other)])


def test_posterior_is_calibrated():
    """Among sessions of one click vector, types come at their posterior."""
    from simulators.populations import visit

    crowd, sessions = named("mixed"), 300_000
    lists = np.broadcast_to(LIST[:3], (sessions, 3))
    seen = visit(crowd, lists, generator(2))
    code = seen.click @ np.array([4, 2, 1])
    exact = posterior(crowd, np.tile(LIST[:3], (8, 1)), every_click_vector(3))
    for vector in range(8):
        rows = code == vector
        error = np.sqrt(exact[vector] * (1 - exact[vector]) / rows.sum())
        rates = np.bincount(seen.user_type[rows], minlength=3) / rows.sum()
        assert (np.abs(rates - exact[vector]) <= 4 * error + 1e-12).all()


def test_what_is_observed_sharpens_the_oracle():
    crowd = Population(
        by_device(1.0, {1: RankCTR((1.0,)), 2: RankCTR((0.0,))}),
        (Situation(0.25, device=1), Situation(0.75, device=2)),
    )
    lists = np.array([[0.5], [0.5]])
    assert click_probability(crowd, lists).tolist() == [[0.25], [0.25]]
    seen = Observed(device=np.array([1, 2]))
    assert click_probability(crowd, lists, observed=seen).tolist() == [[1.0], [0.0]]
    # Who knows the device has nothing left to guess.
    assert expected_log_likelihood(crowd, lists).tolist() == [0, 0]


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
    np.testing.assert_allclose(
        expected_log_likelihood(crowd, padded, mask)[0],
        expected_log_likelihood(crowd, short)[0],
    )


def test_expected_log_likelihood_by_hand():
    crowd = Population(((1.0, PositionBased((1.0, 0.5))),))
    found = expected_log_likelihood(crowd, np.array([[0.5, 1.0]]))
    assert found[0] == pytest.approx(2 * np.log(0.5))
    # Certain clicks carry no surprise.
    sure = Population(((1.0, Cascade()),))
    assert expected_log_likelihood(sure, np.array([[1.0, 0.7]]))[0] == 0


def test_mixtures_worth_telling_apart():
    """What a table that speaks for mixtures must first show."""

    def ratio(name):
        return singular_ratio(click_table(named(name), GRADES, 10))

    assert ratio("mixed") > 0.01
    assert ratio("impatient-picky") > 0.01
    for alone in ("pbm", "two-depths", "cascade"):
        assert ratio(alone) < 1e-12


def test_click_table_of_a_cascade_depends_on_the_others():
    table = click_table(named("cascade"), np.array([0.2, 0.4]), 3, others=0.5)
    np.testing.assert_allclose(table, np.outer([0.2, 0.4], [1, 0.5, 0.25]))


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
        (lambda c: expected_log_likelihood(c, np.ones((1, 17))), "at most 16 items"),
        (
            lambda c: posterior(c, np.zeros((1, 2)), np.ones((1, 2))),
            "impossible for every type in session 0",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(named("document-ctr"))
