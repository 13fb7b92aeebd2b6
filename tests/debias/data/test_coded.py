"""Columns of any type as features of a log, from every format alike."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from debias.data import coded, pairs
from debias.data.by_name import matrix
from debias.data.kinds import Feature
from debias.data.read_log import Columns, read_log

COLUMNS = Columns(features="f_*", query=None)
BASE = {
    "session": ["s", "s", "t", "t"],
    "item": ["a", "b", "c", "d"],
    "click": [0, 1, 0, 0],
}


def read(columns, **more):
    return read_log(pa.table({**BASE, **columns}), COLUMNS, **more)


def kinds(reading):
    return {each.name: each.kind for each in reading.data.kinds}


SHOP = {
    "f_brand": ["acme", "birch", None, "acme"],
    "f_price": [1.5, None, 2.5, 4.0],
    "f_stock": [True, False, None, True],
    "f_size": [38, 39, 38, None],
    "f_since": ["1970-01-02", "1970-01-03", None, "1970-01-01"],
}


@pytest.mark.parametrize("form", ["memory", "parquet", "csv", "jsonl"])
def test_text_gaps_booleans_and_dates_from_every_format(form, tmp_path):
    table = pa.table({**BASE, **SHOP})
    source = table if form == "memory" else tmp_path / f"log.{form}"
    if form == "parquet":
        pq.write_table(table, source)
    elif form == "csv":
        pyarrow.csv.write_csv(table, source)
    elif form == "jsonl":
        lines = (json.dumps(row) + "\n" for row in table.to_pylist())
        source.write_text("".join(lines))
    found = read_log(source, COLUMNS)
    assert found.data.kinds == (
        Feature("f_brand", "category", ("acme", "birch")),
        Feature("f_price"),
        Feature("f_stock", "boolean"),
        Feature("f_size"),
        Feature("f_since", "date"),
    )
    nan = np.nan
    expected = [
        [2, 1.5, 1, 38, 1],
        [3, nan, 0, 39, 2],
        [0, 2.5, nan, 38, nan],
        [2, 4.0, 1, nan, 0],
    ]
    np.testing.assert_array_equal(found.data.features, np.array(expected, np.float32))


def test_types_of_numbers_dates_and_lists():
    zone = timezone(timedelta(hours=2))
    found = read(
        {
            "f_cost": [Decimal("5.50"), None, Decimal("6.00"), Decimal("7.25")],
            "f_day": [date(1970, 1, 3), None, date(1969, 12, 31), date(1970, 1, 1)],
            "f_at": [datetime(1970, 1, 1, 14, tzinfo=zone)] * 4,
            "f_tags": [["x", None, "y"], [], None, ["y"]],
            "f_vector": [[1.0, 2.0]] * 4,
        }
    )
    assert kinds(found) == {
        "f_tags": "categories",
        "f_cost": "number",
        "f_day": "date",
        "f_at": "date",
        "f_vector[0]": "number",
        "f_vector[1]": "number",
    }
    tags, cost, day, at, *_ = np.split(found.data.features, [3, 4, 5, 6], axis=1)
    assert tags.tolist() == [[2, 0, 3], [0, 0, 0], [0, 0, 0], [3, 0, 0]]
    np.testing.assert_array_equal(cost.ravel(), [5.5, np.nan, 6, 7.25])
    np.testing.assert_array_equal(day.ravel(), [2, np.nan, -1, 0])
    assert at.ravel().tolist() == [0.5] * 4


def test_what_a_column_is_can_be_said():
    table = pa.table({**BASE, "f_zip": ["01", "02", "01", "3"], "f_n": [7, 7, 8, 9]})
    plain = read_log(table, COLUMNS)
    assert plain.data.kinds is None  # numbers, all there
    assert plain.data.features[:, 0].tolist() == [1, 2, 1, 3]
    said = Columns.of(["query=", "features=f_n", "categories=f_zip,f_n"])
    found = read_log(table, said).data
    assert found.kinds == (
        Feature("f_n", "category", ("7", "8", "9")),
        Feature("f_zip", "category", ("01", "02", "3")),
    )
    words = table.append_column("f_word", [["a", "1", "b", "c"]])
    with pytest.raises(ValueError, match=r"column f_word .features. must be a finite"):
        read_log(words, Columns(features="f_*", numbers="f_word", query=None))


def test_a_word_among_numbers_is_an_error_and_a_number_among_words_is_none():
    values = {"f_n": ["1", "2", "many", "4"]}
    with pytest.raises(ValueError, match=r"got 'many' at row 2; write a number.*categ"):
        read(values)
    assert kinds(read({"f_n": ["a", "b", "3", "c"]})) == {"f_n": "category"}


def test_null_in_a_list_of_numbers_is_missing_and_a_short_list_is_refused():
    vectors = [[1.0, None], [2.0, 3.0], None, [2.0, 2.0]]
    found = read({"f_v": vectors}).data
    rows = {tuple(row) for row in np.nan_to_num(found.features, nan=-1).tolist()}
    assert rows == {(1, -1), (2, 3), (-1, -1), (2, 2)}
    raw = pa.table({"f_v": pa.array([None, [None, 7]], pa.list_(pa.int64()))})
    again = matrix(raw, ["f_v[0]", "f_v[1]"], kinds=found.kinds)
    np.testing.assert_array_equal(again, np.array([[np.nan, np.nan], [np.nan, 7]]))
    with pytest.raises(ValueError, match=r"column f_v .* lacks number 1 of 2 at row 2"):
        read({"f_v": [[1, 2], [1, 2], [1], [1, 2]]})


def test_a_category_of_more_values_than_a_vocabulary_holds_is_said(monkeypatch):
    monkeypatch.setattr(pairs, "MOST", 2)
    monkeypatch.setattr(coded, "MOST", 2)
    (said,) = read({"f_id": ["a", "b", "a", "c"]}).notices
    assert "column f_id (features) is a category of 3 values, more than 2" in said
    assert "from row 3 of table on" in said
    (said,) = read({"f_ids": [["a"], None, ["a", "b", "c"], ["d"]]}).notices
    assert "is a category of 4 values" in said and "from row 2 of table on" in said
    assert not read({"f_id": ["a", "b", "b", "a"]}).notices


def test_text_in_one_shard_and_numbers_in_the_next_are_a_category(tmp_path):
    for part, sizes in enumerate((["S", "M", "L", "M"], [38, 39, 38, 40])):
        rows = {**BASE, "session": [f"{part}{s}" for s in BASE["session"]]}
        rows["item"] = [f"{part}{i}" for i in BASE["item"]]
        pq.write_table(
            pa.table({**rows, "f_size": sizes}), tmp_path / f"{part}.parquet"
        )
    (feature,) = read_log(tmp_path, COLUMNS).data.kinds
    assert feature.values == ("S", "M", "L", "38", "39", "40")


def test_a_column_that_becomes_text_far_below_is_read_again(monkeypatch):
    monkeypatch.setattr("debias.data.tables.BATCH", 2)
    gone = {"f_a": [None, None, "x", "y"], "f_b": ["true", "false", "maybe", None]}
    found = read(gone)
    assert [each.values for each in found.data.kinds] == [
        ("x", "y"),
        ("true", "false", "maybe"),
    ]


def test_long_lists_are_cut_and_empty_columns_left_out_and_both_are_said():
    found = read(
        {"f_t": [[str(i) for i in range(20)], ["1"], [], []], "f_e": [None] * 4}
    )
    assert found.data.features.shape == (4, 16)
    empty, cut = found.notices
    assert "f_e (features) is NULL in every row" in empty
    assert "f_t (features) lists more than 16 values in 1 rows" in cut


def test_dates_that_are_not_iso_are_categories_and_that_is_said():
    dates = ["31.01.2026", "1.2.2026", None, "28.02.2026"]
    found = read({"f_d": dates, "f_since": ["2026-01-31", None, "2026-02-01", None]})
    assert kinds(found) == {"f_d": "category", "f_since": "date"}
    (notice,) = found.notices
    assert "f_d (features) holds dates such as '31.01.2026'" in notice


def test_what_can_be_no_feature_is_refused():
    with pytest.raises(ValueError, match=r"f_s .features. holds struct.*leave it out"):
        read({"f_s": [{"a": 1}] * 4})
    far = pa.array([2**62] * 4, pa.timestamp("s"))
    for values in ([[["a"]]] * 4, far):
        table = pa.table({**BASE, "f_c": values})
        with pytest.raises(ValueError, match=r"f_c .features. must be text or number"):
            read_log(table, Columns(categories="f_c", query=None))
    with pytest.raises(ValueError, match=r"f_n .features. must be finite, got inf"):
        read({"f_n": [1.0, np.inf, 2.0, 3.0]})


# Features of the impression

PRICES = {
    "session": ["s", "s", "t", "t", "u"],
    "q": ["q", "q", "q", "q", "r"],
    "item": ["a", "b", "b", "a", "a"],
    "click": [0, 1, 0, 0, 1],
    "f_price": [1.0, 2.0, 2.5, 1.0, 1.0],
    "f_kind": ["x", None, None, "x", "x"],
}
BY_QUERY = Columns(query="q", features="f_*")


def test_features_that_change_make_a_row_of_their_own():
    found = read_log(pa.table(PRICES), BY_QUERY)
    assert found.data.features[:, 1].tolist() == [1, 2, 2.5, 1]
    assert found.items.tolist() == ["a", "b", "b", "a"]
    assert found.data.offsets.tolist() == [0, 3, 4]
    assert found.log.item.tolist() == [[0, 1], [2, 0], [3, -1]]
    (note,) = found.notices
    assert "1 of 3 items of a query change" in note and "4 rows of features" in note
    found.log.check(found.data)


def test_examination_is_estimated_by_pairs_whatever_features_change():
    reading = read_log(pa.table(PRICES), BY_QUERY)
    assert reading.pair.tolist() == [0, 1, 1, 2]
    found = reading.by_pair()
    assert found.log.item.tolist() == [[0, 1], [1, 0], [2, -1]]
    assert found.data.features[:, 1].tolist() == [1, 2, 1]
    assert found.data.offsets.tolist() == [0, 2, 3]
    assert found.items.tolist() == ["a", "b", "a"] and found.pair is None
    found.log.check(found.data)


def test_the_first_features_are_kept_where_that_is_said():
    found = read_log(pa.table(PRICES), BY_QUERY, first_features=True)
    assert found.log.item.tolist() == [[0, 1], [1, 0], [2, -1]]
    assert found.data.features[:, 1].tolist() == [1, 2, 1]


def test_many_changes_are_found_by_content_over_batches(monkeypatch):
    monkeypatch.setattr("debias.data.tables.BATCH", 7)
    monkeypatch.setattr("debias.data.versions._OFTEN", 3)
    rng = np.random.default_rng(0)
    rows = {
        "session": np.arange(200) // 4,
        "q": ["q"] * 200,
        "item": np.tile(np.arange(4), 50),
        "click": np.zeros(200, int),
        "f_hour": rng.integers(0, 3, 200).astype(float),
    }
    found = read_log(pa.table(rows), BY_QUERY)
    assert found.data.items == 12  # four items at three hours
    shown = found.data.features[found.log.item.ravel(), 0]
    assert shown.tolist() == rows["f_hour"].tolist()
    assert found.items[found.log.item.ravel()].tolist() == rows["item"].tolist()


# Raw rows


def test_raw_rows_are_encoded_by_the_vocabulary_of_training():
    features = (
        Feature("f_tags", "categories", ("x", "y"), 2),
        Feature("f_size", "category", ("38",)),
        Feature("f_day", "date"),
        Feature("f_v[0]"),
        Feature("f_v[1]"),
    )
    names = ["f_tags[0]", "f_tags[1]", "f_size", "f_day", "f_v[0]", "f_v[1]"]
    raw = pa.table(
        {
            "f_v": [[1.0, 2.0], [3.0, 4.0]],
            "f_day": [None, datetime(1970, 1, 2, tzinfo=UTC)],
            "f_size": [38.0, 41.0],
            "f_tags": [["y", "new", "x"], None],
        }
    )
    found = matrix(raw, names, kinds=features)
    expected = [[3, 1, 2, np.nan, 1, 2], [0, 0, 1, 1, 3, 4]]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    for days, message in (
        (
            ["1970-01-02", "y"],
            "must be a date, got 'y' at row 1; write one such as 2026",
        ),
        (
            [0.5, 1.5],
            "must be dates, got double at row 0; write text such as 2026-01-31",
        ),
    ):
        with pytest.raises(ValueError, match=f"f_day .features. {message}"):
            matrix(raw.set_column(1, "f_day", [days]), names, kinds=features)
    gone = matrix(raw.set_column(1, "f_day", [[None, None]]), names, kinds=features)
    assert np.isnan(gone[:, 3]).all()
