"""Interface of behaviours, examination curves and checks."""

from collections.abc import Callable
from functools import lru_cache
from typing import overload

import numpy as np

from simulators.chance import ROWS, bernoulli

EYE_TRACKING = (0.68, 0.61, 0.48, 0.34, 0.28, 0.20, 0.11, 0.10, 0.08, 0.06)
BAIDU = (1.0, 0.674, 0.414, 0.293, 0.208, 0.171, 0.136, 0.117, 0.084, 0.058)
Curve = tuple[float, ...]
Knots = tuple[tuple[float, float], ...]
ClickAt = Callable[[int, np.ndarray], np.ndarray]  # from rank and P(click) to clicks


def eye_tracking(eta: float = 1.0) -> Curve:
    """Examination theta ** eta at ranks 1 to 10, with theta from eye tracking.

    After Joachims et al., Accurately Interpreting Clickthrough Data as Implicit
    Feedback, SIGIR 2005.

    >>> eye_tracking(2.0)[:2]
    (0.4624, 0.3721)
    """
    return tuple(round(theta**eta, 12) for theta in EYE_TRACKING)


def power_law(eta: float = 1.0, positions: int = 50) -> Curve:
    """Examination k ** -eta at ranks k = 1 to `positions`.

    >>> power_law(1.0, 3)
    (1.0, 0.5, 0.3333333333333333)
    """
    return tuple(float(k**-eta) for k in range(1, positions + 1))


SLOW = power_law(0.5)


def floats(values: np.ndarray) -> np.ndarray:
    """Converts values that are not floats to double precision."""
    values = np.asarray(values)
    if values.dtype.kind == "c":
        raise ValueError(
            "attraction must be floats, got complex numbers; pass satisfaction as a "
            "separate argument"
        )
    return values if values.dtype.kind == "f" else values.astype(float)


@overload
def turned(values: np.ndarray) -> np.ndarray: ...
@overload
def turned(values: None) -> None: ...
def turned(values: np.ndarray | None) -> np.ndarray | None:
    """The lists in reverse order."""
    return None if values is None else floats(values)[:, ::-1]


def positions_of(curve: Curve, attraction: np.ndarray, owner: object) -> np.ndarray:
    """The first entries of a position table, one for each position of a list."""
    size = attraction.shape[-1]
    if size > len(curve):
        raise ValueError(
            f"{type(owner).__name__} has parameters for {len(curve)} positions, got a "
            f"list of {size}"
        )
    return np.asarray(curve[:size], attraction.dtype)


def check_range(owner: object, low: float, high: float, **values: object) -> None:
    for name, value in values.items():
        array = np.asarray(value, float)
        if not ((array >= low) & (array <= high)).all():
            raise ValueError(
                f"{type(owner).__name__}: {name} must be in [{low:g}, {high:g}], "
                f"got {value}"
            )


def interpolated(knots: Knots, at: np.ndarray) -> np.ndarray:
    """Interpolates linearly between knots; constant beyond the first and last knot."""
    x, y = np.array(knots, at.dtype).T
    if len(knots) == 2:  # a straight line needs no search
        return y[0] + (np.clip(at, x[0], x[1]) - x[0]) * ((y[1] - y[0]) / (x[1] - x[0]))
    return np.interp(at, x, y).astype(at.dtype)


@lru_cache(maxsize=64)
def _tiled(row: bytes, dtype: str) -> np.ndarray:
    tiled = np.tile(np.frombuffer(row, dtype), (ROWS, 1))
    tiled.flags.writeable = False
    return tiled


def repeated(row: np.ndarray, rows: int) -> np.ndarray:
    """Repeats a row in memory, at most `ROWS` times.

    NumPy is slow if an array of ten numbers is broadcast over many rows.
    """
    return _tiled(row.tobytes(), row.dtype.str)[:rows]


class Behaviour:
    """Interface of behaviours; see `simulators.behaviours`."""

    columns: int = 0
    """Number of cells in a row if the user reads a grid; 0 if the user reads a list."""

    satisfiable: bool = False
    """Whether clicks can satisfy, so that methods receive `satisfaction`, (S, L)."""

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        """(S, L) P(click at k | examined at k) for this behaviour."""
        return floats(attraction)

    def examination(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        """(S, L) P(examined at k | clicks made before reading k)."""
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
        """Draws one session per list: clicks (S, L) bool and examination (S, L).

        The examination equals `examination(attraction, clicks)`.
        """
        attraction = floats(attraction)
        click = np.empty(attraction.shape, bool)
        examined = np.empty(attraction.shape, attraction.dtype)
        for start in range(0, len(attraction), ROWS):
            rows = slice(start, start + ROWS)
            part = None if satisfaction is None else satisfaction[rows]
            click[rows], examined[rows] = self._sample(attraction[rows], rng, part)
        return click, examined

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


class Picky(Behaviour):
    """Base class of users who click with probability attraction ** pickiness."""

    pickiness: float

    def perceive(self, attraction: np.ndarray) -> np.ndarray:
        attraction = floats(attraction)
        return attraction if self.pickiness == 1.0 else attraction**self.pickiness


class Reader(Behaviour):
    """Base class of users who read rank by rank; subclasses define `_read`."""

    def examination(
        self,
        attraction: np.ndarray,
        click: np.ndarray,
        satisfaction: np.ndarray | None = None,
    ) -> np.ndarray:
        """(S, L) P(examined at k | clicks above k)."""
        lists = floats(attraction)
        return self._read(lists, lambda k, _: click[:, k], satisfaction)[1]

    def _sample(
        self,
        attraction: np.ndarray,
        rng: np.random.Generator,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._read(attraction, lambda _, p: bernoulli(p, rng), satisfaction)

    def _read(
        self,
        attraction: np.ndarray,
        click_at: ClickAt,
        satisfaction: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Walks down the lists, and calls `click_at` at each rank.

        Returns clicks (S, L) bool, and examination (S, L) given the clicks above.
        """
        raise NotImplementedError


def with_satisfaction(
    behaviour: Behaviour, satisfaction: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The keyword argument `satisfaction`, if the behaviour uses satisfaction.

    >>> from simulators.behaviours import Cascade
    >>> with_satisfaction(Cascade(), np.ones((1, 2)))
    {}
    """
    if satisfaction is None or not behaviour.satisfiable:
        return {}
    return {"satisfaction": satisfaction}
