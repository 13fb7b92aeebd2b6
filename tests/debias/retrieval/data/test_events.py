"""Tests of debias.retrieval.data.events: streams that grow, stop, lie and repeat."""

import datetime
from decimal import Decimal

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias.retrieval.data.events import (
    EventColumns,
    Events,
    append_events,
    pending,
    read_all,
    read_events,
)
from debias.retrieval.data.interactions import FeatureTable, Interactions, from_columns

USERS = FeatureTable.build({"id": ["a", "b"], "age": ["old", "young"]})
ITEMS = FeatureTable.build(
    {"id": ["p", "q"], "tags": [["x", "y"], []], "price": [1.5, 2.5]}
)
LOG = Interactions(*np.array([[0, 1, 0], [0, 0, 1], [5, 6, 9]]), USERS, ITEMS)


def events(*triples):
    user, item, time = zip(*triples, strict=True)
    return Events(np.array(user, str), np.array(item, str), np.array(time))


def table(count=5):
    rows = range(count)
    names = [[f"{kind}{row % 3}" for row in rows] for kind in "ui"]
    return pa.table({"user": names[0], "item": names[1], "time": list(rows)})


def triples(found):
    return list(zip(*(column.tolist() for column in found[:3]), strict=True))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_reads_by_column_mapping(tmp_path, suffix):
    path = tmp_path / f"events.{suffix}"
    given = pa.table(
        {"who": [7, 8], "what": ["p", "q"], "when": [3, 4], "more": [0, 0]}
    )
    if suffix == "csv":
        pyarrow.csv.write_csv(given, path)
    elif suffix == "parquet":
        pyarrow.parquet.write_table(given, path)
    else:
        path.write_text(
            '{"who": 7, "what": "p", "when": 3}\n{"who": 8, "what": "q", "when": 4}\n'
        )
    ((name, found),) = read_events(path, EventColumns("who", "what", "when"))
    assert name == str(path)
    assert triples(found) == [("7", "p", 3), ("8", "q", 4)]


@pytest.mark.parametrize("suffix", ["frame", "csv", "parquet", "jsonl"])
def test_ids_that_a_data_frame_made_fractions_of_are_whole(tmp_path, suffix):
    """Whole numbers with a gap, of which the row without an id was then removed."""
    frame = pandas.DataFrame(
        {"user": [7, None, 8], "item": [1, 2, 3], "time": [1, 2, 3]}
    )
    frame, path = frame.dropna().reset_index(drop=True), tmp_path / f"events.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
        assert path.read_text() == "user,item,time\n7.0,1,1\n8.0,3,3\n"
    elif suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    ((_, found),) = read_events(frame if suffix == "frame" else path)
    assert triples(found) == [("7", "1", 1), ("8", "3", 3)]


def test_other_ids_are_as_they_are_written():
    names = ["007", "007.0", "7.50", "v1.0", "-0.0", "-3.0", "10.0", "1.0.0"]
    given = pa.table({"user": names, "item": names, "time": [1] * len(names)})
    ((_, found),) = read_events(given)
    expected = ["007", "007.0", "7.50", "v1.0", "-0.0", "-3", "10", "1.0.0"]
    assert found.item.tolist() == expected


@pytest.mark.parametrize(
    "times, expected",
    [
        (pa.array([1.9, -3.0]), [1.9, -3]),
        (pa.array([4.0, -3.0]), [4, -3]),
        (pa.array(["12", "7.5"]), [12, 7.5]),
        (pa.array([Decimal("2.50"), Decimal("3.00")]), [2.5, 3]),
        (pa.array(["1970-01-01 00:01:00", "1970-01-02 00:00:00"]), [60, 86400]),
        (pa.array([datetime.datetime(1970, 1, 1, 1)] * 2), [3600, 3600]),
        (
            pa.array(["1970-01-01T00:01:00.25Z", "1970-01-01T00:01:00Z"]),
            [60.25, 60],
        ),
        (pa.array([60_000_001, 60_000_000], pa.timestamp("us")), [60.000001, 60]),
        (pa.array([2**60, 2**60 + 1]), [2**60, 2**60 + 1]),
        (pa.array([2**60, 2**60 + 1], pa.uint64()), [2**60, 2**60 + 1]),
        (pa.array(["60", "61"], pa.large_string()), [60, 61]),
    ],
    ids=str,
)
def test_times_are_numbers_or_seconds(times, expected):
    given = pa.table({"user": ["u", "v"], "item": ["i", "j"], "time": times})
    ((_, found),) = read_events(given)
    assert found.time.tolist() == expected
    whole = all(isinstance(time, int) for time in expected)
    assert found.time.dtype == (np.int64 if whole else np.float64)


