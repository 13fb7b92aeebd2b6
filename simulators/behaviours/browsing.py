"""The user browsing model."""

from dataclasses import dataclass

import numpy as np

from simulators.behaviours.base import (
    ClickAt,
    Curve,
    Reader,
    check_range,
    floats,
    positions_of,
)


@dataclass(frozen=True)
class UserBrowsing(Reader):
    """User browsing model: examination depends on the rank and the last click above.

    P(c_k | c_1 .. c_{k-1}) = `theta[k - 1][j]` gamma_k. The index j is the rank of the
    last click above k, or 0 without a click above k. The marginal click probability is
    computed by propagating the distribution of j down the list.

    Args:
        theta: Examination `theta[k - 1][j]` of ranks k = 1, 2, ..., for 0 <= j < k.

    Source: Dupret and Piwowarski, A User Browsing Model to Predict Search Engine Click
    Data from Past Observations, SIGIR 2008.

    >>> ubm = UserBrowsing(((1.0,), (0.5, 1.0)))
    >>> ubm.click_probability(np.array([[0.5, 1.0]])).tolist()  # .5 * .5 + .5 * 1
    [[0.5, 0.75]]
    """

    theta: tuple[Curve, ...]

    def __post_init__(self) -> None:
        for k, row in enumerate(self.theta, start=1):
            check_range(self, 0, 1, theta=row)
            if len(row) != k:
                raise ValueError(
                    f"UserBrowsing: theta of rank {k} must hold {k} numbers, one for "
                    f"each last click from none to {k - 1}, got {len(row)}"
                )

    def _table(self, attraction: np.ndarray) -> list[np.ndarray]:
        positions_of(tuple(map(float, range(len(self.theta)))), attraction, self)
        return [np.array(row, attraction.dtype) for row in self.theta]

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        gamma = floats(attraction)
        theta = self._table(gamma)
        last = np.zeros((len(gamma), gamma.shape[1] + 1), gamma.dtype)
        last[:, 0] = 1.0  # P(the last click so far is at rank j), j = 0 none
        clicked = np.empty_like(gamma)
        for k in range(gamma.shape[1]):
            here = last[:, : k + 1] * theta[k] * gamma[:, k, None]
            clicked[:, k] = here.sum(axis=1)
            last[:, : k + 1] -= here
            last[:, k + 1] = clicked[:, k]
        return clicked

    def _read(
        self,
        attraction: np.ndarray,
        click_at: ClickAt,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        theta = self._table(attraction)
        gamma = np.ascontiguousarray(attraction.T)
        examined, click = np.empty_like(gamma), np.empty(gamma.shape, bool)
        last = np.zeros(gamma.shape[1], np.intp)
        for k in range(len(gamma)):
            examined[k] = theta[k][last]
            click[k] = click_at(k, examined[k] * gamma[k])
            last[click[k]] = k + 1
        return click.T, examined.T


def user_browsing(eta: float = 0.7, positions: int = 20) -> UserBrowsing:
    """UBM with examination that falls with the distance from the last click.

    The examination of rank k is (k - j) ** -eta, where j is the rank of the last click
    above k. The index j is 0 without a click above k.

    >>> user_browsing(1.0, 2).theta
    ((1.0,), (0.5, 1.0))
    """
    ranks = range(1, positions + 1)
    return UserBrowsing(
        tuple(tuple(float((k - j) ** -eta) for j in range(k)) for k in ranks)
    )
