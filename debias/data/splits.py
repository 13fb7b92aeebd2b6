"""Random parts of a count, the one rule by which queries and sessions are split."""

from collections.abc import Sequence

import numpy as np


def random_parts(
    count: int, fractions: Sequence[float], rng: np.random.Generator
) -> list[np.ndarray]:
    """Parts the numbers 0..count-1 at random, each part in ascending order.

    Part j receives the numbers between round(count * sum of the fractions before j) and
    the same up to and with j. So sizes differ from their share by less than one, and no
    number is lost.

    Args:
        count: How many numbers there are.
        fractions: Shares of the parts, none negative, summing to 1.
        rng: The only source of chance.

    Raises:
        ValueError: The fractions are negative or do not sum to 1.

    >>> [part.size for part in random_parts(10, (0.8, 0.2), np.random.default_rng(0))]
    [8, 2]
    """
    shares = np.asarray(fractions, dtype=float)
    if shares.ndim != 1 or shares.size == 0 or not np.isclose(shares.sum(), 1.0):
        raise ValueError(f"fractions must sum to 1, got {list(fractions)}")
    if (shares < 0).any():
        raise ValueError(f"fractions must not be negative, got {list(fractions)}")
    cuts = np.rint(np.cumsum(shares)[:-1] * count).astype(int)
    return [np.sort(part) for part in np.split(rng.permutation(count), cuts)]
