"""Tests of benchmarks.questions.horizons: the loop, with models that are known."""

import numpy as np
import pytest

from benchmarks.questions import horizons, worlds
from benchmarks.questions.horizons import ROUNDS, Horizon
from simulators.clicks import item_attraction


@pytest.fixture(autouse=True)
def small(monkeypatch):
    whole = worlds.parts
    monkeypatch.setattr(worlds, "parts", lambda seed: whole(seed, queries=60))
    monkeypatch.setattr(horizons, "SESSIONS", 200)


def test_a_ranker_that_never_learns_stays_what_it_is():
    found = Horizon("production", "fixed").measure(3, None)
    rounds = [found[f"ndcg@5-round-{turn}"] for turn in range(ROUNDS + 1)]
    assert set(rounds) == {found["ndcg@5"]} and found["own_tau"] == 1
    assert set(TABLE_METRICS) <= set(found)


TABLE_METRICS = horizons.TABLE.metrics


def test_a_model_that_knows_the_truth_ends_there(monkeypatch):
    def truth(self, served, three, seed):
        return [item_attraction(part.data).astype(float) for part in three]

    monkeypatch.setattr(Horizon, "next_scores", truth)
    found = Horizon("product", "fixed").measure(3, None)
    assert found["ndcg@5-round-1"] == found["ndcg@5"] == 1
    assert found["truth_tau"] == pytest.approx(1) and found["own_tau"] <= 1
    explored = Horizon("product", "explored").measure(3, None)
    assert explored["expected_clicks"] == found["expected_clicks"]
    assert explored["clicks_earned"] < found["clicks_earned"]


def test_every_round_is_served_by_the_ranker_before(monkeypatch):
    seen = []

    def watched(self, served, three, seed):
        seen.append(served.train.logging)
        return [part.production + len(seen) * np.sin(part.production) for part in three]

    monkeypatch.setattr(Horizon, "next_scores", watched)
    Horizon("product", "explored").measure(3, None)
    first = worlds.parts(3)[0].production
    assert len(seen) == ROUNDS
    np.testing.assert_allclose(seen[0], first)
    np.testing.assert_allclose(seen[4], first + 4 * np.sin(first))
