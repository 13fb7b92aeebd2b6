"""Reads shown items from any table as batches of columns.

A table may have one row per shown item, or one row per session with lists. In a batch,
each entry is a shown item. Each column has a role. If the role does not allow a value,
an error names the file, the column and the row.
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.arrays import (
    bytes_of,
    first_fault,
    first_no_text,
    gaps_in,
    is_list,
    list_sizes,
    plain,
    value_at,
    whole,
)
from debias.data.lists import rectangle
from debias.data.tables import Part
from debias.data.text import printable

NAMES = ("session", "query", "item", "user", "device")
_OF_ITEM = (
    "item",
    "click",
    "position",
    "row",
    "column",
    "propensity",
    "label",
    "features",
    "target",
)
MANY = ("presentation", "target")  # roles whose columns keep their own names in a log
SEVERAL = (*MANY, "features", "context", "categories", "numbers")
# Advice about a missing or wrong value. It never says to remove the row: the row is an
# impression, and without it the ranks below it change.
REMEDIES = {
    "session": "fill it",
    "query": "fill it",
    "item": "fill it",
    "user": "write names as whole numbers or text",
    "device": "write names as whole numbers or text",
    "click": "write 0 or 1",
    "position": "write the rank that the item was shown at",
    "row": "write the place that the item was shown at",
    "column": "write the place that the item was shown at",
    "propensity": "write a probability, or ignore the column: propensity=",
    "label": "write the grade, or ignore the column: label=",
    "context": "write a number, or leave the column out of context=NAMES",
    "features": "write a number, or leave the column out of features=NAMES",
    "categories": "write text or whole numbers",
    "numbers": "write a number, or leave the cell empty",
    "presentation": "write text or numbers, or leave the column out of presentation=",
    "target": "write a number, such as a count or seconds, or leave the cell empty",
    "timestamp": "write the time, or ignore the column: timestamp=",
}


def listed(part: Part, chosen: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether each row of a file is a session, with lists of items."""
    return is_list(part.schema.field(chosen["item"][0]).type)


def matching(
    wanted: Sequence[str], names: Sequence[str], taken: set[str]
) -> tuple[str, ...] | None:
    """The columns that match the patterns; None if a pattern matches no column."""
    found: dict[str, None] = {}
    for pattern in wanted:
        some = [n for n in names if n == pattern]
        some = some or [n for n in names if fnmatchcase(n, pattern) and n not in taken]
        if not some:
            return None
        found |= dict.fromkeys(some)
    return tuple(found)


def known_as(name: str, role: str) -> str:
    """Name of a column for messages, followed by its role if name and role differ."""
    return name if name == role else f"{printable(name)} ({role})"


class Fault(ValueError):
    """Error for a wrong value. Its attributes name the column, the row and the value.

    Attributes:
        column: Name of the column.
        row: Row of the value in the file.
        what: The expected value and the actual value, in words.
    """

    column: str
    row: int
    what: str


class Batch(NamedTuple):
    """Columns with one entry per shown item, and the file that they come from.

    `at` is the row of each entry within the batch; it is None if each row has exactly
    one entry. `start` is the number of rows of the file that precede the batch.
    """

    part: str
    start: int
    arrays: dict[str, list[pa.Array]]
    at: np.ndarray | None
    chosen: Mapping[str, tuple[str, ...]]

    def fault(
        self, role: str, entry: int, what: str, todo: str = "", column: int = 0
    ) -> Fault:
        """An error that names the file and row of a shown item."""
        name = known_as(self.chosen[role][column], role)
        todo = f"; {todo}" if todo else ""
        row = self.row(entry)
        fault = Fault(f"{self.part}: column {name} {what} at row {row}{todo}")
        fault.column, fault.row, fault.what = self.chosen[role][column], row, what
        return fault

    def row(self, entry: int) -> int:
        """The row of a shown item in the file."""
        return self.start + int(entry if self.at is None else self.at[entry])

    def padding(self) -> np.ndarray | None:
        """(n,) bool, True for entries without an item; None if all have an item."""
        return None if self.at is None else gaps_in(self.arrays["item"][0])


def shown_batches(
    parts: Sequence[Part], chosen: Mapping[str, tuple[str, ...]], roles: Sequence[str]
) -> Iterator[tuple[Batch, float]]:
    """Yields batches with the columns of `roles`, and the share read so far."""
    roles = [role for role in roles if role in chosen]
    columns = list(dict.fromkeys(name for role in roles for name in chosen[role]))
    numbers = {n for role in roles if role not in NAMES for n in chosen[role]}
    for role in ("timestamp", "click", "categories", "presentation"):
        numbers -= {*chosen.get(role, ())}
    for number, part in enumerate(parts):
        start = 0
        for batch, share in part.read(columns, numbers):
            arrays = {r: [batch.column(n) for n in chosen[r]] for r in roles}
            found = _plain(Batch(part.name, start, arrays, None, chosen))
            yield (
                _plain(exploded(found)) if listed(part, chosen) else found,
                (number + share) / len(parts),
            )
            start += batch.num_rows
        if start == 0:
            raise ValueError(f"{part.name}: has no rows; remove or fill it")


