"""Tests whether a model's ranking depends on its reference place.

A model with a dot product, a bilinear form, or position as a feature scores items at a
reference place, such as position 1. If the ranking depends on the reference place, the
choice of this place needs a reason.
"""

from collections.abc import Callable, Sequence
from functools import partial

import keras
import numpy as np
from scipy.stats import kendalltau

from debias.data import RankingData
from debias.models import ClickModel
from debias.types import Place, Tensor

PIECE = 1 << 14  # items scored at once


def reference_sensitivity(
    model: ClickModel,
    data: RankingData,
    places: Sequence[Place],
    progress: Callable[[float], None] = lambda done: None,
) -> np.ndarray:
    """(P,) agreement of the ranking at each place with the served ranking.

    The agreement is the mean over queries of Kendall's tau-b between
    `model.logits_at(features, place)` and `model.score(features)`: 1 for the same
    order, -1 for the reverse. For an additive or product model, the agreement is 1 at
    all places. Queries whose scores are all equal in one of the two rankings are left
    out, because tau is undefined. The agreement is nan if no query is left.

    Args:
        model: A click model that has been called on a batch.
        data: Items by query, with features as the model reads them (scaled if the model
            was trained on scaled features).
        places: Reference places. Each place is one id, used for position, row and
            column alike, or a dict from the name of each place column to an id.
        progress: Function to call after each place, with the share of finished places.

    Raises:
        ValueError: `places` is empty.

    Source: Kendall, The Treatment of Ties in Ranking Problems, Biometrika 1945.

    >>> from debias.layers import BiasTower, Tower
    >>> from debias.models import Additive
    >>> model = Additive(Tower((), seed=0), BiasTower({"position": 2}, seed=0))
    >>> data = RankingData([[0.0], [2.0], [1.0], [0.5]], None, [0, 3, 4])
    >>> reference_sensitivity(model, data, places=[1, 2]).round(6).tolist()
    [1.0, 1.0]
    """
    if not places:
        raise ValueError("places must name at least one place, got none")

    def scores(of: Callable[[np.ndarray], Tensor]) -> list[np.ndarray]:
        """Applies `of` to the features, and splits the result by query."""
        pieces = range(0, data.items, PIECE)
        found = [of(data.features[start : start + PIECE]) for start in pieces]
        every = np.concatenate([keras.ops.convert_to_numpy(each) for each in found])
        return np.split(every, data.offsets[1:-1])

    served = scores(model.score)
    means = np.full(len(places), np.nan)
    for number, place in enumerate(places):
        there = scores(partial(model.logits_at, place=place))
        taus = [
            kendalltau(one, other).statistic
            for one, other in zip(there, served, strict=True)
            if np.ptp(one) > 0 and np.ptp(other) > 0
        ]
        if taus:
            means[number] = np.mean(taus)
        progress((number + 1) / len(places))
    return means
