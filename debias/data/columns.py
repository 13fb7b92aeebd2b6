"""The columns of a click log and their allowed values.

The checks work on plain arrays, so the file readers and `ClickLog` share them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Column(NamedTuple):
    """Specification of a column of a log.

    Attributes:
        dtype: Data type of the stored array.
        shape: Axes of the array, one character each: S for sessions, L for ranks, C for
            context features, and 2 for an axis of length 2.
        low, high: Smallest and largest allowed value at a shown item.
        above: Whether values must be above `low`, so that `low` itself is not allowed.
        padding: Required value of padding cells; None if any value is allowed.
    """

    dtype: type
    shape: str
    low: float = -np.inf
    high: float = np.inf
    above: bool = False
    padding: int | None = None


COLUMNS: Mapping[str, Column] = {
    "query": Column(np.int32, "S", low=0),
    "item": Column(np.int32, "SL", low=-1),
    "click": Column(np.bool_, "SL", padding=0),
    "row": Column(np.int16, "SL", low=1, padding=0),
    "column": Column(np.int16, "SL", low=1, padding=0),
    "device": Column(np.int16, "S", low=0),
    "context": Column(np.float32, "SC"),
    "logging_propensity": Column(np.float32, "SL", low=0, high=1, above=True),
    "swap": Column(np.int16, "S2", low=0),
    "user_type": Column(np.int16, "S", low=0),
    "examination": Column(np.float32, "SL", low=0, high=1),
    "attraction": Column(np.float32, "SL", low=0, high=1),
    "satisfaction": Column(np.float32, "SL", low=0, high=1),
}
PRESENTATION = Column(np.int16, "SL", low=0, padding=0)  # or "S": one value per list
TARGET = Column(np.float32, "SL")
RESERVED = {"features", "position", "mask", "cell", "weight", "session"}
REQUIRED = ("query", "item", "click")
TRUTH = ("user_type", "examination", "attraction", "satisfaction")


def checked(given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Checks and converts the columns of a log.

    In the result, the columns listed in `COLUMNS` come first, in the order of
    `COLUMNS`. Other columns are presentation columns if they hold whole numbers, and
    targets if they hold floats.

    Args:
        given: Values by column name; None for an absent column.

    Raises:
        ValueError: A column is missing or has a wrong shape or type, or a value is not
            allowed. The message names the column and the first wrong session and rank.

    >>> checked({"click": [[0, 1]], "item": [[4, 2]], "query": [3]})["click"].tolist()
    [[False, True]]
    """
    given = {name: value for name, value in given.items() if value is not None}
    for name in REQUIRED:
        if name not in given:
            raise ValueError(f"{name} must not be None")
    item = _kept("item", given["item"])
    if item.ndim != 2 or item.shape[1] == 0:
        raise ValueError(
            f"item must have shape (sessions, list_size), got {item.shape}"
        )
    _check_values("item", item, None)
    padding = item < 0 if item.size and item.min() < 0 else None
    if padding is not None and padding.all(axis=1).any():
        row = np.flatnonzero(padding.all(axis=1))[0]
        raise ValueError(f"item shows nothing at row {row}")
    sizes = {"S": len(item), "L": item.shape[1], "2": 2}
    columns = {}
    for name in [*(n for n in COLUMNS if n in given), *others(given)]:
        columns[name] = item if name == "item" else _kept(name, given[name])
        if name != "item":
            _check_shape(name, columns[name], sizes)
            _check_values(name, columns[name], padding)
    if "swap" in columns:
        _check_swap(columns["swap"], item)
    return columns


def check_items(item: np.ndarray, items: int) -> None:
    """Checks item numbers (S, L) against the number of items in the ranking data.

    Raises:
        ValueError: An item number is too large. The message names the session and the
            rank.
    """
    if item.size and item.max() >= items:
        row, column = np.argwhere(item >= items)[0]
        raise ValueError(
            f"item must be below {items}, got {item[row, column]} "
            f"at row {row}, column {column}"
        )


def known(name: str) -> str:
    """Returns the name of a column, or raises ValueError if it is unknown."""
    if name not in COLUMNS:
        raise ValueError(f"unknown column {name!r}; there are {' '.join(COLUMNS)}")
    return name


def others(names: Iterable[str]) -> list[str]:
    """The names that are not in `COLUMNS`, in their original order."""
    return [name for name in names if name not in COLUMNS]


def spec(name: str, value: np.ndarray) -> Column:
    """The specification of any column, whether or not it is in `COLUMNS`.

    >>> spec("badge", np.array([1, 2])).shape, spec("carts", np.array([[0.5]])).dtype
    ('S', <class 'numpy.float32'>)
    """
    if name in COLUMNS:
        return COLUMNS[name]
    if value.dtype.kind == "f":
        return TARGET
    return PRESENTATION._replace(shape="S" if value.ndim == 1 else "SL")


