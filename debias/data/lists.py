"""Conversion between NumPy arrays and Arrow lists.

This module calls an array (S, L) a rectangle. A rectangle corresponds to an Arrow
column of S lists of the fixed size L. Conversion to Arrow copies only bools, because
Arrow packs eight bools into a byte. Conversion from Arrow also accepts the columns of
other programs: NULLs and the missing ends of shorter lists become padding.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.arrays import gaps_in, list_sizes


class Filled(NamedTuple):
    """Values with filled gaps, and a mask of the gaps (None if there are no gaps)."""

    values: np.ndarray
    gaps: np.ndarray | None


def lists_of(values: np.ndarray) -> pa.Array:
    """Converts a vector to an Arrow array, or a rectangle to fixed-size lists.

    >>> lists_of(np.array([[1, 2], [3, 4]], np.int32)).type
    FixedSizeListType(fixed_size_list<item: int32 not null>[2])
    """
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    cell = pa.field("item", flat.type, nullable=False)
    return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(cell, values.shape[1]))


def list_size_of(column: pa.ChunkedArray | pa.Array) -> int:
    """Length of the longest list in a column, or the fixed size of its lists."""
    if pa.types.is_fixed_size_list(column.type):
        return column.type.list_size
    longest = pc.max(pc.list_value_length(column)).as_py()
    return longest or 0


def filled(column: pa.ChunkedArray | pa.Array, fill: float) -> Filled:
    """Converts a column of numbers to a vector, with `fill` in place of NULL."""
    array = _one_chunk(column)
    kind = array.type
    if not (pa.types.is_boolean(kind) or pa.types.is_primitive(kind)) or (
        pa.types.is_temporal(kind)
    ):
        raise ValueError(f"must be numbers, got {kind}")
    if array.null_count == 0:
        return Filled(array.to_numpy(zero_copy_only=False), None)
    gaps = gaps_in(array)
    values = array.drop_null().to_numpy(zero_copy_only=False)
    return Filled(_spread(values, ~gaps, fill), gaps)


def rectangle(
    column: pa.ChunkedArray | pa.Array, list_size: int | None, fill: float
) -> Filled:
    """Converts a column of lists of numbers to a rectangle (rows, list_size).

    Gaps hold `fill`. NULL lists, NULL cells and cells after the end of a shorter list
    are gaps. Lists of the fixed size `list_size` without NULLs are not copied.

    Args:
        column: Column of lists, of fixed or variable size.
        list_size: Number of cells in a row. None means the length of the longest list.
        fill: Value of gaps.

    Raises:
        ValueError: The column does not hold lists of numbers, or a list is longer than
            `list_size`.

    >>> rectangle(pa.array([[1, 2], None, [3]]), None, -1).values.tolist()
    [[1, 2], [-1, -1], [3, -1]]
    """
    array = _one_chunk(column)
    if not _is_list(array.type):
        raise ValueError(f"must be lists, got {array.type}")
    longest = list_size_of(array)
    list_size = longest if list_size is None else list_size
    if longest > list_size:
        raise ValueError(f"must be lists of at most {list_size}, got {longest}")
    fixed = pa.types.is_fixed_size_list(array.type)
    if fixed and longest == list_size and array.null_count == 0:
        values, gaps = filled(array.flatten(), fill)
        shape = len(array), list_size
        return Filled(
            values.reshape(shape), None if gaps is None else gaps.reshape(shape)
        )
    inside = np.arange(list_size) < list_sizes(array)[:, None]
    flat, flat_gaps = filled(pc.list_flatten(array), fill)  # NULL lists have no entries
    gaps = ~inside
    if flat_gaps is not None:
        gaps[inside] = flat_gaps
    return Filled(_spread(flat, inside, fill), gaps)


def _spread(values: np.ndarray, inside: np.ndarray, fill: float) -> np.ndarray:
    """An array with `values` in the true cells of `inside` and `fill` elsewhere.

    The array has the type of `values`, or a wider type that can also hold `fill`.
    """
    dtype = np.result_type(values.dtype, np.min_scalar_type(fill))
    spread = np.full(inside.shape, fill, dtype)
    spread[inside] = values
    return spread


def _one_chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    return any(test(kind) for test in tests)
