"""Kinds of features: number, date, boolean, category, or several categories.

A feature table is a single matrix of floats. In this matrix, a category is a code: 0
means a missing value, 1 means a value out of vocabulary, and the values of the
vocabulary have codes from 2. Columns of codes come before columns of numbers. A layer
that scales numbers therefore only needs to know how many columns to skip. A missing
number is NaN.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from debias.data.text import one_of

MISSING, UNKNOWN, FIRST = 0, 1, 2  # codes of categories
CODED = ("category", "categories")
KINDS = ("number", "boolean", "date", *CODED)
RARE = 10  # values with fewer impressions in training are out of vocabulary
FREQUENT = 20  # values of a category that get their own column in dense features
MOST = 100_000  # largest vocabulary; it keeps the most frequent values


class Feature(NamedTuple):
    """Name, kind and vocabulary of a feature of the items.

    Attributes:
        name: Name of the column in the source.
        kind: "number", "boolean" (0 or 1), "date" (days since 1970), "category", or
            "categories" (a list of categories per item).
        values: The vocabulary of a category; its first value has code 2.
        width: Number of columns in the matrix; for lists, the length of the longest
            list.
    """

    name: str
    kind: str = "number"
    values: tuple[str, ...] = ()
    width: int = 1

    @property
    def coded(self) -> bool:
        """Whether the matrix holds codes of this feature."""
        return self.kind in CODED

    @property
    def size(self) -> int:
        """Number of codes, including the codes of missing and unknown values."""
        return FIRST + len(self.values)


Features = tuple[Feature, ...]  # kinds of the columns of a matrix, in order


def list_features(column: str, count: int) -> tuple[str, ...]:
    """Names of the features into which a column of lists is split.

    >>> list_features("vector", 2)
    ('vector[0]', 'vector[1]')
    """
    return tuple(f"{column}[{number}]" for number in range(count))


def column_names(features: Features) -> tuple[str, ...]:
    """Names of the columns of the feature matrix.

    >>> column_names((Feature("tag", "categories", ("a",), 2), Feature("price")))
    ('tag[0]', 'tag[1]', 'price')
    """
    names: list[str] = []
    for each in features:
        several = each.kind == "categories"
        names += list_features(each.name, each.width) if several else [each.name]
    return tuple(names)


def starts(features: Features) -> dict[str, int]:
    """Index of the first matrix column of each feature, by name of the feature."""
    ends = np.cumsum([0, *(each.width for each in features)])
    return {each.name: int(end) for each, end in zip(features, ends, strict=False)}


def blocks(
    matrix: np.ndarray, features: Features
) -> Iterator[tuple[Feature, np.ndarray]]:
    """Yields each feature with its columns (..., width) of a matrix (..., F)."""
    for each, start in zip(features, starts(features).values(), strict=True):
        yield each, matrix[..., start : start + each.width]


def coded_columns(features: Features) -> int:
    """Number of columns with codes; these columns come first in the matrix."""
    return sum(each.width for each in features if each.coded)


def check_matrix(matrix: np.ndarray, features: Features) -> None:
    """Checks that a matrix (items, F) can hold these features.

    Raises:
        ValueError: The number of columns is wrong, a kind is unknown, codes come after
            numbers, a code is outside its vocabulary, or a number is infinite. The
            message names the feature and the item.
    """
    kinds = [each.coded for each in features]
    width = sum(each.width for each in features)
    if kinds != sorted(kinds, reverse=True) or matrix.shape[1:] != (width,):
        raise ValueError(
            f"kinds must describe the columns of features (items, {width}), categories "
            f"before numbers, got features of shape {matrix.shape}"
        )
    for each, block in blocks(matrix, features):
        if each.kind not in KINDS:
            raise ValueError(f"{each.name}: {one_of('kind', KINDS, each.kind)}")
        if each.coded:
            wrong = ~((block >= 0) & (block < each.size) & (block == np.floor(block)))
        else:
            wrong = np.isinf(block)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            rule = f"a code below {each.size}" if each.coded else "finite or missing"
            raise ValueError(
                f"the feature {each.name} must be {rule}, got {block[row, column]} at "
                f"item {row}"
            )


def known_in(matrix: np.ndarray, features: Features) -> set[str]:
    """Names of the features that have at least one known value.

    A known value is neither missing nor out of vocabulary.

    >>> kinds = (Feature("brand", "category", ("acme",)), Feature("price"))
    >>> known_in(np.array([[1.0, np.nan], [0.0, 3.0]]), kinds)
    {'price'}
    """
    found = set()
    for each, block in blocks(matrix, features):
        if (block >= FIRST if each.coded else ~np.isnan(block)).any():
            found.add(each.name)
    return found


def as_records(features: Features | None) -> list[dict[str, Any]] | None:
    """Converts features to JSON values.

    >>> as_records((Feature("brand", "category", ("acme",)),))
    [{'name': 'brand', 'kind': 'category', 'values': ['acme'], 'width': 1}]
    """
    if features is None:
        return None
    return [{**each._asdict(), "values": list(each.values)} for each in features]


def of_records(records: Iterable[Mapping[str, Any]] | None) -> Features | None:
    """Restores features from the JSON values of `as_records`."""
    if records is None:
        return None
    given = ({**each, "values": tuple(each["values"])} for each in records)
    return tuple(Feature(**each) for each in given)


# Vocabularies


def trained(
    features: Features,
    matrix: np.ndarray,
    times: np.ndarray | None = None,
    rare: int = RARE,
    most: int = MOST,
) -> Features:
    """Reduces the vocabularies of features to the values in the training data.

    Args:
        features: The features of `matrix`.
        matrix: (items, F) values and codes of all items.
        times: (items,) number of training impressions of each item. None counts each
            item once and ignores `rare`.
        rare: Values with fewer training impressions are left out of the vocabulary.
        most: Largest size of a vocabulary; the most frequent values are kept.

    >>> brand = Feature("brand", "category", ("acme", "birch"))
    >>> trained((brand,), np.array([[2.0], [3.0]]), np.array([12, 3]))[0].values
    ('acme',)
    """
    weight = np.ones(len(matrix)) if times is None else times
    floor = rare if times is not None else 1
    found = []
    for each, block in blocks(matrix, features):
        if each.coded:
            count = np.zeros(each.size)
            for column in block.T:
                count += np.bincount(column.astype(np.int64), weight, each.size)
            kept = np.flatnonzero(count[FIRST:] >= floor)
            if len(kept) > most:
                order = np.argsort(-count[FIRST:][kept], kind="stable")
                kept = np.sort(kept[order[:most]])
            each = each._replace(values=tuple(each.values[code] for code in kept))
        found.append(each)
    return tuple(found)


def recoded(matrix: np.ndarray, have: Features, want: Features) -> np.ndarray:
    """Recodes a matrix (items, F) from the features `have` to the features `want`.

    A value that is not in the vocabulary of `want` becomes code 1. Lists are cut to the
    width in `want`. A number whose feature is a category in `want` is looked up in the
    vocabulary as text.

    Raises:
        ValueError: A feature of `want` is missing in `have`, or is a category in `have`
            but a number in `want`. The message names the feature.

    >>> have, want = Feature("b", "category", ("x", "y")), Feature("b", "category", "y")
    >>> recoded(np.array([[0.0], [1.0], [2.0], [3.0]]), (have,), (want,)).tolist()
    [[0.0], [1.0], [1.0], [2.0]]
    """
    return recoder(have, want)(matrix)


def recoder(have: Features, want: Features) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that recodes parts of a matrix as `recoded` does.

    Raises:
        ValueError: See `recoded`.
    """
    if have == want:
        return lambda matrix: matrix
    place, known = starts(have), {each.name: each for each in have}
    plan = []
    for each, start in zip(want, starts(want).values(), strict=True):
        there = known.get(each.name)
        if there is None:
            raise ValueError(
                f"the items have no feature {each.name}; there are "
                f"{' '.join(known)[:300]}"
            )
        if there.coded and not each.coded:
            raise ValueError(
                f"the feature {each.name} holds categories, but the model reads it as "
                "a number; read the items with numbers=NAME"
            )
        other = each.coded and each.values != there.values
        change = _recoder(there, each) if other else None
        plan.append((place[each.name], start, min(there.width, each.width), change))
    size = sum(each.width for each in want)

    def made(matrix: np.ndarray) -> np.ndarray:
        out = np.zeros((len(matrix), size), np.float32)
        for source, start, width, change in plan:
            block = matrix[:, source : source + width]
            out[:, start : start + width] = block if change is None else change(block)
        return out

    return made


