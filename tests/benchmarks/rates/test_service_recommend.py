"""Tests of benchmarks.rates.service_recommend: its requests and its arithmetic."""

import asyncio
import os

import numpy as np
import pytest

from benchmarks.rates import service_recommend
from benchmarks.rates.service_load import Load
from benchmarks.rates.service_recommend import RETRIEVED, ask, items, kinds, summary
from debias.engine.scoring import Scorer
from debias.serve.app import service
from tests.debias.retrieval import worlds
from tests.debias.serve.running import running


def test_requests_leave_at_their_rate_and_failures_are_counted(tmp_path, monkeypatch):
    small = {"ITEMS": worlds.ITEMS, "K": 3, "CANDIDATES": 5, "HISTORY": 2}
    for name, value in small.items():
        monkeypatch.setattr(service_recommend, name, value)
    worlds.publish(tmp_path / "root", tmp_path)
    ranker = Scorer(
        lambda x: x[..., 2] - x[..., 0] + 0 * x[..., 1], ("price", "hour", RETRIEVED)
    )
    with running(service(tmp_path / "root", ranker)) as client:
        url = str(client.base_url)
        load = asyncio.run(ask(url, os.getpid(), 0.4, 0))
        assert len(load.milliseconds) == 20 and load.failed == 0  # 50 a second
        assert load.versions == {"000001"}
        monkeypatch.setattr(service_recommend, "K", 50)
        load = asyncio.run(ask(url, os.getpid(), 0.1, 0))
        assert load.failed == 5 and not load.milliseconds


def test_the_items_have_what_the_ranker_reads(monkeypatch):
    monkeypatch.setattr(service_recommend, "ITEMS", 300)
    table = items(0)
    names = {each.name for each in kinds()}
    assert names - {*table.columns} == {"hour", RETRIEVED}
    # Of 300 brands, about half are known to the ranker, and no item has five tags.
    brands = {*table.vocabularies["brand"].tolist()}
    assert 0.3 < len(brands & {*kinds()[0].values}) / len(brands) < 0.7
    assert table.columns["tags"].shape == (300, 4)


def test_summary_by_hand():
    load = Load([1.0, 2.0, 3.0], 1, 0, set(), [(0.0, 100.0), (2.0, 130.0)], 0.006)
    assert summary(load, 2.0) == pytest.approx(
        {
            "rate": 1.5,
            "p50_ms": 2.0,
            "p99_ms": 2.98,
            "failed": 1.0,
            "cpu_ms": 2.0,
            "memory_mb": 130.0,
            "growth_mb": 30.0,
        }
    )
    empty = Load(memory=[(0.0, 1.0)])
    assert np.isnan(summary(empty, 1.0)["p50_ms"])
