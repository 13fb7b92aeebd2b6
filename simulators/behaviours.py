"""Behaviours: how one kind of user turns attraction into clicks.

A list is a row of attractions in display order, each the probability that the average
user clicks an item once examined. A behaviour reads (S, L) lists at once and answers,
always exactly and in closed form:

    perceive(attraction)            P(click at k | examined at k, this user)
    examination(attraction, click)  P(examined at k | clicks made before reading k)
    conditional_click_probability   P(c_k | c_1 .. c_{k-1}); multiplies to P(c)
    click_probability(attraction)   P(c_k), the marginal
    sample(attraction, rng)         clicks, and the examination each was drawn from

so that P(c_k | clicks made before) = examination * perceive in every cell. Lists hold
no padding: `simulators.clicks` calls a behaviour on lists of one length at a time.
Everything runs in the float type of the attraction it is given.

Items may have a satisfaction of their own, P(satisfied | clicked), a second array of
the same shape, so that an item can attract all and satisfy nobody. Only behaviours that
are `satisfiable` are given it.

To add a behaviour, write a frozen dataclass of one of the families (`Independent`: a
click changes nothing; `Chain`: examination passes from rank to rank) and enter an
instance in `BEHAVIOURS`. Tests and tables pick it up from there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

import numpy as np

from simulators.chance import ROWS, bernoulli

EYE_TRACKING = (0.68, 0.61, 0.48, 0.34, 0.28, 0.20, 0.11, 0.10, 0.08, 0.06)
BAIDU = (1.0, 0.674, 0.414, 0.293, 0.208, 0.171, 0.136, 0.117, 0.084, 0.058)
Curve = tuple[float, ...]
Knots = tuple[tuple[float, float], ...]


def eye_tracking(eta: float = 1.0) -> Curve:
    """Examination at ranks 1 to 10 measured by eye tracking, to the power eta.

    After Joachims et al., Accurately Interpreting Clickthrough Data as Implicit
    Feedback, SIGIR 2005.

    >>> eye_tracking(2.0)[:2]
    (0.4624, 0.3721)
    """
    return tuple(round(theta**eta, 12) for theta in EYE_TRACKING)


def power_law(eta: float = 1.0, positions: int = 50) -> Curve:
    """Examination k ** -eta at ranks k = 1 to positions.

    >>> power_law(1.0, 3)
    (1.0, 0.5, 0.3333333333333333)
    """
    return tuple(float(k**-eta) for k in range(1, positions + 1))


_SLOW = power_law(0.5)


def _floats(values: np.ndarray) -> np.ndarray:
    """The values in their float type, in that of Python where they have none."""
    values = np.asarray(values)
    if values.dtype.kind == "c":
        raise ValueError(
            "attraction must be floats, got complex numbers; satisfaction is an "
            "argument of its own"
        )
    return values if values.dtype.kind == "f" else values.astype(float)


@overload
def _turned(values: np.ndarray) -> np.ndarray: ...
@overload
def _turned(values: None) -> None: ...
def _turned(values: np.ndarray | None) -> np.ndarray | None:
    """The lists from their last item to their first."""
    return None if values is None else _floats(values)[:, ::-1]


def _rows(values: np.ndarray | None, rows: slice) -> np.ndarray | None:
    """Some of the lists."""
    return None if values is None else values[rows]


def _row(curve: Curve, attraction: np.ndarray, owner: object) -> np.ndarray:
    """The start of a table of positions that covers the list."""
    size = attraction.shape[-1]
    if size > len(curve):
        raise ValueError(
            f"{type(owner).__name__} knows {len(curve)} positions, got a list of {size}"
        )
    return np.asarray(curve[:size], attraction.dtype)


def _check_range(owner: object, low: float, high: float, **values: object) -> None:
    for name, value in values.items():
        array = np.asarray(value, float)
        if not ((array >= low) & (array <= high)).all():
            raise ValueError(
                f"{type(owner).__name__}: {name} must be in [{low:g}, {high:g}], "
                f"got {value}"
            )


def _picky(attraction: np.ndarray, pickiness: float) -> np.ndarray:
    attraction = _floats(attraction)
    return attraction if pickiness == 1.0 else attraction**pickiness


def _interpolated(knots: Knots, at: np.ndarray) -> np.ndarray:
    """The broken line through the knots; flat outside them."""
    x, y = np.array(knots, at.dtype).T
    if len(knots) == 2:  # a straight line needs no search
        return y[0] + (np.clip(at, x[0], x[1]) - x[0]) * ((y[1] - y[0]) / (x[1] - x[0]))
    return np.interp(at, x, y).astype(at.dtype)


@lru_cache(maxsize=64)
def _tiled(row: bytes, dtype: str) -> np.ndarray:
    tiled = np.tile(np.frombuffer(row, dtype), (ROWS, 1))
    tiled.flags.writeable = False
    return tiled


def _repeated(row: np.ndarray, rows: int) -> np.ndarray:
    """The row laid out in full, at most `ROWS` times.

    Spares NumPy its inner loops of ten numbers.
    """
    return _tiled(row.tobytes(), row.dtype.str)[:rows]


class Behaviour:
    """What every kind of user offers; see the head of this module."""

    columns: int = 0
    """Cells in a row where the user reads a grid; 0 where the list has no rows."""

    satisfiable: bool = False
    """Whether a click can satisfy: only then is `satisfaction` given, (S, L) floats."""

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        """(S, L) P(click at k | examined at k) of this user."""
        return _floats(attraction)

    def examination(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        """(S, L) P(examined at k | the clicks made before reading k)."""
        raise NotImplementedError

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        """(S, L) P(click at k)."""
        raise NotImplementedError

    def conditional_click_probability(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        """(S, L) P(click at k | clicks at 1 to k - 1), in display order."""
        own = {} if satisfaction is None else {"satisfaction": satisfaction}
        return self.examination(attraction, click, **own) * self.perceive(attraction)

    def sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """One session per list: clicks (S, L) bool and the examination (S, L) of each.

        The examination is that of `examination(attraction, clicks)`.
        """
        attraction = _floats(attraction)
        click = np.empty(attraction.shape, bool)
        examined = np.empty(attraction.shape, attraction.dtype)
        for start in range(0, len(attraction), ROWS):
            rows = slice(start, start + ROWS)
            part = _rows(satisfaction, rows)
            click[rows], examined[rows] = self._sample(attraction[rows], rng, part)
        return click, examined

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


def with_satisfaction(
    behaviour: Behaviour, satisfaction: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The keyword argument of the methods of a behaviour, if it minds satisfaction.

    >>> with_satisfaction(Cascade(), np.ones((1, 2)))
    {}
    """
    if satisfaction is None or not behaviour.satisfiable:
        return {}
    return {"satisfaction": satisfaction}


