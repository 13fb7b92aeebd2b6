"""Tests of benchmarks.rates.growth: what is timed, not how long it takes."""

import numpy as np
import pytest

from benchmarks.rates import growth
from benchmarks.rates.growth import (
    CASES,
    SPANS,
    Growth,
    Sizes,
    epoch,
    exponent,
    model_of,
    retrieval_epoch,
)


def test_the_exponent_of_a_square_is_two_and_of_a_constant_zero():
    sizes = (10, 100, 1000)
    assert exponent(sizes, np.array(sizes) ** 2.0) == pytest.approx(2)
    assert exponent(sizes, np.full(3, 7.0)) == pytest.approx(0)


def test_spans_are_the_promised_ones():
    assert {case.population for case in CASES} == set(SPANS)
    ends = {name: (span[0], span[-1]) for name, span in SPANS.items()}
    assert ends["sessions"] == (10_000, 10_000_000) and ends["length"] == (10, 200)
    assert ends["vocabulary"] == (100_000, 10_000_000)
    assert ends["features"] == (10, 700) and ends["components"] == (1, 8)


@pytest.mark.parametrize(
    "case", [Growth("mixture", "components"), Growth("xpa", "batch")]
)
def test_a_case_times_every_size(case, monkeypatch):
    timed = []

    def noted(name, sizes, seed):
        return lambda: timed.append(sizes)

    monkeypatch.setattr(growth, "epoch", noted)
    monkeypatch.setattr(growth, "seconds", lambda run: run() or 2.0)
    found = case.measure(0, None)
    assert len(timed) == len(SPANS[case.population]) * (1 + growth.ROUNDS)
    grown = [getattr(sizes, case.population) for sizes in timed[: len(timed) // 4]]
    assert tuple(grown) == SPANS[case.population]
    assert found["exponent"] == pytest.approx(0)
    if case.population == "batch":  # 16 steps each
        assert found["first_ms"] == pytest.approx(2e6 / (16 * 64))
        assert found["last_ms"] == pytest.approx(2e6 / (16 * 4096))


def test_an_epoch_trains_on_what_the_sizes_say():
    model = epoch("additive", Sizes(64, 32, 5, 3), 0)().model
    assert model.optimizer.iterations == 2
    assert model.bias.tables["position"].shape[0] == 6  # and a missing place
    assert len(model_of("mixture", Sizes(components=4)).components) == 4


def test_retrieval_steps_through_its_sessions(monkeypatch):
    from debias.retrieval.models import TwoTower

    seen = []
    monkeypatch.setattr(
        TwoTower, "train_on_batch", lambda self, batch, y: seen.append(batch)
    )
    retrieval_epoch("retrieval", Sizes(sessions=96, batch=32, vocabulary=30), 0)()
    assert len(seen) == 3 and seen[0]["user"]["id"].shape == (32,)
    assert max(b["user"]["id"].max() for b in seen) == 21  # 20 of 30, from 2
    assert max(b["item"]["id"].max() for b in seen) == 11
