"""Ranking data as Parquet: a row is an item, the items of a query are consecutive."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from debias.data.files import atomic_write
from debias.data.lists import lists_of, rectangle
from debias.data.ranking import RankingData, runs

_MAX_GRADE = b"max_grade"


def write_ranking(data: RankingData, path: str | Path) -> None:
    """Writes the columns qid, or query where queries have no ids, label and features.

    `features` is a list of fixed size. The highest grade stands in the metadata of the
    file. The file is whole or absent.
    """
    number = np.repeat(np.arange(data.queries), data.sizes)
    arrays = {}
    if data.qid is None:
        arrays["query"] = pa.array(number.astype(np.int32))
    else:
        arrays["qid"] = pa.array(data.qid[number])
    if data.labels is not None:
        arrays["label"] = pa.array(data.labels)
    arrays["features"] = lists_of(data.features)
    schema = pa.schema(
        [pa.field(name, array.type, nullable=False) for name, array in arrays.items()],
        metadata={_MAX_GRADE: str(data.max_grade).encode()},
    )
    with atomic_write(path) as aside:
        pq.write_table(
            pa.Table.from_arrays(list(arrays.values()), schema=schema),
            aside,
            compression="none",
            use_dictionary=["qid", "query", "label"],
            write_statistics=False,
        )


def read_ranking(path: str | Path, max_grade: int | None = None) -> RankingData:
    """Reads ranking data from Parquet.

    Args:
        path: A file with a column qid or query; optionally label; and features, as one
            column of lists of equal length or as columns f0, f1, ... Other columns are
            an error.
        max_grade: Highest grade; None for what the file says, else 4.

    Raises:
        ValueError: A column is missing, unknown or of the wrong type, the items of a
            query are not consecutive, or a value is not allowed; names the file.
    """
    path = Path(path)
    try:
        table = pq.read_table(path)
        if max_grade is None:
            max_grade = int((table.schema.metadata or {}).get(_MAX_GRADE, b"4"))
        return _from_table(table, max_grade)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _from_table(table: pa.Table, max_grade: int) -> RankingData:
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
    offsets, qid = runs(query)
    if feature_columns == ["features"]:
        features, gaps = rectangle(table.column("features"), None, np.nan)
        if gaps is not None and gaps.any():
            row, column = np.argwhere(gaps)[0]
            raise ValueError(f"features lack number {column} at row {row}")
    else:
        columns = [table.column(name).to_numpy() for name in plain]
        features = np.stack(columns, axis=1)
    return RankingData(
        features,
        table.column("label").to_numpy() if "label" in names else None,
        offsets,
        qid if "qid" in names else None,
        max_grade,
    )
