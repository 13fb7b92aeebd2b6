"""Tests of benchmarks.harness.bootstrap."""

import numpy as np
import pytest

from benchmarks.harness import tables
from benchmarks.harness.bootstrap import crossed, estimate
from tests.benchmarks.fakes import Fake, records, table


def test_the_interval_is_that_of_its_parts():
    """Effects of seeds and queries that add: the variances of both means add."""
    rng = np.random.default_rng(1)
    seed, query = rng.normal(0, 1, (40, 1)), rng.normal(0, 2, (1, 300))
    found = crossed(seed + query, 0.95)
    variance = seed.var() / 40 + query.var() / 300
    assert found.mean == pytest.approx(float((seed + query).mean()))
    reach = 1.96 * np.sqrt(variance)
    assert found.high - found.mean == pytest.approx(reach, rel=0.05)
    assert found.mean - found.low == pytest.approx(reach, rel=0.05)


def test_p_values_of_no_difference_are_even():
    """Of 200 differences without effect about one in twenty is below .05."""
    rng = np.random.default_rng(2)
    p = [crossed(rng.normal(size=(3, 60)), 0.95, 999).p_value for _ in range(200)]
    assert np.mean(np.array(p) < 0.05) < 0.08
    assert crossed(np.zeros((3, 5)), 0.95).p_value == 1
    assert crossed(1 + np.zeros((3, 5)), 0.95).p_value == pytest.approx(0.0002)


def test_what_is_missing_is_left_out():
    values = np.array([[0.2, np.nan, 0.4], [0.2, 0.6, 0.4]])
    found = estimate(values, 0.95)
    assert found.mean == pytest.approx(1.8 / 5) and found.left_out == 1


def test_a_table_that_knows_its_queries_has_intervals_over_both():
    def of(row, gain):
        each = {
            seed: {"ndcg@5#a": 0.2 + gain, "ndcg@5#b": 0.6 + gain + 0.1 * seed}
            for seed in (0, 1)
        }
        means = {s: sum(v.values()) / 2 for s, v in each.items()}
        return records({s: {"ndcg@5": means[s], **each[s]} for s in each}, row)

    fakes = table(Fake("additive"), Fake("dot"), clicks="")
    (view,) = tables.views(fakes, [*of("additive", 0.0), *of("dot", 0.1)])
    mean, gain = view.mean("dot", "ndcg@5"), view.paired("dot", "ndcg@5")
    assert mean.mean == pytest.approx(0.525)
    assert (mean.low, mean.high) == pytest.approx((0.3, 0.8))  # one query, one seed
    assert gain[:3] == pytest.approx((0.1, 0.1, 0.1))
    assert "over queries and 2 seeds; differences" in tables.markdown(view)
    assert "paired by seed and query" in tables.markdown(view)
