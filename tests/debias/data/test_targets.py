"""Clicks that count by an amount."""

import numpy as np
import pytest

from debias.data import ClickLog, amount_weights

LOG = ClickLog(
    [0, 1],
    [[0, 1, 2], [1, 2, -1]],
    [[1, 0, 1], [1, 0, 0]],
    targets={"dwell": [[6, 9, 0], [30, 0, 0]], "none": np.zeros((2, 3))},
)


def test_clicks_weigh_their_share_of_the_mean_amount():
    # The mean of the clicks' 6, 0 and 30 is 12; what was not clicked counts 1.
    expected = [[0.5, 1, 0], [2.5, 1, 1]]
    assert amount_weights(LOG, "dwell").tolist() == expected
    assert amount_weights(LOG, "dwell")[LOG.click].mean() == 1
    assert amount_weights(LOG, "dwell", most=2)[1, 0] == 2


def test_odds_learned_are_those_of_a_click_times_the_amount():
    """The weighted click rate of an item over its complement, in a large sample."""
    rng = np.random.default_rng(0)
    item = np.tile(np.arange(2), (200_000, 1))
    click = rng.random(item.shape) < [0.02, 0.01]
    dwell = np.where(click, rng.exponential([10, 40], item.shape), 0)
    log = ClickLog(np.zeros(len(item), int), item, click, targets={"dwell": dwell})
    weight = amount_weights(log, "dwell", most=1e6)
    odds = (weight * click).sum(axis=0) / (weight * ~click).sum(axis=0)
    assert odds[1] / odds[0] == pytest.approx(0.01 * 40 / (0.02 * 10), rel=0.08)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("dwel",), "name must be a target of the log, which has dwell, none"),
        (("none",), "none is 0 at every click"),
        (("dwell", 0), "most must be above 0, got 0"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        amount_weights(LOG, *arguments)


def test_a_negative_amount_is_named_by_row_and_column():
    log = ClickLog(
        [0, 0], [[0, 1]] * 2, [[0, 1]] * 2, targets={"x": [[-1, 2], [1, -3]]}
    )
    with pytest.raises(ValueError, match="got -3 at row 1, column 1"):
        amount_weights(log, "x")
