"""Simulates click logs: a population reads the lists of a logging policy.

>>> from simulators.policies import Deterministic
>>> from simulators.queries import generate
>>> data = generate(queries=50, seed=1)
>>> log = simulate(data, Deterministic(expert), named("mixed"), sessions=1000, seed=2)
>>> log
ClickLog(sessions=1000, list_size=10, query item click logging_propensity user_type \
examination attraction)

Every session belongs to a block of 8,192 sessions, and every block has its own random
streams, keyed by seed and block number. So a session depends only on the seed and the
number of the session. The session is the same for any number of sessions and threads,
and for any division of the log into pieces.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from debias.data import ClickLog, RankingData
from debias.data.text import one_of
from simulators.chance import ROWS, categorical, generator
from simulators.oracle import checked_probability
from simulators.policies import Policy, Shelf, expert
from simulators.populations import Observed, Population, named, visit

BLOCK = ROWS  # changing it changes all simulated logs
_SHOWN, _CLICKED = 1, 2  # two random streams per block

# Attraction of grades, from the lowest to the highest.
ATTRACTIONS: dict[str, tuple[float, ...]] = {
    "graded": tuple(0.1 + 0.9 * (2**y - 1) / 15 for y in range(5)),
    "binarised": (0.1, 0.1, 0.1, 1.0, 1.0),
    "linear": (0.0, 0.25, 0.5, 0.75, 1.0),
    "linear-noisy": tuple(0.1 + 0.9 * y / 4 for y in range(5)),
    "perfect": (0.0, 0.2, 0.4, 0.8, 1.0),
    "navigational": (0.05, 0.3, 0.5, 0.7, 0.95),
    "informational": (0.4, 0.6, 0.7, 0.8, 0.9),
    "graded-dbn": (0.1, 0.25, 0.5, 0.75, 1.0),
}
"""Functions from grades 0 to 4 to P(click | examined).

