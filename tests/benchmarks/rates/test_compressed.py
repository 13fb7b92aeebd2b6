"""Tests of benchmarks.rates.compressed."""

import numpy as np
import pytest

from benchmarks.rates import compressed


def test_users_take_what_is_popular_in_their_own_taste():
    log = compressed.generated(np.random.default_rng(0), 1000, 400, tastes=10)
    assert len(log) == 400 * compressed.EVENTS and len(log.items) == 1000
    taste = (log.item % 10).reshape(400, -1)
    most = max(np.bincount(row, minlength=10).max() for row in taste)
    same = (taste[:, :-1] == taste[:, 1:]).mean()
    # Both of their own, or by chance: .8 .8 + (1 - .64) / 10.
    assert most == compressed.EVENTS and same == pytest.approx(0.676, abs=0.04)
    rank = log.item // 10
    assert (rank < 10).mean() == pytest.approx(
        (1 / np.arange(10, 20)).sum() / (1 / np.arange(10, 110)).sum(), abs=0.04
    )


@pytest.mark.parametrize("row", ["whole", "hash_16"])
def test_tables_are_as_large_as_their_rows(row):
    found = compressed.cost(row, items=16_000, steps=1, seed=0)
    rows = 2 + 16_000 + 2 + 1600 if row == "whole" else 1000 + 100
    assert found["table_mb"] == pytest.approx(rows * compressed.DIM * 4 / 1e6, rel=0.01)


@pytest.mark.filterwarnings("ignore:the model is worse than popularity")
def test_ten_million_items_are_judged_as_few(monkeypatch):
    monkeypatch.setattr(compressed, "PASSES", 12)
    few = compressed.generated(np.random.default_rng(0), 400, 1500, tastes=4)
    monkeypatch.setattr(compressed, "generated", lambda rng: few)
    monkeypatch.setattr(compressed, "JUDGED", 300)
    whole = compressed.accuracy("whole", "1e7", 0)
    monkeypatch.setattr(compressed, "PASSES", 1)  # this one's size alone is asked for
    few_rows = compressed.accuracy("quotient_remainder_16", "1e7", 0)
    assert few_rows["table_mb"] < whole["table_mb"]
    assert whole["hr@50"] > 1.5 * 50 / 400  # far above chance


@pytest.mark.parametrize("way", compressed.WAYS)
def test_lookups_are_those_of_plain_numpy(monkeypatch, way):
    monkeypatch.setattr(compressed, "CODES", 1600)
    monkeypatch.setattr(compressed, "LOOKED_UP", 256)
    monkeypatch.setattr(compressed, "copy_rate", lambda: 1e9)
    found = compressed.lookups(way, 0)  # raises where vectors differ
    assert found["ratio"] > 0 and found["floor_fraction"] < 1
