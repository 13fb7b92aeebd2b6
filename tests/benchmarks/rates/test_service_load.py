"""Tests of benchmarks.rates.service_load: its arithmetic.

And that it sees what fails.
"""

import asyncio
import os

import pytest

from benchmarks.rates import service_load
from benchmarks.rates.service_load import Load, ask, summary
from debias.serve import app
from tests.debias.retrieval import worlds
from tests.debias.serve.running import running


def loaded(root, seconds, halfway):
    with running(app.service(root, poll=0.05)) as client:
        url = str(client.base_url)
        return asyncio.run(ask(url, os.getpid(), seconds, 0, halfway))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(service_load, "K", 5)
    worlds.publish(tmp_path / "root", tmp_path)
    return tmp_path / "root"


def test_both_versions_answer_and_none_mixes(root, tmp_path):
    load = loaded(root, 1.5, lambda: worlds.publish(root, tmp_path, 2))
    assert load.versions == {"000001", "000002"}
    assert load.failed == load.mixed == 0 < len(load.milliseconds)
    assert load.processor > 0 and len(load.memory) == service_load.SAMPLES


def test_mixed_and_failed_answers_are_counted(root, tmp_path):
    """Version 2 with the ids of version 3; and more items asked for than there are."""
    wrong = worlds.parts(tmp_path, 3)
    load = loaded(root, 1.0, lambda: worlds.versions.publish(root, *wrong))
    assert load.mixed > 0 and load.failed == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service_load, "K", 50)
        load = loaded(root, 0.3, lambda: None)
    assert load.failed > 0 and not load.milliseconds


def test_summary_by_hand():
    memory = [(0.0, 100.0), (3.0, 200.0), (4.0, 230.0), (8.0, 260.0)]
    load = Load([1.0, 2.0, 3.0], 0, 1, {"000001"}, memory, processor=0.006)
    assert summary(load, 10.0) == pytest.approx(
        {
            "rate": 0.3,
            "p50_ms": 2.0,
            "p99_ms": 2.98,
            "failed": 0,
            "mixed": 1,
            "versions": 1,
            "cpu_ms": 2.0,
            "memory_mb": 260.0,
            "growth_mb": 30.0,
        }
    )
