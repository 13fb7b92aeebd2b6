"""Id embedding tables of a model, with room for new users and items.

The tables are built with room for additional ids. When the room is used up, the weights
are copied into a new model whose tables have twice the size. This copy is costly but
rare.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from debias.layers.embedding import RowEmbedding
from debias.retrieval.data.interactions import FIRST, ID
from debias.retrieval.models.two_tower import RetrievalModel, Schema


class IdTables(NamedTuple):
    """The embedding tables of a model that have one row per id.

    Attributes:
        users: Tables of the user tower, indexed by user codes.
        items: Tables of the item tower, indexed by item codes.
        past: Tables of the user tower for histories, indexed by item codes. `past` may
            contain the same tables as `items`.
    """

    users: list[RowEmbedding]
    items: list[RowEmbedding]
    past: list[RowEmbedding]


def id_tables(model: RetrievalModel) -> IdTables:
    """Finds the embedding tables of a model that have one row per id.

    >>> from debias.retrieval.models import fm_tower
    >>> schema = {"id": {"kind": "categorical", "size": 9}}
    >>> [len(tables) for tables in id_tables(fm_tower(schema, schema, 4))]
    [1, 1, 1]
    """
    found = IdTables([], [], [])
    for outer, own in ((model.user, found.users), (model.item, found.items)):
        inner = getattr(outer, "encoder", outer)  # DAT wraps its encoders
        if inner.fields is not None and ID in inner.schema:
            own.append(inner.fields.tables[ID])
        if inner is not outer:
            own.append(outer.augment)
        if getattr(inner, "history_table", None) is not None:
            found.past.append(inner.history_table)
    return found


def dense_weights(model: RetrievalModel) -> list[Any]:
    """All trainable weights except the id tables; feature tables are included."""
    tables = {id(each.table) for side in id_tables(model) for each in side}
    return [v for v in model.trainable_variables if id(v) not in tables]


def checksum(variables: Iterable[Any]) -> str:
    """Hexadecimal SHA-256 of the values of variables, in the given order.

    >>> import keras
    >>> zeros = keras.Variable(np.zeros(2))
    >>> checksum([zeros]) == checksum([zeros]), checksum([zeros]) == checksum([])
    (True, False)
    """
    total = hashlib.sha256()
    for variable in variables:
        value = np.ascontiguousarray(variable)
        total.update(f"{value.dtype}{value.shape}".encode())
        total.update(value.tobytes())
    return total.hexdigest()


def with_room(schema: Schema) -> dict[str, dict[str, Any]]:
    """The schema with the number of id codes rounded up to a power of two.

    >>> with_room({"id": {"kind": "categorical", "size": 9}})["id"]["size"]
    16
    """
    roomy = {name: dict(kind) for name, kind in schema.items()}
    roomy[ID]["size"] = 1 << (int(roomy[ID]["size"]) - 1).bit_length()
    return roomy


def has_room(model: RetrievalModel, users: int, items: int) -> bool:
    """Whether the id tables have room for these numbers of user and item codes."""
    tables = id_tables(model)
    return all(table.size >= users for table in tables.users) and all(
        table.size >= items for table in (*tables.items, *tables.past)
    )


def copy_into(variables: Iterable[Any], older: Iterable[Any]) -> None:
    """Copies the variables of a smaller model into the first rows of a larger model.

    The variables may be weights or optimiser moments. The other entries of the larger
    variables keep their values.

    Raises:
        ValueError: The variables of the two models do not match.

    >>> import keras
    >>> new, old = keras.Variable(np.zeros((3, 1))), keras.Variable(np.ones((2, 1)))
    >>> copy_into([new], [old])
    >>> np.asarray(new)[:, 0].tolist()
    [1.0, 1.0, 0.0]
    """
    for new, old in zip(variables, older, strict=True):
        value, known = np.array(new), np.asarray(old)
        if value.ndim != known.ndim or (np.array(value.shape) < known.shape).any():
            raise ValueError(
                f"variables must be at least as large as the older ones, got "
                f"{value.shape} for {known.shape}"
            )
        value[tuple(slice(0, size) for size in known.shape)] = known
        new.assign(value)


def init_rows(tables: Iterable[RowEmbedding], first: int, last: int) -> None:
    """Sets the rows of codes `first` to `last` - 1 to the mean row of known ids.

    The mean is the best guess for an id without events; a random vector would give the
    id a random rank. A table in which codes share rows is not changed.
    """
    if first >= last or first <= FIRST:
        return
    for layer in tables:
        if layer.compress is not None:
            continue
        value = np.array(layer.table)
        value[first:last] = value[FIRST:first].mean(axis=0)
        layer.table.assign(value)
