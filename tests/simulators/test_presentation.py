"""A badge that draws the eye: who wears it, and what it does to clicks."""

import numpy as np
import pytest

import simulators
from simulators import with_badge

DATA = simulators.generate(queries=30, seed=2)
LOG = simulators.simulate(
    DATA, simulators.Deterministic(simulators.worst_first), "pbm", 6000, seed=2
)


def test_examination_is_doubled_and_clicks_follow_their_truth():
    log = with_badge(LOG, seed=3, boost=2.0)
    worn = log.presentation["badge"] == 2
    np.testing.assert_allclose(log.examination[worn], LOG.examination[worn])
    np.testing.assert_allclose(
        log.examination[~worn & log.mask], LOG.examination[~worn & log.mask] / 2
    )
    chance = log.examination * log.attraction
    for part in (worn, ~worn & log.mask):
        error = np.sqrt((chance[part] * (1 - chance[part])).mean() / part.sum())
        assert abs(log.click[part].mean() - chance[part].mean()) < 4 * error
    assert (log.presentation["badge"][~log.mask] == 0).all()


def test_better_items_wear_it_more_often():
    worn = with_badge(LOG, seed=3).presentation["badge"] == 2
    wanted = 0.1 + 0.6 * LOG.attraction[LOG.mask]
    error = np.sqrt((wanted * (1 - wanted)).mean() / wanted.size)
    assert abs(worn[LOG.mask].mean() - wanted.mean()) < 4 * error
    merit = np.zeros(DATA.items)
    merit[LOG.item[0, 0]] = 1
    log = with_badge(LOG, seed=3, merit=merit, chance=(0.0, 1.0))
    assert (log.presentation["badge"][0] == [2, *[1] * 9]).all()


def test_the_same_seed_gives_the_same_log():
    one, other = (with_badge(LOG, seed=5) for _ in "12")
    assert (one.click == other.click).all()
    assert (one.click != with_badge(LOG, seed=6).click).any()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"boost": 0.5}, "boost must be 1 or more"),
        ({"chance": (0.5, 0.1)}, "chance must be two numbers"),
        ({"merit": np.full(DATA.items, 2.0)}, "merit must be in"),
    ],
)
def test_bad_numbers_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        with_badge(LOG, seed=1, **given)
    with pytest.raises(ValueError, match="log must be a simulated one"):
        with_badge(LOG.select(), seed=1)
