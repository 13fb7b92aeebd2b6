"""Clicks under another policy: held to the simulator, which can show its ranking."""

from dataclasses import replace

import numpy as np
import pytest

from debias.data import ClickLog
from debias.propensity.off_policy import cascade_ips, examination_ips, plackett_luce
from simulators import PlackettLuce, generate, simulate, weak_ranker

DATA = generate(queries=30, seed=3)
LOGGING = weak_ranker(DATA)
CROWD = "pbm"


def simulated(ranker, temperature, sessions, seed):
    policy = PlackettLuce(ranker, temperature)
    return simulate(DATA, policy, CROWD, sessions=sessions, seed=seed, list_size=5)


LOG = simulated(LOGGING, 1.0, 20_000, seed=1)


def test_chances_are_those_that_the_simulator_notes():
    chance = plackett_luce(LOG, DATA, LOGGING(DATA), 1.0)
    np.testing.assert_allclose(chance, LOG.logging_propensity, rtol=2e-4)
    cold = plackett_luce(LOG, DATA, LOGGING(DATA), 0.02)
    assert np.isfinite(cold).all() and (cold >= 0).all() and (cold <= 1).all()


def test_interval_covers_what_the_other_policy_earns():
    """The grades are a better ranker; showing its lists is the independent answer."""

    def better(data):
        return LOGGING(data) + 0.3 * data.labels

    scores = better(DATA)
    truth = simulated(better, 1.0, 100_000, seed=2).click.sum(axis=1).mean()
    chance = plackett_luce(LOG, DATA, scores, 1.0)
    found = cascade_ips(LOG, chance, clip=1e9)
    assert found.logged == LOG.click.sum(axis=1).mean() < found.low
    assert found.low - 0.01 < truth < found.high + 0.01
    assert found.gain == pytest.approx(found.value - found.logged)
    assert found.gain_low > 0 and found.effective < len(LOG)
    assert found.clipped == 0 < cascade_ips(LOG, chance, clip=2.0).clipped


def test_the_logging_policy_itself_earns_what_was_logged():
    found = cascade_ips(LOG, LOG.logging_propensity)
    assert found.value == pytest.approx(found.logged)
    assert found.effective == pytest.approx(len(LOG))
    assert abs(found.gain_high) < 1e-6


def test_queries_are_the_units_of_intervals():
    """Sessions of a query are copies, so a hundred of them say what one says."""
    rng = np.random.default_rng(0)
    click = rng.random((50, 1)) < 0.3
    one = ClickLog(np.arange(50), np.zeros((50, 1), int), click)
    many = ClickLog(
        np.repeat(np.arange(50), 100),
        np.zeros((5000, 1), int),
        np.repeat(click, 100, axis=0),
    )
    few, lots = (examination_ips(log, [0.0], [1.0]) for log in (one, many))
    assert lots.high - lots.low == pytest.approx(few.high - few.low)
    error = click.std(ddof=1) / np.sqrt(50)
    assert few.high - few.low == pytest.approx(2 * 1.959964 * error, rel=1e-5)


def test_cascade_by_hand():
    """Rank 1 weights 2, .5 with clicks 1, 0; rank 2 weights 4, .25 with clicks 0, 1."""
    log = ClickLog(
        [0, 0],
        [[0, 1], [1, 0]],
        [[1, 0], [0, 1]],
        logging_propensity=[[0.5, 0.5], [0.5, 0.5]],
    )
    chance = np.array([[1.0, 1.0], [0.25, 0.25]])
    found = cascade_ips(log, chance)
    assert found.value == pytest.approx(2 / 2.5 + 0.25 / 4.25)
    assert found.effective == pytest.approx(4.25**2 / (16 + 0.0625))
    clipped = cascade_ips(log, chance, clip=3.0)
    assert clipped.value == pytest.approx(2 / 2.5 + 0.25 / 3.25)
    assert clipped.clipped == 1 / 4


def test_examination_reorders_the_shown_items():
    """Holes keep their rank: the places of session 2 are 1 and 3."""
    log = ClickLog([0, 0], [[0, 1, 2], [2, -1, 0]], [[1, 0, 1], [0, 0, 1]])
    theta = [1.0, 0.5, 0.25]
    found = examination_ips(log, [0.0, 1.0, 2.0], theta)
    # Session 1 puts item 2 from 3 to 1 and item 0 from 1 to 3; session 2 stays.
    assert found.value == pytest.approx(((0.25 / 1 + 1 / 0.25) + 1) / 2)
    clipped = examination_ips(log, [0.0, 1.0, 2.0], theta, clip=2.0)
    assert clipped.value == pytest.approx((0.25 + 2 + 1) / 2)
    # Of the five shown items, one was moved up by more than twice.
    assert clipped.clipped == pytest.approx(1 / 5)


