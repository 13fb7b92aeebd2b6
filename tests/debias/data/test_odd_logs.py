"""Odd logs of strangers: empty columns, odd types, names that come twice, encodings."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from debias.data import tables
from debias.data.read_log import Columns, read_log
from debias.data.summary import summarize

# Four sessions; every part that a column can play.
ROWS = {
    "session": ["s1", "s1", "s2", "s2", "s3", "s3", "s4", "s4"],
    "query": ["q1"] * 4 + ["q2"] * 4,
    "item": ["a", "b", "b", "a", "c", "d", "d", "é"],
    "click": [0, 1, 1, 0, 0, 0, 1, 0],
    "position": [1, 2, 1, 2, 1, 2, 1, 2],
    "row": [1, 1, 1, 1, 1, 1, 1, 1],
    "column": [1, 2, 1, 2, 1, 2, 1, 2],
    "f_a": [1.0, 2.0, 2.0, 1.0, 3.0, 4.0, 4.0, 5.0],
    "f_b": [0.5, 0.0, 0.0, 0.5, 1.5, 2.5, 2.5, 3.5],
    "label": [0.0, 1.0, 1.0, 0.0, 2.0, 3.0, 3.0, 4.0],
    "timestamp": ["2024-05-01 10:00:00"] * 4 + ["2024-05-02 10:00:00"] * 4,
    "user": ["u", "u", "v", "v", "u", "u", "u", "u"],
    "device": ["tv", "tv", "web", "web", "tv", "tv", "tv", "tv"],
    "hour": [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0],
    "age": [7.0, 7.0, 8.0, 8.0, 9.0, 9.0, 9.0, 9.0],
    "propensity": [0.5, 1.0, 0.25, 1.0, 0.5, 1.0, 0.5, 1.0],
}
COLUMNS = Columns(features="f_*", context=("hour", "age"))
TABLE = pa.table(ROWS)
PLACES = {"f_a": "features", "f_b": "features", "hour": "context", "age": "context"}
REQUIRED = ("session", "query", "item", "click")
OPTIONAL = tuple(name for name in ROWS if name not in REQUIRED)


def jsonl(table, path):
    rows = (json.dumps(row, ensure_ascii=False) for row in table.to_pylist())
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")


WRITERS = {
    "parquet": pq.write_table,
    "feather": pyarrow.feather.write_feather,
    "csv": pyarrow.csv.write_csv,
    "jsonl": jsonl,
}


@pytest.fixture(params=[*WRITERS, "memory"])
def stored(request, tmp_path):
    """From a table to a source of each kind, and what errors call it."""

    def store(table):
        if request.param == "memory":
            return table, "table"
        path = tmp_path / f"log.{request.param}"
        WRITERS[request.param](table, path)
        return path, path.name

    return store


def same(one, other):
    """Whether two readings agree in all that is numbers and names."""
    pairs = [
        *zip(vars(one.log).values(), vars(other.log).values(), strict=True),
        *zip(vars(one.data).values(), vars(other.data).values(), strict=True),
        *zip(one[2:5], other[2:5], strict=True),
    ]
    return all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs if a is not b
    )


def without(name):
    kept = [column for column in ROWS if column != name]
    several = {"features": ("f_a", "f_b"), "context": ("hour", "age")}
    fewer = {r: tuple(n for n in names if n != name) for r, names in several.items()}
    return read_log(TABLE.select(kept), Columns(**fewer))


def nulls(name, kind=None):
    at = TABLE.schema.get_field_index(name)
    kind = kind or TABLE.schema.field(name).type
    return TABLE.set_column(at, name, pa.nulls(len(TABLE), kind))


@pytest.mark.parametrize("name", OPTIONAL)
@pytest.mark.parametrize("kind", [None, pa.null()], ids=["typed", "null"])
def test_a_column_that_is_empty_is_as_if_it_were_not_there(name, kind, stored):
    source, _ = stored(nulls(name, kind))
    reading = read_log(source, COLUMNS)
    assert same(reading, without(name))
    (notice,) = reading.notices  # said once
    assert f"column {name}" in notice and "NULL in every row" in notice
    assert (reading.timestamps is None) == (name == "timestamp")
    assert (reading.users is None) == (name == "user")


@pytest.mark.parametrize("name", REQUIRED)
def test_a_column_that_a_log_cannot_do_without_is_refused_where_it_is_empty(
    name, stored
):
    source, called = stored(nulls(name))
    with pytest.raises(ValueError, match=f"{called}: .*{name} .*NULL at row 0"):
        read_log(source, COLUMNS)


def test_all_features_empty_are_no_features(stored):
    table = nulls("f_a").set_column(
        TABLE.schema.get_field_index("f_b"), "f_b", nulls("f_b")["f_b"]
    )
    source, called = stored(table)
    with pytest.raises(ValueError, match=f"{called}: column f_a .features. is NULL in"):
        read_log(source, COLUMNS)


@pytest.mark.parametrize(
    "name",
    [n for n in ROWS if n not in ("user", "device", "timestamp", "f_a", "f_b")],
)
def test_a_single_gap_names_file_column_and_row_and_does_not_advise_to_remove_it(
    name, stored
):
    at = TABLE.schema.get_field_index(name)
    values = list(ROWS[name])
    values[5] = None
    source, called = stored(TABLE.set_column(at, name, [values]))
    with pytest.raises(ValueError) as caught:
        read_log(source, COLUMNS)
    text = str(caught.value)
    known_as = f"{name} ({PLACES[name]})" if name in PLACES else name
    assert text.split("/")[-1].startswith(f"{called}: column {known_as} ")
    assert "NULL at row 5" in text and "remove" not in text


def test_a_column_that_begins_empty_and_does_not_stay_so(tmp_path):
    for number, table in enumerate([nulls("position"), TABLE]):
        pq.write_table(table, tmp_path / f"{number}.parquet")
    with pytest.raises(
        ValueError, match=r"0\.parquet: column position is NULL in the first rows but"
    ):
        read_log(tmp_path, COLUMNS)
    for number, table in enumerate([TABLE, nulls("position")]):
        pq.write_table(table, tmp_path / f"{number}.parquet")
    with pytest.raises(ValueError, match=r"1\.parquet: column position .* NULL at row"):
        read_log(tmp_path, COLUMNS)


@pytest.mark.parametrize("name", ["user", "device", "timestamp"])
@pytest.mark.parametrize("first", [True, False])
def test_what_may_be_unknown_may_be_empty_in_one_file(name, first, tmp_path):
    tables = [nulls(name), TABLE] if first else [TABLE, nulls(name)]
    for number, table in enumerate(tables):
        sessions = pa.array([f"{number} {each}" for each in ROWS["session"]])
        pq.write_table(
            table.set_column(0, "session", sessions), tmp_path / f"{number}.pq"
        )
    reading = read_log(tmp_path, COLUMNS)
    plain = read_log(TABLE, COLUMNS)
    known = slice(4, 8) if first else slice(0, 4)
    unknown = slice(0, 4) if first else slice(4, 8)
    if name == "device":
        assert reading.log.device[known].tolist() == plain.log.device.tolist()
        assert reading.log.device[unknown].tolist() == [0] * 4
    elif name == "user":
        assert reading.users[known].tolist() == plain.users.tolist()
        assert reading.users[unknown].tolist() == [-1] * 4
    else:
        assert (reading.timestamps[known] == plain.timestamps).all()
        assert np.isnat(reading.timestamps[unknown]).all()
    assert reading.notices == ()


LISTED = {
    "query": ["q1", "q1", "q2", "q2"],
    **{
        name: [values[i : i + 2] for i in range(0, 8, 2)]
        for name, values in ROWS.items()
        if name in ("item", "click", "position", "row", "column", "f_a", "f_b", "label")
        or name == "propensity"
    },
    **{
        name: ROWS[name][::2]
        for name in ("session", "timestamp", "user", "device", "hour", "age")
    },
}
LISTS = pa.table(LISTED)


@pytest.mark.parametrize("name", [name for name in LISTED if name in OPTIONAL])
@pytest.mark.parametrize("kind", ["null lists", "lists of nulls", "null"])
def test_an_empty_column_of_lists(name, kind):
    at = LISTS.schema.get_field_index(name)
    listed = pa.types.is_list(LISTS.schema.field(at).type)
    if kind == "null":
        empty = pa.nulls(4)
    elif listed and kind == "lists of nulls":
        empty = pa.array([[None, None]] * 4, LISTS.schema.field(at).type)
    else:
        empty = pa.nulls(4, LISTS.schema.field(at).type)
    reading = read_log(LISTS.set_column(at, name, empty), COLUMNS)
    assert same(reading, without(name)) and len(reading.notices) == 1


# Types


def text_as(kind):
    return lambda array: array.cast(kind)


TEXTS = {
    "large": text_as(pa.large_string()),
    "view": text_as(pa.string_view()),
    "bytes": text_as(pa.binary()),
    "large bytes": text_as(pa.large_binary()),
    "view of bytes": text_as(pa.binary_view()),
    "dictionary": lambda array: array.dictionary_encode(),
    "runs": lambda array: pa.compute.run_end_encode(array),
}
NUMBERS = {
    "float": text_as(pa.float64()),
    "half": lambda array: pa.array(array.to_numpy().astype(np.float16)),
    "decimal": lambda array: array.cast(pa.float64()).cast(pa.decimal128(10, 2)),
    "uint64": text_as(pa.uint64()),
    "dictionary": lambda array: array.dictionary_encode(),
    "text": text_as(pa.string()),
    "large text": lambda array: array.cast(pa.string()).cast(pa.large_string()),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_of_any_layout(kind):
    table = TABLE
    for name in ("session", "query", "item", "user", "device", "timestamp"):
        array = TEXTS[kind](table[name].combine_chunks())
        table = table.set_column(table.schema.get_field_index(name), name, array)
    assert same(read_log(table, COLUMNS), read_log(TABLE, COLUMNS))


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_any_type(kind):
    table = TABLE
    names = ["click", "position", "row", "column", "label"]
    if kind not in ("uint64",):
        names += ["f_a", "f_b", "hour", "propensity"]
    for name in names:
        array = table[name].combine_chunks()
        whole = np.asarray(array) == np.rint(array)
        array = array.cast(pa.int64()) if kind != "decimal" and whole.all() else array
        array = NUMBERS[kind](array)
        table = table.set_column(table.schema.get_field_index(name), name, array)
    assert same(read_log(table, COLUMNS), read_log(TABLE, COLUMNS))


LAYOUTS = {
    "large": lambda kind: pa.large_list(kind),
    "fixed": lambda kind: pa.list_(kind, 2),
    "view": lambda kind: pa.list_view(kind),
    "large view": lambda kind: pa.large_list_view(kind),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("text", ["string", "string_view", "dictionary"])
def test_lists_of_any_layout(layout, text):
    table = LISTS
    for name in table.column_names:
        at = table.schema.get_field_index(name)
        kind = table.schema.field(at).type
        if not pa.types.is_list(kind):
            continue
        inner = kind.value_type
        if pa.types.is_string(inner):
            inner = {
                "string": pa.string(),
                "string_view": pa.string_view(),
                "dictionary": pa.dictionary(pa.int32(), pa.string()),
            }[text]
        if text == "dictionary" and pa.types.is_dictionary(inner):
            values = pa.array(ROWS[name]).dictionary_encode()
            array = pa.ListArray.from_arrays([0, 2, 4, 6, 8], values)
        else:
            array = pa.array(LISTED[name], LAYOUTS[layout](inner))
        table = table.set_column(at, name, array)
    assert same(read_log(table, COLUMNS), read_log(TABLE, COLUMNS))


def test_ids_above_all_signed_numbers_are_kept():
    ids = pa.array([2**63 + each for each in (0, 1, 1, 0, 2, 3, 3, 4)], pa.uint64())
    reading = read_log(TABLE.set_column(2, "item", ids), COLUMNS)
    assert reading.items.tolist() == [2**63 + each for each in (0, 1, 2, 3, 4)]


TIMES = {
    "iso": ["2024-05-01T10:00:00", "2024-05-01T10:00:00.5"],
    "zulu": ["2024-05-01T10:00:00Z", "2024-05-01 10:00:00.5Z"],
    "zones": ["2024-05-01T12:00:00+02:00", "2024-05-01 06:30:00.500-03:30"],
}
MOMENTS = np.array(["2024-05-01T10:00:00", "2024-05-01T10:00:00.5"], "datetime64[us]")


@pytest.mark.parametrize("kind", [*TIMES, "naive", "aware", "date64"])
def test_times(kind):
    if kind in TIMES:
        values = pa.array(TIMES[kind])
    else:
        types = {
            "naive": pa.timestamp("ns"),
            "aware": pa.timestamp("ms", "Europe/Paris"),
            "date64": pa.date64(),
        }
        values = pa.array(MOMENTS).cast(types[kind], safe=False)
    times = values.take(pa.array([0] * 4 + [1] * 4))
    reading = read_log(TABLE.set_column(10, "timestamp", times), COLUMNS)
    expected = MOMENTS.astype("datetime64[D]") if kind == "date64" else MOMENTS
    assert (reading.timestamps == expected[[0, 0, 1, 1]]).all()


@pytest.mark.parametrize(
    "times, message",
    [
        (["soon"] * 8, "must be a time such as .*, got 'soon' at row 0"),
        (["2024-05-01 10:00:00Z"] * 7 + ["soon"], "got 'soon' at row 7"),
        ([1_700_000_000] * 7 + [1_700_000_000_000], "1700000000000.* at row 7"),
        ([1.7e9] * 7 + [-1.7e18], "is of nanoseconds, at row 7"),
        ([1, 2, 3, 4, 5, 6, 7, 10**9], "is of seconds, at row 7"),
        (["2024-02-30 10:00:00"] * 8, "got '2024-02-30 10:00:00' at row 0"),
        (pa.array([1] * 8, pa.time32("s")), r"times or numbers, got time32\[s\] at"),
        (pa.array([1] * 8, pa.duration("s")), "times or numbers, got duration"),
        ([True] * 8, "times or numbers, got bool"),
        ([[1]] * 8, "times or numbers, got list"),
        ([{"a": 1}] * 8, "times or numbers, got struct"),
    ],
)
def test_what_is_no_time_is_refused(times, message):
    table = TABLE.set_column(10, "timestamp", pa.array(times))
    with pytest.raises(
        ValueError, match=f"table: column timestamp .*{message}.*times?"
    ):
        read_log(table, COLUMNS)


def test_times_beyond_all_calendars_are_no_names_and_no_traceback():
    far = pa.array([2**62] * 8, pa.timestamp("s"))
    for name in ("click", "position", "f_a"):
        at = TABLE.schema.get_field_index(name)
        with pytest.raises(ValueError, match=f"table: column {name}"):
            read_log(TABLE.set_column(at, name, far), COLUMNS)
    reading = read_log(TABLE.set_column(10, "timestamp", far), COLUMNS)
    assert len(reading.timestamps) == 4


def test_times_in_one_file_and_numbers_in_another(tmp_path):
    numbers = TABLE.set_column(10, "timestamp", pa.array(range(8)))
    stamps = TABLE.set_column(10, "timestamp", pa.array(MOMENTS[[0] * 8]))
    for order in ((stamps, numbers), (numbers, stamps)):
        for number, table in enumerate(order):
            pq.write_table(table, tmp_path / f"{number}.parquet")
        with pytest.raises(ValueError, match=r"\d\.parquet: column timestamp holds"):
            read_log(tmp_path, COLUMNS)


@pytest.mark.parametrize("name", [n for n in ROWS if n not in ("timestamp",)])
@pytest.mark.parametrize(
    "values",
    [
        [{"a": 1}] * 8,
        [{"a": 1, "b": [2]}] * 8,
        pa.array([[("a", 1)]] * 8, pa.map_(pa.string(), pa.int64())),
        [[[1]]] * 8,
        pa.array([b"\xff\xfe"] * 8, pa.binary(2)),
        pa.array([b"\xe9t\xe9"] * 8),
    ],
    ids=["struct", "structs", "map", "lists", "fixed bytes", "latin-1"],
)
def test_what_is_no_value_is_refused(name, values):
    at = TABLE.schema.get_field_index(name)
    listed = name == "item" and pa.types.is_list(pa.array(values).type)
    # Of lists of items a row is a session, and clicks must be lists as well.
    at_fault = "click" if listed else name
    with pytest.raises(ValueError, match=f"table: column {at_fault}"):
        read_log(TABLE.set_column(at, name, pa.array(values)), COLUMNS)


# Names


@pytest.mark.parametrize("name", ROWS)
def test_a_name_that_two_columns_have_is_refused(name, stored):
    table = pa.table([*TABLE.columns, TABLE[name]], [*ROWS, name])
    if isinstance(stored(TABLE)[0], pa.Table):
        source, called = table, "table"
    else:
        source, called = stored(TABLE)
        suffix = source.suffix
        if suffix == ".jsonl":
            text = source.read_text(encoding="utf-8")
            source.write_text(text.replace("{", f'{{"{name}": 1, '), encoding="utf-8")
        else:
            if suffix == ".feather":  # Feather's own writer refuses it
                with pa.ipc.new_file(str(source), table.schema) as file:
                    file.write_table(table)
            else:
                WRITERS[suffix[1:]](table, source)
    with pytest.raises(ValueError, match=rf"{called}.*{name}\b.*(rename|row 0)"):
        read_log(source, COLUMNS)


def test_columns_may_be_given_several_times():
    assert Columns.of(["features=f_0", "features=f_1"]).features == ("f_0", "f_1")
    assert Columns.of(["context=a,b", "context=c"]).context == ("a", "b", "c")
    assert Columns.of(["features=f_0", "features="]).features is None
    assert Columns.of(["features=", "features=f_0"]).features == "f_0"
    assert Columns.of(["item=a,b"]).item == "a,b"  # a comma is part of a name
    assert Columns.of(["item=a", "item=a"]).item == "a"
    with pytest.raises(ValueError, match="item must be one column, got 'a' and 'b'"):
        Columns.of(["item=a", "item=b"])
    named = Columns.of(["features=f_b", "features=f_a"])
    assert read_log(TABLE, named).data.feature_names == ("f_b", "f_a")


# Encodings


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("where", ["value", "name"])
def test_bytes_of_another_encoding_name_file_and_row(kind, where, tmp_path):
    path = tmp_path / f"log.{kind}"
    if kind == "parquet":
        if where == "name":
            return
        values = [value.encode("latin-1") for value in ROWS["item"]]
        array = pa.Array.from_buffers(  # what a careless writer leaves
            pa.string(), 8, pa.array(values).buffers()
        )
        pq.write_table(TABLE.set_column(2, "item", array), path)
    else:
        WRITERS[kind](TABLE, path)
        text = path.read_text(encoding="utf-8")
        if where == "name":
            text = text.replace("item", "itém")
        path.write_bytes(text.encode("latin-1"))
    row = 7 if where == "value" else "header" if kind == "csv" else 0
    with pytest.raises(ValueError, match=rf"log\.{kind}: .*{row}") as caught:
        read_log(path, COLUMNS)
    assert "UTF-8" in str(caught.value) and "\\xe9" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_wide_encodings_name_the_file(kind, encoding, tmp_path):
    path = tmp_path / f"log.{kind}"
    WRITERS[kind](TABLE, path)
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    with pytest.raises(ValueError, match=rf"log\.{kind}"):
        read_log(path, COLUMNS)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = tmp_path / "log.csv"
    pyarrow.csv.write_csv(TABLE, path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert same(read_log(path, COLUMNS), read_log(TABLE, COLUMNS))


@pytest.mark.parametrize("odd", ["NaN", "7.5"])
def test_a_number_of_another_kind_in_a_later_block_names_its_row(
    odd, tmp_path, monkeypatch
):
    monkeypatch.setattr(tables, "_BLOCK", 1 << 10)
    row = '{"session": 1, "query": "q", "item": %d, "click": 0, "timestamp": %s, %s}\n'
    path = tmp_path / "log.jsonl"
    other = {2: f'"more": {odd}'}  # the same number in another column, further up
    path.write_text(
        "".join(
            row % (k, odd if k == 90 else k, other.get(k, '"more": 0.5'))
            for k in range(99)
        )
    )
    wanted = f"log.jsonl: column timestamp holds whole numbers .*, got {odd} at row 90;"
    with pytest.raises(ValueError, match=wanted):
        read_log(path)


def test_lone_surrogates_are_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    jsonl(TABLE, path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"é"', '"\\ud800"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"log\.jsonl: .*surrogate.* in row 7"):
        read_log(path, COLUMNS)


def test_what_could_rule_a_terminal_is_escaped():
    bad = "item\x1b[31m"
    table = TABLE.rename_columns({"item": bad, "f_a": "f_\u202ea"})
    with pytest.raises(ValueError) as caught:
        read_log(table)
    assert "item\\x1b[31m" in str(caught.value)
    values = [*ROWS["item"][:-1], None]
    with pytest.raises(ValueError) as other:
        read_log(table.set_column(2, bad, [values]), Columns(item=bad))
    assert str(other.value).isprintable() and str(caught.value).isprintable()


# What cannot be learned from


@pytest.mark.parametrize(
    "clicked, shown, message",
    [
        (2000, 2000, "all 2,000 shown items are clicked.*click=NAME"),
        (1, 2000, "only 1 of 2,000 shown items are clicked.*off by 100%"),
        (99, 2000, "only 99 of 2,000 shown items are clicked, fewer than 100.*10%"),
        (100, 2000, None),
        (1900, 2000, None),
        (1901, 2000, "only 99 of 2,000 shown items are not clicked, fewer than 100"),
        (0, 2000, None),  # a problem, not a warning
    ],
)
def test_a_log_that_can_teach_next_to_nothing_is_warned_of(clicked, shown, message):
    click = np.arange(shown) < clicked
    table = pa.table(
        {
            "session": np.arange(shown) // 2,
            "query": np.zeros(shown, int),
            "item": (np.arange(shown) + np.arange(shown) // 2) % 2,  # in turns
            "click": np.random.default_rng(0).permutation(click),
        }
    )
    found = summarize(read_log(table).log)
    assert len(found.warnings) == (message is not None)
    assert (len(found.problems) == 1) == (clicked == 0)
    for warning in found.warnings:
        assert re.search(message, warning)
        assert found.record()["warnings"] == [warning]


def test_a_first_piece_that_shows_nothing_decides_nothing():
    at = LISTS.schema.get_field_index("item")
    nothing = pa.array([[None, None]], LISTS.schema.field(at).type)
    first = LISTS.slice(0, 1).set_column(at, "item", nothing)
    table = pa.concat_tables([first, LISTS])
    assert same(read_log(table, COLUMNS), read_log(TABLE, COLUMNS))


def test_whole_numbers_that_a_data_frame_wrote_with_a_fraction(tmp_path):
    table = TABLE.select(["session", "query", "item", "click", "position", "f_a"])
    for name in ("click", "position"):
        number = table.column_names.index(name)
        text = [f"{value}.0" for value in ROWS[name]]
        table = table.set_column(number, name, [text])
    pyarrow.csv.write_csv(table, tmp_path / "log.csv")
    found = read_log(tmp_path / "log.csv", Columns(features="f_*")).log
    assert found.click.ravel().tolist() == [bool(c) for c in ROWS["click"]]
    table = table.set_column(4, "position", [["1.0", "1.5"] * 4])
    with pytest.raises(ValueError, match=r"must be a whole number, got 1.5 at row 1"):
        read_log(table, Columns(features="f_*"))