def extra(
    role: str, given: Mapping[str, Any] | None, dtype: type
) -> dict[str, np.ndarray] | None:
    """Converts presentation columns or targets to arrays; None if there are none.

    Raises:
        ValueError: A name is in `COLUMNS` or `RESERVED`, or a presentation column does
            not hold whole numbers.
    """
    if not given:
        return None
    for name in given:
        if name in COLUMNS or name in RESERVED:
            raise ValueError(
                f"{role} {name!r} has the name of a standard column; rename it"
            )
    if dtype is np.float32:
        return {name: np.asarray(value, dtype) for name, value in given.items()}
    found = {name: np.asarray(value) for name, value in given.items()}
    for name, value in found.items():
        if value.dtype.kind not in "biu":
            raise ValueError(
                f"{role} {name} must be codes, whole numbers from 1, or 0 if missing, "
                f"got {value.dtype}"
            )
    return found


def _kept(name: str, value: Any) -> np.ndarray:
    """Casts the value to an array of the column's type, without loss."""
    try:
        value = np.asarray(value)
    except ValueError as error:  # of ragged lists
        raise ValueError(
            f"{name} must be a rectangle: fill shorter lists, the items with -1"
        ) from error
    dtype = np.dtype(spec(name, value).dtype)
    if value.dtype == dtype:
        return value
    allowed = {"b": "biu", "i": "biu", "f": "biuf"}[dtype.kind]
    if value.size and value.dtype.kind not in allowed:
        what = "; debias.read_log reads tables of any type"
        raise ValueError(f"{name} must be {dtype}, got {value.dtype}{what}")
    kept = value.astype(dtype)
    if dtype.kind != "f" and (kept != value).any():
        wrong = value[kept != value].flat[0]
        raise ValueError(f"{name} must fit {dtype}, got {wrong}")
    return kept


def _check_shape(name: str, value: np.ndarray, sizes: Mapping[str, int]) -> None:
    axes = spec(name, value).shape
    fits = value.ndim == len(axes) and all(
        size == sizes.get(axis, size)
        for axis, size in zip(axes, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(sizes.get(axis, axis)) for axis in axes)
        raise ValueError(f"{name} must have shape ({wanted}), got {value.shape}")


def _check_values(name: str, value: np.ndarray, padding: np.ndarray | None) -> None:
    if value.size == 0:
        return
    column = spec(name, value)
    inner = column.shape == "SL"
    _, _, low, high, above, at_padding = column
    if value.dtype.kind != "b":
        # Extremes of the whole array need no temporary. On failure, the faulty cell is
        # found.
        least, most = value.min(), value.max()
        fine = (least > low if above else least >= low) and most <= high
        if not (fine and np.isfinite(least) and np.isfinite(most)):
            good = (value > low if above else value >= low) & (value <= high)
            good &= np.isfinite(value)
            if inner and padding is not None:
                good |= padding
            _complain(name, value, ~good, _range(column))
    if inner and padding is not None and at_padding is not None:
        wrong = padding & (value != at_padding)
        _complain(name, value, wrong, f"must be {at_padding} at padding")


def _range(column: Column) -> str:
    if np.isinf(column.low):
        return "must be finite"
    if np.isinf(column.high):
        return f"must be at least {column.low:g}"
    return f"must be in {'(' if column.above else '['}{column.low:g}, {column.high:g}]"


def _complain(name: str, value: np.ndarray, wrong: np.ndarray, rule: str) -> None:
    if wrong.any():
        place = np.argwhere(wrong)[0]
        where = ", ".join(
            f"{axis} {i}" for axis, i in zip(("row", "column"), place, strict=False)
        )
        raise ValueError(f"{name} {rule}, got {value[tuple(place)]} at {where}")


def _check_swap(swap: np.ndarray, item: np.ndarray) -> None:
    row = np.flatnonzero(swap.any(axis=1))
    ranks = swap[row].astype(int)
    inside = ((ranks >= 1) & (ranks <= item.shape[1])).all(axis=1)
    at = np.where(inside[:, None], ranks - 1, 0)
    shown = (np.take_along_axis(item[row], at, axis=1) >= 0).all(axis=1)
    wrong = row[~(inside & shown & (ranks[:, 0] != ranks[:, 1]))]
    if wrong.size:
        raise ValueError(
            "swap must name two different shown ranks or be 0 0, "
            f"got {swap[wrong[0]].tolist()} at row {wrong[0]}"
        )
