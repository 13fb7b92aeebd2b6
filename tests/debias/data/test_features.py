"""Tests of debias.data.features."""

from decimal import Decimal

import pandas
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from debias.data.features import read_features
from debias.retrieval.data.interactions import FeatureTable

TABLE = pa.table(
    {
        "sku": [3, 4],
        "year": [1999, None],
        "price": [0.5, None],
        "tags": [["x", "y"], None],
    }
)


def test_kinds_follow_the_columns_of_parquet(tmp_path):
    pyarrow.parquet.write_table(TABLE, tmp_path / "items.parquet")
    raw = read_features(tmp_path / "items.parquet", "sku")
    schema = FeatureTable.build(raw).schema
    kinds = {name: about["kind"] for name, about in schema.items()}
    assert kinds == {
        "id": "categorical",
        "year": "categorical",
        "price": "numeric",
        "tags": "multivalued",
    }


def test_csv_columns_are_numbers_only_if_all_values_are(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("id,year,price,size\n1,1999,1,1.5\n2,,2.5,XL\n")
    found = read_features(path)
    assert found == {
        "id": ["1", "2"],
        "year": ["1999", None],
        "price": [1.0, 2.5],
        "size": ["1.5", "XL"],
    }
    assert list(read_features(path, features=["p*"])) == ["id", "price"]


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.binary(), pa.uint64()]
)
def test_ids_of_any_type(kind):
    ids = pa.array(["3", "4"]).cast(kind)
    assert read_features(pa.table({"id": ids, "x": ids}))["id"] == ["3", "4"]
    coded = pa.table({"id": ids.cast(pa.string()).dictionary_encode(), "x": [1, 2]})
    assert read_features(coded)["id"] == ["3", "4"]


def test_decimals_are_numbers_and_null_in_a_list_is_missing():
    rows = {
        "id": [1.0, 2.0],  # what a data frame makes of whole numbers
        "price": [Decimal("0.25"), None],
        "tags": [["x", None], None],
    }
    raw = read_features(pa.table(rows))
    assert raw["id"] == ["1", "2"] and raw["tags"] == [["x", None], []]
    assert [type(price) for price in raw["price"]] == [float, float]
    table = FeatureTable.build(raw)
    assert table.columns["price"].tolist() == [0.25, 0.0]
    assert table.vocabularies["tags"].tolist() == ["x"]
    with pytest.raises(ValueError, match="column id must be text in UTF-8 or whole nu"):
        read_features(pa.table({**rows, "id": [1.5, 2.0]}))


def test_lists_hold_categories_and_no_fractions():
    lists = pa.array([[3.0, float("nan"), None], [4.0]], pa.list_(pa.float64()))
    assert read_features(pa.table({"id": [1, 2], "tags": lists}))["tags"] == [
        [3, None, None],
        [4],
    ]
    with pytest.raises(ValueError, match=r"column v .*holds 0\.5.*a column each"):
        read_features(pa.table({"id": [1, 2], "v": [[1.0, 0.5], [2.0, 3.0]]}))


def test_a_table_may_only_list_the_ids():
    assert read_features(pa.table({"sku": [7, 8]}), "sku") == {"id": ["7", "8"]}


@pytest.mark.parametrize("suffix", ["frame", "csv", "parquet", "arrow"])
def test_whole_numbers_with_gaps_are_names_wherever_they_come_from(tmp_path, suffix):
    columns = {"id": [7, 8], "brand": [3, None], "price": [1.5, None], "size": [2, 4]}
    frame, path = pandas.DataFrame(columns), tmp_path / f"items.{suffix}"
    frame = frame.astype({"id": float, "size": float})
    assert frame.brand.dtype == float
    source = {"frame": frame, "arrow": pa.table(columns)}.get(suffix, path)
    if suffix == "csv":
        frame.to_csv(path, index=False)
        assert path.read_text().endswith("\n7.0,3.0,1.5,2.0\n8.0,,,4.0\n")
    elif suffix == "parquet":
        frame.to_parquet(path)
    raw = read_features(source)
    assert raw["id"] == ["7", "8"] and raw["brand"] == [3, None]
    table = FeatureTable.build(raw)
    assert table.vocabularies["brand"].tolist() == ["3"]
    kind = "categorical" if suffix == "arrow" else "numeric"  # 2.0 and 4.0, no gap
    kinds = {name: about["kind"] for name, about in table.schema.items()}
    assert (kinds["size"], kinds["price"]) == (kind, "numeric")
    asked = read_features(source, numbers=["brand"])
    assert FeatureTable.build(asked).schema["brand"] == {"kind": "numeric"}