@pytest.mark.parametrize(
    "column, values, message",
    [
        ("time", [1.0, float("nan"), 2.0], "column time.*got nan at row 1"),
        ("time", [1, None, 2], "column time .*NULL at row 1; repair or remove the row"),
        ("item", [b"i", b"\xff", b"j"], r"column item is not UTF-8.*\\xff.* at row 1"),
        ("time", [[1], [2], [3]], "column time .*name another column for time"),
        ("time", ["1", "2", "soon"], "column time.*'soon' at row 2"),
        ("user", ["u", None, "v"], "column user is empty at row 1"),
        ("item", ["", "i", "j"], "column item is empty at row 0; fill or remove"),
        ("item", [1, 2, None], "column item is empty at row 2; fill or remove"),
        ("user", [1.0, float("nan"), 2.0], "column user is empty at row 1; fill or"),
        ("user", [1.0, 2.5, 2.0], "column user must be a whole number.*2.5 at row 1"),
    ],
)
def test_rejects_values_by_file_column_and_row(column, values, message):
    columns = {name: ["a", "b", "c"] for name in ("user", "item")}
    columns |= {"time": [1, 2, 3], column: values}
    with pytest.raises(ValueError, match=f"^table.*{message}"):
        list(read_events(pa.table(columns)))


def test_times_of_two_units_are_refused_within_and_across_files(tmp_path):
    now = 1_700_000_000
    for name, times in (("a", [now, 0]), ("b", [now + 1, 1000 * now])):
        path = tmp_path / f"{name}.csv"
        path.write_text("user,item,time\n" + "".join(f"u,i,{t}\n" for t in times))
    said = r"b\.csv: column time at row 1 holds milliseconds.*earlier times are seconds"
    with pytest.raises(ValueError, match=said):
        list(read_events(str(tmp_path)))
    (tmp_path / "b.csv").write_text("user,item,time\nu,i,2023-11-14T22:13:20Z\n")
    assert [e.time.tolist() for _, e in read_events(str(tmp_path))] == [[now, 0], [now]]


def test_an_increment_of_another_unit_is_refused():
    now = 1_700_000_000
    log = append_events(LOG, events(("a", "p", now))).log
    later = append_events(log, events(("a", "q", now + 1), ("b", "p", 7)))  # 7: no unit
    assert later.events == 2
    said = "new event 1 holds microseconds.*the times of the log are seconds"
    with pytest.raises(ValueError, match=said):
        append_events(log, events(("a", "q", 7), ("a", "q", now * 10**6)))


def test_rejects_a_missing_column_and_says_which_is_near():
    with pytest.raises(ValueError, match=r"no column user.*did you mean users"):
        list(read_events(table().rename_columns(["users", "item", "time"])))


@pytest.mark.parametrize("suffix, left", [("csv", 3), ("csv", 1), ("parquet", 40)])
def test_a_file_cut_in_the_middle_is_an_error(tmp_path, suffix, left):
    path = tmp_path / f"events.{suffix}"
    if suffix == "csv":
        pyarrow.csv.write_csv(table(), path)
    else:
        pyarrow.parquet.write_table(table(), path)
    path.write_bytes(path.read_bytes()[:-left])
    with pytest.raises(
        ValueError, match=f"events.{suffix}.*(no line ending|not a complete|in row 4)"
    ):
        list(read_events(path))


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), max_size=4), st.integers(1, 5))
def test_lots_begun_from_any_mark_hold_every_event_once(stops, most):
    marks, found = {}, []
    for stop in [*sorted(stops), 12]:  # the file grows between the runs
        for lot, after in pending(table(stop), marks, max_events=most):
            assert 1 <= len(lot.user) <= most
            found += triples(lot)
            marks = after
    assert found == triples(next(read_events(table(12)))[1])
    assert list(pending(table(12), marks)) == []


def test_new_files_are_read_from_their_beginning(tmp_path):
    pyarrow.csv.write_csv(table(3), tmp_path / "b.csv")
    (_, marks), *_ = pending(tmp_path, {})
    pyarrow.csv.write_csv(table(2), tmp_path / "a.csv")
    ((lot, after),) = pending(tmp_path, marks)
    assert len(lot.user) == 2 and len(after) == 2
    assert after[str(tmp_path / "b.csv")] == marks[str(tmp_path / "b.csv")]


@pytest.mark.parametrize("rows", [[0, 1], [1, 0, 2, 3]], ids=["shorter", "changed"])
def test_rejects_a_file_whose_applied_rows_have_changed(rows):
    (_, marks), *_ = pending(table(3), {})
    with pytest.raises(ValueError, match="its first 3 rows have changed"):
        list(pending(table(5).take(rows), marks))