def _plain(batch: Batch) -> Batch:
    """Converts all arrays by `plain`; raises ValueError for text that is not UTF-8."""
    arrays = {}
    for role, columns in batch.arrays.items():
        arrays[role] = [plain(column) for column in columns]
        for number, (old, new) in enumerate(zip(columns, arrays[role], strict=True)):
            if new is not old and (entry := first_no_text(new)) is not None:
                what = f"is not UTF-8, such as {bytes_of(new, entry)}"
                raise batch.fault(role, entry, what, "write the file as UTF-8", number)
    return batch._replace(arrays=arrays)


def exploded(batch: Batch) -> Batch:
    """Expands a batch with one row per session to one entry per shown item.

    Raises:
        ValueError: A list of items is empty, or another list of the row has a different
            length.
    """
    item = batch.arrays["item"][0]
    size = list_sizes(item)
    if size.size and size.min() == 0:
        row = int(np.argmin(size))
        raise batch.fault("item", row, "shows no item", "remove the session")
    at = np.repeat(np.arange(len(size)), size)
    arrays = {}
    for role, columns in batch.arrays.items():
        # The presentation of a list is one value per row; that of an item is in a list.
        arrays[role] = [
            _flat(batch, role, number, size, len(at))
            if role in _OF_ITEM or (role == "presentation" and is_list(column.type))
            else column.take(pa.array(at))
            for number, column in enumerate(columns)
        ]
    if pa.types.is_fixed_size_list(item.type):
        arrays["item"] = [_without_padding(arrays["item"][0])]
    return batch._replace(arrays=arrays, at=at)


def _without_padding(item: pa.Array) -> pa.Array:
    """Replaces -1, which pads fixed-size lists in this library's files, by NULL."""
    if not pa.types.is_signed_integer(item.type):
        return item
    return pc.if_else(pc.equal(item, -1), pa.scalar(None, item.type), item)


def _flat(
    batch: Batch, role: str, number: int, size: np.ndarray, total: int
) -> pa.Array:
    """Flattens a column of lists that must be as long as the lists of items."""
    column = batch.arrays[role][number]
    if column.null_count == len(column) and role != "item":  # empty, or without a type
        kind = column.type.value_type if is_list(column.type) else pa.null()
        return pa.nulls(total, kind)
    if not is_list(column.type):
        what = f"must hold lists, as the items do, got {column.type}"
        raise batch.fault(role, 0, what, "write one list per session", number)
    length = list_sizes(column)
    if (length != size).any():
        row = int(np.argmax(length != size))
        what = f"has {length[row]} entries for {size[row]} items"
        raise batch.fault(role, row, what, "write one entry for each item", number)
    return pc.list_flatten(column)


# Values


def is_empty(batch: Batch, role: str, column: int = 0) -> bool | None:
    """Whether a column is NULL at every shown item; None if no item is shown."""
    array = batch.arrays[role][column]
    if array.null_count == 0 and len(array):
        return False
    shown = None if role not in _OF_ITEM else batch.padding()
    if shown is None:
        return array.null_count == len(array) if len(array) else None
    some = gaps_in(array)[~shown]
    return bool(some.all()) if len(some) else None


def names_of(batch: Batch, role: str, array: pa.Array) -> pa.Array:
    """Converts a column of names to whole numbers or text."""
    kind = array.type
    if pa.types.is_uint64(kind):  # may be larger than all signed numbers
        pass
    elif pa.types.is_integer(kind):
        array = array.cast(pa.int64())
    elif pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        # Data frames turn whole numbers with gaps into floats.
        rule = "must be a whole number or text"
        array = _cast(batch, role, array, pa.int64(), rule, "write it as text")
    elif not pa.types.is_string(kind):
        rule = "must be a whole number or text"
        array = _cast(batch, role, array, pa.string(), rule, "is it the right column?")
    padding = role == "item" and batch.at is not None
    if array.null_count and not padding and role not in ("user", "device"):
        entry = int(np.argmax(gaps_in(array)))
        raise batch.fault(role, entry, "is NULL", REMEDIES[role])
    return array


class _Rule(NamedTuple):
    cast: pa.DataType
    dtype: type
    words: str


