"""Tables of features of users or items, as somebody else's files hold them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.shown import is_list, matching
from debias.data.tables import Source, near, open_parts

ID = "id"  # the feature that names a user or an item


def read_features(
    source: Source,
    id: str = ID,
    features: Sequence[str] = ("*",),
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """Raw columns for `FeatureTable.build` and `FeatureTable.append`, "id" first.

    Lists are multi-valued, numbers with a fraction numeric, all else categorical; of
    CSV, a column counts as numbers if all of its values are.

    Args:
        source: As for `debias.data.tables.open_parts`, a row a user or an item.
        id: The column of ids.
        features: Names and patterns of the columns to read.
        progress: Called with the share that is read.

    Raises:
        ValueError: A column is missing, an id is empty or comes twice, or the file is
            damaged; names it.

    >>> table = pa.table({"sku": [7, 8], "price": ["1.5", "2"], "kind": ["a", None]})
    >>> read_features(table, "sku")
    {'id': ['7', '8'], 'price': [1.5, 2.0], 'kind': ['a', None]}
    """
    parts = open_parts(source)
    name, columns = parts[0].name, parts[0].schema.names
    if id not in columns:
        raise ValueError(f"{name}: no column {id} of ids: {near(id, columns)}")
    found = matching(features, columns, {id})
    if found is None:
        raise ValueError(
            f"{name}: no column {' '.join(features)}: {near(str(features[0]), columns)}"
        )
    read = (id, *(column for column in found if column != id))
    batches = []
    for number, part in enumerate(parts):
        for batch, share in part.read(read, ()):
            batches.append(batch)
            progress((number + share) / len(parts))
    if not batches:
        raise ValueError(f"{name}: holds no row; fill or remove it")
    table = pa.Table.from_batches(batches).select(list(read))
    ids = table.column(id).cast(pa.string()).to_pylist()
    for row, each in enumerate(ids):
        if not each:
            raise ValueError(f"{name}: column {id} is empty at row {row}; fill it")
    words, first = np.unique(ids, return_index=True)
    if len(words) < len(ids):
        row = int(np.setdiff1d(np.arange(len(ids)), first)[0])
        raise ValueError(
            f"{name}: column {id} has {ids[row]!r} a second time at row {row}; keep "
            "one row of each id"
        )
    values = {column: _values(table.column(column)) for column in read[1:]}
    return {ID: ids, **values}


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_string(column.type):
        column = _numbers(column)
    if is_list(column.type):
        return [value or [] for value in column.to_pylist()]
    if pa.types.is_floating(column.type):
        return pc.fill_null(column, np.nan).to_pylist()
    return column.to_pylist()


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as fractions where it is, and as it stands where it is not."""
    for kind, made in ((pa.int64(), column), (pa.float64(), None)):
        try:
            cast = column.cast(kind)
        except pa.ArrowInvalid:
            continue
        return cast if made is None else made
    return column
