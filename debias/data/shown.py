"""Shown items as batches of columns, whatever the table they come from.

A table may have a row a shown item, or a row a session and lists; here an entry is a
shown item. Each column plays a part ("role"), and a value that its part does not allow
is an error that names the file, the column and the row.
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.lists import rectangle
from debias.data.tables import Part

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
)
SEVERAL = ("features", "context")
REPAIR = "repair or remove the row"


def listed(part: Part, chosen: dict[str, tuple[str, ...]]) -> bool:
    """Whether a row is a session."""
    return is_list(part.schema.field(chosen["item"][0]).type)


def is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def matching(
    wanted: Sequence[str], names: Sequence[str], taken: set[str]
) -> tuple[str, ...] | None:
    """The columns that names and patterns choose; None if one chooses nothing."""
    found: dict[str, None] = {}
    for pattern in wanted:
        some = [n for n in names if n == pattern]
        some = some or [n for n in names if fnmatchcase(n, pattern) and n not in taken]
        if not some:
            return None
        found |= dict.fromkeys(some)
    return tuple(found)


class Batch(NamedTuple):
    """Columns with an entry a shown item, and where these were read.

    `at` is the row of each within the batch, None where it is the entry's own number;
    `start` is the number of rows of the part before the batch.
    """

    part: str
    start: int
    arrays: dict[str, list[pa.Array]]
    at: np.ndarray | None
    chosen: dict[str, tuple[str, ...]]

    def fault(
        self, role: str, entry: int, what: str, todo: str = "", column: int = 0
    ) -> ValueError:
        """The error that names the place of a shown item."""
        row = self.start + int(entry if self.at is None else self.at[entry])
        name = self.chosen[role][column]
        known_as = name if name == role else f"{name} ({role})"
        todo = f"; {todo}" if todo else ""
        return ValueError(f"{self.part}: column {known_as} {what} at row {row}{todo}")


def shown_batches(
    parts: Sequence[Part], chosen: dict[str, tuple[str, ...]], roles: Sequence[str]
) -> Iterator[tuple[Batch, float]]:
    """The parts' batches with the columns of these roles, and the share now read."""
    roles = [role for role in roles if role in chosen]
    columns = list(dict.fromkeys(name for role in roles for name in chosen[role]))
    numbers = {n for role in roles if role not in NAMES for n in chosen[role]}
    numbers -= {*chosen.get("timestamp", ()), *chosen.get("click", ())}
    for number, part in enumerate(parts):
        start = 0
        for batch, share in part.read(columns, numbers):
            arrays = {r: [plain(batch.column(n)) for n in chosen[r]] for r in roles}
            found = Batch(part.name, start, arrays, None, chosen)
            yield (
                _exploded(found) if listed(part, chosen) else found,
                (number + share) / len(parts),
            )
            start += batch.num_rows
        if start == 0:
            raise ValueError(
                f"{part.name}: an empty partition, it holds no row; remove or fill it"
            )


def plain(array: pa.Array) -> pa.Array:
    """The array without a dictionary."""
    if pa.types.is_dictionary(array.type):
        return array.cast(array.type.value_type)
    return array


def _exploded(batch: Batch) -> Batch:
    """A batch with a row a session as one with an entry a shown item."""
    item = batch.arrays["item"][0]
    size = pc.list_value_length(item).fill_null(0).to_numpy().astype(np.int64)
    if size.size and size.min() == 0:
        row = int(np.argmin(size))
        raise batch.fault("item", row, "shows no item", "remove the session")
    at = np.repeat(np.arange(len(size)), size)
    arrays = {}
    for role, columns in batch.arrays.items():
        if role not in _OF_ITEM:
            arrays[role] = [column.take(pa.array(at)) for column in columns]
            continue
        arrays[role] = []
        for number, column in enumerate(columns):
            if not is_list(column.type):
                what = f"must be lists as the items are, got {column.type}"
                todo = "write a list a session"
                raise batch.fault(role, 0, what, todo, number)
            length = pc.list_value_length(column).fill_null(0).to_numpy()
            if (length != size).any():
                row = int(np.argmax(length != size))
                what = f"has {length[row]} entries for {size[row]} items"
                todo = "write one for each item"
                raise batch.fault(role, row, what, todo, number)
            arrays[role].append(pc.list_flatten(column))
    return batch._replace(arrays=arrays, at=at)


def names_of(batch: Batch, role: str, array: pa.Array) -> pa.Array:
    """Names as whole numbers or text."""
    kind = array.type
    if pa.types.is_integer(kind):
        array = array.cast(pa.int64())
    elif pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        # What a data frame makes of whole numbers with gaps.
        array = _cast(batch, role, array, pa.int64(), "must be a whole number or text")
    elif not pa.types.is_string(kind):
        try:
            array = array.cast(pa.string())
        except pa.ArrowException:
            what = f"must be whole numbers or text, got {kind}"
            raise batch.fault(role, 0, what, "write it as one of these") from None
    padding = role == "item" and batch.at is not None
    if array.null_count and not padding and role not in ("user", "device"):
        entry = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise batch.fault(role, entry, "is NULL", "fill or remove the row")
    return array


