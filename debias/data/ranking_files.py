"""Parquet files of ranking data: one row per item, sorted by query."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from debias.data.arrays import one_array
from debias.data.by_name import KINDS, NAMES, kinds_in, names_in
from debias.data.files import array_hash, atomic_write, check_regular
from debias.data.kinds import Features, as_records
from debias.data.lists import filled, lists_of, rectangle
from debias.data.tables import DAMAGED, broken, check_names
from debias.data.text import printable

_MAX_GRADE = b"max_grade"
_CONTENT = b"content"


class Rows(NamedTuple):
    """The columns of a file, with one row per item.

    Attributes:
        features: (items, F) numbers.
        labels: (items,) grades; None without grades.
        query: (items,) number of the query of each item.
        qid: (items,) id of the query; None if queries have no ids.
        max_grade: Highest grade.
        names: (F,) names of the features; None without names.
        kinds: Kinds of the features; None if all are numbers.
        item_id: (items,) ids of the items in the source; None without ids.
    """

    features: np.ndarray
    labels: np.ndarray | None
    query: np.ndarray
    qid: np.ndarray | None
    max_grade: int
    names: tuple[str, ...] | None
    kinds: Features | None = None
    item_id: np.ndarray | None = None

    def content(self) -> str:
        """Hash of the content; above 256 MB, it covers samples (see `sampled_hash`)."""
        plain = [*(self.names or ()), str(self.max_grade)]
        if self.kinds is not None:
            plain.append(json.dumps(as_records(self.kinds)))
        given = {
            "features": self.features,
            "labels": self.labels,
            "query": np.asarray(self.query if self.qid is None else self.qid),
            "names": np.array(plain),
            "item_id": self.item_id,
        }
        arrays = {n: array for n, array in given.items() if array is not None}
        for name, array in arrays.items():
            if array.dtype.kind == "O":
                arrays[name] = array.astype(str)
        return array_hash(arrays)


def write_rows(rows: Rows, path: str | Path) -> None:
    """Writes the columns qid, label, item_id and features atomically.

    If queries have no ids, the column query replaces qid.

    The column `features` holds lists of fixed size. The metadata of the file contains
    the highest grade, the names of the features and a hash of the content. The hash
    detects damage to the metadata, which Parquet's own checksums do not cover.
    """
    arrays = {}
    if rows.qid is None:
        arrays["query"] = pa.array(rows.query)
    else:
        arrays["qid"] = _ids(rows.qid, path)
    if rows.labels is not None:
        arrays["label"] = pa.array(rows.labels)
    if rows.item_id is not None:
        arrays["item_id"] = _ids(rows.item_id, path)
    arrays["features"] = lists_of(rows.features)
    metadata = {
        _MAX_GRADE: str(rows.max_grade).encode(),
        _CONTENT: rows.content().encode(),
    }
    if rows.names is not None:
        metadata[NAMES] = json.dumps(rows.names).encode()
    if rows.kinds is not None:
        metadata[KINDS] = json.dumps(as_records(rows.kinds)).encode()
    schema = pa.schema(
        [pa.field(name, array.type, nullable=False) for name, array in arrays.items()],
        metadata,
    )
    with atomic_write(path) as aside:
        pq.write_table(
            pa.Table.from_arrays(list(arrays.values()), schema=schema),
            aside,
            compression="none",
            use_dictionary=["qid", "query", "label"],
            write_statistics=False,
            write_page_checksum=True,
        )


def _ids(qid: np.ndarray, path: str | Path) -> pa.Array:
    try:
        return pa.array(qid)
    except UnicodeError as error:
        half = re.compile("[\ud800-\udfff]")
        wrong = next((q for q in map(str, qid) if half.search(q)), "")
        raise ValueError(
            f"{path}: the id {printable(wrong)} cannot be written, because it has half "
            "of a surrogate pair; rename it"
        ) from error


def read_rows(path: str | Path) -> Rows:
    """Reads a file of `write_rows`, or a similar table of another program.

    Raises:
        ValueError: See `RankingData.read_parquet`. The message names the file.
    """
    path = Path(path)
    check_regular(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        names = table.column_names
    except DAMAGED as error:
        raise broken(path, "Parquet", error) from error
    check_names(str(path), names)
    try:
        rows = _from_table(table)
        noted = (table.schema.metadata or {}).get(_CONTENT)
        if noted not in (None, rows.content().encode()):
            raise ValueError(
                "is damaged: its content has changed; copy it again. If you changed it "
                "on purpose, remove the key content from its metadata"
            )
        return rows
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _from_table(table: pa.Table) -> Rows:
    names = table.column_names
    plain = sorted(
        (n for n in names if re.fullmatch(r"f\d+", n)), key=lambda n: int(n[1:])
    )
    listed = "features" in names
    if not listed and not plain:
        raise ValueError("no column features and no columns f0, f1, ...")
    if not listed and plain != [f"f{i}" for i in range(len(plain))]:
        raise ValueError(f"feature columns must run from f0, got {' '.join(plain)}")
    if len({"qid", "query"}.intersection(names)) != 1:
        raise ValueError("needs a column qid or a column query")
    feature_columns = ["features"] if listed else plain
    strange = set(names) - {"qid", "query", "label", "item_id", *feature_columns}
    if strange:
        raise ValueError(f"unknown column {printable(' '.join(sorted(strange)))}")
    if len(table) == 0:
        raise ValueError("holds no item")
    for name in names:
        if table.column(name).null_count:
            row = table.column(name).is_null().to_pylist().index(True)
            raise ValueError(f"{name} is NULL at row {row}")
    query = _query(table.column("qid" if "qid" in names else "query"))
    if listed:
        features = _lists(table.column("features"))
    else:
        features = np.stack([_numbers(table, name) for name in plain], axis=1)
    return Rows(
        features,
        _numbers(table, "label") if "label" in names else None,
        query,
        query if "qid" in names else None,
        int((table.schema.metadata or {}).get(_MAX_GRADE, b"4")),
        (names_in(table.schema) or None) if listed else tuple(plain),
        kinds_in(table.schema) if listed else None,
        _query(table.column("item_id")) if "item_id" in names else None,
    )


def _query(column: pa.ChunkedArray) -> np.ndarray:
    """Names of queries or items as a NumPy array."""
    array = one_array(column)
    array.validate(full=True)  # checks that text is UTF-8
    return array.to_numpy(zero_copy_only=False)


def _lists(column: pa.ChunkedArray) -> np.ndarray:
    try:
        features, gaps = rectangle(one_array(column), None, np.nan)
    except ValueError as error:
        raise ValueError(f"features {error}") from error
    if gaps is not None and gaps.any():
        row, number = np.argwhere(gaps)[0]
        raise ValueError(f"features lack number {number} at row {row}")
    return features


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    try:
        return filled(one_array(table.column(name)), np.nan).values
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
