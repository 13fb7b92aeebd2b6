"""Tests of debias.data.by_name."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias.data import RankingData, matrix
from debias.data.by_name import columns_of

TABLE = pa.table(
    {
        "b": [1, 2],
        "name": ["x", "y"],
        "c": pa.array(["3", "4"]).dictionary_encode(),
        "v": [[5.0, 6.0], [7.0, 8.0]],
        "a": [True, False],
    }
)
RIGHT = {"b": [1, 2], "c": [3, 4], "v[0]": [5, 7], "v[1]": [6, 8], "a": [1, 0]}


@settings(deadline=None, max_examples=40)
@given(st.permutations(list(RIGHT)), st.permutations(TABLE.column_names))
def test_any_order_of_columns_gives_the_same_matrix(names, order):
    table = TABLE.select(order)
    expected = np.stack([RIGHT[name] for name in names], axis=1)
    found = matrix(table, names)
    assert found.dtype == np.float32 and found.tolist() == expected.tolist()
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert matrix(chunked, names).tolist() == expected.tolist()
    read = table.select(columns_of(table.schema, names)).to_batches()[0]
    assert matrix(read, names).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 2),
        pa.list_view(pa.float32()),
        pa.large_list_view(pa.float32()),
    ],
)
def test_lists_of_any_layout(kind):
    vectors = pa.array([[5.0, 6.0], [7.0, 8.0]], kind)
    found = matrix(pa.table({"v": vectors}), ["v[1]", "v[0]"])
    assert found.tolist() == [[6, 5], [8, 7]]


@pytest.mark.parametrize(
    "table, names, message",
    [
        (TABLE, ["b", "d"], "table: no feature d: "),
        (TABLE, ["b", "b"], "feature b is requested twice"),
        (TABLE, ["v"], "column v must hold 1 features a row, got 2"),
        (TABLE, ["v[0]"], "column v must hold 1 features a row, got 2"),
        (TABLE, ["v[0]", "v[1]", "v[2]"], "must hold 3 features a row, got 2"),
        (TABLE, ["b[0]"], "no feature b.0."),
        (TABLE, ["name"], "column name .features. must be a .*, got 'x' at row 10"),
        (pa.table({"a": [1.0, None]}), ["a"], "column a .*got NULL at row 11"),
        (pa.table({"a": [1.0, np.inf]}), ["a"], "column a .*finite, got inf at row 11"),
        (pa.table({"v": [[1.0], [np.nan]]}), ["v[0]"], "number 0 .*nan at row 11"),
        (
            pa.table([[1], [2], [3]], names=["a", "b", "a"]),
            ["b", "a"],
            "the feature a comes 2 times",
        ),
    ],
)
def test_says_which_feature_is_wrong(table, names, message):
    with pytest.raises(ValueError, match=message):
        matrix(table, names, start=10)


def test_a_name_that_comes_twice_and_is_not_asked_for_does_no_harm():
    table = pa.table([[1], [2], [3]], names=["a", "b", "a"])
    assert matrix(table, ["b"]).tolist() == [[2.0]]


def test_ranking_data_on_disk_knows_the_names_of_its_list(tmp_path):
    features = np.arange(6).reshape(3, 2)
    data = RankingData(features, None, [0, 3], feature_names=("price", "stock"))
    data.write_parquet(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    found = matrix(table, ["stock", "price"])
    assert found.tolist() == features[:, ::-1].tolist()
    with pytest.raises(ValueError, match="no feature pride: did you mean price"):
        matrix(table, ["pride"])


def test_no_row_gives_no_row():
    assert matrix(TABLE.slice(0, 0), ["a", "v[0]", "v[1]"]).shape == (0, 3)
