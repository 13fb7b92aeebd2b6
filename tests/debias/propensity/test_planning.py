"""Plans of exchanges: what they are worth, cost and promise."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

import simulators
from debias.data import ClickLog
from debias.propensity import Propensities, estimate, plan
from debias.propensity.planning import _inverse, _optimal, _worth

THETA = np.array([1.0, 0.6, 0.4, 0.2])
PAIRS = np.array(list(combinations(range(4), 2)))


def logged(sessions=4000, queries=10, seed=0):
    """Every query in one order; attraction falls from .5 to .2."""
    rng = np.random.default_rng(seed)
    query = rng.integers(0, queries, sessions)
    item = query[:, None] * 4 + np.arange(4)
    click = rng.random(item.shape) < np.array([0.5, 0.4, 0.3, 0.2]) * THETA
    return ClickLog(query, item, click)


def test_a_session_is_worth_at_least_its_bound_and_costs_at_most():
    gamma = np.array([0.5, 0.4, 0.3, 0.2])
    worth, loss = _worth(gamma * THETA, PAIRS, THETA)
    bound, most = _worth(gamma * THETA, PAIRS, None)
    for (a, b), w, cost in zip(PAIRS, worth, loss, strict=True):
        assert w == pytest.approx(THETA[b] * gamma[a] + THETA[a] * gamma[b])
        lost = (THETA[a] - THETA[b]) * (gamma[a] - gamma[b])
        assert cost == pytest.approx(lost)
    assert (bound <= worth + 1e-12).all() and (most >= loss - 1e-12).all()
    rate = (gamma * THETA)[PAIRS]
    root = np.sqrt(rate)
    np.testing.assert_allclose(most, np.square(root[:, 0] - root[:, 1]))


def test_variances_are_resistances():
    """Two in series: 1/2 + 1/3; and 4 beside them: 1 / (4 + 6/5)."""
    chain = np.array([[0, 1], [1, 2]])
    found = _inverse(np.array([2.0, 3.0]), chain, 3).diagonal()
    np.testing.assert_allclose(found, [0, 1 / 2, 1 / 2 + 1 / 3])
    ring = np.array([[0, 1], [1, 2], [0, 2]])
    found = _inverse(np.array([2.0, 3.0, 4.0]), ring, 3).diagonal()
    assert found[2] == pytest.approx(1 / (4 + 6 / 5))


def test_the_optimum_of_a_chain_is_that_of_arithmetic():
    """min (x1 + x2)(1/x1 + 1/x2) is 4, with equal shares."""
    chain = np.array([[0, 1], [1, 2]])
    x, price = _optimal(np.ones(2), np.ones(2), chain, 3)
    np.testing.assert_allclose(x, [0.5, 0.5], atol=0.02)
    assert np.exp(price) == pytest.approx(4, rel=0.05)


def test_known_examination_is_read_by_rank_and_not_ignored():
    log = logged()
    expected = plan(log, 0.1, known=Propensities.of(THETA)).record()
    turned = replace(Propensities.of(THETA[::-1]), rank=np.array([4, 3, 2, 1]))
    longer = Propensities.of([*THETA, 0.1])
    for known in (turned, longer):
        assert plan(log, 0.1, known=known).record() == expected
    with pytest.raises(ValueError, match="end at rank 2, but the log has 4 ranks"):
        plan(log, 0.1, known=Propensities.of(THETA[:2]))


@pytest.mark.parametrize("known", [None, Propensities.of(THETA)])
def test_the_promise_is_planned_for(known):
    found = plan(logged(), 0.1, known=known)
    assert found.standard_error.max() < 0.1 and found.known == (known is not None)
    assert sum(each.share for each in found.exchanges) == pytest.approx(0.2)
    assert len(found.exchanges) == 3
    reached = {1}
    for each in found.exchanges:
        assert each.ranks[0] in reached
        reached.add(each.ranks[1])
        wanted = each.share * found.sessions
        assert each.sessions == pytest.approx(wanted, abs=1)
    assert reached == {1, 2, 3, 4}
    assert found.cost == pytest.approx(sum(each.cost for each in found.exchanges))
    assert 0 < found.cost_share < 0.02
    # Twice the error needs about a quarter of the sessions.
    assert plan(logged(), 0.2, known=known).sessions < 0.4 * found.sessions


def test_what_is_known_saves_sessions():
    log = logged()
    bounds, exact = plan(log), plan(log, known=Propensities.of(THETA))
    assert exact.sessions < bounds.sessions and exact.cost < bounds.cost
    assert "bounds" in bounds.why


def test_logs_by_the_plan_reach_the_promise():
    data = simulators.generate(queries=20, seed=1)
    ranker = simulators.weak_ranker(data)
    shown = simulators.Deterministic(ranker)
    log = simulators.simulate(data, shown, "pbm", sessions=6000, seed=1, list_size=4)
    found = plan(log, 0.15)
    parts = [
        (each.share, simulators.RandPair(ranker, 1.0, (each.ranks,)))
        for each in found.exchanges
    ]
    policy = simulators.Interleaved(((1 - sum(s for s, _ in parts), shown), *parts))
    new = simulators.simulate(data, policy, "pbm", found.sessions, 2, list_size=4)
    for each in found.exchanges:
        marked = (new.swap == each.ranks).all(axis=1).sum()
        assert marked == pytest.approx(each.sessions, rel=0.2)
    told = estimate(new, "pbm_conditional", source="swap")
    assert (told.standard_error / told.examination).max() <= 0.15
    truth = np.array([0.68, 0.61, 0.48, 0.34]) / 0.68
    assert (np.abs(np.log(told.examination / truth)) < 0.45).all()


def test_a_log_that_tells_enough_is_told_so():
    rng = np.random.default_rng(0)
    item = rng.permuted(np.tile(np.arange(4), (30_000, 1)), axis=1)
    click = rng.random(item.shape) < np.array([0.5, 0.4, 0.3, 0.2])[item] * THETA
    log = ClickLog(np.zeros(len(item), int), item, click)
    found = plan(log)
    assert found.known and "nothing needs to be randomised" in found.why
    assert (found.exchanges, found.sessions, found.cost) == ((), 0, 0)
    assert 0 < found.standard_error.max() <= 0.1
    assert plan(log, found.standard_error.max() / 2).exchanges  # which is not told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"se": 0}, "se must be in"),
        ({"share": 0.6}, "share must be in"),
        ({"minimum": 9999}, "no query has 9999 sessions, the maximum is"),
    ],
)
def test_what_cannot_be_planned(options, message):
    with pytest.raises(ValueError, match=message):
        plan(logged(200), **options)


def test_ranks_without_a_click_or_alone():
    log = logged(400)
    click = log.click.copy()
    click[:, 3] = False
    with pytest.raises(ValueError, match="rank 4 has no click"):
        plan(ClickLog(log.query, log.item, click))
    with pytest.raises(ValueError, match="lists have one rank"):
        plan(ClickLog(log.query, log.item[:, :1], log.click[:, :1]))
