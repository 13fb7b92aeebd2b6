"""A small simulated shop with named features, for demonstrations."""

import numpy as np

from debias.data import RankingData
from simulators.chance import generator

FEATURES = ("f_match", "f_rating", "f_price", "f_days_listed")
ITEMS = 12  # items per query
_GRADES = (-0.8, 0.1, 0.9, 1.6)  # thresholds of the utility


def shop(queries: int = 200, seed: int = 0) -> RankingData:
    """Generates queries of twelve products with four raw features and grades 0 to 4.

    The utility of a product is match + .8 rating - .7 price + match * rating / 2, where
    the three features are standardised. Utility does not depend on the number of days
    for which the product is listed. The grade is the number of thresholds that the
    utility exceeds. The thresholds are -.8, .1, .9 and 1.6.

    Args:
        queries: Number of queries.
        seed: Random seed of the data.

    Raises:
        ValueError: `queries` is not positive.

    >>> shop(3)
    RankingData(queries=3, items=36, feature_count=4, max_grade=4)
    """
    if queries < 1:
        raise ValueError(f"queries must be at least 1, got {queries}")
    rng = generator(seed, 0)
    match, rating, price, listed = rng.standard_normal((4, queries * ITEMS))
    utility = match + 0.8 * rating - 0.7 * price + 0.5 * match * rating
    features = np.stack(
        [
            1 / (1 + np.exp(-match)),  # match of query and product, in (0, 1)
            np.clip(3.5 + 0.6 * rating, 1, 5),  # stars
            np.exp(3 + 0.5 * price),
            np.exp(3 + listed),
        ],
        axis=1,
    )
    return RankingData(
        features.round(2).astype(np.float32),
        np.searchsorted(_GRADES, utility).astype(np.int8),
        np.arange(0, queries * ITEMS + 1, ITEMS),
        feature_names=FEATURES,
    )


def longest_listed(data: RankingData) -> np.ndarray:
    """The shop's own ranker, which scores by match and by the number of days listed.

    The number of days listed does not affect the utility for users.
    """
    match, listed = (
        data.features[:, FEATURES.index(name)] for name in ("f_match", "f_days_listed")
    )
    scores: np.ndarray = np.log(listed) + match
    return scores
