"""Converts Arrow arrays to basic types, and finds faulty entries."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.text import quoted


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of Arrow's list types."""
    tests = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


def list_sizes(array: pa.Array) -> np.ndarray:
    """(n,) int64 lengths of lists, 0 for NULL."""
    return pc.list_value_length(array).fill_null(0).to_numpy().astype(np.int64)


def gaps_in(array: pa.Array) -> np.ndarray:
    """(n,) bool, True for NULL."""
    return array.is_null().to_numpy(zero_copy_only=False)


def plain(array: pa.Array) -> pa.Array:
    """Converts an array to a basic Arrow type, with the same values.

    Dictionary and run-end encoded arrays are decoded. Binary values, large strings and
    string views become strings; `first_no_text` finds strings that are not UTF-8. List
    views become lists.
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain(array.storage)
    if pa.types.is_dictionary(kind):
        # Arrow cannot decode views, which Polars has in its categories.
        values, codes = plain(array.dictionary), array.indices
        return plain(pa.DictionaryArray.from_arrays(codes, values).dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(array))
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        ends = np.concatenate([[0], np.cumsum(list_sizes(array))]).astype(np.int32)
        return pa.ListArray.from_arrays(
            pa.array(ends), pc.list_flatten(array), mask=array.is_null()
        )
    tests = ("large_string", "string_view", "binary", "large_binary", "binary_view")
    if any(getattr(pa.types, f"is_{test}")(kind) for test in tests):
        return pc.cast(array, pa.string(), safe=False)  # `first_no_text` checks it
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    return array


def whole(array: pa.Array) -> pa.Array:
    """Converts a text column to floats if an entry ends in ".0", such as "1.0".

    Data frames store an integer column with missing values as floats, so that 1 is
    written as "1.0". The array is returned unchanged if no entry ends in ".0", or if
    any entry is not a number.

    >>> whole(pa.array(["1.0", None])).to_pylist(), whole(pa.array(["1"])).to_pylist()
    ([1.0, None], ['1'])
    """
    if not pa.types.is_string(array.type):
        return array
    if not pc.any(pc.match_substring_regex(array, r"\.0*$")).as_py():
        return array
    try:
        return array.cast(pa.float64())
    except pa.ArrowInvalid:
        return array


def whole_with_gaps(array: pa.Array) -> pa.Array:
    """Converts whole floats to integers if the column has missing values.

    Data frames store an integer column with missing values as floats.

    >>> whole_with_gaps(pa.array([7.0, None])).to_pylist()
    [7, None]
    >>> whole_with_gaps(pa.array([7.0, 8.0])).to_pylist()
    [7.0, 8.0]
    """
    if not pa.types.is_floating(array.type):
        return array
    missing = pc.is_null(array, nan_is_null=True)
    if not pc.any(missing).as_py() or pc.all(missing).as_py():
        return array
    try:
        return pc.if_else(missing, pa.scalar(None, array.type), array).cast(pa.int64())
    except pa.ArrowInvalid:
        return array


def whole_names(array: pa.Array) -> pa.Array:
    """Replaces names such as "7.0" by "7".

    Data frames store an integer column with missing values as floats, so that the id 7
    is written as "7.0".

    >>> whole_names(pa.array(["7.0", "007.0", "v1.0", "7.5", None])).to_pylist()
    ['7', '007.0', 'v1.0', '7.5', None]
    """
    if not pa.types.is_string(array.type):
        return array
    if not pc.any(pc.ends_with(array, ".0")).as_py():
        return array
    return pc.replace_substring_regex(array, r"^(-?[1-9][0-9]*|0)\.0$", r"\1")


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Converts a column to a single array of a basic Arrow type (see `plain`)."""
    if isinstance(column, pa.ChunkedArray):
        pieces = [plain(chunk) for chunk in column.chunks]
        pieces = pieces or [pa.nulls(0, column.type)]
        column = pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
    return plain(column)


def name_codes(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64 codes of names by first appearance, -1 for NULL.

    >>> name_codes(pa.chunked_array([["b", None], ["a", "b"]])).tolist()
    [0, -1, 1, 0]
    """
    coded = column.combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    return coded.indices.fill_null(-1).to_numpy().astype(np.int64)


def first_no_text(array: pa.Array) -> int | None:
    """Index of the first entry that is not valid UTF-8; None if all are valid."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return first_fault(array, _validate)
    return None


def _validate(array: pa.Array) -> None:
    array.take(pa.array(np.arange(len(array)))).validate(full=True)


def bytes_of(array: pa.Array, entry: int) -> str:
    """The bytes of an entry that is not UTF-8, for an error message."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return quoted(array.cast(pa.binary())[entry].as_py())
    return f"that of its {kind}"


def value_at(array: pa.Array, entry: int) -> str:
    """Formats an entry for an error message.

    A time beyond the range of Python's datetime is written as a number.
    """
    try:
        return quoted(array[entry].as_py())
    except (OverflowError, ValueError):
        return quoted(array.slice(entry, 1).cast(pa.int64())[0].as_py())


def first_fault(array: pa.Array, test: Callable[[pa.Array], object]) -> int:
    """Index of the first entry for which `test` raises `pa.ArrowInvalid`."""
    low, high = 0, len(array)  # the first fault lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            test(array.slice(low, middle - low))
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low
