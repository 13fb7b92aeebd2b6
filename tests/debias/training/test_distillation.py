"""Trees that imitate a ranker."""

from itertools import combinations
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from debias import RankingData
from debias.models.trees import Trees, TreesConfig
from debias.training import distill, distillation

pytest.importorskip("lightgbm")
RNG = np.random.default_rng(0)
FAST = TreesConfig(rounds=60, rate=0.3, leaves=8, items=5)
FEATURES = RNG.integers(-4, 5, size=(400, 3)).astype("float32")
DATA = RankingData(FEATURES, None, np.arange(0, 401, 20), feature_names=("a", "b", "c"))


def steps(x):
    """A teacher that a few trees can imitate."""
    above = [keras.ops.cast(x[..., n] > 0, "float32") for n in (0, 1)]
    return 2.0 * above[0] + above[1]


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_a_teacher_ofsteps_is_imitated(library):
    pytest.importorskip(library)
    config = TreesConfig(library, rounds=60, rate=0.3, leaves=8, items=5)
    rounds = []
    found = distill(steps, DATA, config, rounds.append)
    assert found.pairs == 1.0 and found.r2 > 0.99 and sum(rounds) <= 60
    wanted = 2.0 * (FEATURES[:, 0] > 0) + (FEATURES[:, 1] > 0)
    np.testing.assert_allclose(found.ranker(FEATURES), wanted, atol=0.2)
    assert found.items == {"train": 360, "validation": 40}
    assert found.held_out_by == "query"
    assert not found.model.predicts_clicks
    assert "as the teacher does" in found.words() and "Rounds" in str(found)


def test_agreement_is_measured_on_queries_that_no_tree_has_seen():
    """Each item has noise of its own, which its number does not tell."""
    noise = 3 * RNG.normal(size=400).astype("float32")
    features = np.column_stack([FEATURES[:, 0], np.arange(400, dtype="float32")])
    data = RankingData(features, None, DATA.offsets)

    def teacher(x):
        return x[..., 0] + keras.ops.take(noise, keras.ops.cast(x[..., 1], "int32"))

    found = distill(teacher, data, FAST)
    query = np.repeat(np.arange(20), 20)
    rng = np.random.default_rng(0)
    rng.permutation(400)  # of the items that take part
    held, by = distillation._held_out(query, rng)
    assert by == "query" and len(np.unique(query[held])) == 2 and held.sum() == 40
    score, target = found.model(features), features[:, 0] + noise
    error = np.square(score - target)[held].sum()
    total = np.square(target - target[held].mean())[held].sum()
    assert found.r2 == pytest.approx(1 - error / total, abs=1e-4)
    exact = [
        (1 + np.sign(score[i] - score[j]) * np.sign(target[i] - target[j])) / 2
        for i, j in combinations(np.flatnonzero(held), 2)
        if query[i] == query[j]
    ]
    assert found.pairs == pytest.approx(np.mean(exact), abs=0.02)
    assert found.pairs < 0.9  # and not near the agreement on items that were learned


def test_pairs_that_the_trees_tie_count_one_half():
    query, other = np.repeat([0, 1], 50), RNG.normal(size=100)
    for score, wanted in ((other, 1), (-other, 0), (0 * other, 0.5)):
        rng = np.random.default_rng(1)
        assert distillation.agreement(score, other, query, rng) == wanted


def test_pairs_of_two_queries_do_not_count():
    query, score = np.repeat([0, 1], 50), RNG.normal(size=100)
    moved = score - 100 * query  # as no query tells
    rng = np.random.default_rng(1)
    assert distillation.agreement(score + 100 * query, moved, query, rng) == 1


def test_few_queries_hold_out_items():
    found = distill(steps, RankingData(FEATURES, None, [0, 200, 400]), FAST)
    assert found.held_out_by == "item" and found.items["validation"] == 40


def test_features_are_in_the_order_of_the_teacher():
    class Teacher:
        feature_names, kinds = ("b", "a"), None

        def __call__(self, x):
            return x[..., 1] - 0.1 * x[..., 0]

    for teacher in (Teacher(), SimpleNamespace(ranker=Teacher())):
        found = distill(teacher, DATA, FAST)
        assert found.model.feature_names == ("b", "a")
        mine = found.model(FEATURES[:, [1, 0]])
        assert np.corrcoef(mine, FEATURES[:, 0])[0, 1] > 0.95


def test_many_items_are_sampled(monkeypatch):
    monkeypatch.setattr(distillation, "MOST", 100)
    found = distill(steps, DATA, FAST)
    assert sum(found.items.values()) == 100


def test_teachers_that_teach_nothing_are_refused():
    few = RankingData(FEATURES[:19], None, [0, 19])
    with pytest.raises(ValueError, match="needs 20 items, got 19"):
        distill(steps, few)
    with pytest.raises(ValueError, match="gives all items the score 1,"):
        distill(lambda x: x[..., 0] * 0 + 1, DATA)
    holed = FEATURES.copy()
    holed[7] = np.nan
    data = RankingData.__new__(RankingData)
    data.__dict__.update(DATA.__dict__ | {"features": holed})
    with pytest.raises(ValueError, match="gives item 7 the score nan"):
        distill(lambda x: x[..., 0], data)
    with pytest.raises(ValueError, match="trees already: export it as it is"):
        distill(Trees("lightgbm", None), DATA)
    with pytest.raises(ValueError, match="feature"):
        distill(SimpleNamespace(feature_names=("z",), kinds=None), DATA)
