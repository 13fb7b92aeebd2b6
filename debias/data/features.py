"""Reads raw features of users or items from tables of any format."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.arrays import (
    is_list,
    one_array,
    value_at,
    whole_names,
    whole_with_gaps,
)
from debias.data.shown import matching
from debias.data.tables import Part, Source, open_parts
from debias.data.text import near, printable, quoted

MANY = 20  # whole numbers with more distinct values may be quantities
UNIQUE = 0.8  # share of rows with a value of their own, above which a column is an id
ID = "id"  # the feature that names a user or an item


def read_features(
    source: Source,
    id: str = ID,
    features: Sequence[str] = ("*",),
    progress: Callable[[float], None] = lambda share: None,
    numbers: Sequence[str] = (),
    notice: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Reads raw columns for `FeatureTable.build` and `FeatureTable.append`.

    The first column of the result is "id". Lists become multi-valued features, floats
    and decimals become numeric features, and all other values become categorical
    features. Whole numbers are therefore categories unless `numbers` names their
    column. A CSV column is numeric if all its values are numbers and at least one is
    not a whole number. NULL means a missing value, even within a list. Data frames
    store an integer column with missing values as floats. A float column is therefore
    read as whole numbers if it has missing values and all other values are whole. An id
    7.0 is read as the id 7, even if the ids are text.

    Args:
        source: Table with one row per user or item (see
            `debias.data.tables.open_parts`).
        id: Name of the id column.
        features: Names and patterns of the columns to read.
        progress: Called with the share of the source that was read so far.
        numbers: Columns of whole numbers to read as numeric features.
        notice: Called with a message for each column that is read as categories but may
            not be categorical. A column with many distinct whole numbers may be
            numeric. A column with a different category in almost every row may hold
            titles, or prices with a comma.

    Raises:
        ValueError: A column is missing, an id is empty or occurs twice, a feature is
            called "id", a column of `numbers` is not numeric, a number is infinite or
            beyond float32, a list holds fractions, or the file is damaged. The message
            names the column or the file.

    >>> table = pa.table({"sku": [7, 8], "price": ["1.5", "2"], "kind": ["a", None]})
    >>> read_features(table, "sku")
    {'id': ['7', '8'], 'price': [1.5, 2.0], 'kind': ['a', None]}
    """
    parts = open_parts(source)
    read = _chosen(parts, id, features, numbers)
    batches = []
    for number, part in enumerate(parts):
        for batch, share in part.read(read, ()):
            batches.append(batch)
            progress((number + share) / len(parts))
    name = parts[0].name
    if not batches:
        raise ValueError(f"{name}: has no rows; fill or remove it")
    table = pa.Table.from_batches(batches).select(list(read))
    ids = _ids(name, id, table.column(id))
    _, once = np.unique(ids, return_index=True)
    if len(once) < len(ids):
        row = int(np.setdiff1d(np.arange(len(ids)), once)[0])
        raise ValueError(
            f"{name}: column {printable(id)} repeats {quoted(ids[row])} at row {row}; "
            "keep one row per id"
        )
    values: dict[str, Any] = {ID: ids}
    for column in read[1:]:
        try:
            array = one_array(table.column(column))
            if column not in numbers:
                array = whole_with_gaps(_numbers(array))
            values[column] = _values(array, column in numbers)
            _check_sizes(f"{name}: column {printable(column)}", values[column])
        except (pa.ArrowException, UnicodeError, OverflowError) as error:
            raise ValueError(
                f"{name}: column {printable(column)} has an invalid value: {error}"
            ) from error
        if column not in numbers and (said := _said(array)):
            notice(f"{name}: column {printable(column)} holds {said}")
    return values


