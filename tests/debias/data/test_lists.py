"""Tests of debias.data.lists."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias.data.lists import filled, list_size_of, lists_of, rectangle

ROWS = [[1, 2], None, [3, None], [4, 5]]
FILLED = [[1, 2], [-1, -1], [3, -1], [4, 5]]
KINDS = [pa.list_(pa.int32(), 2), pa.list_(pa.int32()), pa.large_list(pa.int32())]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("start, stop", [(0, 4), (1, 3), (3, 4)])
def test_every_kind_of_list_sliced_or_not_gives_the_same_rectangle(kind, start, stop):
    column = pa.array(ROWS, kind).slice(start, stop - start)
    values, gaps = rectangle(column, 2, -1)
    assert values.tolist() == FILLED[start:stop] and values.dtype == np.int32
    missing = gaps if gaps is not None else np.zeros(values.shape, bool)
    assert missing.tolist() == [[x < 0 for x in row] for row in FILLED[start:stop]]


@settings(deadline=None)
@given(st.lists(st.lists(st.none() | st.integers(0, 9), max_size=4), min_size=1))
def test_ragged_lists_by_plain_python(rows):
    column = pa.chunked_array([pa.array(rows[:1], pa.list_(pa.int64())), rows[1:]])
    size = list_size_of(column)
    wanted = [
        [-1 if x is None else x for x in r] + [-1] * (size - len(r)) for r in rows
    ]
    assert rectangle(column, None, -1).values.tolist() == wanted


def test_fixed_lists_are_not_copied():
    values = np.arange(6, dtype=np.int32).reshape(3, 2)
    assert np.shares_memory(rectangle(lists_of(values), None, -1).values, values)
    assert (
        np.shares_memory(filled(pa.array(values[:, 0].copy()), 0).values, values) == 0
    )


def test_bools_survive_packing_from_any_start():
    values = np.random.default_rng(0).random((9, 3)) < 0.5
    sliced = lists_of(values).slice(3)
    assert (rectangle(sliced, None, 0).values == values[3:]).all()


def test_fill_widens_a_type_that_cannot_hold_it():
    assert filled(pa.array([200, None], pa.uint8()), -1).values.tolist() == [200, -1]
    assert np.isnan(filled(pa.array([1, None], pa.int8()), np.nan).values[1])


@pytest.mark.parametrize(
    "column, message",
    [
        (pa.array([1, 2]), "must be lists"),
        (pa.array([["a"]]), "must be numbers"),
        (pa.array([[1, 2, 3]]), "at most 2"),
        (pa.array([[None]]), "must be numbers"),
    ],
)
def test_rejects(column, message):
    with pytest.raises(ValueError, match=message):
        rectangle(column, 2, 0)
