"""Tests of debias.layers.bias and of the lookup under it."""

import keras
import numpy as np
import pytest

from debias.engine.tensors import lookup
from debias.layers import BiasTower
from debias.models import PositionOnly


def numbers(x):
    return keras.ops.convert_to_numpy(x)


POSITION = np.array([[1, 2, 3], [1, 2, 0]])
MERGE = {"position": [0, 1, 2, 2]}


def test_output_is_the_sum_of_the_rows_of_its_tables():
    tower = BiasTower({"position": 3, "device": 2}, out=2, init_std=1.0, seed=0)
    batch = {"position": POSITION, "device": np.array([2, 0])}
    out = numbers(tower(batch))
    position, device = (numbers(tower.tables[name]) for name in ("position", "device"))
    np.testing.assert_allclose(out[0, 2], position[3] + device[2], rtol=1e-6)
    np.testing.assert_allclose(out[1, 2], position[0] + device[0], rtol=1e-6)


def test_merged_places_share_a_row():
    """Place 3 reads the row of 2: in value, and in the gradient, which sums there."""
    tower = BiasTower({"position": 3}, init_std=1.0, seed=0, merge=MERGE)
    batch = {"position": POSITION}
    out = numbers(tower(batch))[..., 0]
    table = numbers(tower.tables["position"])[:, 0]
    np.testing.assert_allclose(out, table[[[1, 2, 2], [1, 2, 0]]], rtol=1e-6)
    model = PositionOnly(tower)
    model.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    features, clicks = np.zeros((2, 3, 1)), np.array([[0, 0, 0], [0, 0, -1]], "float32")
    model.fit({**batch, "features": features}, clicks, verbose=0)
    p = 1 / (1 + np.exp(-table))
    expected = table - p * [0, 1, 1.5, 0]  # of 2 sessions, two show 1, three read 2
    np.testing.assert_allclose(
        numbers(tower.tables["position"])[:, 0], expected, rtol=1e-5
    )


def test_a_merge_is_held_against_its_column():
    for merge, wrong in (
        ({"row": [0, 1]}, "column 'row'"),
        ({"position": [0, 1, 2]}, "must be 4 ids"),
        ({"position": [0, 1, 2, 4]}, r"0\.\.3"),
        ({"position": [1, 1, 2, 3]}, "keep 0"),
        ({"position": [0, 1, 2, 2.5]}, "must be 4 ids"),
    ):
        with pytest.raises(ValueError, match=f"merge.*{wrong}"):
            BiasTower({"position": 3}, merge=merge)


def test_hidden_layers_let_columns_interact():
    tower = BiasTower({"row": 2, "column": 2}, hidden=(8,), init_std=1.0, seed=1)
    row, column = np.array([[1, 1, 2, 2]]), np.array([[1, 2, 1, 2]])
    a, b, c, d = numbers(tower({"row": row, "column": column}))[0, :, 0]
    assert abs((a - b) - (c - d)) > 1e-4


def test_dropout_hides_whole_lists_and_only_in_training():
    tower = BiasTower({"position": 3}, dropout=0.25, init_std=1.0, seed=0)
    batch = {"position": np.tile([1, 2, 3], (4000, 1))}
    missing = (
        numbers(tower(batch, training=True)) == numbers(tower.tables["position"])[0]
    )
    missing = missing[..., 0]
    assert (missing.all(axis=1) == missing.any(axis=1)).all()
    assert abs(missing.mean() - 0.25) < 0.03  # over four standard errors
    assert not (numbers(tower(batch)) == numbers(tower.tables["position"])[0]).any()


def test_a_place_beyond_the_table_is_an_error_eagerly_and_in_a_graph():
    tower = BiasTower({"position": 2})
    with pytest.raises(ValueError, match=r"'position' reaches 3.*built for 2"):
        tower({"position": POSITION})
    inputs = keras.Input((3,), dtype="int32")
    with pytest.raises(ValueError, match=r"'position' reaches 3.*built for 2"):
        tower({"position": inputs})


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match=r"column 'row'.*position"):
        BiasTower({"row": 2})({"position": POSITION})


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam,
        keras.optimizers.Adagrad,
        keras.optimizers.RMSprop,
        keras.optimizers.SGD,
        keras.optimizers.AdamW,
    ],
)
def test_an_id_that_repeats_is_stepped_as_its_summed_gradient(optimizer):
    """The step on 64 repeats equals the step on one dense gradient of weight 64."""
    steps = []
    for repeated in (True, False):
        tower = BiasTower({"position": 2}, init_std=0.0)
        ids = np.full((64, 1), 1) if repeated else np.array([[1]])
        inputs = keras.Input((1,), dtype="int32", name="position")
        model = keras.Model(inputs, tower({"position": inputs}))
        # The loss is a sum, so one example of weight 64 has the same gradient.
        model.compile(optimizer(0.01), loss=lambda y, z: keras.ops.sum(z) * 1.0)
        weight = np.ones(1) if repeated else np.full(1, 64.0)
        model.train_on_batch(ids, np.zeros((len(ids), 1)), sample_weight=weight[0])
        steps.append(numbers(tower.tables["position"])[1, 0])
    assert steps[0] != 0
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-5)


def test_lookup_by_hand_and_out_of_range_is_zero():
    table = np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
    rows = numbers(lookup(keras.ops.convert_to_tensor(table), np.array([[1, 0]])))
    assert rows.tolist() == [[[3.0, 4.0], [1.0, 2.0]]]


def test_config_round_trip_keeps_every_argument():
    given = {
        "columns": {"row": 3, "device": 2},
        "hidden": [4],
        "out": 2,
        "dropout": 0.2,
        "init_std": 0.3,
        "seed": 5,
        "merge": {"row": [0, 1, 2, 2]},
    }
    restored = keras.layers.deserialize(keras.layers.serialize(BiasTower(**given)))
    assert given.items() <= restored.get_config().items()


@pytest.mark.parametrize(
    "bad",
    [{"columns": {}}, {"columns": {"row": 0}}, {"out": 0}, {"dropout": -0.1}],
)
def test_rejects(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        BiasTower(**{"columns": {"position": 2}, **bad})


def test_crossed_columns_add_a_bias_of_each_pair_of_ids():
    tower = BiasTower(
        {"position": 2, "badge": 1}, init_std=0.5, seed=3, cross=[("position", "badge")]
    )
    position, badge = np.array([[1, 2, 0]]), np.array([[1, 0, 0]])
    found = np.asarray(tower({"position": position, "badge": badge}))[0, :, 0]
    one, other = (np.asarray(table)[:, 0] for table in tower.tables.values())
    both = np.asarray(tower.crossed[0])[:, 0]
    expected = [one[1] + other[1] + both[3], one[2] + other[0] + both[4]]
    np.testing.assert_allclose(found[:2], expected, rtol=1e-6)
    again = BiasTower.from_config(tower.get_config())
    assert again.cross == [("position", "badge")]
    by_list = np.asarray(tower({"position": position, "badge": np.array([1])}))
    np.testing.assert_allclose(by_list[0, 0, 0], found[0], rtol=1e-6)
    with pytest.raises(ValueError, match="cross names column 'row'"):
        BiasTower({"position": 2}, cross=[("position", "row")])
