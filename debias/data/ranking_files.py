"""Rows of ranking data as Parquet: a row is an item, a query's are consecutive."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from debias.data.by_name import NAMES, names_in
from debias.data.files import atomic_write
from debias.data.lists import lists_of, rectangle

_MAX_GRADE = b"max_grade"


class Rows(NamedTuple):
    """The columns of a file, a row an item.

    Attributes:
        features: (items, F) numbers.
        labels: (items,) grades, or None.
        query: (items,) number of each item's query.
        qid: (items,) what the source calls it; None where queries have no ids.
        max_grade: Highest grade.
        names: (F,) names of the features, or None.
    """

    features: np.ndarray
    labels: np.ndarray | None
    query: np.ndarray
    qid: np.ndarray | None
    max_grade: int
    names: tuple[str, ...] | None


def write_rows(rows: Rows, path: str | Path) -> None:
    """Writes the columns qid, or query where queries have no ids, label and features.

    `features` is a list of fixed size. The highest grade and the names of the features
    stand in the metadata of the file. The file is whole or absent.
    """
    arrays = {}
    if rows.qid is None:
        arrays["query"] = pa.array(rows.query)
    else:
        arrays["qid"] = pa.array(rows.qid)
    if rows.labels is not None:
        arrays["label"] = pa.array(rows.labels)
    arrays["features"] = lists_of(rows.features)
    metadata = {_MAX_GRADE: str(rows.max_grade).encode()}
    if rows.names is not None:
        metadata[NAMES] = json.dumps(rows.names).encode()
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


def read_rows(path: str | Path) -> Rows:
    """Reads what `write_rows` wrote, or a like table of another program's.

    Raises:
        ValueError: As for `RankingData.read_parquet`; names the file.
    """
    path = Path(path)
    try:
        return _from_table(pq.read_table(path, page_checksum_verification=True))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _from_table(table: pa.Table) -> Rows:
    names = set(table.column_names)
    plain = [name for name in names if re.fullmatch(r"f\d+", name)]
    plain.sort(key=lambda name: int(name[1:]))
    feature_columns = ["features"] if "features" in names else plain
    if not feature_columns:
        raise ValueError("no column features and no columns f0, f1, ...")
    if feature_columns == plain and plain != [f"f{i}" for i in range(len(plain))]:
        raise ValueError(f"feature columns must run from f0, got {' '.join(plain)}")
    if len(names & {"qid", "query"}) != 1:
        raise ValueError("needs a column qid or a column query")
    strange = names - {"qid", "query", "label", *feature_columns}
    if strange:
        raise ValueError(f"unknown column {' '.join(sorted(strange))}")
    if len(table) == 0:
        raise ValueError("holds no item")
    for name in sorted(names):
        if table.column(name).null_count:
            raise ValueError(f"{name} is NULL at an item")
    query = table.column("qid" if "qid" in names else "query").to_numpy()
    found: Sequence[str] = plain
    if feature_columns == ["features"]:
        found = names_in(table.schema)
        features, gaps = rectangle(table.column("features"), None, np.nan)
        if gaps is not None and gaps.any():
            row, column = np.argwhere(gaps)[0]
            raise ValueError(f"features lack number {column} at row {row}")
    else:
        columns = [table.column(name).to_numpy() for name in plain]
        features = np.stack(columns, axis=1)
    return Rows(
        features,
        table.column("label").to_numpy() if "label" in names else None,
        query,
        query if "qid" in names else None,
        int((table.schema.metadata or {}).get(_MAX_GRADE, b"4")),
        tuple(found) or None,
    )
