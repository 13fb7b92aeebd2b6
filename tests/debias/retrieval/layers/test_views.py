"""Tests of debias.retrieval.layers.views."""

from math import exp, log

import keras
import numpy as np
import pytest
from keras import ops

from debias.retrieval.layers.views import FeatureViews, contrastive, correlated_sets

NAMES = ("id", "year", "maker", "tags")
SCHEMA = {name: {"kind": "categorical", "size": 9} for name in NAMES[:3]}
SCHEMA |= {"tags": {"kind": "multivalued", "size": 9}}
RELATION = np.array([[5, 1, 2, 0], [1, 5, 0, 3], [2, 0, 5, 1], [0, 3, 1, 5.0]])


def draw(*transforms, rows=2000, rate=0.5, seed=0):
    layer = FeatureViews(SCHEMA, transforms, rate, RELATION, seed)
    features = {name: ops.full((rows,), 5, "int32") for name in NAMES[:3]}
    features["tags"] = ops.full((rows, 3), 6, "int32")
    return [
        {name: ops.convert_to_numpy(view[name]) for name in NAMES}
        for view in layer(features)
    ]


def kept(view):
    """(n, F) whether any of a field is left."""
    return np.stack([view[n].reshape(len(view[n]), -1).any(1) for n in NAMES], axis=1)


def test_mask_hides_each_field_alone_at_its_rate_and_anew_in_each_view():
    one, other = (kept(view) for view in draw("mask", rate=0.3))
    for view in (one, other):
        np.testing.assert_allclose(view.mean(axis=0), 0.7, atol=0.05)
    assert abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]) < 0.1
    assert abs(np.corrcoef(one[:, 0], one[:, 1])[0, 1]) < 0.1


def test_dropout_hides_values_of_multivalued_fields_only():
    for view in draw("dropout", rate=0.5):
        assert (view["id"] == 5).all() and (view["maker"] == 5).all()
        np.testing.assert_allclose((view["tags"] == 6).mean(axis=0), 0.5, atol=0.06)


@pytest.mark.parametrize("transform", ["complementary", "correlated"])
def test_halves_are_complements_and_the_same_for_the_batch(transform):
    seen = set()
    for seed in range(12):
        one, other = (kept(view) for view in draw(transform, rows=5, seed=seed))
        assert (one ^ other).all() and (one == one[0]).all()
        assert 0 < one[0].sum() < 4
        seen.add(tuple(one[0]))
    assert len(seen) > 2


def test_correlated_views_split_along_the_relation():
    # The two nearest of id: maker, year; year: tags, id; maker: id, tags; tags: year,
    # maker.
    expected = [[1, 1, 1, 0], [1, 1, 0, 1], [1, 0, 1, 1], [0, 1, 1, 1]]
    assert correlated_sets(RELATION).astype(int).tolist() == expected
    found = set()
    for seed in range(20):
        found.add(tuple(kept(draw("correlated", rows=1, seed=seed)[0])[0].astype(int)))
    assert found <= {tuple(row) for row in expected} and len(found) > 2


def test_contrastive_by_hand_and_blind_to_length():
    one = np.array([[3.0, 0.0], [0.0, 1.0]])
    other = np.array([[1.0, 0.0], [0.6, 0.8]])
    loss = ops.convert_to_numpy(contrastive(ops.array(one), ops.array(other), 0.5))
    expected = [
        log(exp(1 / 0.5) + exp(0.6 / 0.5)) - 1 / 0.5,
        log(exp(0.0) + exp(0.8 / 0.5)) - 0.8 / 0.5,
    ]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_config_round_trip_keeps_every_argument():
    given = {
        "schema": SCHEMA,
        "transforms": ["correlated", "mask"],
        "chance": 0.3,
        "relation": RELATION.tolist(),
        "seed": 4,
    }
    layer = keras.layers.deserialize(keras.layers.serialize(FeatureViews(**given)))
    assert given.items() <= layer.get_config().items()


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"transforms": ["blur"]}, "transforms"),
        ({"transforms": []}, "transforms"),
        ({"transforms": ["mask"], "chance": 1.0}, "chance"),
        ({"transforms": ["correlated"]}, "relation"),
        ({"schema": {"id": SCHEMA["id"]}, "transforms": ["complementary"]}, "2 fields"),
    ],
)
def test_rejects(bad, message):
    with pytest.raises(ValueError, match=message):
        FeatureViews(**{"schema": SCHEMA, **bad})
