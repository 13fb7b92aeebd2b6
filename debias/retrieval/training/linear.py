"""Low-rank EASE, whose item-item weights are inner products of vectors."""

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.linalg import svds

from debias.retrieval.data.interactions import Interactions
from debias.retrieval.training.baselines import taken

RANK, WIDE = 256, 512  # numbers of dimensions that a choice tries
STRENGTHS = (30.0, 100.0, 300.0, 1000.0, 3000.0)
POWERS = (0.0, 0.25)  # powers of the item counts, by which X may be divided
DECAYS = (1.0, 0.95, 0.9, 0.8, 0.6, 0.4)
# Weights of the linear part relative to the logits of a tower. Its scores fall as
# 1 / STRENGTHS, so that a part of strength 3,000 needs weights in the thousands.
WEIGHTS = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0, 2048.0, 8192.0)


class Spectrum(NamedTuple):
    """The largest eigenvalues of Y'Y, where Y is X with columns divided by `scale`.

    Attributes:
        vectors: (items, r) eigenvectors.
        values: (r,) eigenvalues.
        scale: (items,) divisors of the columns of X.
        unit: The unit of the regularisation, which is the trace of Y'Y divided by the
            trace of X'X.
    """

    vectors: np.ndarray
    values: np.ndarray
    scale: np.ndarray
    unit: float


def spectrum(log: Interactions, rank: int = RANK, power: float = 0.0) -> Spectrum:
    """The largest eigenvalues of a log's item co-occurrence matrix.

    The matrix is X'X, where an entry of X (users, items) is 1 if the user took the
    item. The function computes a few hundred products of X with a vector, and needs no
    matrix of size items x items.

    Args:
        log: Events of users.
        rank: Number of eigenvalues. If all items have few users, many eigenvalues have
            a similar size, so a higher rank may be better.
        power: The column of an item in X is divided by n^power if n users took the
            item. After the division, the largest eigenvalues depend less on popular
            items. With all eigenvalues, the division would only multiply the
            regularisation of the item by n^(2 power).

    Source: the powers of the counts are from Shen et al., How Powerful is Graph
    Convolution for Recommendation?, CIKM 2021.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> log = from_columns([*"abcda"], [*"iiiij"], [1, 2, 3, 4, 5])
    >>> spectrum(log, power=0.5).scale.tolist()  # four users, and one
    [2.0, 1.0]
    """
    seen = taken(log)
    counts = np.bincount(seen.indices, minlength=len(log.items))
    scale = np.maximum(counts, 1) ** power
    seen.data /= scale[seen.indices].astype(seen.dtype)
    rank = min(rank, min(seen.shape) - 1)
    if rank < 1 or not seen.nnz:
        return Spectrum(np.zeros((len(log.items), 0)), np.zeros(0), scale, 1.0)
    start = np.ones(min(seen.shape), seen.dtype)
    _, values, vectors = svds(seen, k=rank, v0=start)
    unit = float(np.square(seen.data, dtype=float).mean())
    return Spectrum(vectors.T.astype(float), values.astype(float) ** 2, scale, unit)


def ease_vectors(of: Spectrum, regularisation: float) -> tuple[Any, Any]:
    """Factors F and E, (items, r) float32; the weight of item i on item j is F_i E_j'.

    Let X'X = V diag(s) V' be the eigendecomposition. The inverse in EASE is

        P = (X'X + lambda I)^-1 = (I - V diag(s / (s + lambda)) V') / lambda

    Let F = V diag(s / (s + lambda))^1/2. If i differs from j, the weight is

        B_ij = -P_ij / P_jj = F_i F_j' / (1 - |F_j|^2) = F_i E_j'

    Using only the largest eigenvalues s gives a good approximation without a matrix
    inversion, because EASE damps small eigenvalues. The approximation violates the
    constraint B_jj = 0 of EASE, so items that a user took get a score as well. If the
    columns of X were divided by a scale c, lambda is multiplied by `unit`, F is divided
    by c and E is multiplied by c.

    Source: Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> user, item = [*"uuvvw"], [*"ijjkk"]
    >>> log = from_columns(user, item, [1, 2, 3, 4, 5])
    >>> past, items = ease_vectors(spectrum(log), 1.0)
    >>> past.shape
    (3, 2)
    """
    if not regularisation > 0:
        raise ValueError(f"regularisation must be above 0, got {regularisation}")
    past = of.vectors * np.sqrt(of.values / (of.values + regularisation * of.unit))
    left = 1 - np.square(past).sum(axis=1, keepdims=True)
    scale = of.scale[:, None]
    return (past / scale).astype(np.float32), (scale * past / left).astype(np.float32)
