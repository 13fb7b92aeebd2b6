"""Files of impressions for LightGBM, XGBoost and TensorFlow Ranking."""

from collections.abc import Sequence
from itertools import pairwise
from math import isnan
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from debias.data import RankingData
from debias.data.files import atomic_folder, atomic_write
from debias.data.kinds import UNKNOWN, Features, legend, plain
from debias.data.records import write_record
from debias.data.text import one_of
from debias.propensity.impressions import Impressions

LIBRARIES = ("lightgbm", "xgboost", "tfr")
CORRECTIONS = ("weight", "position", "init_score")
COLUMNS = ("group", "query", "item", "position", "label", "weight", "init_score")
PIECE = 1 << 16  # rows written at once
ROWS = "rows.txt"  # in a folder of text files
LEGEND = "features.json"  # names of its columns


def write_impressions(
    found: Impressions,
    path: str | Path,
    library: str,
    data: RankingData,
    items: Sequence[Any] | np.ndarray | None = None,
    queries: Sequence[Any] | np.ndarray | None = None,
    correction: str = "weight",
) -> None:
    """Writes impressions and the features of their items atomically.

    | name | form |
    |---|---|
    | NAME.parquet | a table with all corrections, for any library |
    | NAME.tfrecord | lists for TensorFlow Ranking (ELWC) |
    | NAME, no ending | a new folder of text files: `rows.txt` and files beside it |

    In a Parquet file, categorical features are text, which data frames read as
    categories. In the other formats, categorical features are integer codes. The file
    `features.json` in the folder has the names of the columns and the meanings of the
    codes. Beside a .tfrecord file with codes, this file is NAME.features.json.

    LightGBM automatically reads the groups from `rows.txt.query`, and corrections from
    `rows.txt.weight`, `rows.txt.position` and `rows.txt.init`. LightGBM applies every
    correction whose file exists, so only the file for `correction` is written. XGBoost
    reads the groups from the `qid:` of each row. For XGBoost, pass the values in
    `rows.txt.weight` (one per group) to `DMatrix.set_weight`, or the values in
    `rows.txt.base_margin` to `DMatrix.set_base_margin`.

    Args:
        found: Result of `impressions`.
        path: File or folder to write.
        library: "lightgbm", "xgboost" or "tfr" (TensorFlow Ranking).
        data: Features of the items.
        items: (items,) ids of the items in the source log; None writes item numbers.
        queries: (queries,) ids of the queries; None writes query numbers.
        correction: Correction in text files: "weight", "position" or "init_score".
            Parquet and .tfrecord files hold several corrections.

    Raises:
        ValueError: The library or the correction is unknown, or the library does not
            support the correction or the ending of `path`. Or a feature has the name of
            another column.
    """
    path = Path(path)
    if library not in LIBRARIES:
        raise ValueError(one_of("library", LIBRARIES, library))
    if correction not in CORRECTIONS:
        raise ValueError(one_of("correction", CORRECTIONS, correction))
    if path.suffix == ".parquet":
        _write_parquet(found, path, data, items, queries)
    elif library == "tfr":
        if path.suffix != ".tfrecord":
            raise ValueError(f"{path}: the name must end with .tfrecord or .parquet")
        _write_lists(found, path, data, queries)
    elif path.suffix:
        raise ValueError(
            f"{path}: the name must end with .parquet, or have no ending for a folder "
            "of text"
        )
    elif library == "xgboost" and correction == "position":
        raise ValueError(
            "xgboost has no position correction: choose weight or init_score, or "
            "train with lambdarank_unbiased on the rows as they are"
        )
    else:
        _write_text(found, path, library, data, correction)


def _feature_names(data: RankingData) -> list[str]:
    names = data.feature_names or tuple(f"f{i}" for i in range(data.feature_count))
    for name in names:
        if name in COLUMNS:
            raise ValueError(
                f"feature {name} has the name of a column that is written: rename it"
            )
    return list(names)


def _named(names: Any, number: np.ndarray) -> np.ndarray:
    return number if names is None else np.asarray(names)[number]


