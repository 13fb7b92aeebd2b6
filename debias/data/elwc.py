"""Reads and writes ranking data in ELWC, a file format of TensorFlow Ranking.

ELWC means "example list with context". Each record holds one query. The field
`examples` of a record holds the items, and the field `context` holds the features that
all items share.
"""

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from debias.data.examples import feature_of, records, write_records
from debias.data.kinds import FIRST, Feature, Features, plain, starts
from debias.data.pairs import Pairs, ranking_of, read_items
from debias.data.ranking import RankingData
from debias.data.roles import Columns
from debias.data.text import near, printable

LABEL, QUERY, ITEM = "relevance", "qid", "item_id"
_LISTS = "\x1flist"  # columns of this library, besides the features
_NUMBER = "\x1fnumber"


def write_elwc(
    data: RankingData, path: str | Path, label: str = LABEL, query: str = QUERY
) -> None:
    """Writes ranking data atomically as a TFRecord file in ELWC format.

    The file is compressed if its name ends in .gz.

    A number is written as a `float_list` with one entry, and a category as a
    `bytes_list`, under the name of the feature. Features without names are called f0,
    f1 and so on. Missing values are left out.

    Args:
        data: The queries.
        path: The file.
        label: Name of the example feature that holds the grade.
        query: Name of the context feature that holds the id of the query. Data without
            query ids is written without this feature.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "train.tfrecord"
    >>> data = RankingData([[0.5], [2.0], [1.0]], [0, 4, 1], [0, 2, 3], qid=["a", "b"])
    >>> write_elwc(data, path)
    >>> again = read_elwc(path)
    >>> again.features.tolist(), again.labels.tolist(), again.qid.tolist()
    ([[0.5], [2.0], [1.0]], [0, 4, 1], ['a', 'b'])
    """
    write_records(_lists(data, label, query), path)


def _lists(data: RankingData, label: str, query: str) -> Iterator[bytes]:
    import tensorflow as tf
    from tensorflow_serving.apis import input_pb2

    kinds = data.kinds or plain(data.feature_names, data.features)
    place = starts(kinds)
    for number in range(data.queries):
        made = input_pb2.ExampleListWithContext()
        if data.qid is not None:
            name = data.qid[number]
            value = name.item() if hasattr(name, "item") else name
            made.context.features.feature[query].CopyFrom(feature_of(value))
        for item in range(data.offsets[number], data.offsets[number + 1]):
            features = _features(data.features[item], kinds, place)
            if data.labels is not None:
                features[label] = feature_of(float(data.labels[item]))
            if data.item_id is not None:
                features[ITEM] = feature_of(str(data.item_id[item]))
            example = tf.train.Example(features=tf.train.Features(feature=features))
            made.examples.append(example)
        yield made.SerializeToString()


def _features(
    row: np.ndarray, kinds: Features, place: dict[str, int]
) -> dict[str, Any]:
    found = {}
    for each in kinds:
        values = row[place[each.name] : place[each.name] + each.width]
        given = _given(values, each)
        if given:
            found[each.name] = feature_of(given)
    return found


def _given(values: np.ndarray, kind: Feature) -> list[Any]:
    if kind.coded:
        return [kind.values[int(code) - FIRST] for code in values if code >= FIRST]
    return [float(value) for value in values if not np.isnan(value)]


def read_elwc(
    path: str | Path,
    label: str | None = LABEL,
    query: str | None = QUERY,
    features: tuple[str, ...] = ("*",),
) -> RankingData:
    """Reads a TFRecord file in ELWC format, plain or compressed (.gz).

    Context features become features of every item of the query. Bytes are read as
    categories, single numbers as numbers, and several numbers as a vector. Records
    without examples are skipped.

    Args:
        path: The file.
        label: Example feature that holds the grade; None if the file has no grades.
        query: Context feature that holds the id of the query. The result has no query
            ids if a record lacks the feature `query`, or if two records share an id.
        features: Names and patterns of the features to read.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged or not in ELWC format, no feature matches
            `features`, the label is missing, or a value is not allowed. The message
            names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    rows, queries, ids = _rows(path, label, query)
    given = {name for row in rows for name in row}
    chosen = [n for n in sorted(given) if any(fnmatchcase(n, f) for f in features)]
    chosen = [name for name in chosen if name != label]
    if not chosen:
        raise ValueError(
            f"{path}: no feature {printable(' '.join(features))}: "
            f"{near(features[0], sorted(given))}"
        )
    if label is not None and label not in given:
        raise ValueError(
            f"{path}: no feature {printable(label)} for the label: "
            f"{near(label, sorted(given))}; say label=NAME, or label=None"
        )
    columns: dict[str, Any] = {_LISTS: queries, _NUMBER: np.arange(len(rows))}
    for name in [*chosen, *([] if label is None else [label])]:
        columns[name] = _column(path, name, rows)
    try:
        return _ranking(pa.table(columns), chosen, label, ids, _items(rows))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _rows(
    path: Path, label: str | None, query: str | None
) -> tuple[list[dict[str, Any]], np.ndarray, list[Any]]:
    """The features and the query number of each example, and the ids of the queries."""
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import input_pb2

    rows: list[dict[str, Any]] = []
    sizes, ids = [], []
    for number, raw in enumerate(
        each for some in records(path) for each in some.numpy()
    ):
        try:
            made = input_pb2.ExampleListWithContext.FromString(raw)
        except DecodeError as error:
            raise ValueError(
                f"{path}: record {number} is not a list of examples with a context; "
                "plain examples are read as a table"
            ) from error
        shared = _held(made.context)
        name = shared.pop(query, None) if query is not None else None
        if made.examples:
            sizes.append(len(made.examples))
            ids.append(name)
        rows += [{**shared, **_held(example)} for example in made.examples]
    if not rows:
        raise ValueError(f"{path}: has no examples; write it again")
    return rows, np.repeat(np.arange(len(sizes)), sizes), ids


def _held(example: Any) -> dict[str, Any]:
    held = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        if values:
            held[name] = values[0] if len(values) == 1 else values
    return held


def _items(rows: list[dict[str, Any]]) -> np.ndarray | None:
    """Item names from the feature `ITEM`; None if any example lacks this feature."""
    ids = [row.get(ITEM) for row in rows]
    if not all(isinstance(each, bytes) for each in ids):
        return None
    return np.array([each.decode(errors="replace") for each in ids])  # type: ignore[union-attr]


def _column(path: Path, name: str, rows: list[dict[str, Any]]) -> pa.Array:
    """One feature of all examples, as lists if any example has several values."""
    values = [row.get(name) for row in rows]
    if any(isinstance(value, list) for value in values):
        values = [v if v is None or isinstance(v, list) else [v] for v in values]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(
            f"{path}: the feature {printable(name)} mixes types ({error}); write it as "
            "one type"
        ) from error


def _ranking(
    table: pa.Table,
    chosen: list[str],
    label: str | None,
    ids: list[Any],
    item_id: np.ndarray | None,
) -> RankingData:
    chosen = [name for name in chosen if item_id is None or name != ITEM]
    asked = Columns(
        item=_NUMBER, query=_LISTS, features=tuple(chosen), label=label, session=None
    )
    known = read_items(table, asked).known
    query = table.column(_LISTS).to_numpy()
    names = [
        each.decode(errors="replace") if isinstance(each, bytes) else each
        for each in ids
    ]
    unique = None not in names and len(set(map(str, names))) == len(names)
    every = np.arange(len(query))
    pairs = Pairs(every, query, every, np.array(names) if unique else None, every)
    return replace(ranking_of(pairs, known), item_id=item_id)
