"""Tests of benchmarks.rates.retrieval: its arithmetic, and that its engines step."""

import pytest

from benchmarks.rates import retrieval as retrieval_speed
from benchmarks.rates.peer_process import PYTHON
from benchmarks.rates.retrieval import (
    CASES,
    ENGINES,
    TORCH,
    RetrievalSpeed,
    products_seconds,
    step_seconds,
)


def test_every_engine_steps(monkeypatch):
    monkeypatch.delenv(PYTHON, raising=False)
    cases = [(name, (50, 30)) for name in (*ENGINES, TORCH)]
    *found, torch = step_seconds(cases, batch_size=8, dim=4, steps=2, warm=1)
    assert len(found) == 2 and min(found) > 0 and torch is None


def test_ratio_and_growth_are_of_steps_of_one_size(monkeypatch):
    seconds = {("row-wise", 100_000): 0.04, ("row-wise", 5_000_000): 0.05}
    seconds |= {("keras-adam", 5_000_000): 0.5, ("torch-sparse", 5_000_000): 0.1}

    def fake(cases, seed):
        return [seconds[engine, users] for engine, (users, _) in cases]

    monkeypatch.setattr(retrieval_speed, "step_seconds", fake)
    monkeypatch.setattr(retrieval_speed, "products_seconds", lambda *_, **__: 0.01)
    found = RetrievalSpeed("7.5M").measure(0, None)
    # 20 steps a second against 2 and 10, each .05 / .04 as long as at 150k ids.
    expected = {"rate": 20, "peer_rate": 2, "ratio": 10, "growth": 1.25}
    expected["floor_fraction"] = 0.2
    assert found == pytest.approx({**expected, "torch_ratio": 2})
    seconds["torch-sparse", 5_000_000] = None
    assert RetrievalSpeed("7.5M").measure(0, None) == pytest.approx(expected)


def test_seconds_of_the_products_are_the_least_of_five_by_the_step():
    ticks = iter([0, 8, 10, 16, 20, 24, 30, 50, 60, 70])
    assert products_seconds(4, 2, steps=4, clock=lambda: next(ticks)) == 1


def test_there_is_a_case_for_every_vocabulary():
    assert [case.settings()["ids"] for case in CASES[:-1]] == [
        150_000,
        1_500_000,
        7_500_000,
    ]


def test_rejects_an_unknown_engine():
    with pytest.raises(ValueError, match="engine must be one of"):
        step_seconds([("jax", (5, 5))])
