"""Reading a log of one's own: every format and shape gives the same log."""

import json
import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from debias.data import ClickLog
from debias.data.read_log import Columns, read_log
from debias.data.summary import summarize

# Three sessions of two queries; item b stands under both, at two positions under q1.
ROWS = {
    "sid": ["s1", "s1", "s2", "s2", "s2", "s3"],
    "q": ["q1", "q1", "q1", "q1", "q1", "q2"],
    "doc": ["a", "b", "b", "c", "a", "b"],
    "rank": [1, 2, 1, 2, 4, 1],
    "clicked": [0, 1, 1, 0, 0, 0],
    "f_0": [1.0, 2.0, 2.0, 3.0, 1.0, 9.0],
    "f_1": [0.5, 0.0, 0.0, 4.0, 0.5, 8.0],
    "grade": [0, 2, 2, 1, 0, 3],
    "device": ["phone", "phone", "tv", "tv", "tv", None],
    "propensity": [0.5, 1.0, 0.25, 1.0, 1.0, 1.0],
}
NAMED = ["session=sid", "query=q", "item=doc", "click=clicked", "position=rank"]
COLUMNS = Columns.of([*NAMED, "features=f_*", "label=grade"])
FLAT = pa.table(ROWS)
LISTS = pa.table(
    {
        "q": ["q1", "q1", "q2"],
        "doc": [["a", "b"], ["b", "c", None, "a"], ["b"]],
        "clicked": [[0, 1], [1, 0, None, 0], [0]],
        "f_0": [[1.0, 2.0], [2.0, 3.0, None, 1.0], [9.0]],
        "f_1": [[0.5, 0.0], [0.0, 4.0, None, 0.5], [8.0]],
        "grade": [[0, 2], [2, 1, None, 0], [3]],
        "device": ["phone", "tv", None],
        "propensity": [[0.5, 1.0], [0.25, 1.0, None, 1.0], [1.0]],
    }
)
LISTED = Columns.of(
    ["query=q", "item=doc", "click=clicked", "features=f_*", "label=grade", "session="]
)


def expected(reading):
    """By hand: pairs are numbered q1 a b c, q2 b."""
    log, data = reading.log, reading.data
    assert log.item.tolist() == [[0, 1, -1, -1], [1, 2, -1, 0], [3, -1, -1, -1]]
    assert log.click.tolist() == [
        [False, True, False, False],
        [True, False, False, False],
        [False] * 4,
    ]
    assert log.query.tolist() == [0, 0, 1]
    assert log.device.tolist() == [1, 2, 0]
    assert reading.devices == ("phone", "tv")
    wanted = [[0.5, 1, 1, 1], [0.25, 1, 1, 1], [1, 1, 1, 1]]
    assert log.logging_propensity.tolist() == wanted
    assert data.features.tolist() == [[1, 0.5], [2, 0], [3, 4], [9, 8]]
    assert data.labels.tolist() == [0, 2, 1, 3] and data.labels.dtype == np.int8
    assert data.offsets.tolist() == [0, 3, 4]
    assert reading.items.tolist() == ["a", "b", "c", "b"]
    assert reading.queries.tolist() == data.qid.tolist() == ["q1", "q2"]
    assert reading.unused == ()


def jsonl(table, path):
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


