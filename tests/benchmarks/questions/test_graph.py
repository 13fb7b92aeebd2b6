"""Tests of benchmarks.questions.graph: logs with known components, and exact fits."""

import numpy as np
import pytest

from benchmarks.questions.graph import (
    BLOCKS,
    ITEMS,
    Exchanging,
    Repair,
    Shuffled,
    cost,
    fitted,
    judged,
    told,
)
from debias.diagnosis.identifiability import connectivity
from debias.propensity.cells import Cells
from simulators.behaviours import PositionBased
from simulators.clicks import item_attraction, simulate
from simulators.oracle import expected_clicks
from simulators.policies import expert
from simulators.populations import named
from simulators.queries import generate

THETA = np.array(PositionBased().theta)[:ITEMS]


@pytest.fixture(scope="module")
def queries():
    return generate(6, 1, min_items=ITEMS, median_items=ITEMS, max_items=ITEMS)


def logged(queries, blocks, pairs=()):
    still = Shuffled(expert(queries), blocks)
    policy = Exchanging(still, pairs) if pairs else still
    return simulate(queries, policy, "pbm", 2000, 1)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_the_components_of_the_graph(name, queries):
    component = connectivity(logged(queries, BLOCKS[name])).component
    expected = np.repeat(np.arange(len(BLOCKS[name])), BLOCKS[name])
    assert component.tolist() == expected.tolist()


def test_lists_are_shuffled_within_blocks_alone(queries):
    log = logged(queries, (5, 5))
    grade = queries.labels[log.item]
    assert (grade[:, :5].min(axis=1) >= grade[:, 5:].max(axis=1)).all()
    propensity = 1 / np.array([5, 4, 3, 2, 1, 5, 4, 3, 2, 1])
    np.testing.assert_allclose(log.logging_propensity[0], propensity, rtol=1e-6)


def test_named_swaps_join_the_components(queries):
    pairs, lost = Repair("swaps", "two").exchanges(logged(queries, (5, 5)))
    assert [pair for _, pair in pairs] == [(5, 6)] and lost > 0
    assert connectivity(logged(queries, (5, 5), pairs)).connected


def test_an_exchange_costs_the_clicks_that_it_costs(queries):
    log = logged(queries, (10,))
    gamma = item_attraction(queries)[log.item]
    before = expected_clicks(named("pbm"), gamma).mean()
    gamma[:, [0, 6]] = gamma[:, [6, 0]]
    after = expected_clicks(named("pbm"), gamma).mean()
    assert cost(log, (1, 7)) == pytest.approx(1 - after / before, rel=1e-4)


def test_random_swaps_cost_what_the_plan_costs(queries):
    log = logged(queries, (5, 5))
    _, lost = Repair("plan", "two").exchanges(log)
    pairs, same = Repair("random", "two").exchanges(log)
    assert same == pytest.approx(lost)
    spent = sum(share * cost(log, pair) for share, pair in pairs)
    assert spent == pytest.approx(lost) and len({share for share, _ in pairs}) == 1


def test_expected_counts_are_fitted_exactly():
    """Two pairs at two ranks, each clicked theta gamma of its times."""
    theta, gamma = THETA[:2], np.array([0.4, 0.8])
    pair, rank = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    shown = np.full(4, 1e6)
    counted = Cells(pair, rank, shown, shown * theta[rank] * gamma[pair], 2, 2)
    found, attraction = fitted(counted, np.array([0.3, 0.6]))
    assert found[1] / found[0] == pytest.approx(theta[1] / theta[0], rel=1e-4)
    assert attraction[1] / attraction[0] == pytest.approx(2, rel=1e-4)
    np.testing.assert_allclose(told(counted)[1], gamma)


def test_where_the_graph_is_in_parts_the_start_decides(queries):
    """Not where it is connected: the scale between components is anybody's."""
    whole, parts = (logged(queries, blocks) for blocks in ((10,), (5, 5)))
    same, other = np.full(ITEMS, 0.5), np.repeat([0.9, 0.1], 5)
    ratios = [
        [theta[5] / theta[0] for theta in both]
        for both in (
            [Repair("none", "one").estimated(log, queries.items, s)[0] for s in starts]
            for log, starts in ((whole, (same, other)), (parts, (same, other)))
        )
    ]
    assert ratios[0][0] == pytest.approx(ratios[0][1], rel=0.02)
    assert ratios[1][0] > 2 * ratios[1][1]


def test_the_truth_has_no_error(queries):
    found = judged(queries, 0.5 * THETA, 0.9 * item_attraction(queries))
    assert found["relevance_correlation"] == pytest.approx(1)
    assert found["ndcg@5"] == 1 and found["examination_error"] == pytest.approx(0)
