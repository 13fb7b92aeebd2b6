"""Tests of debias.retrieval.models.relevance: retrieval towers inside click models."""

import keras
import numpy as np
import pytest
from keras import ops

from debias.layers import BiasTower
from debias.models import Additive, Mixture, Product, ranker
from debias.retrieval.models import DAT, PairRelevance
from debias.retrieval.models.dat import mimic_loss
from tests.debias.retrieval.models.registry import LENGTH, LOG, MODELS

pytestmark = pytest.mark.usefixtures("eagerly")
USERS = {
    **LOG.users.columns,
    "history": LOG.histories(LENGTH, np.arange(len(LOG.users)))[0],
}
ITEMS = LOG.items.columns
PAIRS = np.array([[[3, 5], [3, 0], [3, 7]], [[0, 7], [0, 1], [0, 0]]], "float32")


def relevance(name="fm", shared_by=1):
    return PairRelevance(MODELS[name](), USERS, ITEMS, shared_by)


def arrays(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("name", ["dssm", "mind", "dat"])
def test_scores_are_those_that_retrieval_serves(name):
    layer = relevance(name)
    layer.offset.assign(0.25)
    found = arrays(layer(PAIRS))[..., 0]
    from debias.retrieval.training.evaluation import dot_scores

    every = dot_scores(layer.model.user_vectors(USERS), layer.model.item_vectors(ITEMS))
    user, item = PAIRS.astype(int)[..., 0], PAIRS.astype(int)[..., 1]
    expected = every[user, item] / layer.model.temperature + 0.25
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    one_by_one = arrays(layer(PAIRS.reshape(-1, 2)))[:, 0]
    np.testing.assert_allclose(one_by_one, expected.ravel(), rtol=1e-4, atol=1e-4)


def test_padding_does_not_change_whose_list_it_is():
    layer = relevance()
    padded = np.concatenate([np.zeros((1, 2, 2), "float32"), PAIRS[:1]], axis=1)
    np.testing.assert_allclose(
        arrays(layer(padded))[:, 2:], arrays(layer(PAIRS[:1])), rtol=1e-6
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: Additive(relevance("dat"), BiasTower({"position": 3})),
        lambda: Mixture(
            [Product(relevance(), BiasTower({"position": 3})) for _ in range(2)]
        ),
    ],
    ids=["additive", "mixture"],
)
def test_a_click_model_of_it_trains_saves_and_ranks(build, tmp_path):
    model = build()
    model.compile("adam", jit_compile=False)
    position = np.tile(np.arange(1, 4), (2, 1))
    batch = {"features": PAIRS, "position": position, "mask": position > 0}
    clicks = np.array([[1.0, 0, 0], [0, 1, -1]], "float32")
    first = float(model.train_on_batch(batch, clicks))
    for _ in range(20):
        last = float(model.train_on_batch(batch, clicks))
    assert last < first
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    scores = arrays(ranker(model)(PAIRS))
    np.testing.assert_array_equal(scores, arrays(ranker(loaded)(PAIRS)))


def test_dat_weighs_pairs_by_their_relevance():
    layer = relevance("dat")
    assert isinstance(layer.model, DAT)
    layer.model.alignment = 0.0
    scores = arrays(layer(PAIRS, training=True))[..., 0]
    (found,) = layer.losses
    user, item = PAIRS.astype(int).reshape(-1, 2).T
    augmented = [
        arrays(side.augment(ops.array(rows + 2)))
        for side, rows in ((layer.model.user, user), (layer.model.item, item))
    ]
    vectors = (
        layer.model.user_vectors(USERS)[user],
        layer.model.item_vectors(ITEMS)[item],
    )
    weight = 1 / (1 + np.exp(-scores.ravel()))
    expected = sum(
        (weight * ((a - p) ** 2).mean(axis=1)).mean()
        for a, p in zip(augmented, vectors[::-1], strict=True)
    )
    assert float(found) == pytest.approx(0.5 * expected, rel=1e-4)


def test_components_that_share_a_tower_add_its_pair_losses_once():
    layer, shared = relevance("dat"), relevance("dat", shared_by=3)
    one = Product(layer, BiasTower({"position": 3}, seed=0))
    parts = [Product(shared, BiasTower({"position": 3}, seed=k)) for k in range(3)]
    batch = {
        "features": PAIRS,
        "position": np.array([[1, 2, 3], [1, 2, 3]]),
        "mask": np.ones((2, 3), bool),
    }
    three = Mixture(parts)
    one(batch, training=True)
    alone = sum(float(loss) for loss in one.losses)
    for _ in range(2):  # losses of an earlier call do not add up
        three(batch, training=True)
        assert sum(float(loss) for loss in three.losses) == pytest.approx(alone)
    assert alone > 0


def test_a_weight_says_how_positive_a_pair_is():
    a, p = ops.array([[1.0, 0.0], [5.0, 5.0]]), ops.array([[0.0, 2.0], [0.0, 0.0]])
    # (1 + 4) / 2 * .5 for the first pair, nothing for the second; the mean of both.
    assert float(mimic_loss(a, p, ops.array([0.5, 0.0]))) == 0.625


def test_rejects_more_rows_than_a_float_counts():
    class Many:
        def __len__(self):
            return 1 << 24

    with pytest.raises(ValueError, match="users must be fewer"):
        PairRelevance(MODELS["fm"](), {"id": Many()}, ITEMS)