class Independent(Behaviour):
    """Users to whom a click changes nothing: cells are clicked independently."""

    def examine(self, attraction: np.ndarray) -> np.ndarray:
        """(L,) P(examined at k)."""
        raise NotImplementedError

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        """(S, L) P(click at k) = P(examined at k) P(click at k | examined at k)."""
        return self.perceive(attraction) * self.examine(_floats(attraction))

    def examination(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        """(S, L) P(examined at k); earlier clicks do not matter."""
        attraction = _floats(attraction)
        return np.broadcast_to(self.examine(attraction), attraction.shape)

    def sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """One session per list; the examination is one row for all, read-only."""
        attraction = _floats(attraction)
        examine = self.examine(attraction)
        if len(attraction) <= ROWS:
            click, _ = self._sample(attraction, rng)
            return click, _repeated(examine, len(attraction))
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
        every = _repeated(examine, len(attraction))
        return bernoulli(self.perceive(attraction) * every, rng), examine


@dataclass(frozen=True)
class PositionBased(Independent):
    """Examines rank k with probability theta_k: P(c_k) = theta_k gamma_k.

    Args:
        theta: Examination of ranks 1, 2, ...; `eye_tracking`, `power_law`, `BAIDU`.
        pickiness: Power of attraction; 2 clicks an attraction of .5 half as often.

    Source: Craswell et al., An Experimental Comparison of Click Position-Bias Models,
    WSDM 2008.

    >>> PositionBased((1.0, 0.5)).click_probability(np.array([[0.5, 0.5]])).tolist()
    [[0.5, 0.25]]
    """

    theta: Curve = EYE_TRACKING
    pickiness: float = 1.0

    def __post_init__(self) -> None:
        _check_range(self, 0, 1, theta=self.theta)
        _check_range(self, 0, np.inf, pickiness=self.pickiness)

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        return _picky(attraction, self.pickiness)

    def examine(self, attraction: np.ndarray) -> np.ndarray:
        return _row(self.theta, attraction, self)


@dataclass(frozen=True)
class RankCTR(Independent):
    """Clicks rank k with probability rate_k, whatever is there: P(c_k) = rate_k.

    >>> RankCTR((0.5, 0.25)).click_probability(np.array([[0.0, 0.9]])).tolist()
    [[0.5, 0.25]]
    """

    rate: Curve = EYE_TRACKING

    def __post_init__(self) -> None:
        _check_range(self, 0, 1, rate=self.rate)

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        return np.ones_like(_floats(attraction))

    def examine(self, attraction: np.ndarray) -> np.ndarray:
        return _row(self.rate, attraction, self)

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        examine = self.examine(attraction)
        return bernoulli(_repeated(examine, len(attraction)), rng), examine


@dataclass(frozen=True)
class DocumentCTR(Independent):
    """Reads everything: P(c_k) = gamma_k, whatever the rank.

    >>> DocumentCTR(pickiness=2.0).click_probability(np.array([[0.5, 0.5]])).tolist()
    [[0.25, 0.25]]
    """

    pickiness: float = 1.0

    def __post_init__(self) -> None:
        _check_range(self, 0, np.inf, pickiness=self.pickiness)

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        return _picky(attraction, self.pickiness)

    def examine(self, attraction: np.ndarray) -> np.ndarray:
        return np.ones(attraction.shape[-1], attraction.dtype)


@dataclass(frozen=True)
class TrustBiased(Independent):
    """Trusts the ranking: an examined item may be clicked because it stands high.

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
        _check_range(self, 0, 1, theta=self.theta, right=self.right, wrong=self.wrong)
        if not len(self.theta) == len(self.right) == len(self.wrong):
            raise ValueError("TrustBiased: theta, right and wrong must be equally long")

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        gamma = _floats(attraction)
        right, wrong = _row(self.right, gamma, self), _row(self.wrong, gamma, self)
        return wrong + (right - wrong) * gamma

    def examine(self, attraction: np.ndarray) -> np.ndarray:
        return _row(self.theta, attraction, self)


def trust_oosterhuis(positions: int = 50) -> TrustBiased:
    """Trust bias as simulated after Oosterhuis and co-workers.

    theta_k = .35 / k + .65 / (1 + .05 (k - 1)), e+_k = 1 / (1 + .005 (k - 1)) and
    e-_k = .65 / k. Goes with `linear` attraction, gamma = y / 4.

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
    """Trust bias as simulated after Vardasbi et al., CIKM 2020.

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


class Chain(Behaviour):
    """Users who read on, or leave, from one rank to the next.

    Examined at k, the user reads k + 1 with probability a_k after a click and b_k after
    none; not examined at k, never. With eps_k the examination,

        P(c_k) = eps_k gamma_k
        eps_{k+1}       = eps_k [gamma_k a_k + (1 - gamma_k) b_k]           marginally
        eps_{k+1} | c_k = a_k                                       after a click at k
                          b_k (1 - gamma_k) eps_k / (1 - gamma_k eps_k)     after none

    A click proves examination, so it resets eps to a_k whatever was read before.
    """

    def after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """a and b, each broadcast to (S, L)."""
        raise NotImplementedError

    def entries(self, size: int) -> dict[int, float]:
        """Ranks, from 0, at which reading starts afresh, with their examination."""
        return {0: 1.0}

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        """(S, L) P(click at k) by the marginal recursion."""
        examined = self.marginal_examination(attraction, satisfaction)
        return self.perceive(attraction) * examined

    def marginal_examination(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        """(S, L) P(examined at k)."""
        gamma = self.perceive(attraction)
        click, skip = self._after(_floats(attraction), satisfaction)
        on = gamma * click + (1 - gamma) * skip
        entries = self.entries(gamma.shape[-1])
        examined = np.empty_like(gamma)
        for k in range(gamma.shape[-1]):
            examined[:, k] = (
                entries[k] if k in entries else examined[:, k - 1] * on[:, k - 1]
            )
        return examined

    def examination(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        """(S, L) P(examined at k | clicks above k) by the conditional recursion."""
        lists = _floats(attraction)
        return self._read(lists, lambda k, _: click[:, k], satisfaction)[1]

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._read(attraction, lambda _, p: bernoulli(p, rng), satisfaction)

    def _after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """`after`, which need not know of satisfaction where there is none."""
        return self.after(attraction, **with_satisfaction(self, satisfaction))

    def _read(
        self,
        attraction: np.ndarray,
        click_at: Callable[[int, np.ndarray], np.ndarray],
        satisfaction: np.ndarray | None = None,
        entries: dict[int, float | np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Walks down the list, asking at each rank whether it was clicked."""
        size = attraction.shape[-1]
        if entries is None:
            entries = dict(self.entries(size))
        # Rank by rank, so a rank's sessions lie together in memory.
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
                # A certain click leaves 0 / 0 for the case of no click: 0, not NaN.
                before, seen = examined[k - 1], examined[k - 1] * gamma[k - 1]
                on = after_skip[k - 1] * (before - seen) / np.maximum(1 - seen, tiny)
                examined[k] = np.where(click[k - 1], after_click[k - 1], on)
            click[k] = click_at(k, examined[k] * gamma[k])
        return click.T, examined.T


@dataclass(frozen=True)
class Cascade(Chain):
    """Reads from the top and leaves with the first click: a = 0, b = 1.

    Source: Craswell et al., WSDM 2008.

    >>> Cascade().click_probability(np.array([[0.5, 0.5, 0.5]])).tolist()
    [[0.5, 0.25, 0.125]]
    """

    pickiness: float = 1.0

    def __post_init__(self) -> None:
        _check_range(self, 0, np.inf, pickiness=self.pickiness)

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        return _picky(attraction, self.pickiness)

    def after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        gamma = _floats(attraction)
        return np.zeros_like(gamma), np.ones_like(gamma)


@dataclass(frozen=True)
class DependentClick(Chain):
    """Cascade with several clicks: reads on after a click at k with probability a_k.

    After Guo et al., Efficient Multiple-Click Models in Web Search, WSDM 2009 (DCM).

    >>> dcm = DependentClick((0.5, 0.5))
    >>> dcm.click_probability(np.array([[0.5, 1.0]])).tolist()  # .5 * .5 + .5 * 1
    [[0.5, 0.75]]
    """

    continuation: Curve = _SLOW

    def __post_init__(self) -> None:
        _check_range(self, 0, 1, continuation=self.continuation)

    def after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        gamma = _floats(attraction)
        click = _row(self.continuation, gamma, self)
        return np.broadcast_to(click, gamma.shape), np.ones_like(gamma)


@dataclass(frozen=True)
class ClickChain(Chain):
    """Reading on depends on whether there was a click and how good the item was.

    b = t1 after no click; a = (1 - gamma) t2 + gamma t3 after a click.

    After Guo et al., Click Chain Model in Web Search, WWW 2009 (CCM).

    >>> ccm = ClickChain(0.9, 0.8, 0.4)
    >>> ccm.click_probability(np.array([[1.0, 0.5]])).tolist()  # .4 * .5 after a click
    [[1.0, 0.2]]
    """

    after_no_click: float = 0.9
    after_bad_click: float = 0.8
    after_good_click: float = 0.4

    def __post_init__(self) -> None:
        _check_range(
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
        gamma = _floats(attraction)
        bad, good = self.after_bad_click, self.after_good_click
        return bad + (good - bad) * gamma, np.full_like(gamma, self.after_no_click)


@dataclass(frozen=True)
class DynamicBayesian(Chain):
    """Leaves when satisfied: a = lambda (1 - s), b = lambda.

    Satisfaction s, the probability that a clicked item ends the search, is the item's
    own where that is given. Else it is a broken line over attraction before pickiness:
    an item that all click and that satisfies nobody is a knot (1, 0).

    Args:
        continuation: lambda, P(reads on | not satisfied). 1 is the simplified DBN.
        satisfaction: Knots (attraction, s) in rising order of attraction.
        pickiness: Power of attraction in the click.

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
        _check_range(self, 0, 1, continuation=self.continuation)
        _check_range(self, 0, 1, satisfaction=self.satisfaction)
        _check_range(self, 0, np.inf, pickiness=self.pickiness)
        at = [knot[0] for knot in self.satisfaction]
        if len(at) < 2 or (np.diff(at) <= 0).any():
            raise ValueError(
                "DynamicBayesian: satisfaction must be two or more knots in rising "
                f"order of attraction, got {self.satisfaction}"
            )

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        return _picky(attraction, self.pickiness)

    def after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        gamma = _floats(attraction)
        if satisfaction is None:
            satisfaction = _interpolated(self.satisfaction, gamma)
        on = self.continuation
        return on * (1 - satisfaction), np.full_like(gamma, on)


def simplified_dbn(satisfaction: Knots = ((0.0, 0.0), (1.0, 0.5))) -> DynamicBayesian:
    """DBN whose unsatisfied users always read on (SDBN)."""
    return DynamicBayesian(1.0, satisfaction)


# Click and stop probabilities of grades 0 to 4, as knots of satisfaction over
# attraction: the attraction of the preset of the same name in `simulators.clicks`.
NAVIGATIONAL: Knots = ((0.05, 0.2), (0.3, 0.3), (0.5, 0.5), (0.7, 0.7), (0.95, 0.9))
INFORMATIONAL: Knots = ((0.4, 0.1), (0.6, 0.2), (0.7, 0.3), (0.8, 0.4), (0.9, 0.5))
GRADED_DBN: Knots = ((0.1, 0.0), (0.25, 0.125), (0.5, 0.25), (0.75, 0.375), (1.0, 0.5))


@dataclass(frozen=True)
class Carousel(Chain):
    """Swipes along rows, whether or not there was a click. Rows are independent.

    Enters row r = 1, 2, ... with probability r ** -row_decay and goes on from column to
    column with probability `along`.

    Args:
        columns: Items in a row.
        row_decay: Power of 1 / row at which a row is entered.
        along: P(examined at column c + 1 | examined at column c).

    >>> carousel = Carousel(columns=2, row_decay=1.0, along=0.5)
    >>> carousel.click_probability(np.ones((1, 4))).tolist()
    [[1.0, 0.5, 0.5, 0.25]]
    """

    columns: int = 5
    row_decay: float = 0.5
    along: float = 0.75

    def __post_init__(self) -> None:
        _check_range(self, 1, np.inf, columns=self.columns)
        _check_range(self, 0, np.inf, row_decay=self.row_decay)
        _check_range(self, 0, 1, along=self.along)

    def entries(self, size: int) -> dict[int, float]:
        firsts = range(0, size, self.columns)
        return {k: float(k // self.columns + 1) ** -self.row_decay for k in firsts}

    def after(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        on = np.full_like(_floats(attraction), self.along)
        return on, on


@dataclass(frozen=True)
class BottomUp(Behaviour):
    """Reads the list from its last item to its first, otherwise as `reader` does.

    `examination` is given the clicks made before in reading order, those below k, and
    multiplies with attraction to a session's likelihood like any other.
    `conditional_click_probability` is in display order all the same, so that it can be
    mixed with users who read downwards: with p_k = P(c_1 .. c_k), which is the
    likelihood of a reading that starts at k with the marginal examination of k, it is
    the ratio of p_k with c_k = 1 to p_{k-1}.

    >>> BottomUp(Cascade()).click_probability(np.array([[1.0, 0.25]])).tolist()
    [[0.75, 0.25]]
    """

    reader: Chain = Cascade()

    def __post_init__(self) -> None:
        if not isinstance(self.reader, Chain) or len(self.reader.entries(99)) > 1:
            raise ValueError(
                f"BottomUp needs a reader of one column, got {self.reader}"
            )

    @property
    def satisfiable(self) -> bool:  # type: ignore[override]
        """Whether its reader is."""
        return self.reader.satisfiable

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        return self.reader.perceive(attraction)

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        upwards = _turned(attraction), _turned(satisfaction)
        return self.reader.click_probability(*upwards)[:, ::-1]

    def examination(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        click = np.asarray(click)[:, ::-1]
        upwards = _turned(attraction), click, _turned(satisfaction)
        return self.reader.examination(*upwards)[:, ::-1]

    def conditional_click_probability(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        upwards, satisfied = _turned(attraction), _turned(satisfaction)
        upwards = upwards.astype(float)
        satisfied = None if satisfied is None else satisfied.astype(float)
        click = np.asarray(click, bool)[:, ::-1]
        start = self.reader.marginal_examination(upwards, satisfied)
        sessions, size = upwards.shape
        conditional = np.empty(upwards.shape)
        above = np.ones(sessions)  # P(the clicks read after rank k)
        for k in reversed(range(size)):
            joint = np.empty((2, sessions))
            for now in (0, 1):
                rest = click[:, k:].copy()
                rest[:, 0] = now
                own = None if satisfied is None else satisfied[:, k:]
                joint[now] = self._likelihood(upwards[:, k:], rest, start[:, k], own)
            conditional[:, k] = joint[1] / np.where(above > 0, above, 1)
            above = np.where(click[:, k], joint[1], joint[0])
        return conditional[:, ::-1].astype(_floats(attraction).dtype, copy=False)

    def _likelihood(
        self,
        gamma: np.ndarray,
        click: np.ndarray,
        start: np.ndarray,
        satisfaction: np.ndarray | None,
    ) -> np.ndarray:
        made = lambda k, _: click[:, k]  # noqa: E731
        read = self.reader._read(gamma, made, satisfaction, {0: start})[1]
        clicked = read * self.reader.perceive(gamma)
        return np.where(click, clicked, 1 - clicked).prod(axis=1)

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        upwards = attraction[:, ::-1], rng, _turned(satisfaction)
        click, examined = self.reader._sample(*upwards)
        return click[:, ::-1], examined[:, ::-1]


@dataclass(frozen=True)
class UserBrowsing(Behaviour):
    """Examination depends on the rank and on the rank of the last click above.

    P(c_k | c_1 .. c_{k-1}) = theta[k][j] gamma_k, j the rank of the last click above k,
    0 where there is none. The marginal carries the distribution of j down the list.

    Args:
        theta: theta[k - 1][j] for ranks k = 1, 2, ... and 0 <= j < k.

    Source: Dupret and Piwowarski, A User Browsing Model to Predict Search Engine Click
    Data from Past Observations, SIGIR 2008.

    >>> ubm = UserBrowsing(((1.0,), (0.5, 1.0)))
    >>> ubm.click_probability(np.array([[0.5, 1.0]])).tolist()  # .5 * .5 + .5 * 1
    [[0.5, 0.75]]
    """

    theta: tuple[Curve, ...]

    def __post_init__(self) -> None:
        for k, row in enumerate(self.theta, start=1):
            _check_range(self, 0, 1, theta=row)
            if len(row) != k:
                raise ValueError(
                    f"UserBrowsing: theta of rank {k} must hold {k} numbers, one for "
                    f"each last click from none to {k - 1}, got {len(row)}"
                )

    def _table(self, attraction: np.ndarray) -> list[np.ndarray]:
        _row(tuple(map(float, range(len(self.theta)))), attraction, self)
        return [np.array(row, attraction.dtype) for row in self.theta]

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        gamma = _floats(attraction)
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

    def examination(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        return self._read(_floats(attraction), lambda k, _: click[:, k])[1]

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._read(_floats(attraction), lambda _, p: bernoulli(p, rng))

    def _read(
        self,
        attraction: np.ndarray,
        click_at: Callable[[int, np.ndarray], np.ndarray],
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
    """UBM whose examination falls with the distance from the last click.

    theta[k][j] = (k - j) ** -eta; without a click the distance counts from the top.

    >>> user_browsing(1.0, 2).theta
    ((1.0,), (0.5, 1.0))
    """
    ranks = range(1, positions + 1)
    return UserBrowsing(
        tuple(tuple(float((k - j) ** -eta) for j in range(k)) for k in ranks)
    )


@dataclass(frozen=True)
class Grid(Behaviour):
    """Reads a grid, row by row; cells compete for attention.

    The cell of rank k, from 0, stands in row r = k // columns and column
    c = k % columns. Its examination is

        base_k = min(slower ** r * theta_k, 1) (1 - middle |2 c / (columns - 1) - 1|)
        examination_k = base_k exp(- sum_j influence_kj gamma_j)

    so decay is slower than down a list, the middle of a row is read more than its ends,
    and attractive neighbours draw attention away, more within a row than across:

        influence_kj = within / |c_k - c_j|                        in the same row
                       across / (|r_k - r_j| + |c_k - c_j|)        in different rows

    Besides, each row is skipped as a whole with probability `skip`, independently.
    Then a row with a click was not skipped, and one without may have been: with q the
    probability that nothing is clicked in the cells before k of a row that is read,

        P(row read | no click before k in it) = (1 - skip) q / (skip + (1 - skip) q)

    Args:
        columns: Cells in a row.
        theta: Examination of ranks 1, 2, ... of a list, before the corrections.
        slower: At least 1; how much slower examination decays from row to row.
        skip: P(a row is skipped).
        middle: In [0, 1]; how much less the ends of a row are read than its middle.
        within: Attention drawn by a neighbour of attraction 1 in the same row.
        across: The same for neighbours in other rows.
        pickiness: Power of attraction in the click; neighbours draw with attraction.

    The three grid effects after Xie et al., Grid-based Evaluation Metrics for Web Image
    Search, WWW 2019; the competition for attention is ours.

    >>> Grid(columns=2, middle=0.0, skip=0.0).influence(4).round(2).tolist()[0]
    [0.0, 1.0, 0.2, 0.1]
    """

    columns: int = 5
    theta: Curve = _SLOW
    slower: float = 1.6
    skip: float = 0.1
    middle: float = 0.2
    within: float = 1.0
    across: float = 0.2
    pickiness: float = 1.0

    def __post_init__(self) -> None:
        _check_range(self, 1, np.inf, columns=self.columns, slower=self.slower)
        _check_range(self, 0, 1, theta=self.theta, skip=self.skip, middle=self.middle)
        _check_range(self, 0, np.inf, within=self.within, across=self.across)
        _check_range(self, 0, np.inf, pickiness=self.pickiness)

    def influence(self, size: int) -> np.ndarray:
        """(L, L) how far the attraction of cell j lowers log examination of cell k."""
        row, column = np.divmod(np.arange(size), self.columns)
        down = np.abs(row[:, None] - row)
        aside = np.abs(column[:, None] - column)
        near = 1 / np.maximum(down + aside, 1)
        return np.where(down == 0, self.within, self.across) * near * (1 - np.eye(size))

    def base(self, size: int) -> np.ndarray:
        """(L,) examination of the cells of a grid of unattractive items, if read."""
        theta = _row(self.theta, np.empty((0, size)), self)
        row, column = np.divmod(np.arange(size), self.columns)
        ends = np.abs(2 * column / max(self.columns - 1, 1) - 1)
        if self.columns == 1:
            ends = np.zeros(size)
        return np.minimum(self.slower**row * theta, 1.0) * (1 - self.middle * ends)

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        return _picky(attraction, self.pickiness)

    def _examine_if_read(self, attraction: np.ndarray) -> np.ndarray:
        size, dtype = attraction.shape[-1], attraction.dtype
        drawn = attraction @ self.influence(size).astype(dtype).T
        return self.base(size).astype(dtype) * np.exp(-drawn)

    def click_probability(
        self, attraction: np.ndarray, satisfaction: np.ndarray | None = None
    ) -> np.ndarray:
        gamma = _floats(attraction)
        return (1 - self.skip) * self._examine_if_read(gamma) * self.perceive(gamma)

    def examination(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        return self._read(_floats(attraction), lambda k, _: click[:, k])[1]

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._read(_floats(attraction), lambda _, p: bernoulli(p, rng))

    def _read(
        self,
        attraction: np.ndarray,
        click_at: Callable[[int, np.ndarray], np.ndarray],
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


BEHAVIOURS: dict[str, Behaviour] = {
    "position-based": PositionBased(),
    "position-based-picky": PositionBased(power_law(1.0), pickiness=3.0),
    "position-based-baidu": PositionBased(BAIDU),
    "rank-ctr": RankCTR(),
    "document-ctr": DocumentCTR(),
    "trust-oosterhuis": trust_oosterhuis(),
    "trust-vardasbi": trust_vardasbi(),
    "cascade": Cascade(),
    "dcm": DependentClick(),
    "ccm": ClickChain(),
    "dbn": DynamicBayesian(),
    "sdbn": simplified_dbn(),
    "dbn-navigational": DynamicBayesian(1.0, NAVIGATIONAL),
    "dbn-informational": DynamicBayesian(1.0, INFORMATIONAL),
    "dbn-graded": DynamicBayesian(0.8, GRADED_DBN),
    "ubm": user_browsing(),
    "bottom-up": BottomUp(DynamicBayesian(0.7)),
    "bottom-up-cascade": BottomUp(Cascade()),
    "grid": Grid(),
    "grid-no-skipping": Grid(skip=0.0),
    "carousel": Carousel(),
}
"""One instance of every behaviour; a new one is tested by being entered here."""