`graded` is eps + (1 - eps) (2 ** y - 1) / (2 ** 4 - 1) with eps = .1, affine in NDCG's
gain. `linear-noisy` is eps + (1 - eps) y / 4, affine in the grade. `binarised` is 1
above grade 2 and .1 for other grades. `perfect`, `navigational` and `informational` are
the cascade users of the online learning to rank literature. All functions except
`linear-noisy` are published.
"""

SATISFACTIONS: dict[str, tuple[float, ...]] = {
    "perfect": (0.0, 0.0, 0.0, 0.0, 0.0),
    "navigational": (0.2, 0.3, 0.5, 0.7, 0.9),
    "informational": (0.1, 0.2, 0.3, 0.4, 0.5),
    "graded-dbn": (0.0, 0.125, 0.25, 0.375, 0.5),
}
"""Published functions from grades 0 to 4 to P(satisfied | clicked), by kind of user."""

Graded = str | np.ndarray | Callable[[np.ndarray], np.ndarray]


def item_attraction(
    data: RankingData,
    attraction: Graded = "graded",
    noise: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """(items,) float32 attraction of each item.

    Args:
        data: Graded items.
        attraction: A name in `ATTRACTIONS`, a value per item, or a function from labels
            to values. Named functions rescale grades that are not on the scale 0 to 4.
        noise: Standard deviation of the noise that is added once to the logit of each
            item's attraction. The noise represents properties of items that grades do
            not measure. Before the noise is added, attraction is clipped to [.01, .99].
        seed: Random seed of the noise.

    Raises:
        ValueError: The name is unknown, a value is outside [0, 1], or the data has no
            labels.

    >>> data = RankingData(np.zeros((3, 1)), [0, 1, 4], [0, 3])
    >>> item_attraction(data).round(2).tolist()
    [0.10000000149011612, 0.1599999964237213, 1.0]
    """
    values = _by_grade(data, "attraction", attraction, ATTRACTIONS)
    if noise < 0:
        raise ValueError(f"noise must be at least 0, got {noise}")
    if noise:
        clipped = np.clip(values, 0.01, 0.99)
        added = noise * generator(seed, 3).standard_normal(data.items)
        values = 1 / (1 + np.exp(-added) * (1 - clipped) / clipped)
    return values.astype(np.float32)


def item_satisfaction(data: RankingData, satisfaction: Graded) -> np.ndarray:
    """(items,) float32 P(satisfied | clicked) of each item.

    Args:
        data: Graded items.
        satisfaction: A name in `SATISFACTIONS`, a value per item, or a function from
            labels to values.

    Raises:
        ValueError: As for `item_attraction`.

    >>> data = RankingData(np.zeros((3, 1)), [0, 1, 4], [0, 3])
    >>> item_satisfaction(data, "graded-dbn").tolist()
    [0.0, 0.125, 0.5]
    """
    values = _by_grade(data, "satisfaction", satisfaction, SATISFACTIONS)
    return values.astype(np.float32)


def _by_grade(
    data: RankingData, kind: str, given: Graded, presets: dict[str, tuple[float, ...]]
) -> np.ndarray:
    if isinstance(given, np.ndarray):
        values = given
    else:
        labels = expert(data)
        if callable(given):
            values = given(labels)
        elif given in presets:
            grades = np.linspace(0, data.max_grade, len(presets[given]))
            values = np.interp(labels, grades, presets[given])
        else:
            raise ValueError(one_of(kind, presets, given))
    values = checked_probability(kind, values)
    if values.shape != (data.items,):
        raise ValueError(
            f"{kind} must be one value for each of {data.items} items, "
            f"got shape {values.shape}"
        )
    return values


@dataclass(frozen=True, eq=False)
class Simulation:
    """A prepared simulation, which draws sessions and does not store item features."""

    shelf: Shelf
    population: Population
    attraction: np.ndarray
    satisfaction: np.ndarray | None
    queries: int
    seed: int
    list_size: int
    items_fingerprint: str | None = None

    def sessions(self, start: int, stop: int) -> ClickLog:
        """Draws the sessions numbered from start to stop - 1."""
        if not 0 <= start < stop:
            raise ValueError(f"sessions must be 0 <= start < stop, got {start}, {stop}")
        columns: dict[str, np.ndarray] = {}
        for number in range(start // BLOCK, -(-stop // BLOCK)):
            first = number * BLOCK
            keep = slice(max(start - first, 0), min(stop - first, BLOCK))
            to = slice(first + keep.start - start, first + keep.stop - start)
            for name, value in self._block(number).items():
                if name not in columns:
                    shape = (stop - start, *value.shape[1:])
                    columns[name] = np.empty(shape, value.dtype)
                columns[name][to] = value[keep]
        return ClickLog.trusted(items_fingerprint=self.items_fingerprint, **columns)

    def _block(self, number: int) -> dict[str, np.ndarray]:
        rng = generator(self.seed, number, _SHOWN)
        query = rng.integers(0, self.queries, BLOCK, np.int32)
        columns = {"query": query}
        observed = self._observed(query, rng)
        if observed.device is not None and observed.device.any():
            columns["device"] = observed.device
        if observed.context is not None and observed.context.size:
            columns["context"] = observed.context
        shown = self.shelf.show(query, rng)
        columns["item"] = shown.item
        columns["logging_propensity"] = shown.propensity
        if shown.swap is not None:
            columns["swap"] = shown.swap
        if self.population.columns:
            rank = np.arange(self.list_size)
            row, column = np.divmod(rank, self.population.columns)
            held = shown.item >= 0
            columns["row"] = held * (row + 1).astype(np.int16)
            columns["column"] = held * (column + 1).astype(np.int16)
        return columns | self._visits(shown.item, observed, number)

    def _observed(self, query: np.ndarray, rng: np.random.Generator) -> Observed:
        situations = self.population.situations
        chosen = np.zeros(BLOCK, np.int16)
        if len(situations) > 1:
            shares = np.cumsum([situation.share for situation in situations])
            chosen = categorical(np.broadcast_to(shares, (BLOCK, len(shares))), rng)
        device = np.array([situation.device for situation in situations], np.int16)
        context = np.array([situation.context for situation in situations], np.float32)
        return Observed(query, device[chosen], context[chosen])

    def _visits(
        self, item: np.ndarray, observed: Observed, number: int
    ) -> dict[str, np.ndarray]:
        rng = generator(self.seed, number, _CLICKED)
        if item.min() >= 0:
            return self._visit(item, observed, rng)
        columns: dict[str, np.ndarray] = {}
        # Behaviours have no padding, so lists are visited by length.
        size = (item >= 0).sum(axis=1)
        for length in np.unique(size):
            rows = np.flatnonzero(size == length)
            seen = Observed(*(None if o is None else o[rows] for o in observed))
            for name, value in self._visit(item[rows, :length], seen, rng).items():
                if name not in columns:
                    shape = (BLOCK, *item.shape[1:][: value.ndim - 1])
                    columns[name] = np.zeros(shape, value.dtype)
                if value.ndim == 1:
                    columns[name][rows] = value
                else:
                    columns[name][rows, :length] = value
        return columns

    def _visit(
        self, item: np.ndarray, observed: Observed, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Simulates visits to lists without padding, with the satisfaction of items."""
        gamma, satisfaction = self.attraction.take(item), None
        if self.satisfaction is not None:
            satisfaction = self.satisfaction.take(item)
        visits = visit(self.population, gamma, rng, observed, satisfaction=satisfaction)
        own = {} if satisfaction is None else {"satisfaction": satisfaction}
        return visits._asdict() | own


