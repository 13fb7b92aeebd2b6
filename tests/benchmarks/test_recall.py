"""Tests of benchmarks.recall, on a generated set of a few users."""

import json

import numpy as np
import pytest

from benchmarks import recall
from benchmarks.recall import BASELINES, METRICS, TABLES, RecallConfig, RecallExperiment
from debias.data.tastes import generate_interactions


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    log, _ = generate_interactions(np.random.default_rng(0), 40, 60, events=8)
    monkeypatch.setitem(recall.DATASETS, "movielens-100k", lambda: log)
    recall.split.cache_clear()
    yield
    recall.split.cache_clear()


SMALL = {"dim": 4, "hidden": (4,), "length": 5, "batch_size": 64, "epochs": 1}


@pytest.mark.filterwarnings("ignore:the model falls below popularity")
@pytest.mark.parametrize(
    "config",
    [
        RecallConfig("ease"),
        RecallConfig("dssm", transforms=("complementary",), self_items=8, **SMALL),
        RecallConfig("mind", streaming=True, **SMALL),
        RecallConfig("dat", "pointwise", "own", "popularity", 3, **SMALL),
        RecallConfig("fm", "hinge", "own", "hard-1-in-1", 2, features=False, **SMALL),
        RecallConfig("youtube", negatives=9, sampler="queue", **SMALL),
    ],
    ids=lambda config: config.model,
)
def test_a_configuration_gives_every_metric(config):
    metrics = RecallExperiment("row", config).measure(seed=1, data=None)
    assert set(METRICS) <= set(metrics) and metrics["train_seconds"] > 0
    assert all(0 <= metrics[name] <= 1 for name in METRICS)


def test_popularity_needs_no_training_and_validation_hides_the_test():
    test, validation = (
        recall.measure(RecallConfig("popularity"), "movielens-100k", 0, part)
        for part in ("test", "validation")
    )
    assert test["hr@50"] != 0 and test["hr@10"] != validation["hr@10"]
    rest, _ = recall.split("movielens-100k", "test")
    inner, _ = recall.split("movielens-100k", "validation")
    assert len(rest) - len(inner) == 40


def test_ease_by_hand():
    train, _ = recall.split("movielens-100k")
    dense = recall.matrix(train).toarray().astype(float)
    score = recall.ease(train, 10.0)(np.arange(3))
    # Each item's weights solve the ridge regression of its column on the others.
    for item in range(3):
        others = np.delete(np.arange(60), item)
        x, y = dense[:, others], dense[:, item]
        weight = np.linalg.solve(x.T @ x + 10 * np.eye(59), x.T @ y)
        np.testing.assert_allclose(score[:, item], dense[:3][:, others] @ weight, 1e-4)


def test_als_is_the_library_and_a_seed_names_it():
    pytest.importorskip("implicit")
    config = RecallConfig("als", dim=4, regularisation=0.1, epochs=3)
    train, _ = recall.split("movielens-100k")
    first, again = (recall.als(train, config, 1)(np.arange(5)) for _ in range(2))
    assert (first == again).all() and first.shape == (5, 60)


def test_settings_are_json_and_tell_configurations_apart():
    for rows in TABLES.values():
        settings = [
            json.dumps(RecallExperiment(row, config).settings(), sort_keys=True)
            for row, config in rows.items()
        ]
        assert len(set(settings)) == len(settings)
    assert BASELINES[0] in TABLES["recall"]


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda: recall.split("netflix"), "dataset"),
        (lambda: recall.split("movielens-100k", "all"), "part"),
        (lambda: recall.measure(RecallConfig("svd"), "movielens-100k", 0), "model"),
        (
            lambda: recall.measure(
                RecallConfig("fm", sampler="best"), "movielens-100k", 0
            ),
            "sampler",
        ),
    ],
)
def test_rejects(function, message):
    with pytest.raises(ValueError, match=message):
        function()
