"""Merging of places: ranks without shared items get a common bias."""

import numpy as np
from numpy.typing import ArrayLike


def merge_places(component: ArrayLike, features: ArrayLike | None = None) -> np.ndarray:
    """Finds for each place the place whose bias it shares.

    No chain of items links two components of ranks, so their biases differ by an
    unknown constant. Merging starts with the places of the largest component as the
    linked places. In each step, the unlinked place that is nearest to a linked place
    gets the bias of this linked place. The component of the merged place is then
    linked. The steps end when all components are linked. In each component except the
    largest, only one place is merged; all other places keep their own biases. Merging
    replaces an intervention by the assumption that two places have equal bias. Ties are
    broken in favour of places with smaller numbers. Entry 0 of the result, for padding,
    is 0.

    Args:
        component: (K,) index of each place's component; see
            `debias.diagnosis.identifiability.Connectivity`. Places with a negative
            index show no items and are not merged.
        features: (K, F) or (K,) features of the places, for Euclidean distances; None
            uses the index of the place as its only feature.

    Returns:
        (K + 1,) int64, for the argument `merge` of `debias.layers.BiasTower`.

    Raises:
        ValueError: `component` is not (K,) ints, or `features` does not have K finite
            rows.

    Source: Chen et al., Identifiability Matters: Revealing the Hidden Recoverable
    Condition in Unbiased Learning to Rank, ICML 2024, where the method is called node
    merging.

    >>> merge_places([0, 0, 0, 1, 1]).tolist()  # 4 shares the bias of 3, 5 has its own
    [0, 1, 2, 3, 3, 5]
    """
    component = np.asarray(component)
    if component.ndim != 1 or component.dtype.kind not in "iu" or not component.size:
        raise ValueError(
            f"component must be one whole number per place, got {component.dtype} of "
            f"shape {component.shape}"
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
