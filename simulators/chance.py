"""Keyed random streams, and fast exact Bernoulli draws."""

import numpy as np

ROWS = 8192  # rows drawn at once, so temporaries fit into a core's cache
_STEPS = np.float32(65536)


def generator(*key: int) -> np.random.Generator:
    """A random generator for a key, independent of the generators of other keys.

    Args:
        *key: Non-negative integers: the seed, then numbers that identify the stream.

    >>> float(generator(1, 7).random()) == float(generator(1, 7).random())
    True
    """
    if min(key) < 0:
        raise ValueError(f"seed must be at least 0, got {key[0]}")
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(key)))


def bernoulli(probability: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One independent draw per cell, True with exactly the cell's probability.

    To be fast, a draw compares only 16 random bits with the first 16 bits of the cell's
    probability. With probability 1 in 65,536, the bits are equal, and a second draw
    decides by the remaining bits. So no probability is rounded: probability 0 never
    gives True, and probability 1 always gives True.

    Args:
        probability: Floats in [0, 1] of any shape.
        rng: Random generator, the only source of randomness.

    Returns:
        Bools of the same shape.

    >>> bernoulli(np.array([0.0, 1.0]), np.random.default_rng(0)).tolist()
    [False, True]
    """
    scaled = np.ascontiguousarray(probability).reshape(-1) * _STEPS
    # A probability of 1 wraps to 0, and 0 - 1 is the largest threshold. A minimum would
    # give the same in twice the time.
    threshold = scaled.astype(np.int32).astype(np.uint16)
    threshold -= scaled >= _STEPS
    words = rng.integers(0, 2**64 - 1, -(-scaled.size // 4), np.uint64, endpoint=True)
    bits = words.view(np.uint16)[: scaled.size]
    drawn = bits < threshold
    tied = np.flatnonzero(bits == threshold)
    if tied.size:
        drawn[tied] = rng.random(tied.size) < scaled[tied] - threshold[tied]
    return drawn.reshape(probability.shape)


def categorical(cumulative: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws one class per row, from (rows, classes) cumulative probabilities.

    The last class gets the remaining probability, so rounding cannot give an invalid
    class. A class with probability 0 is never drawn.

    >>> categorical(np.array([[0.0, 1.0, 1.0]]), np.random.default_rng(0)).tolist()
    [1]
    """
    draw = rng.random(len(cumulative))
    # One class at a time, because classes are few: no (rows, classes) table of bools.
    chosen = np.zeros(len(cumulative), np.int16)
    for column in cumulative.T[:-1]:
        chosen += draw >= column
    return chosen
