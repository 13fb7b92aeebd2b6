"""Looks up the features of a table by name."""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from debias.data.arrays import is_list, one_array
from debias.data.coded import encoded
from debias.data.kinds import Features, of_records, recoded
from debias.data.lists import rectangle
from debias.data.shown import REMEDIES, Batch, numbers_of
from debias.data.tables import near

NAMES = b"feature_names"  # schema metadata: names of the list `features`, as JSON
KINDS = b"feature_kinds"  # likewise: their kinds


class _Place(NamedTuple):
    """The column of a feature, and its index if the column holds lists."""

    column: str
    number: int | None


def columns_of(
    schema: pa.Schema, names: Sequence[str], where: str = "table"
) -> tuple[str, ...]:
    """Distinct columns from which `matrix` reads the given features.

    Raises:
        ValueError: A feature is missing, occurs twice in the table, or is requested
            twice.

    >>> schema = pa.table({"b": [1], "v": [[1, 2]], "a": [1]}).schema
    >>> columns_of(schema, ["a", "v[0]", "v[1]"])
    ('a', 'v')
    """
    places = _places(schema, names, where)
    return tuple(dict.fromkeys(place.column for place in places))


def matrix(
    table: pa.Table | pa.RecordBatch,
    names: Sequence[str],
    where: str = "table",
    start: int = 0,
    kinds: Features | None = None,
    missing: bool = False,
) -> np.ndarray:
    """Reads features of a table as (n, F) float32, in the order of `names`.

    A feature is read from the column of the same name. The numbers of a list column are
    called `column[0]`, `column[1]` and so on. In files of ranking data, the numbers of
    the column `features` have the names that `RankingData.write_parquet` stored.

    Args:
        table: A table with one row per item. Columns without a requested feature are
            ignored.
        names: The F distinct names of the features.
        where: Name of the table, for error messages.
        start: Number of the first row of the table, for error messages.
        kinds: Kinds and vocabularies of the features. With `kinds`, text becomes codes,
            and missing numbers become NaN. None means that all features are numbers.
        missing: Whether numbers may be missing; missing numbers become NaN.

    Raises:
        ValueError: A feature is missing, occurs twice, or is not a finite number.
            Another reason is a list whose length differs from the number of features
            requested from its column. The message names the feature.

    >>> matrix(pa.table({"b": [1, 2], "c": [5, 6], "a": [3, 4]}), ["a", "b"]).tolist()
    [[3.0, 1.0], [4.0, 2.0]]
    >>> from debias.data.kinds import Feature
    >>> brand = Feature("brand", "category", ("acme", "birch"))
    >>> raw = pa.table({"brand": ["birch", None, "new"]})
    >>> matrix(raw, ["brand"], kinds=(brand,)).ravel().tolist()
    [3.0, 0.0, 1.0]
    """
    places = _places(table.schema, names, where)
    if len(table) == 0:  # lists without rows have no width
        return np.zeros((0, len(places)), np.float32)
    if kinds is not None:
        return _raw(table, kinds, where, start)
    columns = list(dict.fromkeys(place.column for place in places))
    batch = batch_of(table, columns, where, start)
    held = {}
    with np.errstate(over="ignore"):  # reported as non-finite
        for number, name in enumerate(columns):
            empty = batch.arrays["features"][number].null_count == len(table)
            width = sum(place.column == name for place in places) if empty else None
            values = numbers_of(batch, "features", number, width)
            values = values.reshape(len(table), -1)
            held[name] = values.astype(np.float32, copy=False)
    _check_widths(held, places, where)
    found = np.empty((len(table), len(places)), np.float32)
    for feature, place in enumerate(places):
        found[:, feature] = held[place.column][:, place.number or 0]
    _check_finite(batch, found, places, missing)
    return found


