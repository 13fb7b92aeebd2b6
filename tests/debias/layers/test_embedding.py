"""Tests of debias.layers.embedding, fm and senet."""

import keras
import numpy as np
import pytest
from keras import ops

from debias.layers.embedding import FeatureEmbedding, RowEmbedding, masked_mean
from debias.retrieval.layers.fm import fm_sum
from debias.retrieval.layers.senet import SENet
from tests.gradient import gradient

SCHEMA = {
    "id": {"kind": "categorical", "size": 6},
    "tags": {"kind": "multivalued", "size": 5},
    "price": {"kind": "numeric"},
}


def arrays(x):
    return ops.convert_to_numpy(x)


def test_fields_by_hand():
    layer = FeatureEmbedding(SCHEMA, 2, seed=0)
    layer.tables["id"].table.assign(np.arange(12.0).reshape(6, 2))
    layer.tables["tags"].table.assign(np.arange(10.0).reshape(5, 2) * 10)
    layer.tables["price"].table.assign([[0, 0], [0, 0], [1.0, -2.0]])
    fields = layer(
        {
            "id": ops.array([3, 0]),
            "tags": ops.array([[2, 4, 0], [0, 0, 0]]),
            "price": ops.array([1.5, 0.0]),
        }
    )
    # Row 0: id row 3; mean of tag rows 2 and 4; 1.5 times the vector. Row 1: nothing.
    first = [[6.0, 7.0], [(40.0 + 80.0) / 2, (50.0 + 90.0) / 2], [1.5, -3.0]]
    np.testing.assert_allclose(arrays(fields), [first, np.zeros((3, 2))])


def test_per_row_candidates_keep_their_shape():
    layer = FeatureEmbedding(SCHEMA, 2, seed=0)
    features = {
        "id": ops.array([[2, 3, 4], [5, 2, 2]]),
        "tags": ops.ones((2, 3, 4), "int32"),
        "price": ops.ones((2, 3)),
    }
    assert tuple(layer(features).shape) == (2, 3, 3, 2)


def test_out_of_vocabulary_starts_at_zero_and_unknown_rate_trains_it():
    layer = FeatureEmbedding({"id": SCHEMA["id"]}, 4, unknown_rate=0.5, seed=0)
    assert not arrays(layer({"id": ops.array([1])})).any()
    rows = ops.full((2000,), 3, "int32")
    hidden = ~arrays(layer({"id": rows}, training=True)).any(axis=(1, 2))
    assert abs(hidden.mean() - 0.5) < 0.06  # over five standard errors
    assert arrays(layer({"id": rows})).any(axis=(1, 2)).all()


def test_missing_contributes_nothing_even_after_training_touched_its_row():
    layer = RowEmbedding(4, 2, seed=0)
    layer.table.assign(np.ones((4, 2)))
    assert arrays(layer(ops.array([0, 1]))).tolist() == [[0, 0], [1, 1]]


def test_an_absent_feature_is_named():
    with pytest.raises(ValueError, match=r"'price'.*absent"):
        FeatureEmbedding(SCHEMA, 2)({"id": ops.array([2]), "tags": ops.array([[2]])})


def test_ids_that_share_rows_by_hand():
    codes = np.array([[0, 1, 2], [3, 5, 8]])
    table = np.arange(10.0).reshape(5, 2)  # of codes 0 and 1, and three rows
    quotients = np.array([[1.0, 1.0], [10.0, 100.0], [-1.0, 0.5]])
    layer = RowEmbedding(9, 2, compress="hash", rows=3)
    layer.table.assign(table)
    # Codes 2, 3, 5, 8 are n = 0, 1, 3, 6: the rows 0, 1, 0, 0 of those shared.
    shared = table[[[0, 1, 2], [3, 2, 2]]]
    shared[0, 0] = 0
    np.testing.assert_array_equal(arrays(layer(codes)), shared)
    layer = RowEmbedding(9, 2, compress="quotient_remainder", rows=3)
    assert tuple(layer.quotients.shape) == (3, 2)  # n of 7 values: 0 to 6
    layer.table.assign(table)
    layer.quotients.assign(quotients)
    shared *= quotients[[[0, 0, 0], [0, 1, 2]]]
    np.testing.assert_array_equal(arrays(layer(codes)), shared)