WRITERS = {
    "parquet": pq.write_table,
    "feather": pyarrow.feather.write_feather,
    "csv": pyarrow.csv.write_csv,
    "csv.gz": lambda t, path: pyarrow.csv.write_csv(t, pa.CompressedOutputStream(path)),
    "jsonl": jsonl,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_log(kind, tmp_path):
    path = tmp_path / f"log.{kind}"
    if kind == "csv.gz":
        with pa.CompressedOutputStream(str(path), "gzip") as file:
            pyarrow.csv.write_csv(FLAT, file)
    else:
        WRITERS[kind](FLAT, path)
    expected(read_log(path, COLUMNS))


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_row_a_session_gives_the_same_log(kind, tmp_path):
    WRITERS[kind](LISTS, tmp_path / f"log.{kind}")
    expected(read_log(tmp_path / f"log.{kind}", LISTED))


def test_lists_in_a_csv_are_text_that_holds_json(tmp_path):
    columns = {}
    for name in LISTS.column_names:
        column = LISTS[name]
        if pa.types.is_list(column.type):
            column = pa.array([json.dumps(each) for each in column.to_pylist()])
        columns[name] = column
    pyarrow.csv.write_csv(pa.table(columns), tmp_path / "lists.csv")
    expected(read_log(tmp_path / "lists.csv", LISTED))


def test_hashed_ids_in_lists_of_a_csv_stay_exact(tmp_path):
    ids = [[2**63 + 5, 2**63 + 6], [7, 2**63 + 5]]
    rows = {"query": ["q", "q"], "item": [json.dumps(each) for each in ids]}
    table = pa.table({**rows, "click": ["[0, 1]", "[0, 0]"]})
    pyarrow.csv.write_csv(table, tmp_path / "lists.csv")
    reading = read_log(tmp_path / "lists.csv")
    assert [int(each) for each in reading.items] == [2**63 + 5, 2**63 + 6, 7]
    assert reading.log.item.tolist() == [[0, 1], [2, 0]]


def test_a_table_in_memory_and_dictionaries():
    expected(read_log(FLAT, COLUMNS))
    expected(read_log(LISTS, LISTED))
    at = FLAT.schema.get_field_index("doc")
    coded = FLAT.set_column(at, "doc", FLAT["doc"].dictionary_encode())
    expected(read_log(coded, COLUMNS))


def test_a_folder_a_glob_and_a_list_of_parts(tmp_path):
    (tmp_path / "log" / "day=2").mkdir(parents=True)
    first, second = tmp_path / "log" / "1.parquet", tmp_path / "log/day=2/2.parquet"
    pq.write_table(FLAT.slice(0, 3), first)  # cuts session s2 in two
    pq.write_table(FLAT.slice(3), second)
    (tmp_path / "log" / "manifest.json").write_text("{}")
    expected(read_log(tmp_path / "log", COLUMNS))
    expected(read_log(str(tmp_path / "log" / "**" / "*.parquet"), COLUMNS))
    expected(read_log([first, second], COLUMNS))


def test_rows_in_any_order_give_the_same_sessions():
    order = np.random.default_rng(0).permutation(len(FLAT))
    mixed = read_log(FLAT.take(order), COLUMNS)
    plain = read_log(FLAT, COLUMNS)

    def sessions(reading):
        names = np.append(reading.items, "-")
        return sorted(map(tuple, names[reading.log.item].tolist()))

    assert sessions(mixed) == sessions(plain)


def test_without_a_position_the_order_of_rows_or_of_the_grid_is_the_rank():
    rows = {"session": [5, 6, 5], "query": [1, 1, 1], "item": [7, 7, 8]}
    table = pa.table({**rows, "click": [True, False, False]})
    assert read_log(table).log.item.tolist() == [[0, 1], [0, -1]]
    grid = table.append_column("row", [[2, 1, 1]]).append_column("column", [[1, 1, 2]])
    found = read_log(grid)
    assert found.items[found.log.item[0]].tolist() == [8, 7]
    assert found.log.row[0].tolist() == [1, 2]


def test_positions_may_count_from_zero_and_end_early():
    from_zero = FLAT.set_column(3, "rank", [[0, 1, 0, 1, 3, 0]])
    expected(read_log(from_zero, COLUMNS, first_position=0))
    short = read_log(FLAT, COLUMNS, list_size=1)
    assert short.items[short.log.item].tolist() == [["a"], ["b"], ["b"]]


def test_features_join_by_item_or_by_query_and_item(tmp_path):
    log = FLAT.select(["sid", "q", "doc", "rank", "clicked"])
    by_item = pa.table({"doc": ["c", "b", "a"], "f_0": [3, 2, 1], "grade": [1, 2, 0]})
    found = read_log(log, COLUMNS, by_item)
    assert found.data.features.ravel().tolist() == [1, 2, 3, 2]
    assert found.data.labels.tolist() == [0, 2, 1, 2]
    by_pair = pa.table(
        {
            "q": ["q2", "q1", "q3", "q1", "q1", "q1"],
            "doc": ["b", "z", "a", "a", "b", "c"],
            "f_0": [9.0, 0.0, 5.0, 1.0, 2.0, 3.0],
        }
    )
    pyarrow.csv.write_csv(by_pair, tmp_path / "items.csv")
    for items in (by_pair, tmp_path / "items.csv"):
        found = read_log(log, COLUMNS, items)
        assert found.data.features.ravel().tolist() == [9, 0, 1, 2, 3, 5]
        assert found.data.offsets.tolist() == [0, 1, 5, 6]
        assert found.queries.tolist() == ["q2", "q1", "q3"]
        assert found.log.query.tolist() == [1, 1, 0]
        shown = found.items[found.log.item]
        assert shown[1, [0, 1, 3]].tolist() == ["b", "c", "a"]


def test_devices_of_a_model_keep_their_numbers():
    found = read_log(FLAT, COLUMNS, devices=("watch", "tv"))
    assert found.log.device.tolist() == [0, 2, 0]


def test_context_users_and_times():
    more = {"when": ["2024-05-01 10:00:00"] * 6, "who": [4, 4, 5, 5, 5, None]}
    table = FLAT
    for name, values in {**more, "hour": [1.0, 1, 2, 2, 2, 3]}.items():
        table = table.append_column(name, [values])
    columns = Columns.of(
        [
            "session=sid",
            "query=q",
            "item=doc",
            "click=clicked",
            "position=rank",
            "timestamp=when",
            "user=who",
            "context=hour",
        ]
    )
    found = read_log(table, columns)
    assert found.log.context.tolist() == [[1], [2], [3]]
    assert found.users.tolist() == [0, 1, -1]
    assert str(found.timestamps[0]).startswith("2024-05-01T10:00:00")
    assert found.data is None and set(found.unused) == {"f_0", "f_1", "grade"}


def test_a_log_that_this_library_wrote_can_be_read_as_any_other(tmp_path):
    log = ClickLog([3, 4], [[8, 9], [9, -1]], [[0, 1], [1, 0]])
    log.write(tmp_path / "own.parquet")
    found = read_log(tmp_path / "own.parquet").log
    assert found.item.tolist() == [[0, 1], [2, -1]]
    assert found.click.tolist() == log.click.tolist()
    pair = pa.list_(pa.int32(), 2)
    row = {"query": [1], "click": [[1, 0]], "propensity": [[0.5, 0]]}
    table = pa.table({**row, "item": pa.array([[3, -1]], pair)})
    assert read_log(table).log.item.tolist() == [[0]]


def test_ids_below_zero_are_items_and_null_is_padding():
    items = [[-5, -1, 3], [3, None, -5], [-(2**63)]]
    clicks = [[1, 0, 0], [0, None, 1], [1]]
    table = pa.table({"query": ["q"] * 3, "item": items, "click": clicks})
    reading = read_log(table)
    assert reading.items.tolist() == [-5, -1, 3, -(2**63)]
    assert reading.log.item.tolist() == [[0, 1, 2], [2, -1, 0], [3, -1, -1]]
    assert reading.log.click.sum() == 3


def changed(column, row, value):
    values = list(ROWS[column])
    values[row] = value
    return pa.table({**ROWS, column: values})


BAD = {
    "click": (
        changed("clicked", 4, 3),
        "clicked .click. must be 0 or 1, got 3 at row 4; write 1 where",
    ),
    "no click": (
        changed("clicked", 2, None),
        "must be 0 or 1, got NULL at row 2; write 0 or 1",
    ),
    "twice": (changed("rank", 4, 2), "second item to a position .* row 4"),
    "zero": (
        changed("rank", 5, 0),
        "count from 1, got 0 at row 5; say first_position=0",
    ),
    "below": (changed("rank", 5, -2), "count from 1, got -2 at row 5; write the rank"),
    "far": (changed("rank", 4, 5000), "position 5000.* at row 4; say list_size"),
    "inf": (
        changed("f_0", 5, np.inf),
        "f_0 .features. must be finite, got inf at row 5",
    ),
    "differs": (changed("grade", 2, 7), "grade .label. is 7 where .* had 2 .* row 2"),
    "grade": (
        changed("grade", 3, 300),
        "grade .label. must be a grade in 0..127.* row 3",
    ),
    "grade below 0": (
        changed("grade", 3, -1),
        "grade .label. must be a grade in 0..127, got -1.* row 3",
    ),
    "queries": (changed("q", 1, "q2"), "q .query. differs from the row .* at row 1"),
    "chance": (changed("propensity", 2, 0.0), "in .0, 1., got 0 at row 2"),
    "null": (changed("doc", 3, None), "doc .item. is NULL at row 3"),
    "empty": (FLAT.slice(0, 0), "has no rows"),
    "missing": (FLAT.rename_columns({"clicked": "clickd"}), "mean clickd"),
}


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("kind", ["memory", "parquet"])
def test_bad_input_names_file_column_and_row(fault, kind, tmp_path):
    table, message = BAD[fault]
    source = table
    if kind == "parquet":
        source = tmp_path / "log.parquet"
        pq.write_table(table, source)
        message = f"log.parquet: .*{message}"
    with pytest.raises(ValueError, match=message):
        read_log(source, COLUMNS)


@pytest.mark.parametrize(
    "column, row, text, message",
    [
        (
            "rank",
            4,
            "three",
            "rank .position. must be a whole number, got 'three' at row 4",
        ),
        ("clicked", 1, "yes", "clicked .click. must be 0 or 1, got 'yes' at row 1"),
        ("f_0", 3, "big", "f_0 .features. must be a finite number, got 'big' at row 3"),
    ],
)
def test_mixed_types_in_csv(column, row, text, message, tmp_path):
    values = [str(value) for value in ROWS[column]]
    values[row] = text
    path = tmp_path / "log.csv"
    pyarrow.csv.write_csv(pa.table({**ROWS, column: values}), path)
    with pytest.raises(ValueError, match=f"log.csv: column {message}; write "):
        read_log(path, COLUMNS)


def test_mixed_types_in_json_and_between_files(tmp_path):
    rows = FLAT.to_pylist()
    rows[4]["rank"] = "three"
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"log\.jsonl: .*column rank .* row 4"):
        read_log(path, COLUMNS)
    rows = LISTS.to_pylist()
    rows[2]["clicked"] = ["yes"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"column clicked .* row 2"):
        read_log(path, LISTED)
    pq.write_table(FLAT, tmp_path / "1.parquet")
    numbers = FLAT.set_column(2, "doc", [[1, 2, 3, 4, 5, 6]])
    pq.write_table(numbers, tmp_path / "2.parquet")