def _raw(
    table: pa.Table | pa.RecordBatch, kinds: Features, where: str, start: int
) -> np.ndarray:
    """Reads features of any kind as a matrix of numbers and codes."""
    here = kinds_in(table.schema)
    if here is not None:  # codes of another vocabulary
        listed, _ = rectangle(one_array(table.column("features")), None, np.nan)
        return recoded(listed.astype(np.float32, copy=False), here, kinds)
    whole = set(table.schema.names)
    alone = [each for each in kinds if each.name in whole]
    batch = batch_of(table, [each.name for each in alone], where, start)
    found = {each.name: encoded(batch, each, place) for place, each in enumerate(alone)}
    listed_names = [each.name for each in kinds if each.name not in whole]
    if listed_names:  # numbers of a column of lists
        values = matrix(table, listed_names, where, start, missing=True)
        found |= dict(
            zip(listed_names, np.hsplit(values, values.shape[1]), strict=True)
        )
    return np.concatenate([found[each.name] for each in kinds], axis=1, dtype="float32")


def batch_of(
    table: pa.Table | pa.RecordBatch, columns: Sequence[str], where: str, start: int
) -> Batch:
    """Converts columns of a table to a batch with the role "features"."""
    arrays = [one_array(table.column(name)) for name in columns]
    return Batch(where, start, {"features": arrays}, None, {"features": tuple(columns)})


def _places(schema: pa.Schema, names: Sequence[str], where: str) -> list[_Place]:
    if len(set(names)) < len(names):
        again = next(name for name in names if list(names).count(name) > 1)
        raise ValueError(f"the feature {again} is requested twice")
    listed = names_in(schema)
    places = []
    for name in names:
        times = schema.names.count(name)
        if times > 1:
            raise ValueError(
                f"{where}: the feature {name} comes {times} times; rename or remove "
                "all but one"
            )
        within = re.fullmatch(r"(.+)\[(\d+)\]", name)
        if times == 1:
            places.append(_Place(name, None))
        elif name in listed:
            places.append(_Place("features", listed.index(name)))
        elif within and _is_list_column(schema, within[1]):
            places.append(_Place(within[1], int(within[2])))
        else:
            known = listed or schema.names
            raise ValueError(f"{where}: no feature {name}: {near(name, known)}")
    return places


def names_in(schema: pa.Schema) -> tuple[str, ...]:
    """The names of the features in a file of ranking data."""
    text = (schema.metadata or {}).get(NAMES)
    if text is None or "features" not in schema.names:
        return ()
    names: Any = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError("the metadata feature_names must be a list of names")
    return tuple(names)


def kinds_in(schema: pa.Schema) -> Features | None:
    """The kinds of the features in a file of ranking data; None if all are numbers."""
    text = (schema.metadata or {}).get(KINDS)
    if text is None or "features" not in schema.names:
        return None
    try:
        return of_records(json.loads(text))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            "the metadata feature_kinds must be a list of kinds"
        ) from error


def _is_list_column(schema: pa.Schema, name: str) -> bool:
    return schema.names.count(name) == 1 and is_list(schema.field(name).type)


def _check_widths(
    held: dict[str, np.ndarray], places: Sequence[_Place], where: str
) -> None:
    for column, values in held.items():
        numbers = [place.number for place in places if place.column == column]
        expected = 1 if numbers == [None] else len(numbers)
        if values.shape[1] != expected:
            raise ValueError(
                f"{where}: column {column} must hold {expected} features a row, got "
                f"{values.shape[1]}"
            )


def _check_finite(
    batch: Batch, found: np.ndarray, places: Sequence[_Place], missing: bool
) -> None:
    wrong = np.isinf(found) if missing else ~np.isfinite(found)
    if wrong.any():
        row, feature = np.argwhere(wrong)[0]
        column = batch.chosen["features"].index(places[feature].column)
        number = places[feature].number
        place = "" if number is None else f"number {number} "
        what = f"{place}must be finite, got {found[row, feature]:g}"
        raise batch.fault("features", int(row), what, REMEDIES["features"], column)
