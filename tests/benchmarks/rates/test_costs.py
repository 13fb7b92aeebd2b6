"""Tests of benchmarks.rates.costs: what is timed and extrapolated.

Not how long it takes.
"""

import os

import pytest

from benchmarks.experiments import COSTS
from benchmarks.rates import costs
from debias.models.batches import batches


@pytest.fixture
def small(monkeypatch):
    """Small, in this process and on the backend of the tests."""
    sizes = {"QUERIES": 20, "SESSIONS": 64, "BATCH": 16, "VECTORS": 300}
    for name, value in {**sizes, "EVENTS": 32, "EVENT_BATCH": 16}.items():
        monkeypatch.setattr(costs, name, value)
    monkeypatch.setattr(costs, "on_one_core", lambda part, seed: part(seed))


def test_every_metric_of_the_table_has_a_part(small, monkeypatch):
    def noted(seed, models):
        return {
            f"{name}_{of}": 1.0 for name in models for of in ("us", "parameters")
        } | {"product_parameters": 1600.0}

    monkeypatch.setattr(costs, "_learning", noted)
    found = costs.Costs().measure(0, None)
    assert found.keys() >= set(COSTS.metrics)
    assert found["disk_bytes"] > 10 * 4 / 8  # ten items and clicks, compressed
    assert found["hnsw_bytes"] > 4 * costs.DIM  # the vector, and links


def test_models_are_of_the_promised_size_and_learn(small):
    made = costs.models(0)
    assert [*made] == ["naive", "product", "additive", "xpa", "mixture"]
    data, log = costs.simulated(0)
    batch, _ = next(iter(batches(log, data, 2)))
    for model in made.values():
        model(batch)
    # 136 features to 64, 32 and 1, and eleven places, the missing one included.
    product = 137 * 64 + 65 * 32 + 33 + 11
    assert made["product"].count_params() == product
    assert made["mixture"].count_params() == 3 * product + 4
    (timed, counted) = costs._learning(0, {"additive": made["additive"]}).items()
    assert timed[0] == "additive_us" and timed[1] > 0
    assert counted == ("additive_parameters", product)
    steps = costs.SESSIONS // costs.BATCH
    assert made["additive"].optimizer.iterations == 2 * steps  # one pass compiles


def test_jobs_by_hand():
    names = ("product", "jax_product", "jax_mixture", "event", "encode", "hnsw", "read")
    cost = dict.fromkeys([f"{name}_us" for name in names], 3.6)
    cost |= {"product_parameters": 1600, "disk_bytes": 44, "hnsw_bytes": 400}
    found = costs.jobs(cost)
    # 1e9 of 3.6 us are an hour; 16 processes at .8 take 1 / 12.8 of it.
    assert found["product_hours"] == pytest.approx(2)
    assert found["jax_product_hours"] == pytest.approx(1 + 1 / 12.8)
    assert found["retrieval_hours"] == pytest.approx(1)
    assert found["hnsw_hours"] == pytest.approx(0.1 / 12.8)
    assert found["hnsw_gb"] == 40 and found["disk_gb"] == 44
    assert found["sent_kb"] == pytest.approx(12)  # 6,400 bytes, 15/16 of them, twice


def test_the_backend_is_that_of_processes_started_inside(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    with costs.backend("jax"):
        assert os.environ["KERAS_BACKEND"] == "jax"
    assert "KERAS_BACKEND" not in os.environ
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with costs.backend("jax"):
        pass
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
