"""Tests of benchmarks.retrieval.rows, on a generated set of a few users."""

import json

import numpy as np
import pytest

from benchmarks.retrieval import rows as retrieval
from benchmarks.retrieval.rows import (
    BASELINES,
    LOSSES,
    METRICS,
    NEGATIVES,
    RETRIEVAL,
    SELF_SUPERVISION,
    SENET,
    TABLES,
    TOWERS,
    RetrievalConfig,
    RetrievalExperiment,
    rows,
)
from debias.retrieval.data.interactions import FeatureTable, Interactions
from simulators.interactions import generate_interactions

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    log, _ = generate_interactions(np.random.default_rng(0), 40, 60, events=8)
    monkeypatch.setitem(retrieval.DATASETS, "movielens-100k", lambda: log)
    retrieval.split.cache_clear()
    yield
    retrieval.split.cache_clear()


SMALL = {"dim": 4, "hidden": (4,), "length": 5, "batch_size": 64, "epochs": 1}


@pytest.mark.filterwarnings("ignore:the model is worse than popularity")
@pytest.mark.parametrize(
    "config",
    [
        RetrievalConfig("ease"),
        RetrievalConfig("dssm", transforms=("complementary",), self_items=8, **SMALL),
        RetrievalConfig("mind", streaming=True, **SMALL),
        RetrievalConfig("dat", "pointwise", "own", "popularity", 3, **SMALL),
        RetrievalConfig(
            "fm", "hinge", "own", "hard-1-in-1", 2, features=False, **SMALL
        ),
        RetrievalConfig("youtube", negatives=9, sampler="queue", **SMALL),
    ],
    ids=lambda config: config.model,
)
def test_a_configuration_gives_every_metric(config):
    metrics = RetrievalExperiment("row", config).measure(seed=1, data=None)
    assert set(METRICS) <= set(metrics) and metrics["train_seconds"] > 0
    assert all(0 <= metrics[name] <= 1 for name in METRICS)


def test_popularity_needs_no_training_and_validation_hides_the_test():
    test, validation = (
        retrieval.measure(RetrievalConfig("popularity"), "movielens-100k", 0, part)
        for part in ("test", "validation")
    )
    assert test["hr@50"] != 0 and test["hr@10"] != validation["hr@10"]
    rest, _ = retrieval.split("movielens-100k", "test")
    inner, _ = retrieval.split("movielens-100k", "validation")
    assert len(rest) - len(inner) == 40


def test_ease_by_hand():
    train, _ = retrieval.split("movielens-100k")
    dense = retrieval.matrix(train).toarray().astype(float)
    score = retrieval.ease(train, 10.0)(np.arange(3))
    # Each item's weights solve the ridge regression of its column on the others.
    for item in range(3):
        others = np.delete(np.arange(60), item)
        x, y = dense[:, others], dense[:, item]
        weight = np.linalg.solve(x.T @ x + 10 * np.eye(59), x.T @ y)
        np.testing.assert_allclose(score[:, item], dense[:3][:, others] @ weight, 1e-4)


def test_wals_is_the_library_and_a_seed_names_it():
    pytest.importorskip("implicit")
    config = RetrievalConfig("wals", dim=4, regularisation=0.1, epochs=3)
    train, _ = retrieval.split("movielens-100k")
    first, again = (retrieval.wals(train, config, 1)(np.arange(5)) for _ in range(2))
    assert (first == again).all() and first.shape == (5, 60)


def test_ta_feng_holds_out_the_last_two_weeks_of_customers_known_before(monkeypatch):
    table = FeatureTable.build({"id": ["a", "b"]})
    # User 0 buys on days 0, 30 and 31, user 1 on day 31 alone.
    user, item, day = np.array([[0, 0, 0, 1], [0, 1, 0, 1], [31, 30, 0, 31]])
    log = Interactions(user, item, day, table, table)
    monkeypatch.setitem(retrieval.DATASETS, "ta-feng", lambda: log)
    train, held_out = retrieval.split("ta-feng")
    assert train.time.tolist() == [0]
    assert held_out.time.tolist() == [31, 30] and held_out.user.tolist() == [0, 0]
    monkeypatch.setattr(retrieval, "DAYS", 1)
    retrieval.split.cache_clear()
    train, held_out = retrieval.split("ta-feng")
    assert train.time.tolist() == [30, 0] and held_out.time.tolist() == [31]


