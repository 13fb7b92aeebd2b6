"""Team drafts: who gives which item, and the sessions that a preference needs."""

import numpy as np
import pytest

import simulators
from debias.data import RankingData
from simulators import interleave, sessions_needed, team_draft
from simulators.interleaving import compared
from simulators.oracle import expected_clicks

DATA = simulators.generate(queries=40, seed=4)
WEAK = simulators.weak_ranker(DATA)


def better(data):
    return WEAK(data) + 0.15 * data.labels


def test_a_draft_takes_the_best_left_of_each_in_turn():
    rng = np.random.default_rng(0)
    one = np.tile([0, 1, 2, 3], (4000, 1))
    other = np.tile([3, 0, 4, 5], (4000, 1))
    item, team = team_draft(one, other, rng)
    # The first pair is 0 3 or 3 0. Then, by coin, 1 and 4 in either order, for 0 and 3
    # are there.
    kinds, count = np.unique(np.hstack([item, team]), axis=0, return_counts=True)
    expected = {
        (*a, *c): (*b, *d)
        for a, b in (((0, 3), (1, 2)), ((3, 0), (2, 1)))
        for c, d in (((1, 4), (1, 2)), ((4, 1), (2, 1)))
    }
    assert {tuple(k[:4]): tuple(k[4:]) for k in kinds.tolist()} == expected
    assert abs(count - 1000).max() < 4 * np.sqrt(4000 * 0.25 * 0.75)


def test_one_that_has_no_more_items_leaves_the_rest_to_the_other():
    one, other = np.array([[0, -1, -1]]), np.array([[0, 1, 2]])
    for seed in range(10):
        item, team = team_draft(one, other, np.random.default_rng(seed))
        assert item.tolist() == [[0, 1, 2]] and set(team[0, 1:]) == {2}
    item, team = team_draft(one, one, np.random.default_rng(0))
    assert item.tolist() == [[0, -1, -1]] and team[0, 1:].tolist() == [0, 0]


def test_equal_rankings_are_preferred_alike():
    found = interleave(DATA, WEAK, WEAK, "pbm", 20_000, seed=1)
    assert found.low < 0 < found.high and found.p_value > 0.01


def test_teams_of_two_items_are_preferred_as_arithmetic_says():
    """One item each: a session is won where its item alone is clicked."""
    data = RankingData(np.zeros((2, 1)), [4, 1], [0, 2])
    gamma, theta = np.array([1.0, 0.16]), simulators.eye_tracking()[:2]
    found = interleave(
        data, simulators.expert, simulators.worst_first, "pbm", 40_000, 3, list_size=2
    )
    won = lost = 0.0
    for top in (0, 1):  # by coin
        p = gamma * (theta if top == 0 else theta[::-1])
        won += 0.5 * p[0] * (1 - p[1])
        lost += 0.5 * p[1] * (1 - p[0])
    for seen, expected in ((found.first, won), (found.second, lost)):
        assert abs(seen / 40_000 - expected) < 4 * np.sqrt(expected / 40_000)
    assert found.preference == (found.first - found.second) / 40_000


def test_the_preferred_ranking_is_the_one_with_more_clicks():
    def clicks(ranker):
        order = np.argsort(-ranker(DATA) - 1000.0 * -DATA.query_of_item())
        place = DATA.padded(10)
        gamma = simulators.item_attraction(DATA)[order[np.maximum(place, 0)]]
        crowd = simulators.named("pbm")
        return expected_clicks(crowd, np.where(place < 0, 0, gamma), place >= 0).mean()

    found = interleave(DATA, better, WEAK, "pbm", 4000, seed=2)
    assert clicks(better) > clicks(WEAK) and found.low > 0


def test_the_sessions_needed_find_the_preference_with_the_power_promised():
    truth = interleave(DATA, better, WEAK, "pbm", 60_000, seed=5)
    n = truth.needed
    assert 50 < n < 20_000
    found = [interleave(DATA, better, WEAK, "pbm", n, seed) for seed in range(100, 300)]
    power = np.mean([each.p_value < 0.05 and each.preference > 0 for each in found])
    assert abs(power - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 200)


def test_numbers_of_a_comparison():
    found = compared(first=30, second=10, sessions=100)
    # p = .2, d = .4: variance of a session .4 - .04; z of the sign test 20 / sqrt 40.
    assert found.preference == 0.2
    assert found.high - found.preference == pytest.approx(1.959964 * 0.06)
    assert found.p_value == pytest.approx(0.0015654, rel=1e-4)
    assert found.needed == sessions_needed(0.2, 0.4) == 77
    assert compared(5, 5, 20).needed == np.inf and compared(0, 0, 20).p_value == 1
    assert sessions_needed(-0.2, 0.4) == 77
    assert sessions_needed(0.2, 0.4, power=0.95) > 77


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: sessions_needed(0.0, 0.5), "preference and decided must satisfy 0 <"),
        (lambda: sessions_needed(0.6, 0.5), "preference. <= decided"),
        (lambda: sessions_needed(0.1, 0.5, power=1.0), "power must be in"),
        (
            lambda: interleave(DATA, WEAK, WEAK, "pbm", 0, 0),
            "sessions must be at least",
        ),
        (lambda: interleave(DATA, WEAK, WEAK, "device", 9, 0), "in one situation"),
        (
            lambda: team_draft(np.zeros((1, 2)), np.zeros((1, 3)), None),
            r"both be \(sessions, ranks\), got \(1, 2\) and \(1, 3\)",
        ),
    ],
)
def test_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()
