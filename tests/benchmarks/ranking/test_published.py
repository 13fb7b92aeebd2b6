"""Tests of benchmarks.ranking.published."""

import pytest

from benchmarks.harness import store, tables
from benchmarks.ranking.published import SOURCES, TABLE, steps


def record(model, log, seed, value):
    table = SOURCES[model]
    (of,) = [e for e in table.experiments if (e.row, e.population) == (model, log)]
    metrics, config = {"ndcg@10": value}, dict(of.settings())
    return store.Record(
        table.name, model, "generated", log, seed, metrics, 1.0, config, {}
    )


def test_a_step_has_the_sign_of_its_change_by_seed():
    found = [
        *(record("per_item", "worst-first-0.67", s, 0.9) for s in (100, 101, 102)),
        record("per_item", "random-order", 100, 0.95),
        record("per_item", "random-order", 101, 0.88),
    ]
    by_name = {"confounding-rich": found}
    views = {v.population: v for v in tables.views(TABLE, TABLE.records(by_name))}
    step = views["per_item"].values["worst-first-0.67-1.00"]
    assert step["same_sign"] == {100: 1.0, 101: 0.0}  # published is +.011
    assert step["change"] == pytest.approx({100: 0.05, 101: -0.02})


def test_a_published_fall_is_the_sign_of_a_fall():
    found = [
        record("per_item", "best-first-0.67", 100, 0.95),
        record("per_item", "random-order", 100, 0.9),
    ]
    (view,) = tables.views(TABLE, TABLE.records({"confounding-rich": found}))
    assert view.values["best-first-0.67-1.00"]["same_sign"] == {100: 1.0}


@pytest.mark.parametrize("model", SOURCES)
def test_steps_join_logs_of_their_tables(model):
    logs = set(SOURCES[model].populations)
    for before, after, _ in steps(model).values():
        assert {before, after} <= logs
