"""Populations of users: behaviours with shares, and observed situations.

Example:

>>> phone, desktop = Situation(0.6, device=1), Situation(0.4, device=2)
>>> crowd = Population(
...     types=(
...         *by_device(0.8, {1: PositionBased(power_law(1.5)), 2: Grid()}),
...         (0.2, RankCTR()),
...     ),
...     situations=(phone, desktop),
... )
>>> shares(crowd, Observed(device=np.array([1, 2]))).tolist()
[[0.8, 0.0, 0.2], [0.0, 0.8, 0.2]]

A share is a number, one number per query, or a function of observed properties of the
sessions. So a behaviour can depend on the device, the query or the context without a
new class. A situation is a combination of values of the observed properties. There are
finitely many situations, so every expectation is exact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from typing import NamedTuple

import numpy as np

from debias.data.text import one_of
from simulators.behaviours import (
    BAIDU,
    GRADED_DBN,
    INFORMATIONAL,
    NAVIGATIONAL,
    Behaviour,
    BottomUp,
    Carousel,
    Cascade,
    ClickChain,
    DependentClick,
    DocumentCTR,
    DynamicBayesian,
    Grid,
    LogitAdditive,
    PositionBased,
    RankCTR,
    eye_tracking,
    power_law,
    simplified_dbn,
    trust_oosterhuis,
    trust_vardasbi,
    user_browsing,
    with_satisfaction,
)
from simulators.chance import ROWS, categorical


class Observed(NamedTuple):
    """Observed properties of sessions; None for a property that is not observed."""

    query: np.ndarray | None = None  # (S,) int
    device: np.ndarray | None = None  # (S,) int from 1, 0 = unknown
    context: np.ndarray | None = None  # (S, C) float


Share = float | np.ndarray | Callable[[Observed], np.ndarray]


class Situation(NamedTuple):
    """A combination of values of the observed properties, with its probability."""

    share: float
    device: int = 0
    context: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Population:
    """A population of users.

    Args:
        types: Pairs (share, behaviour); the shares of a session sum to 1. A share is a
            float, an array (queries,), or a function from `Observed` to (S,).
        situations: Possible situations, from which each session draws one
            independently. The shares of the situations sum to 1, and their contexts
            have equal length.

    Raises:
        ValueError: A share is negative, shares do not sum to 1, there is no type, or
            grids have different widths.

    >>> Population(((0.5, RankCTR()), (0.6, DocumentCTR())))
    Traceback (most recent call last):
    ValueError: population shares must sum to 1, got [0.5, 0.6]
    """

    types: tuple[tuple[Share, Behaviour], ...]
    situations: tuple[Situation, ...] = (Situation(1.0),)

    def __post_init__(self) -> None:
        if not self.types:
            raise ValueError("population needs at least one type of user")
        for share, behaviour in self.types:
            if not isinstance(behaviour, Behaviour):
                raise ValueError(
                    f"population types must be (share, behaviour), got {behaviour!r}"
                )
            if not callable(share) and (np.asarray(share) < 0).any():
                raise ValueError(f"population shares must not be negative, got {share}")
        if self.fixed_shares is not None:
            _check_sum(self.fixed_shares)
        situations = np.array([situation.share for situation in self.situations])
        if (situations < 0).any() or not np.isclose(situations.sum(), 1.0):
            raise ValueError(
                f"situation shares must be positive and sum to 1, got {situations}"
            )
        if len({len(situation.context) for situation in self.situations}) != 1:
            raise ValueError("situations must have contexts of one length")
        if len(self.widths) > 1:
            raise ValueError(
                f"one log has one layout, got grids of {self.widths} columns"
            )

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """The behaviours; `user_type` in a log is an index into this tuple."""
        return tuple(behaviour for _, behaviour in self.types)

    @property
    def fixed_shares(self) -> np.ndarray | None:
        """(K,) shares of the types if they are equal in all sessions, else None."""
        if all(isinstance(share, (int, float)) for share, _ in self.types):
            return np.array([share for share, _ in self.types], float)
        return None

    @property
    def widths(self) -> list[int]:
        """The distinct numbers of grid columns of the behaviours."""
        return sorted({b.columns for b in self.behaviours if b.columns})

    @property
    def columns(self) -> int:
        """Number of columns of the grid; 0 if users read a list."""
        return self.widths[0] if self.widths else 0


def _check_sum(shares: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isclose(shares.sum(axis=-1), 1.0, atol=1e-6))
    if wrong.size:
        got = np.atleast_2d(shares)[wrong[0]].tolist()
        where = f" in session {wrong[0]}" if shares.ndim > 1 else ""
        raise ValueError(f"population shares must sum to 1, got {got}{where}")


def shares(population: Population, observed: Observed) -> np.ndarray:
    """Shares of the types: (K,) if they are equal in all sessions, else (S, K).

    Raises:
        ValueError: A share depends on an unobserved property, a share is negative, or
            the shares of a session do not sum to 1.

    >>> shares(mixed_population(), Observed()).round(3).tolist()
    [0.333, 0.333, 0.333]
    """
    if population.fixed_shares is not None:
        return population.fixed_shares
    columns = []
    for kind, (share, _) in enumerate(population.types):
        if callable(share):
            columns.append(np.asarray(share(observed), float))
        elif isinstance(share, np.ndarray):
            if observed.query is None:
                raise ValueError(
                    f"the share of type {kind} depends on the query: pass query"
                )
            if observed.query.size and observed.query.max() >= len(share):
                raise ValueError(
                    f"the share of type {kind} has values for {len(share)} queries, "
                    f"got query {observed.query.max()}"
                )
            columns.append(share[observed.query])
        else:
            columns.append(np.asarray(share, float))
    table = np.stack(np.broadcast_arrays(*columns), axis=-1)
    if (table < 0).any():
        raise ValueError(f"population shares must not be negative, got {table.min()}")
    _check_sum(table)
    return table


def situate(population: Population, situation: Situation, sessions: int) -> Observed:
    """The observed properties of sessions that are all in the same situation."""
    return Observed(
        None,
        np.full(sessions, situation.device, np.int16),
        np.tile(np.array(situation.context, np.float32), (sessions, 1)),
    )


def by_device(
    share: float, behaviours: Mapping[int, Behaviour]
) -> tuple[tuple[Share, Behaviour], ...]:
    """Gives a share of the population to a different user type on each device.

    Args:
        share: Share of the population, the same on every device.
        behaviours: Behaviour on each device code that occurs in the situations.
    """

    def share_on(device: int) -> Callable[[Observed], np.ndarray]:
        def share_of(observed: Observed) -> np.ndarray:
            if observed.device is None:
                raise ValueError("a share depends on the device: pass device")
            return share * (observed.device == device)

        return share_of

    return tuple((share_on(device), b) for device, b in behaviours.items())


def by_query(
    share: float, group: np.ndarray, behaviours: Sequence[Behaviour]
) -> tuple[tuple[Share, Behaviour], ...]:
    """Gives a share of the population to a different user type per group of queries.

    Args:
        share: Share of the population, the same for every query.
        group: (queries,) group of each query, an index into `behaviours`.
        behaviours: Behaviour of each group.
    """
    return tuple((share * (group == g), b) for g, b in enumerate(behaviours))


def logistic_share(weights: Sequence[float], offset: float = 0.0) -> Share:
    """A share that depends on the context: sigmoid(offset + weights . context)."""

    def share_of(observed: Observed) -> np.ndarray:
        if observed.context is None:
            raise ValueError("a share depends on the context: pass context")
        return 1 / (1 + np.exp(-(observed.context @ np.asarray(weights) + offset)))

    return share_of


class Visits(NamedTuple):
    """Simulated sessions of a population, one row per shown list."""

    user_type: np.ndarray  # (S,) int16, index into population.types
    click: np.ndarray  # (S, L) bool
    examination: np.ndarray  # (S, L), given type and clicks made before
    attraction: np.ndarray  # (S, L), of this type


def visit(
    population: Population,
    attraction: np.ndarray,
    rng: np.random.Generator,
    observed: Observed | None = None,
    truth: bool = True,
    satisfaction: np.ndarray | None = None,
) -> Visits:
    """Shows each list to a random user of the population.

    Args:
        attraction: (S, L) floats in [0, 1] in display order, without padding.
        rng: The only source of randomness.
        observed: Observed properties of the sessions, if shares depend on them.
        truth: Whether to return examination and attraction. With False, types and
            clicks are unchanged and computed faster.
        satisfaction: (S, L) P(satisfied | clicked), if items have their own
            satisfaction; see `simulators.behaviours`.
    """
    weights = shares(population, observed or Observed())
    behaviours = population.behaviours
    if len(behaviours) == 1:
        own = with_satisfaction(behaviours[0], satisfaction)
        click, examined = behaviours[0].sample(attraction, rng, **own)
        types = np.zeros(len(attraction), np.int16)
        return Visits(types, click, examined, behaviours[0].perceive(attraction))
    shape, dtype = attraction.shape, attraction.dtype
    visits = Visits(
        np.empty(shape[0], np.int16),
        np.empty(shape, bool),
        np.empty(shape if truth else (0, 0), dtype),
        np.empty(shape if truth else (0, 0), dtype),
    )
    for start in range(0, shape[0], ROWS):
        rows = slice(start, start + ROWS)
        here = weights if weights.ndim == 1 else weights[rows]
        part = Visits(*(column[rows] for column in visits))
        satisfying = None if satisfaction is None else satisfaction[rows]
        _visit_types(behaviours, here, attraction[rows], satisfying, rng, part)
    return visits


def _visit_types(
    behaviours: tuple[Behaviour, ...],
    weights: np.ndarray,
    attraction: np.ndarray,
    satisfaction: np.ndarray | None,
    rng: np.random.Generator,
    visits: Visits,
) -> None:
    """Fills in the visits of a slice of sessions, type by type."""
    cumulative = np.atleast_2d(np.cumsum(weights, axis=-1))
    size = (len(attraction), len(behaviours))
    visits.user_type[:] = categorical(np.broadcast_to(cumulative, size), rng)
    # Sessions are grouped by type and put back. Moving whole rows is fast, while
    # scattered assignment is not.
    order = np.argsort(visits.user_type, kind="stable")
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    lists = attraction.take(order, axis=0)
    satisfying = None if satisfaction is None else satisfaction.take(order, axis=0)
    click = np.empty(lists.shape, bool)
    truth = len(visits.examination) > 0
    size = (2, *lists.shape) if truth else (2, 0)
    examined, perceived = np.empty(size, lists.dtype)
    ends = visits.user_type[order].searchsorted(range(len(behaviours)), "right")
    for behaviour, start, end in zip(behaviours, [0, *ends], ends, strict=False):
        if start == end:
            continue
        rows = slice(start, end)
        own_part = None if satisfying is None else satisfying[rows]
        own = with_satisfaction(behaviour, own_part)
        click[rows], seen = behaviour.sample(lists[rows], rng, **own)
        if truth:
            examined[rows] = seen
            perceived[rows] = behaviour.perceive(lists[rows])
    # "clip" makes NumPy write to `out` directly; no index needs clipping.
    click.take(back, axis=0, out=visits.click, mode="clip")
    if truth:
        examined.take(back, axis=0, out=visits.examination, mode="clip")
        perceived.take(back, axis=0, out=visits.attraction, mode="clip")


def mixed_population() -> Population:
    """Position-based, rank-CTR and document-CTR users in equal shares.

    The population follows Yan et al., Revisiting Two-tower Models for Unbiased Learning
    to Rank, SIGIR 2022. Position-based and rank-CTR users have the eye-tracking curve.
    """
    third = 1 / 3
    users = (PositionBased(eye_tracking()), RankCTR(eye_tracking()), DocumentCTR())
    return Population(tuple((third, user) for user in users))


def _alone(behaviour: Behaviour) -> Population:
    return Population(((1.0, behaviour),))


def _context_population() -> Population:
    """Browsers and hunters, whose shares depend on one observed context number."""
    hunts = logistic_share([2.0])
    assert callable(hunts)
    values = (-1.5, -0.5, 0.5, 1.5)
    return Population(
        (
            (lambda observed: 1 - hunts(observed), PositionBased(power_law(0.5))),
            (hunts, PositionBased(power_law(2.0), pickiness=3.0)),
        ),
        tuple(Situation(0.25, context=(value,)) for value in values),
    )


def _device_population() -> Population:
    behaviours = {1: PositionBased(power_law(1.5)), 2: PositionBased(power_law(0.5))}
    return Population(
        by_device(1.0, behaviours), (Situation(0.6, device=1), Situation(0.4, device=2))
    )


POPULATIONS: dict[str, Population] = {
    "pbm": _alone(PositionBased()),
    "pbm-power-law": _alone(PositionBased(power_law())),
    "pbm-baidu": _alone(PositionBased(BAIDU)),
    "rank-ctr": _alone(RankCTR()),
    "document-ctr": _alone(DocumentCTR()),
    "mixed": mixed_population(),
    "two-depths": Population(
        (
            (0.5, PositionBased(power_law(0.5))),
            (0.5, PositionBased(power_law(2.0))),
        )
    ),
    "impatient-picky": Population(
        (
            (0.5, PositionBased(power_law(0.5))),
            (0.5, PositionBased(power_law(2.0), pickiness=3.0)),
        )
    ),
    "cascade": _alone(Cascade()),
    "dcm": _alone(DependentClick()),
    "ccm": _alone(ClickChain()),
    "dbn": _alone(DynamicBayesian()),
    "dbn-graded": _alone(DynamicBayesian(0.8, GRADED_DBN)),
    "sdbn": _alone(simplified_dbn()),
    "perfect": _alone(simplified_dbn(((0.0, 0.0), (1.0, 0.0)))),
    "navigational": _alone(DynamicBayesian(1.0, NAVIGATIONAL)),
    "informational": _alone(DynamicBayesian(1.0, INFORMATIONAL)),
    "ubm": _alone(user_browsing()),
    "logit-additive": _alone(LogitAdditive()),
    "trust": _alone(trust_oosterhuis()),
    "trust-vardasbi": _alone(trust_vardasbi()),
    "mixed-direction": Population(
        ((0.7, DynamicBayesian(0.7)), (0.3, BottomUp(DynamicBayesian(0.7))))
    ),
    "grid": _alone(Grid()),
    "carousel": _alone(Carousel()),
    "context": _context_population(),
    "device": _device_population(),
}


def named(name: str) -> Population:
    """The preset with this name.

    Raises:
        ValueError: No preset has this name. The message suggests presets with similar
            names.

    >>> named("mixt")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: population must be one of pbm ..., got 'mixt': did you mean mixed...
    """
    if name in POPULATIONS:
        return POPULATIONS[name]
    raise ValueError(one_of("population", POPULATIONS, name))


def from_file(path: str | Path) -> Population:
    """Runs a Python file and returns its variable `population`.

    The variable may be a `Population` or a sequence of pairs (share, behaviour).

    Raises:
        ValueError: The file does not exist or does not define a population.
    """
    if not Path(path).is_file():
        raise ValueError(f"population file {path} does not exist")
    found = run_path(str(path)).get("population")
    if isinstance(found, Population):
        return found
    if not isinstance(found, (tuple, list)):
        raise ValueError(
            f"{path} must set `population` to a Population or to pairs of share and "
            f"behaviour, got {found!r}"
        )
    return Population(tuple(found))