def test_a_fraction_that_comes_later_leaves_the_marks_of_whole_times_valid():
    times = [3.0, 4.0, 4.5]
    rows = {"user": ["u", "v", "w"], "item": ["i", "i", "i"], "time": times}
    ((_, marks),) = pending(pa.table(rows).slice(0, 2), {})
    ((lot, _),) = pending(pa.table(rows), marks)
    assert triples(lot) == [("w", "i", 4.5)]
    assert append_events(LOG, lot).log.time.tolist() == [5, 6, 9, 4.5]


def takes(folder):
    """Events of which 007 and 7 are users, times within a second, items come twice."""
    path = folder / "takes.csv"
    rows = [f"{u:03d},i{(7 * u + j * j) % 30},{1.7e9 + 100 * u + j / 10}"
            for u in range(60) for j in range(12)]  # fmt: skip
    rows += ["007,i3,1700100000.9", "7,i4,1700100000.1"]
    rows += ["000,i0,1700100001", "000,i0,1700100002"]
    path.write_text("\n".join(["user,item,time", *rows]) + "\n")
    return path


def test_ids_and_times_are_read_as_they_are_written(tmp_path):
    log = from_columns(*read_all(takes(tmp_path))[:3])
    assert (len(log), len(log.users), len(log.items)) == (724, 61, 30)
    names = log.users.vocabularies["id"].tolist()
    assert {"007", "7"} <= set(names)
    _, counts = np.unique(np.stack([log.user, log.item]), axis=1, return_counts=True)
    assert (counts > 1).sum() == 121
    # Twelve takes within two seconds, in order of their tenths; then one a day later.
    history, _ = log.histories(13, np.array([names.index("007")]))
    items = [log.items.vocabularies["id"][code - 2] for code in history[0]]
    expected = [f"i{(49 + j * j) % 30}" for j in range(12)]
    assert items == ["i3", *reversed(expected)]


def test_events_join_in_any_order_of_time():
    taken = append_events(LOG, events(("a", "q", 2), ("b", "q", 1)))
    assert (taken.events, taken.duplicates, taken.users, taken.items) == (2, 0, 0, 0)
    assert taken.log.time.tolist() == [5, 6, 9, 2, 1]
    history, _ = taken.log.histories(3, np.array([0, 1]))
    assert history.tolist() == [[3, 2, 3], [2, 3, 0]]  # by time, not by arrival


def test_a_clock_that_goes_back_changes_no_history_and_is_counted():
    rng = np.random.default_rng(0)
    rows = [
        (f"u{u}", f"i{i}", t) for t, (u, i) in enumerate(rng.integers(4, size=(40, 2)))
    ]
    empty = Interactions(*np.zeros((3, 0), int), *[FeatureTable.build({"id": []})] * 2)
    straight = append_events(empty, events(*rows)).log
    mixed, late = empty, 0
    latest = {}
    for part in np.array_split(rng.permutation(40), 5):
        lot = [rows[row] for row in part]
        taken = append_events(mixed, events(*lot))
        late += sum(t < latest.get(u, -1) for u, _, t in lot)
        for u, _, t in lot:
            latest[u] = max(t, latest.get(u, -1))
        mixed = taken.log
        assert taken.events == 8
        late -= taken.late
    assert late == 0
    for user in range(4):
        found = []
        for log in (straight, mixed):
            row = log.users.vocabularies["id"].tolist().index(f"u{user}")
            codes = log.histories(40, np.array([row]))[0][0]
            words = log.items.vocabularies["id"]
            found.append([words[code - 2] for code in codes if code])
        assert found[0] == found[1]


def test_a_late_event_beyond_the_window_stays_taken():
    log = append_events(LOG, events(("a", "p", 20), ("a", "r", 30))).log.latest(2)
    taken = append_events(log, events(("a", "s", 1)))
    short = taken.log.latest(2)
    assert taken.late == 1
    words = short.items.vocabularies["id"]
    assert sorted(words[short.item[short.user == 0]]) == ["p", "r"]
    assert sorted(set(words[short.seen(np.array([0]))[0]])) == ["p", "q", "r", "s"]


def test_duplicates_count_once_whether_old_or_new():
    taken = append_events(LOG, events(("b", "p", 6), ("a", "p", 7), ("a", "p", 7)))
    assert (taken.events, taken.duplicates) == (1, 2)
    assert taken.log.time.tolist() == [5, 6, 9, 7]
    again = append_events(taken.log, events(("a", "p", 7)))
    assert again.events == 0 and len(again.log) == 4