def _recoder(have: Feature, want: Feature) -> Callable[[np.ndarray], np.ndarray]:
    number = {value: code for code, value in enumerate(want.values, FIRST)}
    if have.coded:
        codes = [number.get(value, UNKNOWN) for value in have.values]
        table = np.array([MISSING, UNKNOWN, *codes], np.float32)
        return lambda block: table[block.astype(np.int64)]

    def of_numbers(block: np.ndarray) -> np.ndarray:
        values, inverse = np.unique(block, return_inverse=True)
        codes = [
            MISSING if np.isnan(v) else number.get(number_text(v), UNKNOWN)
            for v in values
        ]
        return np.array(codes, np.float32)[inverse].reshape(block.shape)

    return of_numbers


def number_text(value: float) -> str:
    """A number as the name of a category, without ".0" for whole numbers.

    >>> number_text(3.0), number_text(0.5)
    ('3', '0.5')
    """
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def raw_inputs(matrix: np.ndarray, features: Features) -> dict[str, np.ndarray]:
    """Converts a matrix (..., F) to raw features by name; codes become text.

    >>> brand = Feature("brand", "category", ("acme",))
    >>> rows = np.array([[2, 0.5], [0, 1.5], [1, 2.5]])
    >>> found = raw_inputs(rows, (brand, Feature("p")))
    >>> found["brand"].tolist(), found["p"].tolist()
    (['acme', '', '\\ufffd'], [0.5, 1.5, 2.5])
    """
    found = {}
    for each, block in blocks(matrix, features):
        if each.coded:
            words = np.array(["", "\ufffd", *each.values], dtype=object)
            block = words[block.astype(np.int64)]
        else:
            block = block.astype(np.float32)
        found[each.name] = block if each.kind == "categories" else block[..., 0]
    return found