def _write_parquet(
    found: Impressions, path: Path, data: RankingData, items: Any, queries: Any
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = _feature_names(data)

    def table(part: Impressions) -> pa.Table:
        columns: dict[str, Any] = {name: getattr(part, name) for name in COLUMNS}
        columns["query"] = _named(queries, part.query)
        columns["item"] = _named(items, part.item)
        values = data.features[part.item]
        columns |= {name: values[:, i] for i, name in enumerate(names)}
        for row in legend(_kinds(data)):
            if codes := row.get("codes"):
                words = pa.array([*codes.values()][UNKNOWN:])
                columns[row["name"]] = _words(columns[row["name"]], words)
        return pa.table({name: pa.array(v) for name, v in columns.items()})

    pieces = map(table, found.pieces(PIECE))
    first = next(pieces)
    with (
        atomic_write(path) as aside,
        pq.ParquetWriter(aside, first.schema, write_page_checksum=True) as file,
    ):
        file.write_table(first)
        for each in pieces:
            file.write_table(each)


def _kinds(data: RankingData) -> Features:
    return data.kinds or plain(data.feature_names, data.features)


def _words(codes: np.ndarray, words: Any) -> Any:
    """Translates codes to the values that they encode; missing values become NULL."""
    import pyarrow as pa

    number = pa.array(codes.astype(np.int32) - UNKNOWN, mask=codes < UNKNOWN)
    return pa.DictionaryArray.from_arrays(number, words)


def _write_text(
    found: Impressions, path: Path, library: str, data: RankingData, correction: str
) -> None:
    """Writes a folder with LibSVM rows, features counted from 0, and side files."""
    lightgbm = library == "lightgbm"
    beside: dict[str, np.ndarray] = {"query": found.group_sizes} if lightgbm else {}
    if correction == "weight":
        beside["weight"] = found.weight if lightgbm else found.group_weight
    elif correction == "position":
        beside["position"] = found.position - 1
    else:
        beside["init" if lightgbm else "base_margin"] = found.init_score
    with atomic_folder(path) as aside:
        with open(aside / ROWS, "w", encoding="ascii") as file:
            for part in found.pieces(PIECE):
                _write_rows(file, part, data.features, lightgbm)
        for name, values in beside.items():
            form = "%d" if values.dtype.kind in "iu" else "%.9g"
            np.savetxt(aside / f"{ROWS}.{name}", values, fmt=form)
        write_record(aside / LEGEND, {"features": legend(_kinds(data))})


def _write_rows(
    file: TextIO, part: Impressions, features: np.ndarray, lightgbm: bool
) -> None:
    """Writes the rows of some impressions.

    LightGBM reads an absent value as 0, and nan as missing. XGBoost reads an absent
    value as missing, and cannot read nan.
    """
    rows = zip(part.label, part.item, part.group, strict=True)
    for label, item, group in rows:
        own = features[item]
        if lightgbm:  # and the last column, by which it counts columns
            kept = np.append(np.flatnonzero(own[:-1]), len(own) - 1)
        else:
            kept = np.flatnonzero(~np.isnan(own))
        words = " ".join(f"{i}:{own[i]:.9g}" for i in kept)
        qid = "" if lightgbm else f" qid:{group}"
        file.write(f"{label}{qid} {words}\n")


def _write_lists(
    found: Impressions, path: Path, data: RankingData, queries: Any
) -> None:
    """Writes one ExampleListWithContext per session, with its query and items.

    Missing values are left out, so the reader inserts its default value.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import input_pb2

    names = _feature_names(data)

    def example(values: dict[str, Any]) -> Any:
        features = {
            name: tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
            for name, value in values.items()
        }
        return tf.train.Example(features=tf.train.Features(feature=features))

    def record(part: Impressions, start: int, end: int) -> bytes:
        name = str(_named(queries, part.query[start])).encode()
        query = tf.train.Feature(bytes_list=tf.train.BytesList(value=[name]))
        context = tf.train.Features(feature={"query": query})
        lists = input_pb2.ExampleListWithContext(
            context=tf.train.Example(features=context)
        )
        for row in range(start, end):
            values = data.features[part.item[row]].tolist()
            own = {n: v for n, v in zip(names, values, strict=True) if not isnan(v)}
            for column in ("label", "weight", "position"):
                own[column] = float(getattr(part, column)[row])
            lists.examples.append(example(own))
        encoded: bytes = lists.SerializeToString()
        return encoded

    if data.kinds is not None and any(each.coded for each in data.kinds):
        beside = path.with_name(f"{path.stem}.{LEGEND}")
        write_record(beside, {"features": legend(data.kinds)})
    with atomic_write(path) as aside, tf.io.TFRecordWriter(str(aside)) as file:
        for part in found.pieces(PIECE):
            edges = np.flatnonzero(np.diff(part.group, prepend=-1, append=-1)).tolist()
            for start, end in pairwise(edges):
                file.write(record(part, start, end))
