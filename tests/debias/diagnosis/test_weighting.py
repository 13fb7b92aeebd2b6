"""Tests of debias.diagnosis.weighting."""

import numpy as np
import pytest

from debias.data import ClickLog
from debias.diagnosis.weighting import weighting
from debias.propensity import Examination


def curve(*theta):
    ones = np.ones(len(theta))
    position = np.arange(1, len(theta) + 1)
    return Examination(position, np.array(theta), ones, ones, ones, ones, "by hand")


def log(clicks):
    """A session for each click, of so many at each rank."""
    ranks = np.repeat(np.arange(len(clicks)), clicks)
    click = np.eye(len(clicks), dtype=bool)[ranks]
    return ClickLog(
        np.zeros(len(ranks), int),
        np.tile(np.arange(len(clicks)), (len(ranks), 1)),
        click,
    )


def test_by_hand():
    found = weighting(log([6, 3, 1]), curve(1, 0.5, 0.1))
    assert found.weight.tolist() == [1, 2, 10]
    total = 6 + 3 * 2 + 10
    assert found.effective == pytest.approx(total**2 / (6 + 3 * 4 + 100) / 10)
    np.testing.assert_allclose(found.load, [6 / total, 6 / total, 10 / total])
    assert found.grade == "caution" and "10.0, at rank 3" in found.verdict
    clipped = weighting(log([6, 3, 1]), curve(1, 0.5, 0.1), clip=2)
    assert clipped.effective == pytest.approx(14**2 / (6 + 16) / 10)
    assert clipped.grade == "good"


def test_ranks_that_are_not_known_are_said():
    found = weighting(log([4, 4, 4]), curve(1, 0.5, np.nan))
    assert found.clicks == 8 and found.load[2] == 0 and found.grade == "bad"
    assert "rank 3 cannot be weighted" in found.verdict


@pytest.mark.parametrize(
    "call, wrong",
    [
        (lambda: weighting(log([1, 1]), curve(1, 0.5), clip=0.5), "clip"),
        (lambda: weighting(log([1, 1]), curve(1, 0.5, 0.2)), "one curve of 2 ranks"),
        (lambda: weighting(log([0, 2]), curve(1, np.nan)), "no click at a rank"),
    ],
)
def test_rejects(call, wrong):
    with pytest.raises(ValueError, match=wrong):
        call()
