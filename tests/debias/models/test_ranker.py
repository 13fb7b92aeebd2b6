"""Tests of the ranker and of reference places, beyond the properties of every model."""

import sys
from contextlib import nullcontext

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf

from debias.layers import BiasTower, Standardize
from debias.models import BilinearModel, Dot, Naive, ranker
from tests.debias.models.registry import of_rows, relevance
from tests.debias.models.test_click_models import FEATURES, batch_of, built, numbers

ROWS = FEATURES[0]


def test_rows_are_read_by_the_names_of_the_features():
    names = [f"f{number}" for number in range(ROWS.shape[1])]
    served = ranker(built("naive"), feature_names=names)
    table = {"item": ["x"] * len(ROWS)}
    table |= {name: ROWS[:, int(name[1:])] for name in reversed(names)}
    for rows in (table, pa.table(table)):
        np.testing.assert_allclose(numbers(served(rows)), numbers(served(ROWS)))
        found = served.predict(rows, verbose=0)
        np.testing.assert_allclose(found, numbers(served(ROWS)), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"rows must be a table .* got Series"):
        served(pd.Series(["x", 1.0]))  # a row of a data frame
    with pytest.raises(ValueError, match="does not know the names of its features"):
        ranker(built("naive"))(table)


@pytest.mark.parametrize("name", ["naive", "dot", "mixture"])
@pytest.mark.parametrize("first", [0, 1])
def test_rows_and_lists_are_predicted_in_turn(name, first):
    served = ranker(built(name))
    expected = [numbers(served(x)) for x in (ROWS, FEATURES)]
    for turn in (first, 1 - first, first):
        features = (ROWS, FEATURES)[turn]
        found = served.predict(features, verbose=0)
        np.testing.assert_allclose(found, expected[turn], rtol=1e-4, atol=1e-6)
        dataset = tf.data.Dataset.from_tensor_slices(features).batch(2)
        found = served.predict(dataset, verbose=0)
        np.testing.assert_allclose(found, expected[turn], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["naive", "dot", "mixture"])
def test_lists_of_no_item_have_no_scores_in_onnx_either(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    from debias.models.export import export

    served = ranker(built(name))
    made = export(served, tmp_path / "ranker.onnx", features=7)
    session = runtime.InferenceSession(made)
    for shape in ((2, 0, 7), (1, 0, 7), (0, 3, 7), (2, 3, 7)):
        features = np.ones(shape, "float32")
        (found,) = session.run(None, {"features": features})
        assert found.shape == shape[:2]
        np.testing.assert_allclose(found, numbers(served(features)), rtol=1e-4)


@pytest.mark.parametrize("kind", [Dot, BilinearModel])
def test_more_reference_places_than_a_list_is_long(kind):
    """Eight positions on three devices are 24 places, in a compiled function too."""
    bias = BiasTower({"position": 8, "device": 3}, out=4, init_std=0.5, seed=1)
    places = [{"position": k, "device": d} for d in (1, 2, 3) for k in range(1, 9)]
    model = kind(relevance(1, 4), bias, places)
    model({**batch_of(FEATURES), "device": np.ones(5, "int32")})
    served = ranker(model)
    each = [numbers(model.logits_at(FEATURES, place)) for place in places]
    mean = (1 / (1 + np.exp(-np.array(each)))).mean(axis=0)
    expected = np.log(mean) - np.log1p(-mean)
    np.testing.assert_allclose(numbers(served(FEATURES)), expected, rtol=1e-3)
    compiled = served.predict(FEATURES, verbose=0)
    np.testing.assert_allclose(compiled, expected, rtol=1e-3)


def test_a_tower_of_lists_of_one_length_is_refused_in_words():
    inputs = keras.Input((6, 7))
    tower = keras.Model(inputs, keras.layers.Dense(1)(inputs), name="fixed")
    with pytest.raises(ValueError, match=r"fixed takes lists of 6.*Input\(\(7,\)\)"):
        Naive(tower).call(batch_of(FEATURES))


def test_a_tower_of_lists_sees_lists_of_one_item():
    """One that adds the mean of the list to each item adds the item to itself."""
    inputs, own = keras.Input((None, 7)), keras.layers.Dense(1)
    mean = keras.ops.mean(own(inputs), axis=1, keepdims=True)
    model = Naive(keras.Model(inputs, own(inputs) + mean))
    expected = 2 * numbers(own(FEATURES))[..., 0]
    np.testing.assert_allclose(numbers(model(batch_of(FEATURES))), expected, 1e-5)
    np.testing.assert_allclose(numbers(model.score(FEATURES)), expected, 1e-5)


def test_preprocessing_is_called_on_rows_too():
    model, scale = built("naive"), keras.Sequential([keras.layers.Rescaling(0.5)])
    found = numbers(ranker(model, scale)(FEATURES))
    np.testing.assert_allclose(found, numbers(model.score(FEATURES / 2)), rtol=1e-4)
    half = keras.Input((7,))
    halve = keras.Model(half, keras.layers.Rescaling(0.5)(half))
    np.testing.assert_allclose(numbers(ranker(model, halve)(FEATURES)), found, 1e-6)


def test_raw_features_keep_their_range_in_half_precision():
    """Beyond 65504, the largest float16."""
    raw = 1e6 * FEATURES
    scale = Standardize().adapt(raw.reshape(-1, 7))
    expected = numbers(ranker(built("naive"), scale)(raw))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        scale = Standardize().adapt(raw.reshape(-1, 7))
        found = numbers(ranker(built("naive"), scale)(raw))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("packed", [False, True])
def test_a_model_of_rows_is_fitted_and_served(packed):
    model, batch = Naive(of_rows(1)), batch_of(FEATURES)
    if packed:
        cell = np.arange(30, dtype="int32").reshape(5, 6)
        batch = {"cell": cell, "features": FEATURES.reshape(-1, 7)}
    clicks = (FEATURES[..., 0] > 0).astype("float32")
    before = numbers(model(batch))
    feed = tf.data.Dataset.from_tensors((batch, clicks))
    model.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    model.fit(feed, epochs=3, verbose=0)
    assert (numbers(model(batch)) != before).any()
    assert ranker(model)(ROWS).shape == (6,) and ranker(model)(FEATURES).shape == (5, 6)


def test_on_torch_arrays_are_scored_without_a_gradient(monkeypatch):
    """Torch refuses to make an array of a tensor that has one."""
    from types import SimpleNamespace

    from debias.models.click_model import without_gradient

    fake = SimpleNamespace(no_grad=lambda: nullcontext("no gradient"))
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with without_gradient(np.zeros((2, 3))) as taken:
        assert taken == "no gradient"
    with without_gradient(object()) as taken:  # a tensor, whose gradient may be asked
        assert taken is None
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with without_gradient(np.zeros((2, 3))) as taken:
        assert taken is None
