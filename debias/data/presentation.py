"""Encodes presentation columns: codes stand for labels, or for bins of numbers."""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from debias.data.kinds import FIRST, MISSING, Feature, number_text

MOST = 100  # most labels of a column; it keeps the most frequent
WHOLE = 12  # most distinct numbers that are labels; more are divided into bins
BINS = 8


class Scale(NamedTuple):
    """Meaning of the codes of a column, from 1; 0 means a missing or unknown value.

    Attributes:
        labels: Label of each code.
        edges: Lower limit of each bin of numbers except the first; empty without bins.
    """

    labels: tuple[str, ...]
    edges: tuple[float, ...] = ()


Scales: TypeAlias = Mapping[str, Scale]  # by column name


def scale_of(feature: Feature, values: np.ndarray) -> Scale:
    """Chooses codes for a column that was read as a feature.

    Labels are numbered in alphabetical order, and numbers in ascending order. If a
    column has more than 12 distinct numbers, they are divided into 8 quantile bins.
    Only the 100 most frequent labels get a code.

    Args:
        feature: Name, kind and vocabulary of the column.
        values: (n,) codes or numbers of the column.

    >>> badge = Feature("badge", "category", ("sponsored", "none"))
    >>> scale_of(badge, np.array([2.0, 3.0, 0.0])).labels
    ('none', 'sponsored')
    >>> scale_of(Feature("height"), np.arange(100.0)).labels[:2]
    ('below 12.38', '12.38 to 24.75')
    """
    if feature.coded:
        count = np.bincount(values.astype(np.int64), minlength=feature.size)[FIRST:]
        kept = np.argsort(-count, kind="stable")[:MOST]
        return Scale(tuple(sorted(feature.values[k] for k in kept if count[k])))
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    if len(distinct) <= WHOLE:
        if feature.kind == "boolean":
            names = ["true" if value else "false" for value in distinct]
        else:
            names = [number_text(float(value)) for value in distinct]
        return Scale(tuple(names))
    inner = np.unique(np.quantile(known, np.arange(1, BINS) / BINS))
    edges = tuple(float(e) for e in inner if e > distinct[0])
    middle = [f"{a:.4g} to {b:.4g}" for a, b in pairwise(edges)]
    labels = [f"below {edges[0]:.4g}", *middle, f"from {edges[-1]:.4g}"]
    return Scale(tuple(labels), edges)


def codes_of(feature: Feature, values: np.ndarray, scale: Scale) -> np.ndarray:
    """Encodes a column as (n,) int16 codes of a scale.

    Missing and unknown values get code 0.

    >>> scale = Scale(("below 5", "from 5"), (5.0,))
    >>> codes_of(Feature("height"), np.array([4.0, 5.0, np.nan]), scale).tolist()
    [1, 2, 0]
    """
    number = {label: code for code, label in enumerate(scale.labels, 1)}
    if feature.coded:
        names = [number.get(value, 0) for value in feature.values]
        table = np.array([MISSING, 0, *names], np.int16)
        return table[values.astype(np.int64)]
    gone = np.isnan(values)
    if scale.edges:
        codes = 1 + np.searchsorted(scale.edges, values, side="right")
        return np.where(gone, 0, codes).astype(np.int16)
    distinct, inverse = np.unique(values, return_inverse=True)
    words = {0.0: "false", 1.0: "true"} if feature.kind == "boolean" else {}
    texts = [words.get(float(v)) or number_text(float(v)) for v in distinct if v == v]
    found = np.zeros(len(distinct), np.int16)  # NaN, if present, is the last value
    found[: len(texts)] = [number.get(text, 0) for text in texts]
    return found[inverse.ravel()]


def as_records(scales: Scales) -> dict[str, dict[str, list[str] | list[float]]]:
    """Converts scales to JSON values."""
    return {
        name: {"labels": list(each.labels), "edges": list(each.edges)}
        for name, each in scales.items()
    }


def of_records(records: Mapping[str, Mapping[str, list]] | None) -> dict[str, Scale]:
    """Restores scales from the JSON values of `as_records`.

    >>> scales = {"badge": Scale(("none", "sponsored"))}
    >>> of_records(as_records(scales)) == scales
    True
    """
    return {
        name: Scale(tuple(each["labels"]), tuple(each["edges"]))
        for name, each in (records or {}).items()
    }
