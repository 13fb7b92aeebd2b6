"""Tables of other libraries and folders of files give the same log as their rows."""

import json

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from debias.__main__ import app
from debias.data import fingerprint, tables
from debias.data.read_log import Columns, read_log
from debias.data.tables import open_parts
from tests.debias.data.test_read_log import COLUMNS, FLAT, LISTED, LISTS, expected


def relation(table):
    return duckdb.connect().from_arrow(table)


LIBRARIES = {
    "arrow": lambda table: table,
    "batch": lambda table: table.combine_chunks().to_batches()[0],
    "reader": lambda table: table.to_reader(2),
    "dataset": pa.dataset.dataset,
    "pandas": lambda table: table.to_pandas(),
    "pandas of Arrow": lambda table: table.to_pandas(types_mapper=pd.ArrowDtype),
    "polars": pl.from_arrow,
    "duckdb": relation,
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_tables_of_any_library(library):
    made = LIBRARIES[library]
    expected(read_log(made(FLAT), COLUMNS))
    expected(read_log(made(LISTS), LISTED))
    assert len(fingerprint(made(FLAT))) == 32


def test_categories_of_polars_are_text():
    texts = [f.name for f in FLAT.schema if pa.types.is_string(f.type)]
    cast = [pl.col(name).cast(pl.Categorical) for name in texts]
    expected(read_log(pl.from_arrow(FLAT).with_columns(cast), COLUMNS))
    assert "device" in texts and "doc" in texts


def test_a_reader_is_read_once_and_a_stream_for_each_pass():
    part, again = open_parts(FLAT.to_reader(2))[0], open_parts(pl.from_arrow(FLAT))[0]
    for each in (part, again):
        for _ in range(2):
            rows = [batch.num_rows for batch, _ in each.read(["doc"], ())]
            assert sum(rows) == len(FLAT)


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_folders_of_files(kind, tmp_path):
    write = {"parquet": pq.write_table, "feather": pyarrow.feather.write_feather}[kind]
    for number in range(3):
        write(FLAT.slice(2 * number, 2), tmp_path / f"{number}.{kind}")
    expected(read_log(tmp_path, COLUMNS))


def test_folders_that_name_columns(tmp_path):
    for device in ("phone", "tv", "__HIVE_DEFAULT_PARTITION__"):
        named = None if device.startswith("__") else device
        at = [
            row for row, each in enumerate(FLAT["device"].to_pylist()) if each == named
        ]
        folder = tmp_path / "log" / f"device={device}"
        folder.mkdir(parents=True)
        pq.write_table(FLAT.take(at).drop(["device"]), folder / "part.parquet")
    found = read_log(tmp_path / "log", COLUMNS)
    assert found.devices == ("phone", "tv") and found.log.device.tolist() == [0, 1, 2]
    assert found.log.click.sum() == sum(FLAT["clicked"].to_pylist())
    inside = read_log(tmp_path / "log" / "device=tv", COLUMNS)
    assert inside.log.device is None  # what stands above is no part of it


@pytest.mark.parametrize("source", [7, [FLAT], {"a": [1]}.values(), {"a": [1]}, None])
def test_what_is_no_table_is_refused_with_a_word_on_what_is(source):
    with pytest.raises(ValueError, match="source must be paths, or one table, got"):
        read_log(source, COLUMNS)


def test_columns_of_mixed_objects_are_refused():
    frame = pd.DataFrame({"session": [1, 2], "item": ["a", 7]}).astype({"item": object})
    with pytest.raises(
        ValueError, match=r"table: DataFrame cannot be converted .* one type"
    ):
        read_log(frame, Columns())


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()], ids=str)
@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_hashed_ids_of_lists_are_items_at_a_prompt_and_in_python(
    kind, suffix, tmp_path
):
    rng = np.random.default_rng(5)
    info = np.iinfo(kind.to_pandas_dtype())
    names = rng.integers(info.min, info.max, 12, dtype=info.dtype, endpoint=True)
    shown = [rng.choice(names, 4, replace=False) for _ in range(60)]
    clicks = [(rng.random(4) < 0.3).tolist() for _ in shown]
    table = pa.table(
        {
            "query": rng.integers(0, 3, 60),  # as a log of this library has it
            "item": pa.array([row.tolist() for row in shown], pa.list_(kind)),
            "click": clicks,
        }
    )
    path = tmp_path / f"log.{suffix}"
    {"parquet": pq.write_table, "feather": pyarrow.feather.write_feather}[suffix](
        table, path
    )
    reading = read_log(path)
    named = reading.items[reading.log.item]  # NULL nowhere: all lists are full
    assert named.tolist() == [row.tolist() for row in shown]
    assert reading.log.click.sum() == np.sum(clicks)
    done = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["sessions"], found["impressions"]) == (60, 240)
    assert found["clicks"] == np.sum(clicks)


def test_a_value_that_the_first_block_leaves_out_is_text(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    rows = [{"id": n, "tags": [None], "skin": None} for n in range(99)]
    rows += [{"id": 99, "tags": ["new"], "skin": "dark"}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setattr(tables, "_BLOCK", 1 << 10)
    (part,) = open_parts(path)
    *_, (last, _) = part.read(["tags", "skin"], ())
    assert last.to_pylist()[-1] == {"tags": ["new"], "skin": "dark"}