def prepare(
    data: RankingData,
    policy: Policy,
    population: Population | str,
    seed: int,
    list_size: int = 10,
    attraction: Graded = "graded",
    noise: float = 0.0,
    satisfaction: Graded | None = None,
) -> Simulation:
    """Prepares a simulation; takes the same arguments as `simulate`."""
    if isinstance(population, str):
        population = named(population)
    longest = min(list_size, int(data.sizes.max()))
    for behaviour in population.behaviours:  # reports too long lists now
        behaviour.click_probability(np.zeros((1, longest), np.float32))
    satisfying = None
    if satisfaction is not None:
        satisfying = item_satisfaction(data, satisfaction)
    return Simulation(
        policy.prepare(data, list_size),
        population,
        item_attraction(data, attraction, noise, seed),
        satisfying,
        data.queries,
        seed,
        list_size,
        data.fingerprint,
    )


def simulate(
    data: RankingData,
    policy: Policy,
    population: Population | str,
    sessions: int,
    seed: int,
    list_size: int = 10,
    attraction: Graded = "graded",
    noise: float = 0.0,
    satisfaction: Graded | None = None,
) -> ClickLog:
    """Simulates users who read lists, and records clicks and truth.

    Each session has a uniformly random query. Lists of queries with fewer items than
    `list_size` are padded.

    Args:
        data: Queries, items and grades.
        policy: Logging policy, see `simulators.policies`.
        population: The population of users, or the name of a preset.
        sessions: Number of sessions.
        seed: Random seed. The same seed gives the same sessions, and a longer log
            begins with the sessions of a shorter log.
        list_size: Largest number of shown items.
        attraction: Attraction of the items, see `item_attraction`.
        noise: Noise of the attraction, see `item_attraction`.
        satisfaction: Satisfaction of the items, see `item_satisfaction`. With None,
            behaviours that use satisfaction derive satisfaction from attraction.

    Returns:
        The log with logging propensities and the truth. The truth includes satisfaction
        if the argument `satisfaction` is not None. The log has row and column if the
        population reads a grid. The log has device and context if the population has
        them, and swap if the policy exchanges items.

    Raises:
        ValueError: `sessions` is not positive, a list is longer than a behaviour's
            table of positions, or `item_attraction` or `Population` raises an error.
    """
    if sessions < 1:
        raise ValueError(f"sessions must be at least 1, got {sessions}")
    ready = prepare(
        data, policy, population, seed, list_size, attraction, noise, satisfaction
    )
    return ready.sessions(0, sessions)
