"""Categories in front of a tower: what they look up, and that the rest passes."""

import keras
import numpy as np
import pytest

from debias.data.kinds import Feature
from debias.layers import BiasTower, Features, Standardize, Tower
from debias.models import Naive, PositionFeature, ranker

KINDS = (
    Feature("brand", "category", ("acme", "birch")),
    Feature("tags/of shop", "categories", ("new", "sale"), 2),
    Feature("price"),
    Feature("since", "date"),
)
ROWS = np.array([[2, 3, 2, 5, 7], [1, 0, 0, np.nan, 8], [3, 2, 0, 0, 9]], np.float32)


def test_categories_are_their_vectors_and_numbers_pass():
    layer = Features(KINDS, dim=3, seed=1)
    found = np.asarray(layer(ROWS[:, None]))[:, 0]
    brand, tags = (np.asarray(t.table) for t in layer.fields.tables.values())
    assert found.shape == (3, 8) and layer.compute_output_shape((None, 5)) == (None, 8)
    np.testing.assert_allclose(found[0, :3], brand[2])
    np.testing.assert_allclose(found[0, 3:6], (tags[2] + tags[3]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(found[1, :6], np.zeros(6))  # unknown, and no tags
    np.testing.assert_allclose(found[2, 3:6], tags[2], rtol=1e-6)
    np.testing.assert_array_equal(found[:, 6:], ROWS[:, 3:])


def test_scaling_leaves_codes_alone_and_marks_what_is_missing():
    layer = Standardize.of(KINDS).adapt(ROWS)
    assert (layer.codes, layer.linear, layer.missing) == (3, (4,), (3,))
    found = np.asarray(layer(ROWS))
    np.testing.assert_array_equal(found[:, :3], ROWS[:, :3])
    # log 6 and 0 are one deviation from their mean; dates are scaled as they are.
    expected = [[1, -np.sqrt(1.5), 0], [0, 0, 1], [-1, np.sqrt(1.5), 0]]
    np.testing.assert_allclose(found[:, 3:], expected, atol=1e-6)
    again = Standardize.from_config(layer.get_config())
    again.build((None, 5))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(np.asarray(again(ROWS)), found)
    gone = np.full((1, 5), np.nan, np.float32)  # also what training never missed
    assert np.asarray(layer(gone))[0, 3:].tolist() == [0, 0, 1]


@pytest.mark.parametrize("kind", ["naive", "place"])
def test_it_stands_in_front_of_any_tower_and_is_saved_with_it(kind, tmp_path):
    tower = keras.Sequential([Features(KINDS, seed=1), Tower((4,), seed=1)])
    model = Naive(tower)
    if kind == "place":
        model = PositionFeature(tower, BiasTower({"position": 3}, out=2, seed=1))
    scale = Standardize.of(KINDS).adapt(ROWS)
    scaled = np.asarray(scale(ROWS))
    model({"features": scaled[None], "position": np.array([[1, 2, 3]])})
    served = ranker(model, scale, kinds=KINDS)
    score = np.asarray(served(ROWS))
    served.save(tmp_path / "ranker.keras")
    back = keras.models.load_model(tmp_path / "ranker.keras")
    assert back.kinds == KINDS
    np.testing.assert_allclose(np.asarray(back(ROWS)), score, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(back(ROWS[None]))[0], score, rtol=1e-6)


def test_codes_that_a_half_float_cannot_hold_are_refused():
    many = Features((Feature("sku", "category", tuple(map(str, range(3000)))),))
    half = keras.ops.convert_to_tensor(ROWS, "float16")
    with pytest.raises(ValueError, match="float16 holds codes exactly only below 2048"):
        many.call(half)
    assert tuple(Features(KINDS).call(half).shape) == (3, 18)


def test_numbers_alone_need_no_layer():
    with pytest.raises(ValueError, match="got numbers alone"):
        Features((Feature("price"),))
