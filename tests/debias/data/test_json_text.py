"""JSON of every layout is the same table as its objects on lines of one type."""

import gzip
import json

import pyarrow as pa
import pyarrow.csv
import pytest

from debias.data import json_text
from debias.data.tables import open_parts, with_json

ROWS = [{"a": number, "b": {"c": ["x", None], "d": "é\n"}} for number in range(5)]
LAYOUTS = {
    "lines": lambda: "".join(json.dumps(row) + "\n" for row in ROWS),
    "array": lambda: json.dumps(ROWS),
    "pretty array": lambda: json.dumps(ROWS, indent=2),
    "pretty objects": lambda: "\n".join(json.dumps(row, indent=1) for row in ROWS),
    "array of lines": lambda: "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "byte order mark": lambda: "\ufeff" + json.dumps(ROWS, ensure_ascii=False),
}


def read(path, columns, **kind):
    (part,) = open_parts(path)
    part = with_json(part, columns, **kind)
    tables = [pa.Table.from_batches([b]) for b, _ in part.read(columns, ())]
    return pa.concat_tables(tables).to_pylist()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_objects_of_every_layout(layout, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(json_text, "_CHUNK", 7)
    path = tmp_path / ("rows.json.gz" if packed else "rows.json")
    pack = gzip.compress if packed else bytes
    path.write_bytes(pack(LAYOUTS[layout]().encode()))
    assert read(path, ["a", "b"]) == ROWS


def test_a_place_of_two_types_is_text_and_empty_values_are_null(tmp_path):
    rows = [
        {"id": "x7", "n": [1], "in": {"on": True}, "php": {"k": 1}, "also": 1.5},
        {"id": 7, "n": ["2"], "in": {"on": "no"}, "php": [], "also": "?"},
        {"id": None, "n": [], "in": {}, "php": [], "also": None},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(path, list(rows[0])) == [
        {
            "id": "x7",
            "n": ["1"],
            "in": {"on": "true"},
            "php": {"k": 1},
            "also": "1.5",
        },
        {"id": "7", "n": ["2"], "in": {"on": "no"}, "php": None, "also": "?"},
        {"id": None, "n": [], "in": {"on": None}, "php": None, "also": None},
    ]


def test_columns_of_text_that_hold_json(tmp_path):
    inner = [[{"id": 1, "p": 2.5}], [{"id": "b"}, {"id": 3}], None, []]
    text = [None if value is None else json.dumps(value, indent=1) for value in inner]
    ids = ['["u", "v"]', "[]", None, '["w"]']
    path = tmp_path / "rows.csv"
    pyarrow.csv.write_csv(pa.table({"items": text, "ids": ids, "q": ["{x}"] * 4}), path)
    rows = read(path, ["items.id", "ids", "q"], lists=["ids", "q", "nowhere"])
    ids_of = [row["items"] and [item["id"] for item in row["items"]] for row in rows]
    assert ids_of == [["1"], ["b", "3"], None, []]
    assert [row["ids"] for row in rows] == [["u", "v"], [], None, ["w"]]
    assert [row["q"] for row in rows] == ["{x}"] * 4


@pytest.mark.parametrize(
    "text, message",
    [
        ('[{"a": 1},\n {"a": }]', r"rows\.json: invalid JSON at row 1: .*repair it"),
        ('[{"a": 1}, {"a": "', r"rows\.json: invalid JSON at row 1: .*repair it"),
        ("[1, 2]", r"rows\.json: must hold a JSON object on each line"),
        ('[{"a": {"b": 1}}, {"a": 2}]', "changed from object to number in row 1"),
    ],
)
def test_bad_text_names_file_and_row(text, message, tmp_path):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "rows.json", ["a"])


def test_a_column_that_holds_no_json_further_down_names_its_row(tmp_path):
    path = tmp_path / "rows.csv"
    table = pa.table({"items": ['[{"id": 1}]', '[{"id": 2}', "[]"]})
    pyarrow.csv.write_csv(table, path)
    with pytest.raises(
        ValueError, match=r"rows\.csv: column items is not JSON .*row 1"
    ):
        read(path, ["items.id"])


def test_json_files_alone_in_a_folder_are_parts_and_beside_others_are_not(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.json").write_text('{"a": 1}\n')
    assert [part.name for part in open_parts(tmp_path)] == [
        str(tmp_path / f"{number}.json") for number in range(2)
    ]
    (tmp_path / "2.jsonl").write_text('{"a": 1}\n')
    assert [part.name for part in open_parts(tmp_path)] == [str(tmp_path / "2.jsonl")]


def test_ids_beyond_64_signed_bits_stay_exact(tmp_path):
    ids = [2**63 + 5, 7, 2**63 + 6]
    rows = [{"id": i, "in": [{"id": i}], "price": 0.5} for i in ids]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = read(tmp_path / "rows.jsonl", ["id", "in", "price"])
    assert [row["id"] for row in found] == [str(i) for i in ids]
    assert [row["in"][0]["id"] for row in found] == [str(i) for i in ids]
    assert found[0]["price"] == 0.5


def test_a_pattern_of_folders_names_columns(tmp_path):
    for event in ("search", "click"):
        (tmp_path / f"event={event}").mkdir()
        (tmp_path / f"event={event}" / "1.csv").write_text("a\n1\n")
    parts = open_parts(f"{tmp_path}/event=*/*.csv")
    assert [part.schema.names for part in parts] == [["a", "event"]] * 2
