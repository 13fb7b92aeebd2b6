"""Tests of benchmarks.rates.service_attack: its arithmetic, and that it sees faults."""

import asyncio
import os
import random
from collections import Counter

import numpy as np
import pytest

from benchmarks.rates import service_attack, service_load
from benchmarks.rates.service_attack import Seen, attack, check, hostile, large, summary
from debias.engine.scoring import Scorer
from debias.serve.app import service
from tests.debias.retrieval import worlds
from tests.debias.serve.running import running


def test_a_small_attack_on_a_service_in_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr(service_load, "K", 5)
    monkeypatch.setattr(service_attack, "LARGE", 20_000)
    root = tmp_path / "root"
    worlds.publish(root, tmp_path)
    ranker = Scorer(lambda x: x[..., 0], ("price",))
    with running(service(root, ranker, poll=0.05)) as client:
        url = str(client.base_url)

        def meanwhile():
            worlds.publish(root, tmp_path, 2)

        bad, good = asyncio.run(attack(url, os.getpid(), 60, 3, 1.0, meanwhile))
    found = summary(bad, good, 1.0)
    assert found["failed"] == found["wrong"] == found["broken"] == 0
    assert found["versions"] == 2 and found["rate"] > 0
    # uvicorn's own protocol, as in this test, keeps who sends half a request.
    assert found["held"] == 3
    assert bad.statuses.total() == 60 + 1 and {400, 422} <= set(bad.statuses)


def test_bodies_differ_and_are_as_large_as_they_say():
    rng = random.Random(0)
    assert len({hostile(rng) for _ in range(50)}) > 40
    size = len(large(rng))
    assert 0.9 * service_attack.LARGE < size < 1.1 * service_attack.LARGE


def test_an_answer_of_two_versions_is_wrong():
    seen = Seen()
    check(seen, {"version": "000002", "items": ["2-1", "2-7"]})
    assert seen.wrong == 0
    check(seen, {"version": "000002", "items": ["2-1", "1-7"]})
    assert seen.wrong == 1 and seen.names == {"000002"}


def test_summary_by_hand():
    bad = Seen(Counter({422: 5, 500: 2, 503: 1}), freeze_ms=7.0, memory=[100.0, 110.0])
    good = Seen(Counter({200: 3, 503: 1, 0: 1}), [1.0, 2.0, 3.0], memory=[130.0])
    found = summary(bad, good, 2.0)
    assert found["requests"] == 13 and found["failed"] == 2 and found["broken"] == 1
    assert found["rate"] == 1.5 and found["shed_share"] == 0.2
    assert found["p50_ms"] == 2.0 and found["growth_mb"] == 130 - 110
    assert np.isnan(summary(Seen(), Seen(), 1.0)["p99_ms"])


@pytest.mark.parametrize("seed", range(3))
def test_the_attack_comes_from_its_seed(seed):
    assert hostile(random.Random(seed)) == hostile(random.Random(seed))
