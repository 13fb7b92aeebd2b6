"""Users who continue to the next rank, or leave."""

from dataclasses import dataclass

import numpy as np

from simulators.behaviours.base import (
    SLOW,
    ClickAt,
    Curve,
    Knots,
    Picky,
    Reader,
    check_range,
    floats,
    interpolated,
    positions_of,
    with_satisfaction,
)


class Chain(Reader):
    """Users who continue to the next rank, or leave.

    After examining rank k, the user reads k + 1 with probability a_k after a click and
    b_k without a click. A user who does not continue never examines k + 1. Let gamma_k
    be the probability of a click at k after examination, and eps_k the probability of
    examination:

        P(c_k) = eps_k gamma_k
        eps_{k+1}       = eps_k [gamma_k a_k + (1 - gamma_k) b_k]            marginally
        eps_{k+1} | c_k = a_k                                                if c_k = 1
                          b_k (1 - gamma_k) eps_k / (1 - gamma_k eps_k)      if c_k = 0

    A click at k proves that k was examined, so eps_{k+1} is then a_k.
    """

    def after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (S, L) of continuing: a after a click, b without a click."""
        raise NotImplementedError

    def entries(self, size: int) -> dict[int, float]:
        """Zero-based ranks at which reading starts, with their examination."""
        return {0: 1.0}

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        """(S, L) P(click at k), computed by the marginal recursion."""
        examined = self.marginal_examination(attraction, satisfaction)
        return self.perceive(attraction) * examined

    def marginal_examination(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        """(S, L) P(examined at k)."""
        gamma = self.perceive(attraction)
        click, skip = self._after(floats(attraction), satisfaction)
        on = gamma * click + (1 - gamma) * skip
        entries = self.entries(gamma.shape[-1])
        examined = np.empty_like(gamma)
        for k in range(gamma.shape[-1]):
            examined[:, k] = (
                entries[k] if k in entries else examined[:, k - 1] * on[:, k - 1]
            )
        return examined

    def _after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Calls `after`, with satisfaction only if there is any."""
        return self.after(attraction, **with_satisfaction(self, satisfaction))

    def _read(
        self,
        attraction: np.ndarray,
        click_at: ClickAt,
        satisfaction: np.ndarray | None = None,
        entries: dict[int, float | np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Walks down the list, and calls `click_at` at each rank."""
        size = attraction.shape[-1]
        if entries is None:
            entries = dict(self.entries(size))
        # Rank by rank, so the sessions of a rank are adjacent in memory.
        gamma = np.ascontiguousarray(self.perceive(attraction).T)
        after_click, after_skip = (
            np.ascontiguousarray(np.broadcast_to(a, attraction.shape).T)
            for a in self._after(attraction, satisfaction)
        )
        examined, click = np.empty_like(gamma), np.empty(gamma.shape, bool)
        tiny = np.finfo(gamma.dtype).tiny
        for k in range(size):
            if k in entries:
                examined[k] = entries[k]
            else:
                # If a click is certain, the case of no click is 0 / 0. It becomes 0,
                # not NaN.
                before, seen = examined[k - 1], examined[k - 1] * gamma[k - 1]
                on = after_skip[k - 1] * (before - seen) / np.maximum(1 - seen, tiny)
                examined[k] = np.where(click[k - 1], after_click[k - 1], on)
            click[k] = click_at(k, examined[k] * gamma[k])
        return click.T, examined.T


@dataclass(frozen=True)
class Cascade(Picky, Chain):
    """Cascade model: the user leaves after the first click, a = 0 and b = 1.

    Source: Craswell et al., WSDM 2008.

    >>> Cascade().click_probability(np.array([[0.5, 0.5, 0.5]])).tolist()
    [[0.5, 0.25, 0.125]]
    """

    pickiness: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, 0, np.inf, pickiness=self.pickiness)

    def after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        gamma = floats(attraction)
        return np.zeros_like(gamma), np.ones_like(gamma)


@dataclass(frozen=True)
class DependentClick(Chain):
    """Cascade with several clicks, where a_k is P(user continues | click at k).

    After Guo et al., Efficient Multiple-Click Models in Web Search, WSDM 2009 (DCM).

    >>> dcm = DependentClick((0.5, 0.5))
    >>> dcm.click_probability(np.array([[0.5, 1.0]])).tolist()  # .5 * .5 + .5 * 1
    [[0.5, 0.75]]
    """

    continuation: Curve = SLOW

    def __post_init__(self) -> None:
        check_range(self, 0, 1, continuation=self.continuation)

    def after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        gamma = floats(attraction)
        click = positions_of(self.continuation, gamma, self)
        return np.broadcast_to(click, gamma.shape), np.ones_like(gamma)


@dataclass(frozen=True)
class ClickChain(Chain):
    """Click chain model: continuation depends on the click and the item.

    The user continues with probability b = t1 without a click, and with probability a =
    (1 - gamma) t2 + gamma t3 after a click. Here t1 is `after_no_click`, t2 is
    `after_bad_click`, and t3 is `after_good_click`.

    After Guo et al., Click Chain Model in Web Search, WWW 2009 (CCM).

    >>> ccm = ClickChain(0.9, 0.8, 0.4)
    >>> ccm.click_probability(np.array([[1.0, 0.5]])).tolist()  # .4 * .5 after a click
    [[1.0, 0.2]]
    """

    after_no_click: float = 0.9
    after_bad_click: float = 0.8
    after_good_click: float = 0.4

    def __post_init__(self) -> None:
        check_range(
            self,
            0,
            1,
            after_no_click=self.after_no_click,
            after_bad_click=self.after_bad_click,
            after_good_click=self.after_good_click,
        )

    def after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        gamma = floats(attraction)
        bad, good = self.after_bad_click, self.after_good_click
        return bad + (good - bad) * gamma, np.full_like(gamma, self.after_no_click)


@dataclass(frozen=True)
class DynamicBayesian(Picky, Chain):
    """Dynamic Bayesian network: satisfied users leave, a = lambda (1 - s), b = lambda.

    Satisfaction s is the probability that a clicked item ends the search. Items may
    have their own satisfaction. For items without their own satisfaction, s is a
    piecewise linear function of attraction before the exponent `pickiness`. For
    example, the knot (1, 0) describes an item that every user clicks and that satisfies
    no user.

    Args:
        continuation: lambda, P(continues | not satisfied). With lambda = 1, the model
            is the simplified DBN.
        satisfaction: Knots (attraction, s), in order of increasing attraction.
        pickiness: Exponent of attraction in the click probability.

    Source: Chapelle and Zhang, A Dynamic Bayesian Network Click Model for Web Search
    Ranking, WWW 2009.

    >>> dbn = DynamicBayesian(0.5, ((0.0, 0.0), (1.0, 1.0)))
    >>> dbn.click_probability(np.array([[0.5, 1.0]])).tolist()  # .5 (1 - .5 * .5)
    [[0.5, 0.375]]
    >>> own = np.array([[1.0, 0.0]])
    >>> dbn.click_probability(np.array([[0.5, 1.0]]), own).tolist()  # .5 (1 - .5 * 1)
    [[0.5, 0.25]]
    """

    satisfiable = True
    continuation: float = 0.8
    satisfaction: Knots = ((0.0, 0.0), (1.0, 0.5))
    pickiness: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, 0, 1, continuation=self.continuation)
        check_range(self, 0, 1, satisfaction=self.satisfaction)
        check_range(self, 0, np.inf, pickiness=self.pickiness)
        at = [knot[0] for knot in self.satisfaction]
        if len(at) < 2 or (np.diff(at) <= 0).any():
            raise ValueError(
                "DynamicBayesian: satisfaction must be two or more knots in rising "
                f"order of attraction, got {self.satisfaction}"
            )

    def after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        gamma = floats(attraction)
        if satisfaction is None:
            satisfaction = interpolated(self.satisfaction, gamma)
        on = self.continuation
        return on * (1 - satisfaction), np.full_like(gamma, on)


def simplified_dbn(satisfaction: Knots = ((0.0, 0.0), (1.0, 0.5))) -> DynamicBayesian:
    """Simplified DBN (SDBN): unsatisfied users always continue."""
    return DynamicBayesian(1.0, satisfaction)


# Click and stop probabilities of grades 0 to 4, as knots of satisfaction over
# attraction. The attraction is that of the preset with the same name in
# `simulators.clicks`.
NAVIGATIONAL: Knots = ((0.05, 0.2), (0.3, 0.3), (0.5, 0.5), (0.7, 0.7), (0.95, 0.9))
INFORMATIONAL: Knots = ((0.4, 0.1), (0.6, 0.2), (0.7, 0.3), (0.8, 0.4), (0.9, 0.5))
GRADED_DBN: Knots = ((0.1, 0.0), (0.25, 0.125), (0.5, 0.25), (0.75, 0.375), (1.0, 0.5))


@dataclass(frozen=True)
class Carousel(Chain):
    """Carousel: swipes along independent rows, regardless of clicks.

    The user enters row r = 1, 2, ... with probability r ** -row_decay, and continues to
    the next column with probability `along`.

    Args:
        columns: Number of items in a row.
        row_decay: Exponent of 1 / row in the probability of entering a row.
        along: P(examined at column c + 1 | examined at column c).

    >>> carousel = Carousel(columns=2, row_decay=1.0, along=0.5)
    >>> carousel.click_probability(np.ones((1, 4))).tolist()
    [[1.0, 0.5, 0.5, 0.25]]
    """

    columns: int = 5
    row_decay: float = 0.5
    along: float = 0.75

    def __post_init__(self) -> None:
        check_range(self, 1, np.inf, columns=self.columns)
        check_range(self, 0, np.inf, row_decay=self.row_decay)
        check_range(self, 0, 1, along=self.along)

    def entries(self, size: int) -> dict[int, float]:
        firsts = range(0, size, self.columns)
        return {k: float(k // self.columns + 1) ** -self.row_decay for k in firsts}

    def after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        on = np.full_like(floats(attraction), self.along)
        return on, on