def test_ids_that_are_numbers_in_one_file_and_text_in_another_are_text(tmp_path):
    """As JSON lines are, of which some files hold ids above 2^63."""
    paths = [tmp_path / f"{number}.jsonl" for number in range(2)]
    for path, ids in zip(paths, ([1, 5], [2**63 + 5, 5]), strict=True):
        rows = [
            {"session": path.name, "query": "q", "item": each, "click": 0}
            for each in ids
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reading = read_log(paths)
    assert reading.items.tolist() == ["1", "5", str(2**63 + 5)]
    assert reading.log.item.tolist() == [[0, 1], [2, 1]]
    assert reading.notices == (
        f"{paths[1]}: column item mixes types (int64 in {paths[0]}, string from here "
        "on) at row 0; all are read as text",
    )


def test_damaged_files_and_empty_partitions(tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(FLAT, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"log\.parquet: is not a complete Parquet file"
    ):
        read_log(path, COLUMNS)
    path.write_bytes(whole)
    (tmp_path / "day=2").mkdir()
    with pytest.raises(ValueError, match="day=2: holds no file"):
        read_log(tmp_path, COLUMNS)
    pq.write_table(FLAT.slice(0, 0), tmp_path / "day=2" / "log.parquet")
    with pytest.raises(ValueError, match=r"day=2/log\.parquet: has no rows"):
        read_log(tmp_path, COLUMNS)
    (tmp_path / "log.csv").write_text("sid,q,doc,rank,clicked\ns,q,a,1\n")
    with pytest.raises(ValueError, match=r"log\.csv.*Expected 5 columns"):
        read_log(tmp_path / "log.csv", COLUMNS)
    for kind in ("csv", "jsonl"):
        (tmp_path / f"empty.{kind}").touch()
        with pytest.raises(ValueError, match=f"empty.{kind}: is empty; rem"):
            read_log(tmp_path / f"empty.{kind}", COLUMNS)
    with pytest.raises(FileNotFoundError, match=r"nothing.csv"):
        read_log(tmp_path / "nothing.csv")


def test_odd_files_name_themselves_and_nothing_hangs(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "nothing")
    (tmp_path / "log.txt").write_text("a,b")
    for name, message in (
        ("pipe.csv", "must be a file, is a pipe or a device"),
        ("log.txt", "must end with one of .parquet"),
    ):
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            read_log(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"link\.csv: no such file"):
        read_log(tmp_path)  # not passed over: a part of a log would be missing
    path = tmp_path / "closed.parquet"
    pq.write_table(FLAT, path)
    for kind, reader in (("parquet", "pyarrow.parquet.read_schema"),):

        def closed(*_):  # as root, all files can be read
            raise PermissionError(13, "Failed to open local file")

        monkeypatch.setattr(reader, closed)
        with pytest.raises(PermissionError, match="Permission denied") as caught:
            read_log(tmp_path / f"closed.{kind}")
        assert caught.value.filename == str(path)


@pytest.mark.parametrize("name", ["log", "log.bak", "log.csv", "log.2024", "log.jsonl"])
def test_parquet_and_feather_are_known_by_any_name(name, tmp_path):
    pq.write_table(FLAT, tmp_path / name)
    expected(read_log(tmp_path / name, COLUMNS))
    pyarrow.feather.write_feather(FLAT, tmp_path / name)
    expected(read_log(tmp_path / name, COLUMNS))


@pytest.mark.parametrize("kind", ["parquet", "feather", "csv", "jsonl", "csv.gz"])
@pytest.mark.parametrize("keep", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_truncated_files_name_themselves_or_are_whole_up_to_there(kind, keep, tmp_path):
    path = tmp_path / f"log.{kind}"
    table = pa.concat_tables([FLAT] * 50).set_column(
        0, "sid", [[f"{name} {each}" for each in range(50) for name in ROWS["sid"]]]
    )
    if kind == "csv.gz":
        with pa.CompressedOutputStream(str(path), "gzip") as file:
            pyarrow.csv.write_csv(table, file)
    else:
        WRITERS[kind](table, path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    if kind == "csv" and keep > 0.1:  # a text may end anywhere
        try:
            assert read_log(path, COLUMNS).log.sessions < 150
        except ValueError as error:
            assert str(path) in str(error)
        return
    message = "not a complete gz file" if kind == "csv.gz" else ""
    with pytest.raises(ValueError, match=rf"log\.{kind}.*{message}"):
        read_log(path, COLUMNS)


def test_a_short_line_is_named_by_its_row(tmp_path):
    path = tmp_path / "log.csv"
    lines = ["sid,q,doc,clicked", *["s,q,a,1"] * 3, "s,q,a"]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"log.csv: .*row 3.*Expected 4.*repair that"):
        read_log(path, COLUMNS)


def test_in_csv_names_may_look_like_gaps(tmp_path):
    path = tmp_path / "log.csv"
    rows = ["s1,nan,NA,1,phone", "s1,nan,b,0,phone", "s2,NA,nan,0,NULL", "s3,NA,b,1,"]
    path.write_text("\n".join(["session,query,item,click,device", *rows]))
    found = read_log(path)
    assert found.queries.tolist() == ["nan", "NA"]
    assert found.items.tolist() == ["NA", "b", "nan", "b"]
    assert found.devices == ("phone",) and found.log.device.tolist() == [1, 0, 0]


def test_odd_lists_are_kept_and_said(tmp_path):
    table = pa.table(
        {
            "session": [1, 1, 1, 2, 2, 3, 3],
            "query": ["q"] * 7,
            "item": ["x", "y", "x", "x", "y", "y", "x"],
            "click": [0, 1, 0, 0, 1, 0, 0],
            "rank": [1, 2, 3, 1, 4, 1, 3],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    reading = read_log(tmp_path / "a.parquet", Columns(position="rank"))
    assert reading.log.item[:2].tolist() == [[0, 1, 0, -1], [0, -1, -1, 1]]
    assert reading.notices == (
        f"{tmp_path}/a.parquet: column item shows an item twice in 1 of 3 lists, the "
        "first at row 2; both cells are kept",
        f"{tmp_path}/a.parquet: column rank (position) leaves out ranks in 2 of 3 "
        "lists, the first at row 4; their cells are empty",
    )


def test_no_names_are_no_columns():
    reading = read_log(FLAT, replace(COLUMNS, presentation=(), target=(), context=()))
    expected(reading)


def test_bad_lists_and_joins():
    uneven = LISTS.set_column(2, "clicked", [[[0, 1], [1, 0], [0]]])
    with pytest.raises(
        ValueError, match=r"clicked .click. has 2 entries for 4 .* row 1"
    ):
        read_log(uneven, LISTED)
    nothing = LISTS.set_column(1, "doc", [[["a", "b"], [], ["b"]]])
    with pytest.raises(ValueError, match=r"doc .item. shows no item at row 1"):
        read_log(nothing, LISTED)
    items = pa.table({"doc": ["a", "b"], "f_0": [1.0, 2.0]})
    with pytest.raises(
        ValueError, match=r"doc .item. is 'c', which table lacks.* row 3"
    ):
        read_log(FLAT, COLUMNS, items)
    with pytest.raises(ValueError, match=r"names the same item .* at row 2"):
        read_log(FLAT, COLUMNS, pa.concat_tables([items, items]))
    with pytest.raises(ValueError, match="no column features"):
        read_log(FLAT, Columns.of(["item=doc"]), items)


def test_mapping_of_columns():
    with pytest.raises(
        ValueError, match=r"'itme=x' is not ROLE=COLUMN: did you mean item"
    ):
        Columns.of(["itme=x"])
    foreign = pa.table({"visit": [1], "search": ["a"], "sku": ["x"], "clicked": [1]})
    with pytest.raises(ValueError, match="say query=NAME item=NAME click=NAME"):
        read_log(foreign)
    with pytest.raises(ValueError, match=r"say query=NAME click=NAME \(each"):
        read_log(foreign, Columns(item="sku"))
    with pytest.raises(ValueError, match=r"no column item for item: .* mean sku\?"):
        read_log(foreign.rename_columns(["visit", "query", "sku", "time"]))
    with pytest.raises(ValueError, match=r"rename the column of ids"):
        read_log(FLAT, COLUMNS, items=pa.table({"sku": ["x"], "f_0": [1.0]}))
    with pytest.raises(ValueError, match=r"no column device_ for device.*device"):
        read_log(FLAT, Columns.of([*NAMED, "device=device_"]))


def test_what_cannot_be_trained_on_is_read_and_said():
    silent = FLAT.set_column(4, "clicked", [[0] * 6])
    assert "no click" in summarize(read_log(silent, COLUMNS).log).problems[0]
    single = read_log(FLAT, COLUMNS, list_size=1).log
    assert "one position only" in summarize(single).problems[0]


def test_summary_by_hand():
    found = summarize(read_log(FLAT, COLUMNS).log)
    assert (found.sessions, found.queries) == (3, 2)
    assert (found.items, found.impressions) == (4, 6)
    assert found.shown.tolist() == [3, 2, 0, 1] and found.clicks == 2
    np.testing.assert_array_equal(found.ctr, [1 / 3, 1 / 2, np.nan, 0])
    assert found.moved == 2 / 4  # a and b under q1
    assert found.record()["ctr"][2] is None and found.problems == ()


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path):
    jsonl(FLAT, tmp_path / "log.jsonl")
    row = json.dumps(FLAT.to_pylist()[0]) + "\n"

    def grow(share):
        with (tmp_path / "log.jsonl").open("a") as file:
            file.write(row)

    with pytest.raises(
        ValueError, match=r"log\.jsonl: changed while it was read, from"
    ):
        read_log(tmp_path / "log.jsonl", COLUMNS, progress=grow)


@pytest.mark.parametrize("sign", [";", "|", "\t"])
def test_another_separator_is_named(tmp_path, sign):
    path = tmp_path / "log.csv"
    path.write_text(f"query{sign}item{sign}click\n0{sign}1{sign}1\n")
    with pytest.raises(ValueError, match=r"log.csv: has one column, .* columns by ','"):
        read_log(path)


def test_text_among_the_numbers_of_a_target_is_named(tmp_path):
    for number, value in enumerate((2, "many")):
        row = {"session": number, "query": "q", "item": "x", "click": 1, "cart": value}
        table = pa.Table.from_pylist([row])
        pq.write_table(table, tmp_path / f"{number}.parquet")
    with pytest.raises(ValueError, match=r"1\.parquet: column cart .target. .*a count"):
        read_log(tmp_path, Columns(target="cart"))


def test_names_are_text_and_a_row_is_a_list_or_an_item():
    with pytest.raises(ValueError, match="must be the name of a column, got 0"):
        Columns(features=(0,))
    with pytest.raises(ValueError, match="each row is a list, but here it is an item"):
        read_log(FLAT, replace(COLUMNS, session=None))