def test_an_id_has_one_row():
    rows = pa.table({"id": ["b", "a", "b"], "x": ["1", "2", "3.5"]})
    with pytest.raises(ValueError, match="repeats 'b' at row 2"):
        read_features(rows)


def test_times_beyond_all_calendars_name_their_column():
    far = pa.array([2**62], pa.timestamp("s"))
    with pytest.raises(ValueError, match="table: column x has an invalid value"):
        read_features(pa.table({"id": ["a"], "x": far}))


def test_parts_must_be_alike(tmp_path):
    for number, x in enumerate((["a"], [1])):
        table = pa.table({"id": [f"i{number}"], "x": x})
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet")
    with pytest.raises(ValueError, match=r"1\.parquet: column x holds int64, and str"):
        read_features(tmp_path)
    for ids in ([[1]], [b"\xe9"], [{"a": 1}]):
        with pytest.raises(ValueError, match="table: column id must be text in UTF-8"):
            read_features(pa.table({"id": ids, "x": [1]}))


@pytest.mark.parametrize(
    "text, options, message",
    [
        ("id,x\n1,2\n", {"id": "ids"}, "no column ids of ids: did you mean id"),
        ("id,x\n1,2\n", {"features": ["y"]}, "no column y"),
        ("id,x\n1,2\n,3\n", {}, "column id is empty at row 1"),
        ("id,x\n1,2\n3,4\n1,2\n", {}, "repeats '1' at row 2"),
        ("id,x\n1,2\n3\n", {}, "row 1"),
        ("id,x\n1,2\n", {"numbers": ["y"]}, "no column y of numbers"),
        ("id,x\n1,a\n", {"numbers": ["x"]}, "column x has an invalid value"),
        ("sku,id\n1,2\n", {"id": "sku"}, "column id has the name.*in column sku"),
        ("id,x\n1,1.5\n2,inf\n", {}, "column x holds inf at row 1"),
        ("id,x\n1,-4e38\n2,1.5\n", {}, r"column x holds -4e\+38 at row 0"),
    ],
)
def test_rejects(tmp_path, text, options, message):
    path = tmp_path / "items.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"items.csv.*{message}"):
        read_features(path, **options)


@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
def test_many_whole_numbers_are_categories_which_is_said_or_numbers(text):
    whole = [str(n) if text else n for n in range(101)]
    table = pa.table(
        {"id": range(101), "price": whole, "size": [n % 9 for n in range(101)]}
    )
    said = []
    raw = read_features(table, notice=said.append)
    assert raw["price"] == whole and len(said) == 1
    assert said[0].startswith("table: column price holds 101 different whole numbers")
    raw = read_features(table, numbers=["price"], notice=said.append)
    assert raw["price"] == [float(n) for n in range(101)] and len(said) == 1
    assert FeatureTable.build(raw).schema["price"] == {"kind": "numeric"}


def test_categories_of_which_each_row_has_its_own_are_said():
    rows = range(25)
    table = pa.table(
        {
            "id": rows,
            "title": [f"Crème {n}" for n in rows],
            "price": [f"{n},99" if n < 23 else None for n in rows],
            "brand": [f"b{n % 19}" for n in rows],
            "size": [n + 0.5 for n in rows],
            "none": pa.nulls(25),
            "tags": [[f"t{n}"] for n in rows],
        }
    )
    said = []
    read_features(table, notice=said.append)
    title, price = said
    assert title.startswith("table: column title holds 25 different values in 25 rows")
    assert "column price holds 23 different values in 23 rows, such as '0,99'" in price