_RULES = {
    "click": (pa.int64(), np.uint8, "must be 0 or 1"),
    "position": (pa.int64(), np.int32, "must be a whole number"),
    "row": (pa.int64(), np.int32, "must be a whole number"),
    "column": (pa.int64(), np.int32, "must be a whole number"),
    "propensity": (pa.float64(), np.float32, "must be a number in (0, 1]"),
    "label": (pa.float64(), np.float32, "must be a grade, a number"),
    "context": (pa.float64(), np.float32, "must be a finite number"),
    "features": (pa.float64(), np.float32, "must be a finite number"),
    "timestamp": (pa.float64(), np.float64, "must be a finite number or a time"),
}


def numbers_of(batch: Batch, role: str, column: int = 0) -> np.ndarray:
    """The numbers of a column, (n,), or of a column of lists, (n, C)."""
    array = batch.arrays[role][column]
    kind, dtype, rule = _RULES[role]
    if role in SEVERAL and is_list(array.type):
        try:
            values, gaps = rectangle(array, None, np.nan)
        except ValueError as error:
            raise batch.fault(role, 0, str(error), REPAIR, column) from error
        if gaps is not None and batch.at is not None and role in _OF_ITEM:
            gaps &= ~is_padding(batch.arrays["item"][0])[:, None]
        if gaps is not None and gaps.any():
            entry, number = np.argwhere(gaps)[0]
            what = f"lacks number {number} of {values.shape[1]}"
            raise batch.fault(role, int(entry), what, REPAIR, column)
        return values
    if role == "click" and pa.types.is_string(array.type):  # also true and false
        array = _cast(batch, role, array, pa.bool_(), rule, column)
    array = _cast(batch, role, array, kind, rule, column)
    if batch.at is not None and array.null_count and role in _OF_ITEM:
        padding = pa.array(is_padding(batch.arrays["item"][0]))
        array = pc.if_else(padding, pa.scalar(0, kind), array)
    if array.null_count:
        entry = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise batch.fault(role, entry, f"{rule}, got NULL", REPAIR, column)
    values = array.to_numpy()
    wrong = None
    if role == "click":
        wrong = (values != 0) & (values != 1)
    elif role == "propensity":
        wrong = ~((values > 0) & (values <= 1))
        if batch.at is not None:
            wrong &= ~is_padding(batch.arrays["item"][0])
    elif role == "context":
        wrong = ~np.isfinite(values)
    elif dtype is np.int32:
        wrong = np.abs(values) > np.iinfo(np.int16).max
        rule += " of at most 32767"
    if wrong is not None and wrong.any():
        entry = int(np.argmax(wrong))
        several = role == "click" and values[entry] > 1
        todo = "write 1 where there were several" if several else REPAIR
        raise batch.fault(role, entry, f"{rule}, got {values[entry]:g}", todo, column)
    return values.astype(dtype)


def is_padding(item: pa.Array) -> np.ndarray:
    gaps = item.is_null()
    if pa.types.is_integer(item.type):
        gaps = pc.or_(gaps, pc.less(item, 0).fill_null(True))
    return gaps.to_numpy(zero_copy_only=False)


def side_by_side(values: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([v.reshape(len(v), -1) for v in values], axis=1)


def times_of(batch: Batch, array: pa.Array) -> np.ndarray:
    """Times as NumPy times, or as the numbers they are."""
    if pa.types.is_string(array.type):
        rule = "must be a time such as 2024-05-01 12:00:00"
        array = _cast(batch, "timestamp", array, pa.timestamp("us"), rule)
    return array.to_numpy(zero_copy_only=False)


def _cast(
    batch: Batch,
    role: str,
    array: pa.Array,
    kind: pa.DataType,
    rule: str,
    column: int = 0,
) -> pa.Array:
    """The array cast without loss, or an error that names the first entry at fault."""
    try:
        return array.cast(kind)
    except pa.ArrowNotImplementedError:
        what, todo = f"{rule}, got {array.type}", "is it the right column?"
        raise batch.fault(role, 0, what, todo, column) from None
    except pa.ArrowInvalid:
        low, high = 0, len(array)  # the first fault lies in [low, high)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                array.slice(low, middle - low).cast(kind)
                low = middle
            except pa.ArrowInvalid:
                high = middle
        what = f"{rule}, got {array[low].as_py()!r}"
        raise batch.fault(role, low, what, REPAIR, column) from None


def matrix_of(batch: Batch, role: str, size: int) -> np.ndarray:
    """(n, F) float32 of one part's columns."""
    columns = range(len(batch.arrays[role]))
    with np.errstate(over="ignore"):  # reported as not finite
        values = [numbers_of(batch, role, number) for number in columns]
        together = np.concatenate([v.reshape(size, -1) for v in values], axis=1)
        return together.astype(np.float32, copy=False)


def check_finite(
    batch: Batch,
    role: str,
    values: np.ndarray,
    entries: np.ndarray,
    high: int | None,
) -> None:
    wrong = (
        ~np.isfinite(values) if high is None else ~((values >= 0) & (values <= high))
    )
    if wrong.any():
        entry, column = np.argwhere(wrong)[0]
        rule = "must be finite" if high is None else f"must be a grade in 0..{high}"
        what = f"{rule}, got {values[entry, column]:g}"
        todo = "fill it, or drop the row or the column"
        raise cell_fault(batch, role, int(entries[entry]), int(column), what, todo)


def cell_fault(
    batch: Batch, role: str, entry: int, column: int, what: str, todo: str
) -> ValueError:
    if len(batch.chosen[role]) > 1:
        return batch.fault(role, entry, what, todo, column)
    place = f"number {column} " if is_list(batch.arrays[role][0].type) else ""
    return batch.fault(role, entry, place + what, todo)
