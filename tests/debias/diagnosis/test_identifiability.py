"""Tests of debias.diagnosis.identifiability."""

import numpy as np
import pytest
from scipy.optimize import minimize

from debias.data import ClickLog
from debias.diagnosis.identifiability import (
    MATTERS,
    confounding,
    connectivity,
    overlap,
    profile,
)
from debias.metrics import effective_sample_size
from debias.propensity import merge_places
from simulators.behaviours import PositionBased
from simulators.clicks import simulate
from simulators.policies import Deterministic, PlackettLuce, RandPair, expert
from simulators.populations import Population
from simulators.queries import generate
from tests.debias.propensity.real import yandex

DATA = generate(queries=20, seed=3, min_items=5, median_items=6, max_items=8)
THETA = (1.0, 0.7, 0.5, 0.35, 0.25)


def simulated(policy, sessions=4000, seed=0):
    crowd = Population(((1.0, PositionBased(THETA)),))
    return simulate(DATA, policy, crowd, sessions, seed, 5)


def halves(crossing, sessions=4000, seed=0):
    """Items 0, 1 change places at ranks 1, 2 and items 2, 3 at ranks 3, 4; items 1 and
    2 change places at ranks 2 and 3 in `crossing` of the sessions.
    """
    rng = np.random.default_rng(seed)
    item = np.tile([0, 1, 2, 3], (sessions, 1))
    for one, other in ((0, 1), (2, 3)):
        swap = rng.random(sessions) < 0.5
        item[swap] = item[swap][:, _exchanged(one, other)]
    item[:crossing] = [0, 2, 1, 3]
    p = np.array([0.6, 0.4, 0.3, 0.2])[item] * [1.0, 0.8, 0.6, 0.4]
    query = np.zeros(sessions, int)
    return ClickLog(query, item, rng.random(item.shape) < p)


def _exchanged(one, other):
    order = np.arange(4)
    order[[one, other]] = order[[other, one]]
    return order


def test_connectivity_against_a_count():
    log = simulated(PlackettLuce(expert, 0.5), sessions=200)
    found = connectivity(log, minimum=2)
    shown = np.zeros((DATA.items, 5))
    clicked = np.zeros((DATA.items, 5))
    for items, clicks in zip(log.item, log.click, strict=True):
        for k, (item, click) in enumerate(zip(items, clicks, strict=True)):
            shown[item, k] += item >= 0
            clicked[item, k] += click
    for k in range(5):
        for j in range(5):
            both = (shown[:, k] >= 2) & (shown[:, j] >= 2)
            assert found.pairs[k, j] == both.sum()
            if k != j:
                w = np.minimum(shown[both, k], shown[both, j])
                a = (w * clicked[both, k] / shown[both, k]).sum()
                b = (w * clicked[both, j] / shown[both, j]).sum()
                want = np.sqrt(1 / a + 1 / b) if min(a, b) > 0 else np.inf
                assert found.error[k, j] == pytest.approx(want)


def test_an_unconnected_log():
    log = halves(crossing=0)
    found = connectivity(log)
    assert found.component.tolist() == [0, 0, 1, 1] and not found.connected
    assert found.swaps == ((2, 3),)
    assert found.verdict.startswith("Not identified") and "1-2; 3-4" in found.verdict
    assert "2 with 3" in found.next_step and "merge_places" in found.next_step
    assert merge_places(found.component).tolist() == [0, 1, 2, 2, 4]
    curve = profile(log)
    assert curve.identified.tolist() == [True, True, False, False]
    np.testing.assert_allclose(curve.statistic[2:], 0, atol=1e-3)
    assert "the bias of rank 3-4 by" in curve.verdict
    # What it advises is enough.
    assert connectivity(halves(crossing=400)).connected


def test_a_weakly_connected_log():
    found = connectivity(halves(crossing=12))
    assert found.connected and found.weakest == (2, 3)
    assert found.verdict.startswith("Weakly connected")
    # Some moves are ruled out, small ones are not.
    curve = profile(halves(crossing=12), deltas=(-0.3, 0.3))
    assert curve.identified.tolist() == [True, True, False, False]


def test_a_randomised_log():
    log = simulated(PlackettLuce(lambda data: np.zeros(data.items), 1.0))
    found = connectivity(log)
    assert found.connected and found.verdict.startswith("Connected")
    assert (found.component == 0).all() and found.error.max() < 0.25
    curve = profile(log)
    assert curve.identified.all() and curve.verdict.startswith("Identified")
    assert (curve.statistic[1:] > 50).all() and (curve.statistic[0] == 0).all()
    assert overlap(log).verdict.startswith("Good overlap")


