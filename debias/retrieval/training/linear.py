"""Low-rank EASE: its weights between items as inner products of vectors."""

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.linalg import svds

from debias.retrieval.data.interactions import Interactions
from debias.retrieval.training.baselines import taken

RANK = 256
STRENGTHS = (30.0, 100.0, 300.0, 1000.0, 3000.0)
DECAYS = (1.0, 0.95, 0.9, 0.8, 0.6, 0.4)
# Of the linear part on the logits of a tower.
WEIGHTS = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0)


class Spectrum(NamedTuple):
    """The largest eigenvalues (r,) of X'X, and their vectors (items, r)."""

    vectors: np.ndarray
    values: np.ndarray


def spectrum(log: Interactions, rank: int = RANK) -> Spectrum:
    """The largest eigenvalues of a log's item co-occurrence matrix.

    X (users, items) is 1 if a user took an item. The cost is a few hundred products of
    X with a vector, without an items x items matrix.
    """
    seen = taken(log)
    rank = min(rank, min(seen.shape) - 1)
    if rank < 1 or not seen.nnz:
        return Spectrum(np.zeros((len(log.items), 0)), np.zeros(0))
    start = np.ones(min(seen.shape), seen.dtype)
    _, values, vectors = svds(seen, k=rank, v0=start)
    return Spectrum(vectors.T.astype(float), values.astype(float) ** 2)


def ease_vectors(of: Spectrum, regularisation: float) -> tuple[Any, Any]:
    """Factors F and E, (items, r) float32: F_i E_j is EASE's weight of item i on j.

    With X'X = V diag(s) V' the inverse of EASE is

        P = (X'X + lambda I)^-1 = (I - V diag(s / (s + lambda)) V') / lambda

    so that with F = V diag(s / (s + lambda))^1/2, for i other than j,

        B_ij = -P_ij / P_jj = F_i F_j' / (1 - |F_j|^2) = F_i E_j'

    The largest s give an approximation without an inverse, and small s are damped
    anyway. The constraint B_jj = 0 of EASE cannot be kept, so items that a user took
    get a score as well.

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
    past = of.vectors * np.sqrt(of.values / (of.values + regularisation))
    left = 1 - np.square(past).sum(axis=1, keepdims=True)
    return past.astype(np.float32), (past / left).astype(np.float32)
