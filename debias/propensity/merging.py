"""Merging places: a bias that two places share ties the ranks that no item ties."""

import numpy as np
from numpy.typing import ArrayLike


def merge_places(component: ArrayLike, features: ArrayLike | None = None) -> np.ndarray:
    """(K + 1,) int64: of each place from 1, the place whose bias it shares; 0 is 0.

    Biases of ranks that no chain of items ties have an unknown constant between them.
    Merging begins with the largest component. The place nearest to what is tied already
    gets the bias of its nearest neighbour there, and its component is tied with it,
    until all are. One place of each other component is merged, the rest keep biases of
    their own. It is an assumption in place of an intervention, and as good as the two
    places are alike. Ties go to the smaller places.

    Args:
        component: (K,) numbers of the components, as in
            `debias.diagnosis.identifiability.Connectivity`; places below 0 show nothing
            and stay as they are.
        features: (K, F) or (K,) what a place is like, in units that make Euclidean
            distances comparable; None is its number, so that neighbours are alike.

    Returns:
        What the argument `merge` of `debias.layers.BiasTower` takes.

    Raises:
        ValueError: `component` is not (K,) ints, or `features` not K finite rows.

    Source: Chen et al., Identifiability Matters: Revealing the Hidden Recoverable
    Condition in Unbiased Learning to Rank, ICML 2024 (there node merging).

    >>> merge_places([0, 0, 0, 1, 1]).tolist()  # 4 shares the bias of 3, 5 has its own
    [0, 1, 2, 3, 3, 5]
    """
    component = np.asarray(component)
    if component.ndim != 1 or component.dtype.kind not in "iu" or not component.size:
        raise ValueError(
            "component must be one whole number a place, "
            f"got {component.dtype} of shape {component.shape}"
        )
    places = len(component)
    own = np.arange(places) if features is None else np.asarray(features, float)
    if own.ndim not in (1, 2) or len(own) != places or not np.isfinite(own).all():
        raise ValueError(
            f"features must be finite, one row for each of {places} places, "
            f"got shape {own.shape}"
        )
    own = own.reshape(places, -1)
    distance = np.linalg.norm(own[:, None] - own, axis=-1)
    shares = np.arange(places)
    shown = component >= 0
    if shown.any():
        tied = component == np.bincount(component[shown]).argmax()
        while (apart := shown & ~tied).any():
            between = np.where(np.outer(tied, apart), distance, np.inf)
            at, place = np.unravel_index(between.argmin(), between.shape)
            shares[place] = shares[at]
            tied |= component == component[place]
    return np.concatenate([[0], shares + 1])
