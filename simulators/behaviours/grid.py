"""Users who read a grid whose cells compete for attention."""

from dataclasses import dataclass

import numpy as np

from simulators.behaviours.base import (
    SLOW,
    ClickAt,
    Curve,
    Picky,
    Reader,
    check_range,
    floats,
    positions_of,
)


@dataclass(frozen=True)
class Grid(Picky, Reader):
    """Reads a grid row by row; cells compete for attention.

    The cell with zero-based rank k has row r = k // columns and column c = k % columns.
    Its examination is

        base_k = min(slower ** r * theta_k, 1) (1 - middle |2 c / (columns - 1) - 1|)
        examination_k = base_k exp(- sum_j influence_kj gamma_j)

    gamma_j is the probability of a click on cell j after examination. Examination
    decays more slowly than in a list, and is higher in the middle of a row than at its
    ends. Attractive neighbours draw attention away, and neighbours in the same row draw
    the most:

        influence_kj = within / |c_k - c_j|                        in the same row
                       across / (|r_k - r_j| + |c_k - c_j|)        in different rows

    In addition, each row is skipped independently with probability `skip`. A row with a
    click was not skipped, and a row without a click may have been skipped. Let q be the
    probability that a row, if it is read, has no click before cell k:

        P(row read | no click before k in it) = (1 - skip) q / (skip + (1 - skip) q)

    Args:
        columns: Number of cells in a row.
        theta: Examination of ranks 1, 2, ... of a list, before the effects of the grid.
        slower: Factor by which each further row multiplies the examination of `theta`,
            at least 1.
        skip: P(a row is skipped).
        middle: Relative reduction of examination at the ends of a row, in [0, 1].
        within: Influence of the adjacent cell in the same row on log examination.
        across: Influence of the adjacent cell in the next row on log examination.
        pickiness: Exponent of attraction in the click probability. The influence of
            neighbours uses attraction without this exponent.

    Source: slower decay, middle bias and row skipping follow Xie et al., Grid-based
    Evaluation Metrics for Web Image Search, WWW 2019. This library adds the competition
    for attention.

    >>> Grid(columns=2, middle=0.0, skip=0.0).influence(4).round(2).tolist()[0]
    [0.0, 1.0, 0.2, 0.1]
    """

    columns: int = 5
    theta: Curve = SLOW
    slower: float = 1.6
    skip: float = 0.1
    middle: float = 0.2
    within: float = 1.0
    across: float = 0.2
    pickiness: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, 1, np.inf, columns=self.columns, slower=self.slower)
        check_range(self, 0, 1, theta=self.theta, skip=self.skip, middle=self.middle)
        check_range(self, 0, np.inf, within=self.within, across=self.across)
        check_range(self, 0, np.inf, pickiness=self.pickiness)

    def influence(self, size: int) -> np.ndarray:
        """(L, L) influence of the attraction of cell j on log examination of cell k."""
        row, column = np.divmod(np.arange(size), self.columns)
        down = np.abs(row[:, None] - row)
        aside = np.abs(column[:, None] - column)
        near = 1 / np.maximum(down + aside, 1)
        return np.where(down == 0, self.within, self.across) * near * (1 - np.eye(size))

    def base(self, size: int) -> np.ndarray:
        """(L,) examination of cells of a read row, without attractive neighbours."""
        theta = positions_of(self.theta, np.empty((0, size)), self)
        row, column = np.divmod(np.arange(size), self.columns)
        ends = np.abs(2 * column / max(self.columns - 1, 1) - 1)
        if self.columns == 1:
            ends = np.zeros(size)
        return np.minimum(self.slower**row * theta, 1.0) * (1 - self.middle * ends)

    def _examine_if_read(self, attraction: np.ndarray) -> np.ndarray:
        size, dtype = attraction.shape[-1], attraction.dtype
        drawn = attraction @ self.influence(size).astype(dtype).T
        return self.base(size).astype(dtype) * np.exp(-drawn)

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        gamma = floats(attraction)
        return (1 - self.skip) * self._examine_if_read(gamma) * self.perceive(gamma)

    def _read(
        self,
        attraction: np.ndarray,
        click_at: ClickAt,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        examined = np.ascontiguousarray(self._examine_if_read(attraction).T)
        gamma = np.ascontiguousarray(self.perceive(attraction).T)
        click = np.empty(gamma.shape, bool)
        for k in range(len(gamma)):
            if k % self.columns == 0:
                quiet = np.ones_like(gamma[k])  # P(clicks of the row so far | read)
                clicked = np.zeros(gamma[k].shape, bool)
            if self.skip:
                read = (1 - self.skip) * quiet
                read /= self.skip + read
                seen = examined[k] * gamma[k]
                examined[k] *= np.where(clicked, 1, read)
                quiet *= 1 - seen
            click[k] = click_at(k, examined[k] * gamma[k])
            clicked |= click[k]
        return click.T, examined.T
