"""Tests of benchmarks.retrieval.clicks, on a few users."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.ranking.protocol import LIST_SIZE
from benchmarks.retrieval import clicks as clicks
from benchmarks.retrieval.clicks import (
    BIASES,
    TABLE,
    TOWERS,
    ClickSize,
    RetrievalTrial,
    click_model,
    grades,
    preference_metrics,
    world,
)

SMALL = ClickSize(
    queries=12, items=40, taken=4, sessions=400, batch_size=64, epochs=1, dim=4
)


@pytest.fixture(scope="module")
def small():
    return world("mixed", 0, SMALL)


def test_grades_are_cut_at_shares_of_all_pairs():
    preference = np.random.default_rng(0).permutation(1000).reshape(10, 100)
    grade = grades(preference.astype(float))
    # 20%, 8%, 3% and 1% of the pairs have at least grade 1, 2, 3 and 4.
    assert np.bincount(grade.ravel()).tolist() == [800, 120, 50, 20, 10]
    assert preference[grade == 4].min() > preference[grade == 3].max()


def test_every_user_is_a_query_over_the_catalogue(small):
    found, tables = small
    data, log = found.train.data, found.train.log
    assert data.queries == 12 and data.items == 12 * 40
    assert data.features[3 * 40 + 7].tolist() == [3, 7]
    assert (data.features[log.item][..., 0] == log.query[:, None]).all()
    assert tables.users["history"].shape == (12, SMALL.length)
    best = data.labels.reshape(12, 40)[np.arange(12), tables.favourite]
    assert (best == data.labels.reshape(12, 40).max(axis=1)).all()


def test_unbiased_users_see_the_same_lists(small):
    even, _ = world("document-ctr", 0, SMALL)
    assert (even.train.log.item == small[0].train.log.item).all()
    assert (even.train.log.examination == 1).all()
    assert (even.train.log.click != small[0].train.log.click).any()


def test_the_unbiased_tower_has_as_many_clicks(small):
    found, _ = small
    sessions = clicks.sessions_of_as_many_clicks(found.train)
    even, _ = world("document-ctr", 0, replace(SMALL, sessions=sessions))
    total = found.train.log.click.sum()
    assert sessions < SMALL.sessions
    # The standard error of some 1,000 clicks is 3%, of two such numbers 4%.
    assert even.train.log.click.sum() == pytest.approx(total, rel=0.15)


def test_the_unbiased_tower_learns_from_users_who_read_everything(monkeypatch, small):
    asked = []

    def fake(crowd, seed, size):
        asked.append((crowd, size.sessions))
        return small

    def stop(found, build, config):
        raise KeyboardInterrupt

    monkeypatch.setattr(clicks, "world", fake)
    monkeypatch.setattr("benchmarks.ranking.protocol.trained", stop)
    fewer = clicks.sessions_of_as_many_clicks(small[0].train)
    with pytest.raises(KeyboardInterrupt):
        clicks.fitted.__wrapped__("fm", "unbiased", "mixed", 0, SMALL)
    assert asked == [("mixed", SMALL.sessions), ("document-ctr", fewer)]


def test_the_truth_scores_best_and_favourites_are_found(small):
    found, tables = small
    truth = found.test.data.labels.astype(float)
    metrics = preference_metrics(found, tables, truth)
    assert metrics["ndcg@10"] == pytest.approx(1.0) and metrics["hr@50"] == 1.0
    against = preference_metrics(found, tables, -truth)
    assert against["ndcg@10"] < 0.1


@pytest.mark.parametrize("tower", TOWERS)
def test_every_tower_scores_every_pair_under_every_bias(tower, small):
    found, tables = small
    bias = BIASES[TOWERS.index(tower)]
    model = click_model(tower, bias, tables, SMALL, 0)
    position = np.tile(np.arange(1, LIST_SIZE + 1), (2, 1))
    features = found.train.data.features[found.train.log.item[:2]]
    model({"features": features, "position": position, "mask": position > 0})
    assert np.asarray(model.score(found.test.data.features)).shape == (480,)


def test_recovered_is_the_share_of_what_the_bias_costs(monkeypatch):
    ndcg = {"naive": 0.4, "unbiased": 0.8, "product": 0.7}
    monkeypatch.setattr(
        clicks, "fitted", lambda tower, bias, *_: {"ndcg@10": ndcg[bias]}
    )
    metrics = RetrievalTrial("fm", "product", "pbm").measure(0, None)
    assert metrics["recovered"] == pytest.approx(0.75)  # (.7 - .4) / (.8 - .4)
    assert "recovered" not in RetrievalTrial("fm", "unbiased", "pbm").measure(0, None)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_trial_gives_the_metrics_of_the_table():
    metrics = RetrievalTrial("fm", "product", "pbm", SMALL).measure(1, None)
    assert set(TABLE.metrics) <= set(metrics)
    production = RetrievalTrial("production", "", "pbm", SMALL).measure(1, None)
    assert 0 < production["ndcg@10"] < 1


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda: clicks.tower("svd", None, SMALL, 0), "tower must be one of"),
        (lambda: click_model("fm", "none", None, SMALL, 0), "bias must be one of"),
    ],
)
def test_rejects(function, message):
    with pytest.raises(ValueError, match=message):
        function()