def test_tail_metrics_by_hand():
    """Items 0 to 2 are the head; user 0 has seen 3, so 13 is its tenth, user 1's 11th.

    Of the vectors of the 13 items of the tail one is opposite to all others.
    """
    users = FeatureTable.build({"id": np.arange(2)})
    items = FeatureTable.build({"id": np.arange(16)})
    user, item = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 0, 1, 2])
    train = Interactions(user, item, np.arange(7), users, items)
    held_out = Interactions(
        np.array([0, 1, 1]), np.array([13, 13, 2]), np.array([8, 8, 9]), users, items
    )
    vectors = np.tile(np.float32([[1, 0]]), (16, 1))
    vectors[[0, 9]] *= -1
    scores = -np.tile(np.arange(16.0), (2, 1))
    found = retrieval.tail_metrics(lambda u: scores[u], vectors, train, held_out)
    assert found["tail_only_hr@10"] == 0.5
    expected = np.log((66 + 12 * np.exp(-8)) / 78)
    assert found["tail_uniformity"] == pytest.approx(expected, rel=1e-5)


def test_a_senet_shows_the_weight_of_every_field():
    train, _ = retrieval.split("movielens-100k")
    model = retrieval.build(RetrievalConfig("senet", **SMALL), train, 0)
    model.build(None)
    weights = retrieval.field_weights(model, train)
    items = train.items.columns
    genre = np.asarray(model.item.importance(items))[:, 1].mean()
    assert weights["item_genre_weight"] == pytest.approx(genre, rel=1e-5)
    names = ("user_id", "user_age", "user_history_0", "user_history_1", "item_id")
    assert {f"{name}_weight" for name in (*names, "item_genre")} == set(weights)


def test_settings_are_json_and_tell_configurations_apart():
    for configs in (RETRIEVAL, LOSSES, NEGATIVES, SELF_SUPERVISION, SENET):
        settings = [json.dumps(e.settings(), sort_keys=True) for e in rows(configs)]
        assert len(set(settings)) == len(settings)
    assert [t.name for t in TABLES] == [
        *("towers", "losses", "negatives", "self-supervision", "senet")
    ]
    assert {*BASELINES, *TOWERS} - {"transformer"} <= set(TABLES[0].rows)


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda: retrieval.split("netflix"), "dataset"),
        (lambda: retrieval.split("movielens-100k", "all"), "part"),
        (
            lambda: retrieval.measure(RetrievalConfig("svd"), "movielens-100k", 0),
            "model",
        ),
        (
            lambda: retrieval.measure(
                RetrievalConfig("fm", sampler="best"), "movielens-100k", 0
            ),
            "sampler",
        ),
    ],
)
def test_rejects(function, message):
    with pytest.raises(ValueError, match=message):
        function()


def test_hard_negatives_by_a_ranker_are_what_it_puts_low_and_nobody_took(monkeypatch):
    from benchmarks.retrieval import ranker as ranker_rows

    train, _ = retrieval.split("movielens-100k")
    truth = np.random.default_rng(0).random((len(train.users), len(train.items)))

    def ranker(pairs):
        user, item = pairs.astype(int).T
        return truth[user, item]

    monkeypatch.setattr(retrieval, "fit_tower", lambda *_: None)
    monkeypatch.setattr(retrieval, "scorer", lambda *_: lambda users: -truth[users])
    monkeypatch.setattr(ranker_rows, "click_ranker", lambda *_: ranker)
    hard = retrieval.sampler("hard-by-ranker", train, 0)
    # Lists hold all unseen items, fewer than 101: none is hard, all are drawn easily.
    assert not len(hard.rows) and hard.fallback.log_q is not None


def test_a_click_ranker_learns_what_was_starred():
    from benchmarks.retrieval.ranker import candidates, click_ranker

    train, _ = retrieval.split("movielens-100k")
    data = candidates(train, lambda users: np.zeros((len(users), len(train.items))))
    user, item = data.features.astype(int).T
    taken = np.zeros((len(train.users), len(train.items)), bool)
    taken[train.user, train.item] = True
    assert (data.labels == np.where(taken[user, item], 3, 0)).all()
    assert len(user) == taken.size  # 60 items: all are shown
    flat = lambda users: np.zeros((len(users), len(train.items)))  # noqa: E731
    score = click_ranker(train, flat, 0)(data.features)
    assert score[taken[user, item]].mean() > score[~taken[user, item]].mean()