@pytest.mark.parametrize("compress", ["hash", "quotient_remainder"])
def test_shared_rows_start_with_the_scale_and_unknown_at_zero(compress):
    layer = RowEmbedding(8_002, 8, 0.1, seed=0, compress=compress, rows=100)
    vectors = arrays(layer(np.arange(8_002)))
    assert (vectors[:2] == 0).all()
    assert vectors[2:].std() == pytest.approx(0.1, rel=0.1)
    distinct = len(np.unique(vectors[2:], axis=0))
    assert distinct == (100 if compress == "hash" else 8_000)


def test_masked_mean_gradient_reaches_only_the_kept():
    mask = ops.array([[1, 0, 1]])
    slope = gradient(
        lambda x: masked_mean(ops.convert_to_tensor(x), mask), np.ones((1, 3, 2))
    )
    assert slope.tolist() == [[[0.5, 0.5], [0.0, 0.0], [0.5, 0.5]]]


def test_fm_inner_product_is_the_sum_over_pairs_across_sides():
    rng = np.random.default_rng(0)
    user, item = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    pairs = sum(u @ v for u in user for v in item)
    score = arrays(fm_sum(ops.array(user))) @ arrays(fm_sum(ops.array(item)))
    assert score == pytest.approx(pairs, rel=1e-5)


def test_senet_by_hand():
    # Two fields, one bottleneck unit. z = (mean 1, mean -3).
    layer = SENet(reduction=2)
    fields = ops.array([[[0.0, 2.0], [-4.0, -2.0]]])
    layer(fields)
    layer.squeeze.set_weights([np.array([[2.0], [-1.0]]), np.array([0.5])])
    layer.excite.set_weights([np.array([[0.1, -1.0]]), np.array([1.0, 1.0])])
    # relu(2 * 1 + 3 + .5) = 5.5; s = relu(.55 + 1), relu(-5.5 + 1).
    np.testing.assert_allclose(arrays(layer.importance(fields)), [[1.55, 0.0]], 1e-6)
    expected = [[[0.0, 3.1], [0.0, 0.0]]]
    np.testing.assert_allclose(arrays(layer(fields)), expected, 1e-6)


def test_a_fresh_senet_nearly_passes_through_and_differs_by_input():
    layer, rng = SENet(seed=0), np.random.default_rng(0)
    fields = ops.array(rng.normal(size=(50, 4, 8)).astype("float32"))
    weights = arrays(layer.importance(fields))
    assert np.abs(weights - 1).max() < 0.3 and weights.std(axis=0).min() > 0


@pytest.mark.parametrize(
    "layer, given",
    [
        (RowEmbedding, {"size": 7, "dim": 3, "scale": 0.2, "seed": 4}),
        (RowEmbedding, {"size": 7, "dim": 3, "compress": "hash", "rows": 4}),
        (
            FeatureEmbedding,
            {"schema": SCHEMA, "dim": 3, "unknown_rate": 0.1, "scale": 0.2, "seed": 4},
        ),
        (SENet, {"reduction": 3, "activation": "sigmoid", "seed": 4}),
    ],
)
def test_config_round_trip_keeps_every_argument(layer, given):
    restored = keras.layers.deserialize(keras.layers.serialize(layer(**given)))
    assert given.items() <= restored.get_config().items()


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda: RowEmbedding(1, 2), "size"),
        (lambda: RowEmbedding(9, 2, compress="hsh", rows=3), "compress must be one of"),
        (lambda: RowEmbedding(9, 2, rows=3), "compress must be one of"),
        (lambda: RowEmbedding(9, 2, compress="hash"), "rows must be at least 1"),
        (lambda: FeatureEmbedding({}, 2), "schema"),
        (lambda: FeatureEmbedding(SCHEMA, 2, unknown_rate=1.0), "unknown_rate"),
        (lambda: SENet(reduction=0), "reduction"),
    ],
)
def test_rejects(function, message):
    with pytest.raises(ValueError, match=message):
        function()
