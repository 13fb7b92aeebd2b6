"""Random splits of queries and sessions."""

from collections.abc import Sequence

import numpy as np


def random_parts(
    count: int, fractions: Sequence[float], rng: np.random.Generator
) -> list[np.ndarray]:
    """Splits the numbers 0..count-1 at random; each part is in ascending order.

    The boundaries of the parts are round(count * cumulative fraction). Therefore, each
    number is in exactly one part, and each part has about count * fraction numbers (off
    by at most one).

    Args:
        count: Number of elements.
        fractions: Shares of the parts, not negative, summing to 1.
        rng: The only source of randomness.

    Raises:
        ValueError: A fraction is negative, or the fractions do not sum to 1.

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
