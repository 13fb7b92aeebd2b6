"""Which columns of a CSV hold numbers, told by what is written in them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from debias.data import tables
from debias.data.numbers import types_of
from debias.data.tables import open_parts

COLUMNS = {  # values, and the type that they are written as; None is text
    "count": (["1", "-20", "0"], pa.int64()),
    "gaps": (["1", "", "3"], pa.int64()),
    "price": (["1", "2.50", "-0.5e-3"], pa.float64()),
    "code": (["007", "12", "3"], None),
    "id": (["1234567890123456789012", "1", "2"], None),
    "version": (["1.2.3", "2", "3"], None),
    "word": (["1", "two", "3"], None),
    "nan": (["1", "nan", "3"], None),
    "nothing": (["", "", ""], None),
    "signed": (["+1", "2", "3"], None),
}
WANTED = {name: kind for name, (_, kind) in COLUMNS.items() if kind is not None}


def write(path, rows):
    lines = [",".join(COLUMNS)]
    lines += [",".join(values[row] for values, _ in COLUMNS.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("block", [1 << 24, 96])
def test_numbers_are_those_that_no_cast_changes(tmp_path, monkeypatch, block):
    monkeypatch.setattr(tables, "_BLOCK", block)  # a row or two
    write(tmp_path / "table.csv", (0, 1, 2))
    assert types_of(open_parts(tmp_path / "table.csv")) == WANTED


def test_files_of_one_table_agree(tmp_path):
    write(tmp_path / "one.csv", (2,))
    write(tmp_path / "two.csv", (0, 1))
    assert types_of(open_parts(tmp_path)) == WANTED


def test_other_files_have_types_of_their_own(tmp_path):
    pq.write_table(pa.table({"text": ["1", "2"]}), tmp_path / "table.parquet")
    assert types_of(open_parts(tmp_path / "table.parquet")) == {}