def test_new_ids_get_rows_in_order_and_unknown_values_the_unknown_code():
    raw = {"id": ["s", "r", "p"], "tags": [["y", "z", "x"], ["x"], []]}
    taken = append_events(
        LOG,
        events(("c", "r", 1), ("c", "t", 2), ("d", "s", 3)),
        items={**raw, "price": [9.0, float("nan"), 7.0]},
    )
    assert (taken.users, taken.items, taken.bare) == (2, 3, 3)
    assert taken.lacks["items"] == {"count": 1, "features": ["tags", "price"]}
    assert taken.lacks["users"] == {"count": 2, "features": ["age"]}
    assert taken.unknown == {"items": {"tags": 1}}  # z, of s
    items = taken.log.items
    assert items.vocabularies["id"].tolist() == ["p", "q", "r", "s", "t"]
    assert items.columns["id"].tolist() == [2, 3, 4, 5, 6]
    # x is 2, y is 3, z is unknown, t is described nowhere; p keeps what it had.
    expected = [[2, 3, 0], [0, 0, 0], [2, 0, 0], [3, 1, 2], [0, 0, 0]]
    assert items.columns["tags"].tolist() == expected
    assert items.columns["price"].tolist() == [1.5, 2.5, 0.0, 9.0, 0.0]
    assert taken.log.users.columns["age"].tolist() == [2, 3, 0, 0]
    assert taken.log.item[-3:].tolist() == [2, 4, 3]


def test_ids_alone_are_not_bare_and_weights_are_one():
    table = FeatureTable.build({"id": ["a"]})
    log = Interactions(
        *np.array([[0], [0], [1]]), table, table, np.array([5.0], "float32")
    )
    taken = append_events(log, events(("z", "z", 2)))
    assert taken.bare == 0 and taken.log.weight.tolist() == [5.0, 1.0]


def test_columns_of_new_features_may_come_in_any_order():
    raw = {"id": ["r"], "tags": [["y"]], "price": [9.0]}
    new = events(("a", "r", 1))
    one, other = (
        append_events(LOG, new, items=table).log.items.columns
        for table in (raw, dict(reversed(raw.items())))
    )
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_whole_numbers_that_became_floats_are_the_categories_they_were():
    items = FeatureTable.build({"id": ["p"], "year": [1999]})
    coded, unknown = items.encode({"id": ["q", "r"], "year": [1999.0, float("nan")]})
    assert coded["year"].tolist() == [2, 0] and unknown["year"] == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"price": None}, r"table of items lacks the features \['price'\]"),
        ({"colour": ["red"]}, r"table of items has the unknown features \['colour'\]"),
        ({"price": ["cheap"]}, "table of items: column 'price' must be numbers, as"),
        ({"tags": [2.5]}, "column 'tags' must be categories.*got 2.5 in row 0"),
    ],
)
def test_a_table_that_lacks_a_feature_or_has_another_is_refused(change, message):
    raw = {"id": ["r"], "tags": [["y"]], "price": [9.0], **change}
    raw = {name: values for name, values in raw.items() if values is not None}
    with pytest.raises(ValueError, match=message):
        append_events(LOG, events(("a", "r", 1)), items=raw)


def test_targets_are_read_told_apart_and_marked():
    """The same user, item and time as a click and as an order are two events."""
    table = pa.table(
        {
            "user": ["a", "a", "b"],
            "item": ["p", "p", "q"],
            "time": [1, 1, 2],
            "what": ["click", "order", "click"],
        }
    )
    columns = EventColumns(target="what")
    ((new, marks),) = pending(table, {}, columns)
    assert new.target.tolist() == ["click", "order", "click"]
    assert not list(pending(table, marks, columns))
    # What was applied as a click is no order now.
    changed = table.set_column(3, "what", [["order", "order", "click"]])
    with pytest.raises(ValueError, match="have changed since they were applied"):
        list(pending(changed, marks, columns))
    log = from_columns(["a"], ["p"], [0], target=["order"])
    with pytest.raises(ValueError, match="target 'click', but the log has 'order'"):
        append_events(log, new)
    with pytest.raises(ValueError, match=r"name their column \(-c target=NAME\)"):
        append_events(log, new._replace(target=None))
    log = from_columns(["a", "a"], ["p", "p"], [0, 1], target=["click", "order"])
    grown = append_events(log, new)
    assert (grown.events, grown.duplicates) == (2, 1)  # the order of time 1 is known
    assert grown.log.target.tolist() == [0, 1, 0, 0]
    assert grown.log.take(grown.log.user == 1).target.tolist() == [0]
    assert Events.of(grown.log).target.tolist() == ["click", "order", "click", "click"]