def dense(matrix: np.ndarray, features: Features, most: int = FREQUENT) -> np.ndarray:
    """Converts a feature matrix to numbers (items, D) float32, without codes or NaN.

    A missing number becomes the mean of its feature. A category becomes one column for
    each of its most frequent values.

    Args:
        matrix: (items, F) values and codes of the features.
        features: The features of the matrix.
        most: Largest number of columns that a category may take.

    >>> brand = Feature("brand", "category", ("a", "b"))
    >>> rows = np.array([[2, 1.0], [3, np.nan], [2, 3.0]])
    >>> dense(rows, (brand, Feature("price"))).tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 0.0, 3.0]]
    """
    columns = []
    for each, block in blocks(matrix, features):
        if each.coded:
            count = np.bincount(block.astype(np.int64).ravel(), minlength=each.size)
            kept = np.argsort(-count[FIRST:], kind="stable")[:most] + FIRST
            columns += [(block == code).sum(axis=1) for code in np.sort(kept)]
        else:
            gone = np.isnan(block[:, 0])
            mean = block[~gone, 0].mean() if not gone.all() else 0.0
            columns.append(np.where(gone, mean, block[:, 0]))
    return np.stack(columns, axis=1).astype(np.float32)


def described(features: Features, matrix: np.ndarray) -> list[dict[str, Any]]:
    """One row per feature: name, kind, share of missing values, size of vocabulary."""
    rows = []
    for each, block in blocks(matrix, features):
        gone = (block == MISSING).all(axis=1) if each.coded else np.isnan(block[:, 0])
        rows.append(
            {
                "feature": each.name,
                "kind": each.kind,
                "missing": round(float(gone.mean()), 6),
                "values": len(each.values) if each.coded else None,
            }
        )
    return rows


def legend(features: Features) -> list[dict[str, Any]]:
    """Description of each column as JSON values: number, name, kind, codes.

    >>> legend((Feature("brand", "category", ("acme",)),))[0]["codes"]
    {'0': 'missing', '1': 'out of vocabulary', '2': 'acme'}
    """
    rows: list[dict[str, Any]] = []
    kinds = (each for each in features for _ in range(each.width))
    for number, (each, name) in enumerate(
        zip(kinds, column_names(features), strict=True)
    ):
        rows.append({"column": number, "name": name, "kind": each.kind})
        if each.coded:
            words = ("missing", "out of vocabulary", *each.values)
            rows[-1]["codes"] = {str(code): word for code, word in enumerate(words)}
    return rows


def plain(names: Sequence[str] | None, matrix: np.ndarray) -> Features:
    """The features of a matrix that holds only numbers."""
    count = matrix.shape[1]
    return tuple(Feature(n) for n in names or [f"f{i}" for i in range(count)])
