"""Reads nested columns by paths such as `event_attributes.object.object_id`.

A dot selects a field of a struct, or of each struct in a list. If a list holds pairs of
key and value, as in the exports of web analytics, a dot selects the value of a key.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.arrays import is_list, list_sizes, plain
from debias.data.text import near, printable

_WRAP = "_source"  # dumps of search engines wrap documents in this field
_KEYS = ("key", "name")
_VALUES = ("value", "val")


def top(names: Sequence[str], path: str) -> str | None:
    """The top-level column of a path; None if no column has this name.

    >>> top(["a", "b.c"], "a.x"), top(["a", "b.c"], "b.c"), top(["a"], "b")
    ('a', 'b.c', None)
    """
    if path in names:
        return path
    first = path.partition(".")[0]
    return first if first in names else None


def resolved(schema: pa.Schema, path: str) -> str | None:
    """The full path in a schema, with `_source.` if needed; None if it does not exist.

    >>> schema = pa.schema({"_source": pa.struct({"a": pa.int64()})})
    >>> resolved(schema, "a"), resolved(schema, "b")
    ('_source.a', None)
    """
    for tried in (path, f"{_WRAP}.{path}"):
        column = top(schema.names, tried)
        if column is not None:
            rest = tried[len(column) + 1 :]
            if _reaches(schema.field(column).type, rest.split(".") if rest else []):
                return tried
    return None


def _reaches(kind: pa.DataType, path: Sequence[str]) -> bool:
    if not path:
        return True
    if pa.types.is_dictionary(kind):
        return _reaches(kind.value_type, path)
    if pa.types.is_map(kind):
        return len(path) == 1
    if is_list(kind):
        if pa.types.is_struct(kind.value_type) and not _has(kind.value_type, path[0]):
            return _pair(kind.value_type) is not None and len(path) == 1
        return _reaches(kind.value_type, path)
    return (
        pa.types.is_struct(kind)
        and _has(kind, path[0])
        and _reaches(kind.field(path[0]).type, path[1:])
    )


def _has(kind: pa.StructType, name: str) -> bool:
    return kind.get_field_index(name) >= 0


def _pair(kind: pa.StructType) -> tuple[str, str] | None:
    """The field names of key and value in a struct; None if either is missing."""
    found = [next((n for n in some if _has(kind, n)), "") for some in (_KEYS, _VALUES)]
    return (found[0], found[1]) if all(found) else None


def near_path(path: str, schema: pa.Schema) -> str:
    """Suggests names for a path that does not exist in the schema.

    >>> near_path("a.x", pa.schema({"a": pa.struct({"b": pa.int64()})}))
    'within a there are b'
    """
    names, within = schema.names, top(schema.names, path)
    if within is None or within == path:
        return near(path.partition(".")[0], names)
    kind, rest = schema.field(within).type, path[len(within) + 1 :].split(".")
    while rest:
        while is_list(kind):
            kind = kind.value_type
        if not pa.types.is_struct(kind) or not _has(kind, rest[0]):
            break
        within, kind = f"{within}.{rest[0]}", kind.field(rest.pop(0)).type
    inner = kind.names if pa.types.is_struct(kind) else []
    return f"within {printable(within)} {near(rest[0] if rest else path, inner)}"


def pruned(schema: pa.Schema, paths: Iterable[str]) -> pa.Schema:
    """Reduces a schema to the given paths.

    >>> schema = pa.schema({"a": pa.struct({"b": pa.int64(), "c": pa.string()})})
    >>> pruned(schema, ["a.c"])
    a: struct<c: string>
      child 0, c: string
    """
    within: dict[str, list[list[str]]] = {}
    for path in paths:
        column = top(schema.names, path)
        if column is not None:
            rest = path[len(column) + 1 :]
            within.setdefault(column, []).append(rest.split(".") if rest else [])
    return pa.schema(
        [pa.field(n, _pruned(schema.field(n).type, some)) for n, some in within.items()]
    )


def _pruned(kind: pa.DataType, paths: Sequence[Sequence[str]]) -> pa.DataType:
    if not all(paths):
        return kind
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_type
        if pa.types.is_struct(inner) and all(_has(inner, path[0]) for path in paths):
            return pa.list_(_pruned(inner, paths))
        return kind
    if not pa.types.is_struct(kind) or not all(_has(kind, path[0]) for path in paths):
        return kind
    rest: dict[str, list[Sequence[str]]] = {}
    for first, *more in paths:
        rest.setdefault(first, []).append(more)
    return pa.struct([(n, _pruned(kind.field(n).type, p)) for n, p in rest.items()])


def value_of(rows: pa.RecordBatch, path: str) -> pa.Array:
    """Values of a path, one per row; the values are lists if the path crosses a list.

    In a list of pairs of key and value, the first pair with the key counts. If the
    value is a struct with one field per type, the only field that is not NULL is
    converted to text.

    >>> kept = {"key": "term", "value": {"text": "shoe", "int": None}}
    >>> rows = pa.RecordBatch.from_pylist([{"params": [kept]}, {"params": []}])
    >>> value_of(rows, "params.term").to_pylist()
    ['shoe', None]
    >>> rows = pa.RecordBatch.from_pylist([{"items": [{"id": 3}, {"id": 5}]}])
    >>> value_of(rows, "items.id").to_pylist()
    [[3, 5]]
    """
    column = top(rows.schema.names, path)
    assert column is not None
    rest = path[len(column) + 1 :]
    return _within(rows.column(column), rest.split(".") if rest else [])


def type_at(schema: pa.Schema, path: str) -> pa.DataType:
    """Type of the values of a path; for lists, the type of the entries.

    >>> items = pa.list_(pa.struct({"id": pa.int64()}))
    >>> type_at(pa.schema({"items": items}), "items.id")
    DataType(int64)
    """
    kind = value_of(pa.RecordBatch.from_pylist([], schema), path).type
    return kind.value_type if is_list(kind) else kind


def _within(array: pa.Array, path: Sequence[str]) -> pa.Array:
    array = plain(array)
    if not path:
        return array
    kind = array.type
    if pa.types.is_map(kind):
        return plain(pc.map_lookup(array, path[0], "first"))
    if is_list(kind):
        if pa.types.is_struct(kind.value_type) and not _has(kind.value_type, path[0]):
            return _looked_up(array, path[0])
        inner = _within(pc.list_flatten(array), path)
        ends = np.concatenate([[0], np.cumsum(list_sizes(array))]).astype(np.int32)
        gaps = array.is_null() if array.null_count else None
        return pa.ListArray.from_arrays(pa.array(ends), inner, mask=gaps)
    return _within(pc.struct_field(array, path[0]), path[1:])


def first_there(arrays: Sequence[pa.Array]) -> pa.Array:
    """For each row, the first value that is not NULL among several columns.

    If any column has lists, a single value becomes a list with one entry.

    >>> listed, single = pa.array([["a", "b"], None]), pa.array([None, "c"])
    >>> first_there([listed, single]).to_pylist()
    [['a', 'b'], ['c']]
    """
    kinds = {
        each.type.value_type if is_list(each.type) else each.type for each in arrays
    }
    if not any(is_list(each.type) for each in arrays):
        same = len(kinds) == 1
        return pc.coalesce(*(a if same else a.cast(pa.string()) for a in arrays))
    flats, sizes = [], []
    for each in arrays:
        listed = is_list(each.type)
        flat = plain(pc.list_flatten(each)) if listed else each.drop_null()
        flats.append(flat if len(kinds) == 1 else flat.cast(pa.string()))
        there = pc.is_valid(each).to_numpy(zero_copy_only=False)
        sizes.append(list_sizes(each) if listed else there.astype(np.int64))
    table = np.stack(sizes)
    chosen = np.argmax(table > 0, axis=0)
    starts = np.cumsum(table.ravel()).reshape(table.shape) - table
    rows = np.arange(len(chosen))
    size, start = table[chosen, rows], starts[chosen, rows]
    ends = np.concatenate([[0], np.cumsum(size)])
    at = np.repeat(start - ends[:-1], size) + np.arange(ends[-1])
    values = pa.concat_arrays(flats).take(pa.array(at))
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), values)


def _looked_up(array: pa.Array, key: str) -> pa.Array:
    """Looks up a key in lists of structs that hold a key and a value."""
    flat = pc.list_flatten(array)
    pair = _pair(flat.type)
    assert pair is not None
    row = np.repeat(np.arange(len(array)), list_sizes(array))
    mask = pc.equal(plain(pc.struct_field(flat, pair[0])), key).fill_null(False)
    found = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
    values = _one_type(pc.struct_field(flat, pair[1]).take(pa.array(found)))
    place = np.full(len(array), -1)
    place[row[found[::-1]]] = np.arange(len(found))[::-1]  # the first of several
    return values.take(pa.array(place, mask=place < 0))


def _one_type(array: pa.Array) -> pa.Array:
    """Converts structs with one field per type to text: the first value present."""
    if not pa.types.is_struct(array.type):
        return plain(array)
    fields = [plain(pc.struct_field(array, field.name)) for field in array.type]
    some = [field for field in fields if field.null_count < len(field)]
    if len(some) == 1 and not is_list(some[0].type):
        return some[0].cast(pa.string())
    plain_ones = [f.cast(pa.string()) for f in some if not pa.types.is_nested(f.type)]
    return pc.coalesce(*plain_ones) if plain_ones else pa.nulls(len(array), pa.string())
