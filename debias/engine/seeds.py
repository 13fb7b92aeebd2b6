"""Derives the seeds of a model's parts from one seed."""

import numpy as np


def split_seed(seed: int | None, count: int) -> list[int | None]:
    """Independent seeds for the parts of a model; all are None if `seed` is None.

    The seeds come from `np.random.SeedSequence`, so neighbouring values of `seed` give
    unrelated seeds. A larger `count` appends seeds and does not change the first seeds.
    All seeds are below 2^20, because some layers multiply a seed for their parts, and
    JAX needs seeds below 2^32.

    >>> split_seed(0, 3)[:2] == split_seed(0, 2), len(set(split_seed(0, 3)))
    (True, 3)
    >>> split_seed(None, 2)
    [None, None]
    """
    if seed is None:
        return [None] * count
    words = np.random.SeedSequence(seed).generate_state(count)
    return [int(word) >> 12 for word in words]


def seed_at(seed: int | None, place: int) -> int | None:
    """The seed of a part of a layer; None if the layer has no seed.

    >>> seed_at(2, 1), seed_at(None, 1)
    (2019, None)
    """
    return None if seed is None else seed * 1009 + place