def test_a_deterministic_log():
    log = simulated(Deterministic(expert))
    found = connectivity(log)
    assert found.component.tolist() == [0, 1, 2, 3, 4]
    assert found.swaps == ((1, 2), (2, 3), (3, 4), (4, 5)) and found.weakest is None
    assert not profile(log).identified[1:].any()
    seen = overlap(log)
    assert (seen.moving, seen.usual) == (0.0, 1.0)
    assert seen.verdict.startswith("Deterministic")
    assert confounding(log).verdict.startswith("Unknown")


def test_marked_swaps_connect_what_they_exchange():
    log = simulated(RandPair(expert, 0.5, "adjacent"))
    assert connectivity(log, source="swap").connected
    assert connectivity(log, source="swap").pairs[0, 3] == 0


def test_profile_against_a_general_optimiser():
    log = halves(crossing=1500, sessions=3000)
    found = profile(log, deltas=(-1.5, 1.5))

    def loss(x, fixed=None):
        theta = np.r_[0.0, x[:3]]
        if fixed is not None:
            theta[fixed[0]] = fixed[1]
        z = theta + x[3:][log.item]
        return (np.logaddexp(0, z) - log.click * z).mean()

    def best(**kwargs):
        return minimize(
            lambda x: loss(x, **kwargs), np.zeros(7), options={"gtol": 1e-8}
        )

    top = best()
    np.testing.assert_allclose(found.bias[1:], top.x[:3], atol=1e-4)
    for d, move in enumerate(found.deltas):
        low = best(fixed=(2, found.bias[2] + move))
        want = 2 * log.item.size * (low.fun - top.fun)
        assert found.statistic[2, d] == pytest.approx(want, rel=1e-4)


def test_overlap_by_hand():
    # Item 0 three times at rank 1, once at 2; items 1 and 2 share the rest.
    log = ClickLog([0] * 4, [[0, 1], [0, 1], [0, 2], [2, 0]], np.eye(4, 2, dtype=bool))
    found = overlap(log)
    assert found.moving == 6 / 8 and found.usual == (3 + 2 + 1) / 8
    first = [4 / 3] * 3 + [2]  # weights at rank 1: item 0, item 0, item 0, item 2
    second = [1, 1, 2, 4]
    want = [effective_sample_size(np.array(w)) / 4 for w in (first, second)]
    np.testing.assert_allclose(found.effective, want)
    assert np.isnan(found.logged)
    even = np.full((4, 2), 0.5)
    even[:, 1] = 1
    odds = ClickLog(log.query, log.item, log.click, logging_propensity=even)
    assert overlap(odds).logged == 1.0


def test_confounding_is_flagged_where_it_is():
    sorted_by_merit = simulated(PlackettLuce(expert, 0.7), sessions=20_000)
    assert confounding(sorted_by_merit).flagged[1:].any()
    shuffled = simulated(PlackettLuce(lambda data: np.zeros(data.items), 1.0), 20_000)
    found = confounding(shuffled)
    assert not found.flagged.any() and found.verdict.startswith("No confounding")
    assert found.grade == "good" and np.nanmax(found.detectable) < MATTERS
    assert f"A factor of {np.nanmax(found.detectable):.2f} would" in found.verdict


def test_confounding_that_would_not_show_is_unknown():
    thin = simulated(PlackettLuce(lambda data: np.zeros(data.items), 1.0), 300)
    found = confounding(thin, "pbm_conditional")
    assert not found.flagged.any() and found.grade == "unknown"
    assert (found.detectable[1:] > MATTERS).any() and found.detectable[0] == 1.0
    one = ClickLog([0, 0], [[1], [2]], [[1], [0]])
    assert confounding(one).verdict.startswith("Unknown: one rank")


def test_the_yandex_sample():
    log = yandex()[0]
    found = confounding(log)
    assert found.flagged[1] and found.z[1] > 5
    assert connectivity(log).connected
    assert profile(log).identified.all()


@pytest.mark.parametrize("function", [connectivity, profile, overlap])
def test_one_rank_and_no_click(function):
    one = ClickLog([0, 0], [[1], [2]], [[1], [0]])
    silent = ClickLog([0, 0], [[1, 2], [2, 1]], [[0, 0], [0, 0]])
    for log in (one, silent):
        found = function(log)
        assert found.verdict and found.next_step
    assert not profile(silent).identified[1]


@pytest.mark.parametrize(
    "call, wrong",
    [
        (lambda log: connectivity(log, minimum=0), "minimum"),
        (lambda log: profile(log, deltas=(1.0, 2.0)), "both signs"),
        (lambda log: profile(log, deltas=()), "both signs"),
        (lambda log: profile(log, level=0), "level"),
        (lambda log: overlap(log, clip=0.5), "clip"),
    ],
)
def test_rejects(call, wrong):
    with pytest.raises(ValueError, match=wrong):
        call(halves(0, 20))
