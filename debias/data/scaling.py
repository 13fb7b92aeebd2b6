"""Means and standard deviations of features, after a logarithmic transform."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

PIECE = 1 << 12  # items whose mean and deviation are computed at once
CONSTANT = 1e-6  # a feature with a smaller deviation never varies


class Moments(NamedTuple):
    """Mean (F,) and standard deviation (F,) of the values of each feature.

    Missing values do not count. `missing` lists the columns with missing values; it is
    None if NaN does not mean a missing value.
    """

    mean: np.ndarray
    deviation: np.ndarray
    missing: tuple[int, ...] | None

    @property
    def scale(self) -> np.ndarray:
        """(F,) inverse of the standard deviation; 0 for constant features."""
        kept = np.maximum(self.deviation, CONSTANT)
        return np.where(self.deviation > CONSTANT, 1 / kept, 0)


def moments(
    features: np.ndarray,
    rows: np.ndarray | None = None,
    linear: Sequence[int] = (),
    missing: bool = False,
) -> Moments:
    """Computes mean and deviation of sign(x) log(1 + |x|) for features (N, F).

    Args:
        features: (N, F) features of all items.
        rows: (N,) bool, whether an item counts; None counts all items.
        linear: Indices of the columns to which the logarithm is not applied.
        missing: Whether NaN means a missing value. Missing values are left out of the
            moments.

    >>> found = moments(np.array([[0.0, 3.0], [np.e - 1, 3.0]]))
    >>> found.mean.round(3).tolist(), found.scale.round(3).tolist()
    ([0.5, 1.386], [2.0, 0.0])
    """
    columns = list(linear)

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray | bool]]:
        for start in range(0, len(features), PIECE):
            piece = np.asarray(features[start : start + PIECE])
            if rows is not None:
                piece = piece[rows[start : start + PIECE]]
            squeezed = np.sign(piece) * np.log1p(np.abs(piece))
            squeezed[:, columns] = piece[:, columns]
            yield squeezed, np.isnan(piece) if missing else False

    width = np.shape(features)[1]
    total, count = np.zeros(width), np.zeros(width, int)
    for squeezed, gone in pieces():
        total += np.where(gone, 0, squeezed).sum(axis=0, dtype="float64")
        count += len(squeezed) - np.sum(gone, axis=0)
    every = len(features) if rows is None else int(rows.sum())
    lacking = tuple(np.flatnonzero(count < every).tolist()) if missing else None
    count = np.maximum(count, 1)
    mean, square = total / count, np.zeros(width)
    for squeezed, gone in pieces():
        squares = np.where(gone, 0, squeezed - mean) ** 2
        square += squares.sum(axis=0, dtype="float64")
    return Moments(mean, np.sqrt(square / count), lacking)


def scaled(features: np.ndarray) -> np.ndarray:
    """Scales features (N, F) to mean 0 and deviation 1, as `Standardize` does.

    >>> scaled(np.array([[0.0, 3.0], [1.0, 3.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    out = np.empty(np.shape(features), np.float32)
    parts = [slice(start, start + PIECE) for start in range(0, len(out), PIECE)]
    for part in parts:
        piece = np.asarray(features[part], np.float32)
        out[part] = np.sign(piece) * np.log1p(np.abs(piece))
    # The logarithm takes most of the time, so the moments read its values.
    count = max(len(out), 1)
    mean = out.sum(axis=0, dtype="float64") / count
    square = sum(np.square(out[part] - mean).sum(axis=0) for part in parts)
    scale = Moments(mean, np.sqrt(square / count), None).scale
    for part in parts:
        out[part] = (out[part] - mean.astype(np.float32)) * scale.astype(np.float32)
    return out