_RULES = {
    "click": _Rule(pa.int64(), np.uint8, "must be 0 or 1"),
    "position": _Rule(pa.int64(), np.int32, "must be a whole number"),
    "row": _Rule(pa.int64(), np.int32, "must be a whole number"),
    "column": _Rule(pa.int64(), np.int32, "must be a whole number"),
    "propensity": _Rule(pa.float64(), np.float32, "must be a number in (0, 1]"),
    "label": _Rule(pa.float64(), np.float32, "must be a grade, a number"),
    "context": _Rule(pa.float64(), np.float32, "must be a finite number"),
    "features": _Rule(pa.float64(), np.float32, "must be a finite number"),
    "timestamp": _Rule(pa.float64(), np.float64, "must be a finite number or a time"),
}


def numbers_of(
    batch: Batch, role: str, column: int = 0, width: int | None = None
) -> np.ndarray:
    """Reads a column as numbers (n,), or a column of lists as numbers (n, C).

    Args:
        width: The length C of the lists, if it is known from earlier rows.
    """
    array = batch.arrays[role][column]
    if role in SEVERAL and is_list(array.type):
        return _lists_of_numbers(batch, role, column, width)
    rule = _RULES[role]
    if rule.cast == pa.int64():
        array = whole(array)
    if role == "click" and pa.types.is_string(array.type):  # true or false, too
        array = _cast(batch, role, array, pa.bool_(), rule.words, column=column)
    array = _cast(batch, role, array, rule.cast, rule.words, column=column)
    padding = batch.padding() if role in _OF_ITEM and array.null_count else None
    if padding is not None:
        array = pc.if_else(pa.array(padding), pa.scalar(0, rule.cast), array)
    if array.null_count:
        entry = int(np.argmax(gaps_in(array)))
        what = f"{rule.words}, got NULL"
        raise batch.fault(role, entry, what, REMEDIES[role], column)
    values = array.to_numpy()
    _check_range(batch, role, values, column)
    return values.astype(rule.dtype)


def _check_range(batch: Batch, role: str, values: np.ndarray, column: int) -> None:
    words, dtype = _RULES[role].words, _RULES[role].dtype
    if role == "click":
        wrong = (values != 0) & (values != 1)
    elif role == "propensity":
        wrong = ~((values > 0) & (values <= 1))
        if (padding := batch.padding()) is not None:
            wrong &= ~padding
    elif role == "context":
        wrong = ~(np.abs(values) <= np.finfo(np.float32).max)
    elif dtype is np.int32:
        wrong = (values > np.iinfo(np.int16).max) | (values < np.iinfo(np.int16).min)
        words += " of at most 32767"
    else:
        return
    if wrong.any():
        entry = int(np.argmax(wrong))
        several = role == "click" and values[entry] > 1
        todo = "write 1 where there were several" if several else REMEDIES[role]
        raise batch.fault(role, entry, f"{words}, got {values[entry]:g}", todo, column)


def _lists_of_numbers(
    batch: Batch, role: str, column: int, width: int | None
) -> np.ndarray:
    array = batch.arrays[role][column]
    if width is not None:
        length = list_sizes(array)
        if length.size and length.max() > width:
            entry = int(np.argmax(length > width))
            what = f"has {length[entry]} numbers where the rows before have {width}"
            raise batch.fault(role, entry, what, "write lists of one length", column)
    try:
        values, gaps = rectangle(array, width, np.nan)
    except ValueError as error:
        raise batch.fault(role, 0, str(error), REMEDIES[role], column) from error
    padding = batch.padding() if role in _OF_ITEM else None
    if gaps is not None and padding is not None:
        gaps = gaps & ~padding[:, None]
    if gaps is not None and role == "features":  # a value is missing in a list
        length = list_sizes(array)
        gaps = gaps & ((length > 0) & (length < values.shape[1]))[:, None]
    if gaps is not None and gaps.any():
        entry, number = np.argwhere(gaps)[0]
        what = f"lacks number {number} of {values.shape[1]}"
        raise batch.fault(role, int(entry), what, REMEDIES[role], column)
    return values


def side_by_side(values: list[np.ndarray]) -> np.ndarray:
    """Stacks columns (n,) and groups of columns (n, C) as one array."""
    return np.concatenate([v.reshape(len(v), -1) for v in values], axis=1)


def _cast(
    batch: Batch,
    role: str,
    array: pa.Array,
    kind: pa.DataType,
    rule: str,
    todo: str = "",
    column: int = 0,
) -> pa.Array:
    """Casts without loss, or raises an error that names the first faulty entry."""
    try:
        return array.cast(kind)
    except pa.ArrowNotImplementedError:
        what, todo = f"{rule}, got {array.type}", "is it the right column?"
        raise batch.fault(role, 0, what, todo, column) from None
    except pa.ArrowInvalid:
        entry = first_fault(array, lambda some: some.cast(kind))
        what = f"{rule}, got {value_at(array, entry)}"
        raise batch.fault(role, entry, what, todo or REMEDIES[role], column) from None