def _chosen(
    parts: Sequence[Part], id: str, features: Sequence[str], numbers: Sequence[str]
) -> tuple[str, ...]:
    """The id column and the feature columns, which must exist in all files."""
    name, schema = parts[0].name, parts[0].schema
    if id not in schema.names:
        raise ValueError(
            f"{name}: no column {printable(id)} of ids: {near(id, schema.names)}; "
            "rename the column of ids: it needs the name that it has in the events"
        )
    absent = next((each for each in numbers if each not in schema.names), None)
    if absent is not None:
        raise ValueError(
            f"{name}: no column {printable(absent)} of numbers: "
            f"{near(absent, schema.names)}"
        )
    found = matching(features, schema.names, {id})
    if found is None and tuple(features) == ("*",):
        found = ()  # the table only lists the ids
    if found is None:
        raise ValueError(
            f"{name}: no column {printable(' '.join(features))}: "
            f"{near(str(features[0]), schema.names)}"
        )
    read = (id, *(column for column in found if column != id))
    if ID in read[1:]:
        raise ValueError(
            f"{name}: column {ID} has the name that stands for the ids, which are in "
            f"column {printable(id)}; rename it, or leave it out"
        )
    for part in parts[1:]:
        for column in read:
            here, there = (
                p.schema.field(column).type if column in p.schema.names else "nothing"
                for p in (part, parts[0])
            )
            if here != there:
                raise ValueError(
                    f"{part.name}: column {printable(column)} holds {here}, and "
                    f"{there} in {name}; write it as one type"
                )
    return read


def _ids(name: str, id: str, column: pa.ChunkedArray) -> list[str]:
    """Converts ids to text; an id 7.0 becomes "7", and a missing id is an error."""
    try:
        array = one_array(column)
        array.validate(full=True)  # checks that text is UTF-8
        if pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
            array = array.cast(pa.int64())
        ids: list[str] = whole_names(array.cast(pa.string())).to_pylist()
    except pa.ArrowException:
        raise ValueError(
            f"{name}: column {printable(id)} must be text in UTF-8 or whole numbers, "
            f"got {column.type}"
        ) from None
    for row, each in enumerate(ids):
        if not each:
            raise ValueError(
                f"{name}: column {printable(id)} is empty at row {row}; fill it"
            )
    return ids


def _said(column: pa.Array) -> str:
    """Describes why a column may not be categorical; "" if nothing is unusual."""
    kind, there = column.type, len(column) - column.null_count
    if is_list(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return ""
    if pa.types.is_nested(kind) or there <= MANY:
        return ""
    if (count := pc.count_distinct(column).as_py()) <= MANY:
        return ""
    if pa.types.is_string(kind):
        with suppress(pa.ArrowInvalid):
            kind = column.cast(pa.int64()).type
    if pa.types.is_integer(kind):
        return f"{count:,} different whole numbers, read as categories"
    if count > UNIQUE * there:
        return (
            f"{count:,} different values in {there:,} rows, such as "
            f"{value_at(column.drop_null(), 0)}, read as categories: like an id, "
            "almost every value occurs in one row only"
        )
    return ""


def _values(column: pa.Array, number: bool = False) -> list[Any]:
    if number and not is_list(column.type):
        column = column.cast(pa.float64(), safe=False)
    if is_list(column.type):
        return [_words(value or []) for value in column.to_pylist()]
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_floating(column.type):
        return pc.fill_null(column, np.nan).to_pylist()
    return column.to_pylist()


def _words(values: list[Any]) -> list[Any]:
    """A list of categories, in which whole floats are integers and NaN is missing."""
    if not any(isinstance(value, float) for value in values):
        return values
    there = [None if value is None or isnan(value) else value for value in values]
    if fraction := next((x for x in there if x is not None and x % 1 != 0), None):
        raise pa.ArrowInvalid(
            f"a list holds {fraction}, but lists hold categories: write numbers, such "
            "as an embedding, into a column each"
        )
    return [None if value is None else int(value) for value in there]


def _check_sizes(where: str, values: list[Any]) -> None:
    """Raises ValueError for infinite numbers, and for those beyond float32."""
    if not any(isinstance(value, float) for value in values):
        return
    wrong = np.abs(np.array(values, float)) > np.finfo(np.float32).max
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{where} holds {values[row]} at row {row}, which is infinite or beyond "
            "single precision: write a finite number, or nothing if it is unknown"
        )


def _numbers(column: pa.Array) -> pa.Array:
    """Casts text to floats if all values are numbers and any is not a whole number."""
    if not pa.types.is_string(column.type):
        return column
    with suppress(pa.ArrowInvalid):
        column.cast(pa.int64())
        return column
    with suppress(pa.ArrowInvalid):
        return column.cast(pa.float64())
    return column
