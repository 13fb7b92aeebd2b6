"""Tests of debias.retrieval.models.ids."""

import keras
import numpy as np
import pytest

from debias.retrieval.models import DAT, MIND, dssm, fm_tower, youtube_dnn
from debias.retrieval.models.ids import (
    checksum,
    copy_into,
    dense_weights,
    has_room,
    id_tables,
    init_rows,
    with_room,
)
from tests.debias.retrieval.models.registry import ITEMS, LENGTH, LOG, MODELS, USERS

BUILDS = {
    "dssm": lambda u, i, **more: dssm(u, i, hidden=(4,), **more),
    "fm": fm_tower,
    "youtube": lambda u, i, **more: youtube_dnn(u, i, hidden=(4,), **more),
    "mind": lambda u, i, **more: MIND(u, i, hidden=(4,), **more),
    "dat": lambda u, i, **more: DAT(u, i, "genre", hidden=(4,), **more),
}


def build(name, users, items, seed=0):
    model = BUILDS[name](users, items, dim=4, length=LENGTH, seed=seed)
    model.build(None)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_tables_of_ids_are_those_whose_size_is_that_of_the_ids(name):
    model = MODELS[name]()
    model.build(None)
    found = {id(table) for side in id_tables(model) for table in side}
    sizes = {USERS["id"]["size"], ITEMS["id"]["size"]}
    tables = [
        layer
        for layer in model._flatten_layers()
        if type(layer).__name__ == "RowEmbedding"
    ]
    assert found == {id(table) for table in tables if table.size in sizes}
    assert has_room(model, USERS["id"]["size"], ITEMS["id"]["size"])
    assert not has_room(model, USERS["id"]["size"] + 1, ITEMS["id"]["size"])
    assert not has_room(model, USERS["id"]["size"], ITEMS["id"]["size"] + 1)
    # Trained weights are tables of ids or dense, never both.
    dense = {id(weight) for weight in dense_weights(model)}
    of_ids = {id(table.table) for side in id_tables(model) for table in side}
    assert not dense & of_ids
    assert dense | of_ids == {id(weight) for weight in model.trainable_variables}


@pytest.mark.parametrize("name", BUILDS)
def test_a_larger_model_inherits_what_the_smaller_one_gives(name):
    small = build(name, USERS, ITEMS)
    large = build(name, with_room(USERS), with_room(ITEMS), seed=9)
    copy_into(large.variables, small.variables)
    rows = np.arange(10)
    history, _ = LOG.histories(LENGTH, rows)
    users = {**LOG.users.take(rows), "history": history}
    np.testing.assert_array_equal(large.user_vectors(users), small.user_vectors(users))
    items = LOG.items.columns
    np.testing.assert_array_equal(large.item_vectors(items), small.item_vectors(items))


def test_room_is_the_next_power_of_two_and_of_ids_alone():
    schema = {
        "id": {"kind": "categorical", "size": 17},
        "age": {"kind": "categorical", "size": 5},
    }
    roomy = with_room(schema)
    assert (roomy["id"]["size"], roomy["age"]["size"]) == (32, 5)
    assert with_room(roomy) == roomy and schema["id"]["size"] == 17


def test_inherit_rejects_variables_that_are_smaller():
    new, old = keras.Variable(np.zeros((2, 3))), keras.Variable(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="at least as large"):
        copy_into([new], [old])
    with pytest.raises(ValueError):
        copy_into([new], [])


def test_new_rows_settle_at_the_mean_of_the_known_and_no_other_moves():
    model = build("fm", USERS, ITEMS)
    (layer,) = id_tables(model).users
    table = np.zeros((62, 4), np.float32)
    table[2:5] = [[1, 2, 3, 4], [3, 2, 1, 0], [2, 2, 2, 2]]
    layer.table.assign(table)
    init_rows([layer], 5, 7)
    table[5:7] = 2.0
    np.testing.assert_array_equal(np.array(layer.table), table)


@pytest.mark.parametrize(
    "other", [np.array([1.0, 3.0]), np.array([[1.0, 2.0]]), np.array([1, 2])]
)
def test_a_checksum_sees_values_shapes_and_types(other):
    one = checksum([np.array([1.0, 2.0])])
    assert one == checksum([np.array([1.0, 2.0])]) and one != checksum([other])
