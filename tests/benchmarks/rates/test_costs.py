"""Tests of benchmarks.rates.costs: what is timed and extrapolated.

Not how long it takes.
"""

import os

import pytest

from benchmarks.experiments import COSTS
from benchmarks.rates import costs


def test_every_part_measures_something(monkeypatch):
    """Small, in this process and on the backend of the tests."""
    for name, value in {
        "QUERIES": 20,
        "SESSIONS": 256,
        "BATCH": 16,
        "EVENTS": 64,
        "EVENT_BATCH": 16,
        "VECTORS": 300,
    }.items():
        monkeypatch.setattr(costs, name, value)
    monkeypatch.setattr(costs, "on_one_core", lambda part, seed: part(seed))
    found = costs.Costs().measure(0, None)
    assert found.keys() >= set(COSTS.metrics)
    assert min(found.values()) > 0
    # 136 features to 64, 32 and 1, and eleven places, the missing one included.
    assert found["product_parameters"] == 137 * 64 + 65 * 32 + 33 + 11
    assert found["mixture_parameters"] == 3 * found["product_parameters"] + 4


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
