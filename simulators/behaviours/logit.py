"""Users for whom the rank of an item scales the odds of a click."""

from dataclasses import dataclass

import numpy as np

from simulators.behaviours.base import (
    EYE_TRACKING,
    Behaviour,
    Curve,
    check_range,
    floats,
    positions_of,
)
from simulators.chance import bernoulli


@dataclass(frozen=True)
class LogitAdditive(Behaviour):
    """Adds a term for the rank to the logit of attraction.

    logit P(c_k) = logit a + log w_k, or P(c_k) = w_k a / (1 - a + w_k a), with a = most
    gamma. Examination is w_k / (1 - a + w_k a), which depends on the item: users find
    attractive items at any rank. The additive click model is well specified for these
    users, but the product model is not.

    Args:
        odds: Factors w_k of the odds at ranks 1, 2, ..., in [0, 1].
        most: Attraction of the most attractive item. With `most=1`, every user would
            click this item at any rank.

    >>> additive = LogitAdditive((1.0, 0.5), most=1.0)
    >>> additive.click_probability(np.array([[0.5, 0.5]])).round(4).tolist()
    [[0.5, 0.3333]]
    """

    odds: Curve = EYE_TRACKING
    most: float = 0.95

    def __post_init__(self) -> None:
        check_range(self, 0, 1, odds=self.odds, most=self.most)

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        gamma = floats(attraction)
        return gamma * gamma.dtype.type(self.most)

    def examination(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        """(S, L) P(examined at k), which depends on the item but not on clicks."""
        gamma = floats(attraction)
        wanted, odds = self.perceive(gamma), positions_of(self.odds, gamma, self)
        # If attraction is certain and the odds are 0, 0 / 0: the item is not examined.
        share = np.maximum(1 - wanted + odds * wanted, np.finfo(gamma.dtype).tiny)
        return np.minimum(odds / share, 1)

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        gamma = floats(attraction)
        return self.examination(gamma, np.zeros(0, bool)) * self.perceive(gamma)

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        examined = self.examination(attraction, np.zeros(0, bool))
        return bernoulli(examined * self.perceive(attraction), rng), examined
