"""Tests of benchmarks.retrieval.two_targets, on a small world."""

import pytest

from benchmarks.retrieval import two_targets
from benchmarks.retrieval.two_targets import TABLE, learned_from

pytestmark = [
    pytest.mark.usefixtures("eagerly"),
    pytest.mark.filterwarnings("ignore:the model is worse than popularity"),
]


def test_rows_learn_from_their_targets_and_are_judged_by_both(monkeypatch):
    known, later = two_targets.world.__wrapped__(1, users=40, items=60)
    assert known.targets == ("click", "order") and known.time.max() < later.time.min()
    monkeypatch.setattr(two_targets, "world", lambda seed: (known, later))
    monkeypatch.setattr(two_targets, "PASSES", 1)
    monkeypatch.setattr(two_targets, "DIM", 4)
    parts = {e.row: learned_from(e.row, known) for e in TABLE.experiments}
    assert len(parts["clicks"]) + len(parts["orders"]) == len(known) == 40 * 24
    assert parts["together"].target is None and parts["both"].target is known.target
    for experiment in TABLE.experiments[-2:]:
        found = experiment.measure(1)
        assert set(found) == set(TABLE.metrics)
        assert 0 <= found["order_hr@50"] <= 1
