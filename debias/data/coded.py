"""Encodes columns of any type as a feature matrix of numbers and category codes.

The type of a column determines its kind. Numbers, decimals and booleans are read as
numbers, and dates as days since 1970. A list of texts becomes several categories, and a
list of numbers becomes a vector. All columns of a CSV file are text. The first rows of
a text column determine whether it holds numbers, dates, booleans or categories (see
`guessed`). NULL, NaN and the empty text are missing values.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.arrays import first_fault, is_list, list_sizes, plain, value_at
from debias.data.kinds import (
    FIRST,
    MISSING,
    MOST,
    UNKNOWN,
    Feature,
    Features,
    list_features,
    number_text,
)
from debias.data.present import Present
from debias.data.shown import REMEDIES, Batch
from debias.data.tables import Part
from debias.data.text import printable

LONGEST = 16  # most values that are read from a list of one item
LARGEST = 1 << 24  # largest code that float32 represents exactly
DAY = {"s": 86_400, "ms": 86_400e3, "us": 86_400e6, "ns": 86_400e9}
FARTHEST = 3_652_059  # largest distance of a date from 1970 in days: ten thousand years
# Dates that are not ISO 8601, such as 31.01.2026 and 2026/01/31.
OTHER_DATE = r"^\s*(\d{1,2}[./-]\d{1,2}[./-]\d{4}|\d{4}[./]\d{1,2}[./]\d{1,2})\b"
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


# Kinds


def kinds_of(
    parts: Sequence[Part],
    columns: Iterable[str],
    listed: bool = False,
    categories: Sequence[str] = (),
    numbers: Sequence[str] = (),
) -> dict[str, str]:
    """Determines the kind of each column from its types and the caller's choices.

    Args:
        parts: The files of a table.
        columns: Names of the feature columns.
        listed: Whether a row is a session, so that columns hold lists with one entry
            per item.
        categories: Columns to read as categories, whatever their type.
        numbers: Columns to read as numbers, whatever their type.

    Returns:
        The kind of each column: a kind of `debias.data.kinds`, "vector" for lists of
        numbers, or "guess" for text. `Reader` replaces "guess" by a kind that it infers
        from the first rows.

    Raises:
        ValueError: The type of a column is not supported for features. The message
            names the file and the column.

    >>> from debias.data.tables import open_parts
    >>> table = pa.table({"brand": ["a"], "price": [1.5], "size": [3]})
    >>> kinds_of(open_parts(table), table.column_names, categories=["size"])
    {'brand': 'guess', 'price': 'number', 'size': 'category'}
    """
    found = {}
    for column in columns:
        kinds = {_kind(part, column, listed) for part in parts} - {"nothing"}
        several = bool(kinds & {"vector", "categories"})
        if column in categories:
            found[column] = "categories" if several else "category"
        elif column in numbers:
            found[column] = "vector" if several else "number"
        elif len(kinds) > 1:  # such as text in one file and numbers in another
            numeric = kinds <= {"number", "boolean"}
            text = "categories" if several else "guess"
            found[column] = "number" if numeric else text
        else:
            found[column] = kinds.pop() if kinds else "number"
    return found


def _kind(part: Part, column: str, listed: bool) -> str:
    kind = _layout(part.schema.field(column).type)
    if listed and is_list(kind):
        kind = _layout(kind.value_type)
    if is_list(kind):
        return "categories" if _is_text(_layout(kind.value_type)) else "vector"
    if pa.types.is_null(kind):
        return "nothing"
    if _is_text(kind):
        return "guess"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "date"
    tests = ("integer", "floating", "decimal")
    if any(getattr(pa.types, f"is_{test}")(kind) for test in tests):
        return "number"
    raise ValueError(
        f"{part.name}: column {printable(column)} (features) holds {kind}, which "
        "cannot be a feature; leave it out of features=NAMES"
    )


def _layout(kind: pa.DataType) -> pa.DataType:
    """The type of the values, without dictionary, run-end or extension encoding."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _layout(kind.value_type)
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_text(kind: pa.DataType) -> bool:
    tests = ("string", "large_string", "string_view", "binary", "large_binary")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


class OtherKind(Exception):
    """Raised if the values of a column do not fit the kind assumed so far.

    The caller catches the error and reads the table again with the new kind.
    """

    def __init__(self, column: str, kind: str):
        super().__init__(column, kind)
        self.column, self.kind = column, kind


# Reading


