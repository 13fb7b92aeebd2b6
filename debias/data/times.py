"""Reads times of any form: text, numbers since 1970, or timestamps."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.arrays import first_fault, gaps_in, value_at
from debias.data.shown import REMEDIES, Batch, known_as

ROLE = "timestamp"
# Magnitudes from which a number since 1970 has this unit. All of them are dates in
# 1973, so no date before the year 5138 is ambiguous.
_UNITS = {"ns": 1e17, "us": 1e14, "ms": 1e11, "s": 1e8}
_CALLED = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}
_RULE = "must be a time such as 2024-05-01 12:00:00Z or a number since 1970"
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun"]
_MONTHS += ["Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
# The basic format, and extended forms that Arrow cannot parse.
_FORMS = (
    (r"^\s+|\s+$", ""),
    *(  # Mar 1, 2026 @ 10:00:01.003, as in exports from search dashboards
        (rf"^{name} (\d+), (\d{{4}}) @ ", rf"\2-{number:02d}-\1 ")
        for number, name in enumerate(_MONTHS, 1)
    ),
    (r"^(\d{4}-\d\d-)(\d) ", r"\10\2 "),
    (r"(?i)\s*(utc|gmt)$", "Z"),
    ("z$", "Z"),
    (r"^(\d{4}-\d\d-\d\d)t", r"\1T"),
    (r"^(\d{4})(\d\d)(\d\d)(?:[T ]?(\d\d)(\d\d)(\d\d)?)?", r"\1-\2-\3 \4:\5:\6"),
    (r"^(\d{4}-\d\d-\d\d)(?: ::)?([zZ]|$)", r"\1 00:00:00\2"),
    (r"^(\S+ \d\d:\d\d):([^\d]|$)", r"\1:00\2"),
    (r"^(\S+[T ]\d\d:\d\d:\d\d),", r"\1."),
    (r"(\.\d{9})\d+", r"\1"),
    (r"\s+([+-]\d)", r"\1"),
    # Text without a zone is in UTC, like columns without a zone.
    (r"^([^TZ ]+[T ][^+\-Z]+)$", r"\1Z"),
)


class Times:
    """Reads the times of a column in batches; all numbers have the same unit.

    Text must be ISO 8601, extended or basic, with up to nine decimal digits of a
    second. Any time zone is allowed, and the default is UTC. Numbers count from 1970 in
    seconds, milliseconds, microseconds or nanoseconds; the magnitude of the first
    number determines the unit. A text column may hold both ISO 8601 times and numbers.
    If the first number is below 1e8, numbers are not calendar times, but can still
    order events.
    """

    def __init__(self) -> None:
        self._unit: str | None = None  # "" for numbers without a calendar
        self._first: Batch | None = None

    def read(self, batch: Batch) -> np.ndarray:
        """Reads times as (n,) datetime64, or as numbers if they are not calendar times.

        NULL becomes NaT in datetime64, and NaN in numbers.

        Raises:
            ValueError: A value is not a time, or its unit differs from that of earlier
                values. The message names the file, the column and the row.
        """
        array = batch.arrays[ROLE][0]
        if pa.types.is_string(array.type):
            array = _numbers(array)
            if pa.types.is_string(array.type):
                return self._of_text(batch, array)
        kind = array.type
        if pa.types.is_decimal(kind):
            array = array.cast(pa.float64())
        elif pa.types.is_uint64(kind) or pa.types.is_float16(kind):
            array = array.cast(pa.float64(), safe=False)
        elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return array.to_numpy(zero_copy_only=False)
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            what = f"must be times or numbers, got {kind}"
            raise batch.fault(ROLE, 0, what, REMEDIES[ROLE])
        return self._since_1970(batch, array)

    def _of_text(self, batch: Batch, text: pa.Array) -> np.ndarray:
        """Parses times from text; some values may be numbers since 1970."""
        counts = pc.match_substring_regex(text, _COUNT).fill_null(False)
        if not pc.any(counts).as_py():
            return _parsed(batch, text)
        nothing = pa.scalar(None, pa.string())
        since = self._since_1970(batch, _numbers(pc.if_else(counts, text, nothing)))
        times = _parsed(batch, pc.if_else(counts, nothing, text))
        return np.where(counts.to_numpy(zero_copy_only=False), since, times)

    def _since_1970(self, batch: Batch, array: pa.Array) -> np.ndarray:
        gaps = gaps_in(array)
        values = pc.fill_null(array, 0).to_numpy(zero_copy_only=False)
        if values.dtype.kind == "f":
            gaps = gaps | np.isnan(values)
            values = np.where(gaps, 0.0, values)
        size = np.abs(values.astype(np.float64))
        if self._unit is None and size.any():  # the first number other than 0 decides
            self._unit, self._first = _unit_of(float(size[size > 0][0])), batch
        unit = self._unit or ""
        wrong = (size > 0) & (size < _UNITS[unit]) if unit else size >= _UNITS["s"]
        higher = [low for low in _UNITS.values() if unit and low > _UNITS[unit]]
        wrong |= size >= min(higher, default=np.inf)
        if wrong.any():
            entry = int(np.argmax(wrong))
            what = (
                f"holds {called(unit)} since 1970 and then {values[entry]}, which is "
                f"of {called(_unit_of(float(size[entry])))},"
            )
            todo = f"write one unit; {REMEDIES[ROLE]}"
            raise batch.fault(ROLE, entry, what, todo)
        if not unit:
            return np.where(gaps, np.nan, values) if gaps.any() else values
        if values.dtype.kind == "f":
            # float64 represents such a fraction to a microsecond or less.
            scale = {"s": 1e6, "ms": 1e3}.get(unit, 1.0)
            values = np.rint(values * scale)
            unit = "us" if scale > 1 else unit
        times = values.astype(np.int64).astype(f"datetime64[{unit}]")
        times[gaps] = np.datetime64("NaT")
        return times if unit == "ns" else times.astype("datetime64[us]")

    @property
    def notices(self) -> tuple[str, ...]:
        """Messages about the assumed unit of numbers."""
        if self._first is None:
            return ()
        name = known_as(self._first.chosen[ROLE][0], ROLE)
        read = f"{self._first.part}: column {name} is read as"
        if not self._unit:
            return (f"{read} numbers that order the events, not as calendar times",)
        return (f"{read} {called(self._unit)} since 1970",)


def unit_clash(times: np.ndarray, unit: str = "") -> tuple[str, int]:
    """The unit of numbers since 1970, and the first row with a different unit.

    The row is -1 if all numbers have the same unit.

    Args:
        times: (n,) numbers. The magnitude of a number determines its unit; numbers
            below 1e8 have no unit.
        unit: Unit of earlier times, one of "s", "ms", "us" and "ns"; "" if unknown.

    >>> unit_clash(np.array([7, 1_700_000_000, 1_700_000_000_000]))
    ('s', 2)
    >>> unit_clash(np.array([1, 2, 3]))
    ('', -1)
    """
    names = ["", *reversed(_UNITS)]
    found = np.searchsorted(
        sorted(_UNITS.values()), np.abs(times.astype(float)), "right"
    )
    if not unit and found.any():
        unit = names[int(found[np.argmax(found > 0)])]
    wrong = (found > 0) & (found != names.index(unit))
    return unit, int(np.argmax(wrong)) if wrong.any() else -1


def _unit_of(size: float) -> str:
    return next((unit for unit, low in _UNITS.items() if size >= low), "")


def called(unit: str) -> str:
    """The word for a unit, such as "seconds" for "s"."""
    return _CALLED.get(unit, "no calendar")


def _numbers(text: pa.Array) -> pa.Array:
    """Casts text to numbers if all values are numeric and the first is not a date."""
    first = next((t for t in text.slice(0, 100).to_pylist() if t is not None), None)
    if first is None:
        there = text.drop_null()
        first = there[0].as_py() if len(there) else ""
    digits = first.strip().removeprefix("-").replace(".", "", 1)
    if not digits.isdecimal() or (len(digits) in (8, 14) and digits[:2] in _CENTURY):
        return text
    for kind in (pa.int64(), pa.float64()):
        try:
            return pc.utf8_trim_whitespace(text).cast(kind)
        except pa.ArrowInvalid:
            continue
    return text


_CENTURY = ("19", "20")
_COUNT = r"^\s*(\d{9,13}|\d{15,})(\.\d*)?\s*$"  # text that is not a basic date


def _parsed(batch: Batch, text: pa.Array) -> np.ndarray:
    for kind in (pa.timestamp("us", "UTC"), pa.timestamp("us")):
        try:
            return text.cast(kind).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            continue
    plain = _extended(text)
    for unit in ("us", "ns"):
        try:
            return plain.cast(pa.timestamp(unit, "UTC")).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            continue
    entry = first_fault(plain, lambda some: some.cast(pa.timestamp("ns", "UTC")))
    what = f"{_RULE}, got {value_at(text, entry)}"
    raise batch.fault(ROLE, entry, what, REMEDIES[ROLE])


def _extended(text: pa.Array) -> pa.Array:
    """Rewrites ISO 8601 in the extended format with a zone, which Arrow can parse."""
    for pattern, form in _FORMS:
        text = pc.replace_substring_regex(text, pattern, form)
    return text
