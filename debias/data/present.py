"""Tracks the empty columns of a log, and reads the other columns as a matrix."""

from collections.abc import Iterable

import numpy as np

from debias.data.arrays import is_list
from debias.data.shown import (
    REMEDIES,
    Batch,
    is_empty,
    known_as,
    numbers_of,
    side_by_side,
)

_Key = tuple[str, int]  # a role, and the index of its column


class Present:
    """Tracks the columns that have been NULL in all rows so far.

    Columns without any value so far count as absent. A column that is NULL in the first
    batch must therefore be NULL in all later batches.
    """

    def __init__(self) -> None:
        self._empty: dict[_Key, Batch] = {}
        self._width: dict[_Key, int] = {}  # number of columns with values

    def holds(self, batch: Batch, role: str, column: int = 0) -> bool:
        """Whether a column has values; ValueError if they begin in a later batch."""
        key, empty = (role, column), is_empty(batch, role, column)
        if key in self._width:
            return True
        if empty is False and key in self._empty:
            what = "is NULL in the first rows but not in later rows,"
            raise self._empty[key].fault(role, 0, what, REMEDIES[role], column)
        if empty is False:
            self._width[key] = 0 if is_list(batch.arrays[role][column].type) else 1
            return True
        if empty:
            self._empty.setdefault(key, batch._replace(arrays={}))
        return False

    def matrix(self, batch: Batch, role: str) -> np.ndarray:
        """Reads the non-empty columns of a role as (n, C) float32."""
        columns = range(len(batch.arrays[role]))
        found = (self.column(batch, role, column) for column in columns)
        values = [np.zeros((len(batch.arrays["item"][0]), 0), np.float32)]
        values += [each for each in found if each is not None]
        with np.errstate(over="ignore"):  # reported as non-finite
            return side_by_side(values).astype(np.float32, copy=False)

    def column(self, batch: Batch, role: str, column: int) -> np.ndarray | None:
        """Reads a column as numbers (n,) or (n, C); None if it is empty so far."""
        if not self.holds(batch, role, column):
            return None
        width = self._width[role, column] or None
        with np.errstate(over="ignore"):
            found = numbers_of(batch, role, column, width)
        self._width[role, column] = found[0:1].size
        return found

    def fault(
        self, batch: Batch, role: str, entry: int, cell: int, what: str, todo: str
    ) -> ValueError:
        """An error that names the file, column and row of a wrong value in `matrix`."""
        for column, array in enumerate(batch.arrays[role]):
            width = self._width.get((role, column), 0)
            if cell < width:
                place = f"number {cell} " if is_list(array.type) else ""
                return batch.fault(role, entry, place + what, todo, column)
            cell -= width
        raise AssertionError("the cell is beyond the columns")

    @property
    def empty(self) -> list[_Key]:
        """Role and column index of each empty column."""
        return [key for key in self._empty if key not in self._width]


def notices(batch: Batch, empty: Iterable[_Key]) -> tuple[str, ...]:
    """Messages about empty columns, which are ignored."""
    names = [(batch.chosen[role][column], role) for role, column in empty]
    return tuple(
        f"{batch.part}: column {known_as(name, role)} is NULL in every row and is "
        "ignored"
        for name, role in names
    )