class Reader:
    """Encodes batches of a table as feature matrices, and collects the vocabularies.

    Args:
        kinds: Kinds of the feature columns, from `kinds_of`.
        asked: Columns that the caller declared as numbers.
        role: Role of the columns to encode, such as "features" or "target".
    """

    def __init__(
        self,
        kinds: Mapping[str, str],
        asked: Sequence[str] = (),
        role: str = "features",
    ):
        self.kinds, self.asked, self.role = dict(kinds), set(asked), role
        self.cut: dict[str, int] = {}  # number of cut lists, by column
        self.beyond: dict[str, str] = {}  # first value beyond a vocabulary, by column
        self._codes: dict[str, dict[str, int]] = {}
        self._widths: dict[str, int] = {}  # longest list so far
        self._vectors: dict[str, int] = {}
        self._present = Present()

    def matrix(self, batch: Batch) -> np.ndarray:
        """Encodes the shown items of a batch as (n, F) float32, category codes first.

        Raises:
            ValueError: A value is not allowed in its column. The message names the
                file, the column and the row.
            OtherKind: The values of a text column do not fit the kind assumed so far.
        """
        names = batch.chosen[self.role]
        coded, numbers = [], []
        for place, name in enumerate(names):
            kind = self.kinds[name]
            if kind == "category":
                coded.append(self._category(batch, place)[:, None])
            elif kind == "categories":
                coded.append(self._several(batch, place))
            elif kind == "vector":
                numbers.append(self._vector(batch, place))
            else:
                numbers.append(self.numbers(batch, place)[:, None])
        found = np.concatenate([*coded, *numbers], axis=1, dtype=np.float32)
        found += 0.0  # one zero, and below one NaN, because rows are compared bitwise
        found[np.isnan(found)] = np.nan
        return found

    def features(self, columns: Sequence[str]) -> Features:
        """The features of the matrix; a list of categories takes `LONGEST` columns."""
        coded, numbers = [], []
        for name in columns:
            kind = self.kinds[name]
            if kind in ("category", "categories"):
                several = kind == "categories"
                values = tuple(self._codes.get(name, ()))
                width = LONGEST if several else 1
                coded.append(Feature(name, kind, values, width))
            elif kind == "vector":
                names = list_features(name, self._vectors.get(name, 0))
                numbers += [Feature(each) for each in names]
            else:
                numbers.append(Feature(name, "number" if kind == "guess" else kind))
        return (*coded, *numbers)

    def width(self, name: str) -> int:
        """Length of the longest list in a column so far, at most `LONGEST`."""
        return min(self._widths.get(name, 0), LONGEST)

    def _vector(self, batch: Batch, place: int) -> np.ndarray:
        found = self._present.column(batch, self.role, place)
        name = batch.chosen[self.role][place]
        if found is None:
            return np.zeros((len(batch.arrays[self.role][place]), 0), np.float32)
        if np.isinf(found).any():
            entry = int(np.argmax(np.isinf(found).reshape(len(found), -1).any(axis=1)))
            what = "must be finite, got inf"
            raise batch.fault(self.role, entry, what, REMEDIES[self.role], place)
        self._vectors[name] = found.shape[1]
        return found

    def _category(self, batch: Batch, place: int) -> np.ndarray:
        name, array = _named(batch, self.role, place)
        if is_list(array.type):
            what = "holds lists where other rows hold single values,"
            raise batch.fault(
                self.role, 0, what, "write all rows as lists or none", place
            )
        codes = self._code(batch, place, name, array)
        self._note_beyond(batch, name, codes)
        return codes

    def _code(self, batch: Batch, place: int, name: str, array: pa.Array) -> np.ndarray:
        """(n,) codes of the values; a new value gets the next free code."""
        texts, index = _texts(batch, self.role, place, array)
        known = self._codes.setdefault(name, {})
        codes = [
            known.setdefault(text, FIRST + len(known)) if text else MISSING
            for text in texts
        ]
        if len(known) > LARGEST - FIRST:
            what = f"holds more than {LARGEST:,} values"
            todo = "leave it out of features=NAMES"
            raise batch.fault(self.role, 0, what, todo, place)
        return np.array([*codes, MISSING], np.float32)[index]

    def _note_beyond(
        self, batch: Batch, name: str, codes: np.ndarray, size: np.ndarray | None = None
    ) -> None:
        """Records the row of the first value that exceeds the largest vocabulary.

        Args:
            batch, name: The column.
            codes: Codes of the values: one code per entry, or `size[k]` codes for entry
                k.
        """
        if len(self._codes.get(name, ())) <= MOST or name in self.beyond:
            return
        entry = int(np.argmax(codes == FIRST + MOST))
        if size is not None:
            entry = int(np.searchsorted(np.cumsum(size), entry, side="right"))
        self.beyond[name] = f"row {batch.row(entry):,} of {batch.part}"

    def _several(self, batch: Batch, place: int) -> np.ndarray:
        name, array = _named(batch, self.role, place)
        if not is_list(array.type):  # one value or none per item in this file
            found = np.zeros((len(array), LONGEST), np.float32)
            found[:, 0] = self._code(batch, place, name, array)
            self._note_beyond(batch, name, found[:, 0])
            self._widths[name] = max(self._widths.get(name, 0), 1)
            return found
        flat = self._code(batch, place, name, plain(pc.list_flatten(array)))
        self._note_beyond(batch, name, flat, list_sizes(array))
        found, longest, cut = spread(array, flat)
        self._widths[name] = max(self._widths.get(name, 0), longest)
        if cut:
            self.cut[name] = self.cut.get(name, 0) + cut
        return found

    def numbers(self, batch: Batch, place: int) -> np.ndarray:
        """Reads one column as (n,) float32, with NaN for missing numbers."""
        name, array = _named(batch, self.role, place)
        kind = self.kinds[name]
        if kind == "guess" and array.null_count < len(array):
            kind = "number"
            if pa.types.is_string(array.type):  # not in a file where it is a number
                kind = self.kinds[name] = guessed(array)
            if kind == "category":
                raise OtherKind(name, kind)
        try:
            found = values_of(array, kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise self._conflict(batch, place, array, kind) from None
        with np.errstate(over="ignore"):
            found = found.astype(np.float32)
        wrong = np.isinf(found)
        if wrong.any():
            entry = int(np.argmax(wrong))
            what = f"must be finite, got {value_at(array, entry).strip(chr(39))}"
            raise batch.fault(self.role, entry, what, REMEDIES[self.role], place)
        return found

    def _conflict(
        self, batch: Batch, place: int, array: pa.Array, kind: str
    ) -> Exception:
        """The error for values that do not have the expected kind."""
        name = batch.chosen[self.role][place]
        if not pa.types.is_string(array.type):
            what, todo = "must be a finite number or a date", REMEDIES[self.role]
            if kind == "date":
                what, todo = "must be dates", "write text such as 2026-01-31"
            what = f"{what}, got {array.type}"
            return batch.fault(self.role, 0, what, todo, place)
        if kind in ("boolean", "date") and name not in self.asked:
            return OtherKind(name, "category")
        if kind == "date":
            entry = first_fault(array, lambda some: _days(some))
            what = f"must be a date, got {value_at(array, entry)}"
            todo = "write one such as 2026-01-31, or leave the cell empty"
            return batch.fault(self.role, entry, what, todo, place)
        entry = first_fault(array, lambda some: some.cast(pa.float64()))
        what = f"must be a finite number, got {value_at(array, entry)}"
        todo = REMEDIES[self.role]
        if self.role == "features":
            todo = (
                "write a number, leave the cell empty, or read the column as a "
                "category, categories=NAME"
            )
        return batch.fault(self.role, entry, what, todo, place)


def _texts(
    batch: Batch, role: str, place: int, array: pa.Array
) -> tuple[list[str], np.ndarray]:
    """Distinct values as text, and the index (n,) of each entry.

    NULL has the index after the last value.
    """
    try:
        encoded = array.dictionary_encode()
        texts = [text_of(value) for value in encoded.dictionary.to_pylist()]
    except (pa.ArrowNotImplementedError, OverflowError):
        what = f"must be text or numbers, got {array.type}"
        todo = f"leave it out of {role}=NAMES"
        raise batch.fault(role, 0, what, todo, place) from None
    index = encoded.indices.fill_null(len(texts)).to_numpy()
    return texts, index.astype(np.int64)


def _named(batch: Batch, role: str, place: int) -> tuple[str, pa.Array]:
    return batch.chosen[role][place], batch.arrays[role][place]


def spread(array: pa.Array, flat: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Pads or cuts lists of codes to the shape (n, LONGEST).

    Also returns the length of the longest list and the number of lists that were cut.

    >>> spread(pa.array([["a"], None, ["b", "a"]]), np.array([2, 3, 2]))[0][2, :3]
    array([3., 2., 0.], dtype=float32)
    """
    size = list_sizes(array)
    at = np.repeat(np.arange(len(size)), size)
    number = np.arange(len(at)) - np.repeat(np.cumsum(size) - size, size)
    kept = number < LONGEST
    found = np.zeros((len(size), LONGEST), np.float32)
    found[at[kept], number[kept]] = flat[kept]
    return found, int(size.max(initial=0)), int((size > LONGEST).sum())


def text_of(value: Any) -> str:
    """Converts a value to the name of a category; "" means missing.

    >>> [text_of(value) for value in (True, 3.0, "a", None, float("nan"))]
    ['true', '3', 'a', '', '']
    """
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return number_text(value) if isinstance(value, float) else str(value)


def guessed(array: pa.Array) -> str:
    """Guesses the kind of text: "number", "boolean", "date" or "category".

    The kind is "number" if more than half of the values are numbers. In a column of
    kind "number", any other text is an error.

    >>> [guessed(pa.array(v)) for v in (["1", "x", "2"], ["true", None], ["a"])]
    ['number', 'boolean', 'category']
    """
    some = array.drop_null()
    numeric = pc.sum(pc.match_substring_regex(some, NUMBER)).as_py() or 0
    if 2 * numeric > len(some):
        return "number"
    for kind in ("boolean", "date"):
        try:
            values_of(some, kind)
            return kind
        except pa.ArrowInvalid:
            continue
    return "category"


def other_date(values: Sequence[str]) -> str | None:
    """The first value if most values are dates in a format other than ISO 8601.

    >>> other_date(["31.01.2026", "1.2.2026"]), other_date(["1.2.3", "a"])
    ('31.01.2026', None)
    """
    if not values:
        return None
    dates = pc.sum(pc.match_substring_regex(pa.array(values), OTHER_DATE)).as_py()
    return values[0] if 2 * dates > len(values) else None


def values_of(array: pa.Array, kind: str) -> np.ndarray:
    """Converts numbers, booleans or dates to (n,) float64; missing values become NaN.

    Raises:
        pa.ArrowInvalid: A value cannot be converted to a number of the given kind.

    >>> values_of(pa.array(["1970-01-02", None]), "date").tolist()
    [1.0, nan]
    """
    if pa.types.is_string(array.type):
        array = pc.if_else(pc.equal(array, ""), None, array)
        if kind == "boolean":
            array = array.cast(pa.bool_())
    if kind == "date":
        return _days(array)
    try:
        cast = array.cast(pa.float64(), safe=False)
    except pa.ArrowInvalid:
        if not pa.types.is_string(array.type):
            raise
        # Accepts "NaN" of data frames, and spaces around numbers.
        cast = pc.utf8_trim_whitespace(array).cast(pa.float64())
    return cast.to_numpy(zero_copy_only=False).astype(np.float64)


def _days(array: pa.Array) -> np.ndarray:
    if pa.types.is_string(array.type):
        try:
            array = array.cast(pa.timestamp("us", "UTC"))
        except pa.ArrowInvalid:
            array = array.cast(pa.timestamp("us"))
    if pa.types.is_date(array.type):
        array = array.cast(pa.date32()).cast(pa.int32())
        return array.to_numpy(zero_copy_only=False).astype(np.float64)
    if pa.types.is_null(array.type):
        return np.full(len(array), np.nan)
    if not pa.types.is_timestamp(array.type):
        raise pa.ArrowInvalid("no date")
    days = array.cast(pa.int64()).to_numpy(zero_copy_only=False) / DAY[array.type.unit]
    if np.nanmax(np.abs(days), initial=0) > FARTHEST:
        raise pa.ArrowInvalid("out of the range of dates")
    return days


# Serving


def encoded(batch: Batch, feature: Feature, place: int) -> np.ndarray:
    """Encodes a column as category codes from the feature's vocabulary, or as numbers.

    The result has shape (n, width).

    Raises:
        ValueError: A value of a numeric feature is not a number. The message names the
            file and the row.
    """
    if not feature.coded:
        reader = Reader({feature.name: feature.kind}, [feature.name])
        return reader.numbers(batch, place)[:, None]
    array = batch.arrays["features"][place]
    several = is_list(array.type)
    flat = plain(pc.list_flatten(array)) if several else array
    texts, index = _texts(batch, "features", place, flat)
    found = pc.index_in(pa.array(texts, pa.string()), pa.array(feature.values))
    codes = found.fill_null(UNKNOWN - FIRST).to_numpy() + FIRST
    codes = np.where([bool(text) for text in texts], codes, MISSING)
    cells = np.append(codes, MISSING).astype(np.float32)[index]
    if several:
        return spread(array, cells)[0][:, : feature.width]
    return np.pad(cells[:, None], ((0, 0), (0, feature.width - 1)))
