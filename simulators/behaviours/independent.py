"""Users whose clicks do not affect what they examine."""

from dataclasses import dataclass

import numpy as np

from simulators.behaviours.base import (
    EYE_TRACKING,
    Behaviour,
    Curve,
    Picky,
    check_range,
    floats,
    positions_of,
    power_law,
    repeated,
)
from simulators.chance import ROWS, bernoulli


class Independent(Behaviour):
    """Base class of users whose clicks on different cells are independent."""

    def examine(self, attraction: np.ndarray) -> np.ndarray:
        """(L,) P(examined at k)."""
        raise NotImplementedError

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        """(S, L) P(click at k) = P(examined at k) P(click at k | examined at k)."""
        return self.perceive(attraction) * self.examine(floats(attraction))

    def examination(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        """(S, L) P(examined at k), which does not depend on clicks."""
        attraction = floats(attraction)
        return np.broadcast_to(self.examine(attraction), attraction.shape)

    def sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws one session per list; all lists share a read-only examination row."""
        attraction = floats(attraction)
        examine = self.examine(attraction)
        if len(attraction) <= ROWS:
            click, _ = self._sample(attraction, rng)
            return click, repeated(examine, len(attraction))
        click = np.empty(attraction.shape, bool)
        for start in range(0, len(attraction), ROWS):
            rows = slice(start, start + ROWS)
            click[rows] = self._sample(attraction[rows], rng)[0]
        return click, np.broadcast_to(examine, attraction.shape)

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        examine = self.examine(attraction)
        every = repeated(examine, len(attraction))
        return bernoulli(self.perceive(attraction) * every, rng), examine


@dataclass(frozen=True)
class PositionBased(Picky, Independent):
    """Position-based model: P(c_k) = theta_k gamma_k, with examination theta_k.

    Args:
        theta: Examination of ranks 1, 2, ..., such as `eye_tracking(...)`,
            `power_law(...)` or `BAIDU`.
        pickiness: Exponent of attraction; with 2, an attraction of .5 becomes .25.

    Source: Craswell et al., An Experimental Comparison of Click Position-Bias Models,
    WSDM 2008.

    >>> PositionBased((1.0, 0.5)).click_probability(np.array([[0.5, 0.5]])).tolist()
    [[0.5, 0.25]]
    """

    theta: Curve = EYE_TRACKING
    pickiness: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, 0, 1, theta=self.theta)
        check_range(self, 0, np.inf, pickiness=self.pickiness)

    def examine(self, attraction: np.ndarray) -> np.ndarray:
        return positions_of(self.theta, attraction, self)


@dataclass(frozen=True)
class RankCTR(Independent):
    """Clicks by rank, regardless of the item: P(c_k) = rate_k.

    >>> RankCTR((0.5, 0.25)).click_probability(np.array([[0.0, 0.9]])).tolist()
    [[0.5, 0.25]]
    """

    rate: Curve = EYE_TRACKING

    def __post_init__(self) -> None:
        check_range(self, 0, 1, rate=self.rate)

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        return np.ones_like(floats(attraction))

    def examine(self, attraction: np.ndarray) -> np.ndarray:
        return positions_of(self.rate, attraction, self)

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        examine = self.examine(attraction)
        return bernoulli(repeated(examine, len(attraction)), rng), examine


@dataclass(frozen=True)
class DocumentCTR(Picky, Independent):
    """Reads everything, regardless of the rank: P(c_k) = gamma_k.

    >>> DocumentCTR(pickiness=2.0).click_probability(np.array([[0.5, 0.5]])).tolist()
    [[0.25, 0.25]]
    """

    pickiness: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, 0, np.inf, pickiness=self.pickiness)

    def examine(self, attraction: np.ndarray) -> np.ndarray:
        return np.ones(attraction.shape[-1], attraction.dtype)


@dataclass(frozen=True)
class TrustBiased(Independent):
    """Trust bias: an examined item may be clicked because of its high rank.

    P(c_k) = theta_k [e+_k gamma_k + e-_k (1 - gamma_k)]

    Args:
        theta: Examination of ranks 1, 2, ...
        right: e+_k, P(click | examined, attractive).
        wrong: e-_k, P(click | examined, not attractive).

    After Agarwal et al., Addressing Trust Bias for Unbiased Learning-to-Rank, WWW 2019.

    >>> trusting = TrustBiased((1.0,), (0.9,), (0.5,))
    >>> trusting.click_probability(np.array([[1.0], [0.0]])).ravel().tolist()
    [0.9, 0.5]
    """

    theta: Curve
    right: Curve
    wrong: Curve

    def __post_init__(self) -> None:
        check_range(self, 0, 1, theta=self.theta, right=self.right, wrong=self.wrong)
        if not len(self.theta) == len(self.right) == len(self.wrong):
            raise ValueError(
                "TrustBiased: theta, right and wrong must have the same length"
            )

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        gamma = floats(attraction)
        right = positions_of(self.right, gamma, self)
        wrong = positions_of(self.wrong, gamma, self)
        return wrong + (right - wrong) * gamma

    def examine(self, attraction: np.ndarray) -> np.ndarray:
        return positions_of(self.theta, attraction, self)


def trust_oosterhuis(positions: int = 50) -> TrustBiased:
    """Trust bias with the parameters of Oosterhuis and co-workers.

    theta_k = .35 / k + .65 / (1 + .05 (k - 1)), e+_k = 1 / (1 + .005 (k - 1)) and
    e-_k = .65 / k. Use these parameters with `linear` attraction, gamma = y / 4.

    >>> trust_oosterhuis(2).wrong
    (0.65, 0.325)
    """
    ranks = range(1, positions + 1)
    return TrustBiased(
        theta=tuple(0.35 / k + 0.65 / (1 + 0.05 * (k - 1)) for k in ranks),
        right=tuple(1 / (1 + 0.005 * (k - 1)) for k in ranks),
        wrong=tuple(0.65 / k for k in ranks),
    )


def trust_vardasbi(eta: float = 1.0, positions: int = 50) -> TrustBiased:
    """Trust bias with the parameters of Vardasbi et al., CIKM 2020.

    theta_k = k ** -eta, e+_k = 1 - (min(k, 20) + 1) / 100, e-_k = .65 / min(k, 10).

    >>> trust_vardasbi(positions=1).right
    (0.98,)
    """
    ranks = range(1, positions + 1)
    return TrustBiased(
        theta=power_law(eta, positions),
        right=tuple(1 - (min(k, 20) + 1) / 100 for k in ranks),
        wrong=tuple(0.65 / min(k, 10) for k in ranks),
    )