def test_bad_input():
    with pytest.raises(ValueError, match="no column logging_propensity"):
        cascade_ips(LOG.select(), np.ones(LOG.item.shape))
    certain = np.ones_like(LOG.logging_propensity)
    with pytest.raises(ValueError, match="every logging_propensity is 1"):
        cascade_ips(replace(LOG, logging_propensity=certain), certain)
    with pytest.raises(ValueError, match=r"never shows .* rank 1"):
        cascade_ips(LOG, np.zeros(LOG.item.shape))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        plackett_luce(LOG, DATA, LOGGING(DATA), 0.0)
    with pytest.raises(ValueError, match="one number for each of 5 ranks"):
        examination_ips(LOG, LOGGING(DATA), [1.0, 0.5])


@pytest.mark.parametrize("wrong", [0.0, -0.5, 1.5, 1e30, np.inf, np.nan])
def test_an_examination_outside_the_range_is_refused(wrong):
    theta = [1.0, wrong, 0.5, 0.4, 0.3]
    with pytest.raises(ValueError, match=r"in \(0, 1\], got .* at rank 2; only ratios"):
        examination_ips(LOG, LOGGING(DATA), theta)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(wrong):
    scores = np.array(LOGGING(DATA), float)
    item = LOG.item[3, 1]
    scores[item] = wrong
    with pytest.raises(ValueError, match=f"scores must be finite, got .* item {item}"):
        examination_ips(LOG, scores, np.ones(5))
    with pytest.raises(ValueError, match=r"scores must be .* finite numbers"):
        plackett_luce(LOG, DATA, scores, 1.0)
    with pytest.raises(ValueError, match="item must be below 1"):
        examination_ips(LOG, scores[:1], np.ones(5))
    with pytest.raises(ValueError, match="one number per item"):
        examination_ips(LOG, scores[:, None], np.ones(5))


def test_scores_of_items_that_are_not_shown_do_not_matter():
    log = ClickLog([0, 0], [[0, 1], [1, 0]], [[1, 0], [0, 1]])
    found = examination_ips(log, [0.0, 1.0, np.nan], [1.0, 0.5])
    assert found.value == examination_ips(log, [0.0, 1.0], [1.0, 0.5]).value


@pytest.mark.parametrize(
    "options, wrong",
    [
        ({"clip": 0.5}, "clip must be at least 1"),
        ({"clip": np.nan}, "clip must be"),
        ({"confidence": 1.0}, "confidence must be in"),
        ({"confidence": 95}, "confidence"),
    ],
)
def test_options_out_of_range_are_refused(options, wrong):
    with pytest.raises(ValueError, match=wrong):
        examination_ips(LOG, LOGGING(DATA), np.ones(5), **options)
    with pytest.raises(ValueError, match=wrong):
        cascade_ips(LOG, LOG.logging_propensity, **options)


@pytest.mark.parametrize("wrong", [np.nan, 1.5, -0.1])
def test_chances_out_of_range_are_refused(wrong):
    chance = np.array(LOG.logging_propensity, float)
    chance[2, 1] = wrong
    with pytest.raises(ValueError, match=r"chance must be in .* row 2, column 1"):
        cascade_ips(LOG, chance)
    with pytest.raises(ValueError, match="chance must have the shape"):
        cascade_ips(LOG, chance[:, :2])


def test_plain_weights_and_a_clip_that_is_chosen():
    """One item a session: sum of chance / p over S, and the same over its weights."""
    p = np.array([[0.5], [0.5], [0.1], [0.5]])
    log = ClickLog(
        [0] * 4, [[0], [1], [2], [0]], [[1], [0], [1], [0]], logging_propensity=p
    )
    chance = np.array([[0.2], [0.3], [0.5], [0.2]])
    weight = (chance / p).ravel()  # .4 .6 5 .4
    plain = cascade_ips(log, chance, clip=1e9, normalised=False)
    assert plain.value == pytest.approx((0.4 + 5) / 4) and "plain" in plain.estimator
    earned = np.array([0.4, 0, 5, 0])
    assert plain.high - plain.value == pytest.approx(1.959964 * earned.std(ddof=1) / 2)
    own = cascade_ips(log, chance, clip=1e9)
    assert own.value == pytest.approx(5.4 / weight.sum())
    chosen = cascade_ips(log, chance, clip=None, normalised=False)
    # Worth 6.4^2 / 25.68 = 1.6 of 4 as they are, which is a tenth and more.
    assert chosen.clip == pytest.approx(5) and chosen.value == plain.value
    assert chosen.unclipped == plain.value
    clipped = cascade_ips(log, chance, clip=2.0, normalised=False)
    assert clipped.value == pytest.approx(2.4 / 4) and clipped.unclipped == plain.value


def test_a_chosen_clip_of_examination_is_told():
    log = ClickLog([0] * 50, [[0, 1]] * 50, [[1, 0]] * 49 + [[0, 1]])
    found = examination_ips(log, [0.0, 1.0], [1.0, 1e-4], clip=None)
    assert found.unclipped == pytest.approx((49 * 1e-4 + 1e4) / 50)
    assert 1 <= found.clip < 1e4 and found.value < found.unclipped
