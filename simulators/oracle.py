"""The oracle: exact probabilities for a population on given lists.

All functions take `attraction`, (S, L) in [0, 1], in display order. If items have their
own satisfaction, pass it as `satisfaction` (S, L). `mask`, (S, L) bool, is False at
padding, which must be at the end of a list. Results are 0 at padding. If shares depend
on observed properties, pass them as `observed`. Without `observed`, marginal quantities
are averages over the situations of the population.
"""

import numpy as np

from simulators.behaviours import Behaviour, with_satisfaction
from simulators.populations import Observed, Population, shares, situate

_ENUMERABLE = 16  # largest list size for sums over all 2 ** L click vectors


def checked_probability(name: str, values: np.ndarray) -> np.ndarray:
    """Checks that values are probabilities, and returns the values as floats.

    Raises:
        ValueError: A value is outside [0, 1] (the message gives its index), or the
            values are complex.
    """
    values = np.asarray(values)
    if values.dtype.kind == "c":
        raise ValueError(f"{name} must be floats, got complex numbers")
    if values.dtype.kind != "f":
        values = values.astype(float)
    fine = (values >= 0) & (values <= 1)
    if not fine.all():
        place = tuple(int(i) for i in np.argwhere(~fine)[0])
        raise ValueError(f"{name} must be in [0, 1], got {values[place]} at {place}")
    return values


def _checked(
    attraction: np.ndarray, satisfaction: np.ndarray | None, doubles: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Checks attraction and satisfaction, and returns them as floats of one shape."""
    attraction = checked_probability("attraction", attraction)
    if satisfaction is not None:
        satisfaction = checked_probability("satisfaction", satisfaction)
        if satisfaction.shape != attraction.shape:
            raise ValueError(
                f"satisfaction must have the shape of attraction, {attraction.shape}, "
                f"got {satisfaction.shape}"
            )
    if doubles:
        attraction = attraction.astype(float)
        satisfaction = None if satisfaction is None else satisfaction.astype(float)
    return attraction, satisfaction


def _own(
    behaviour: Behaviour,
    satisfaction: np.ndarray | None,
    rows: slice | np.ndarray,
    size: int,
) -> dict[str, np.ndarray]:
    """The satisfaction of the given lists, if the behaviour depends on it."""
    part = None if satisfaction is None else satisfaction[rows, :size]
    return with_satisfaction(behaviour, part)


def lengths(mask: np.ndarray | None, shape: tuple[int, int]) -> list:
    """Groups the lists by length, as pairs (rows, length).

    Raises:
        ValueError: A list has padding before an item, or no item.
    """
    if mask is None or mask.all():
        return [(slice(None), shape[1])]
    size = mask.sum(axis=1)
    if mask.shape != shape or (mask != (np.arange(shape[1]) < size[:, None])).any():
        raise ValueError(f"mask must be of shape {shape} with padding at the end only")
    if (size == 0).any():
        raise ValueError(f"mask leaves list {int(np.argmin(size))} without an item")
    return [(np.flatnonzero(size == n), int(n)) for n in np.unique(size)]


def _situations(
    population: Population, sessions: int, query: np.ndarray | None
) -> list[tuple[float, np.ndarray]]:
    """Probability of each situation, and the shares (S, K) of types in it."""
    types = len(population.types)
    if population.fixed_shares is not None:
        return [(1.0, np.broadcast_to(population.fixed_shares, (sessions, types)))]
    found = []
    for situation in population.situations:
        observed = situate(population, situation, sessions)._replace(query=query)
        here = shares(population, observed)
        found.append((situation.share, np.broadcast_to(here, (sessions, types))))
    return found


def _weights(
    population: Population,
    sessions: int,
    query: np.ndarray | None,
    observed: Observed | None,
) -> np.ndarray:
    """(S, K) shares of types, averaged over situations if nothing is observed."""
    if observed is None:
        found = _situations(population, sessions, query)
        return np.sum([share * here for share, here in found], axis=0)
    if observed.query is None:
        observed = observed._replace(query=query)
    here = shares(population, observed)
    return np.broadcast_to(here, (sessions, len(population.types)))


def click_probability(
    population: Population,
    attraction: np.ndarray,
    mask: np.ndarray | None = None,
    query: np.ndarray | None = None,
    observed: Observed | None = None,
    satisfaction: np.ndarray | None = None,
) -> np.ndarray:
    """(S, L) P(click at k), averaged over the types.

    >>> from simulators.behaviours import DocumentCTR, RankCTR
    >>> crowd = Population(((0.5, RankCTR((1.0, 0.5))), (0.5, DocumentCTR())))
    >>> click_probability(crowd, np.array([[0.5, 0.5]])).tolist()
    [[0.75, 0.5]]
    """
    attraction, satisfaction = _checked(attraction, satisfaction)
    weights = _weights(population, len(attraction), query, observed)
    pooled = np.zeros(attraction.shape)
    for rows, size in lengths(mask, attraction.shape):
        for kind, behaviour in enumerate(population.behaviours):
            own = _own(behaviour, satisfaction, rows, size)
            clicked = behaviour.click_probability(attraction[rows, :size], **own)
            pooled[rows, :size] += weights[rows, kind, None] * clicked
    return pooled


def expected_clicks(
    population: Population,
    attraction: np.ndarray,
    mask: np.ndarray | None = None,
    query: np.ndarray | None = None,
    observed: Observed | None = None,
    satisfaction: np.ndarray | None = None,
) -> np.ndarray:
    """(S,) exact expected number of clicks on each list.

    >>> from simulators.populations import named
    >>> expected_clicks(named("pbm"), np.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
    [0.68, 0.61]
    """
    clicked = click_probability(
        population, attraction, mask, query, observed, satisfaction
    )
    return clicked.sum(axis=1)


def _conditionals(
    behaviour: Behaviour,
    attraction: np.ndarray,
    satisfaction: np.ndarray | None,
    click: np.ndarray,
    mask: np.ndarray | None,
) -> np.ndarray:
    """(S, L) P(c_k = 1 | c_1 .. c_{k-1}) of one type, 0 at padding."""
    conditional = np.zeros(attraction.shape)
    for rows, size in lengths(mask, attraction.shape):
        own = _own(behaviour, satisfaction, rows, size)
        conditional[rows, :size] = behaviour.conditional_click_probability(
            attraction[rows, :size], click[rows, :size], **own
        )
    return conditional


def _log_joint(
    population: Population,
    attraction: np.ndarray,
    satisfaction: np.ndarray | None,
    click: np.ndarray,
    mask: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Per type, (K, S, L): P(c_k = 1 | clicks above) and log P(c_1 .. c_k)."""
    attraction, satisfaction = _checked(attraction, satisfaction, doubles=True)
    click = np.asarray(click, bool)
    if click.shape != attraction.shape:
        raise ValueError(
            f"click must have the shape of attraction, {attraction.shape}, "
            f"got {click.shape}"
        )
    if mask is not None and click[~mask].any():
        raise ValueError("click must be false at padding")
    conditional = np.stack(
        [
            _conditionals(b, attraction, satisfaction, click, mask)
            for b in population.behaviours
        ]
    )
    with np.errstate(divide="ignore"):  # impossible clicks have log-probability -inf
        log = np.log(np.where(click, conditional, 1 - conditional))
    return conditional, np.cumsum(log, axis=2)


def _log_mean(weights: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """log sum_m weights_m exp(logs_m) over the first axis; -inf if all are -inf."""
    with np.errstate(divide="ignore"):
        return np.logaddexp.reduce(np.log(weights) + logs, axis=0)


def log_likelihood(
    population: Population,
    attraction: np.ndarray,
    click: np.ndarray,
    mask: np.ndarray | None = None,
    query: np.ndarray | None = None,
    observed: Observed | None = None,
    satisfaction: np.ndarray | None = None,
) -> np.ndarray:
    """(S,) log P(all clicks of a session) under the mixture of user types, in nats.

    A model that does not know the user type cannot exceed this log-likelihood in
    expectation.

    >>> from simulators.populations import named
    >>> crowd = named("mixed")
    >>> lists, clicks = np.array([[0.5, 0.5]]), np.array([[1, 0]])
    >>> log_likelihood(crowd, lists, clicks).round(3).tolist()  # (.236 + .265 + .25)/3
    [-1.384]
    """
    _, joint = _log_joint(population, attraction, satisfaction, click, mask)
    weights = _weights(population, joint.shape[1], query, observed).T
    return _log_mean(weights, joint[:, :, -1])


def posterior(
    population: Population,
    attraction: np.ndarray,
    click: np.ndarray,
    mask: np.ndarray | None = None,
    query: np.ndarray | None = None,
    observed: Observed | None = None,
    satisfaction: np.ndarray | None = None,
) -> np.ndarray:
    """(S, K) posterior P(user type | all clicks of the session).

    Raises:
        ValueError: The clicks of a session are impossible for all user types. The
            message gives the session.

    >>> from simulators.populations import named
    >>> clicks = np.array([[0, 1]])
    >>> posterior(named("mixed"), np.array([[1.0, 0.0]]), clicks).tolist()
    [[0.0, 1.0, 0.0]]
    """
    _, joint = _log_joint(population, attraction, satisfaction, click, mask)
    weights = _weights(population, joint.shape[1], query, observed).T
    every = _log_mean(weights, joint[:, :, -1])
    if np.isneginf(every).any():
        raise ValueError(
            f"click is impossible for every type in session "
            f"{int(np.argmax(np.isneginf(every)))}"
        )
    with np.errstate(divide="ignore"):
        return np.exp(np.log(weights) + joint[:, :, -1] - every).T


def conditional_click_probability(
    population: Population,
    attraction: np.ndarray,
    click: np.ndarray,
    mask: np.ndarray | None = None,
    query: np.ndarray | None = None,
    observed: Observed | None = None,
    satisfaction: np.ndarray | None = None,
) -> np.ndarray:
    """(S, L) P(click at k | clicks above), the best prediction of the next click.

    Types are weighted by their posterior given the clicks above k.

    >>> from simulators.populations import named
    >>> args = named("cascade"), np.array([[0.5, 0.5]]), np.array([[1, 0]])
    >>> conditional_click_probability(*args).tolist()
    [[0.5, 0.0]]
    """
    conditional, joint = _log_joint(population, attraction, satisfaction, click, mask)
    weights = _weights(population, joint.shape[1], query, observed).T[:, :, None]
    above = np.concatenate([np.zeros_like(joint[:, :, :1]), joint[:, :, :-1]], axis=2)
    top = above.max(axis=0)
    # If no type could have clicked so far, the prior replaces the posterior.
    belief = weights * np.exp(above - np.where(np.isneginf(top), 0, top))
    total = belief.sum(axis=0)
    belief = np.where(total > 0, belief / np.where(total > 0, total, 1), weights)
    return (belief * conditional).sum(axis=0)


def every_click_vector(size: int) -> np.ndarray:
    """(2 ** L, L) bool, all click vectors of a list.

    >>> every_click_vector(2).astype(int).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    return (np.arange(2**size)[:, None] >> np.arange(size)[::-1] & 1).astype(bool)


def expected_log_likelihood(
    population: Population,
    attraction: np.ndarray,
    mask: np.ndarray | None = None,
    query: np.ndarray | None = None,
    satisfaction: np.ndarray | None = None,
) -> np.ndarray:
    """(S,) expected log-likelihood of a session for the best predictor, in nats.

    The predictor knows lists, attraction, population and observed properties, but not
    the type. The result is minus the entropy of the clicks. A mixture has no closed
    form, so the entropy is an exact sum over all 2 ** L click vectors.

    Raises:
        ValueError: A list is longer than 16.

    >>> from simulators.populations import named
    >>> lists = np.array([[0.5, 0.5]])
    >>> expected_log_likelihood(named("document-ctr"), lists).round(4).tolist()
    [-1.3863]
    """
    attraction, satisfaction = _checked(attraction, satisfaction, doubles=True)
    expected = np.zeros(len(attraction))
    found = _situations(population, len(attraction), query)
    for rows, size in lengths(mask, attraction.shape):
        if size > _ENUMERABLE:
            raise ValueError(
                f"lists of {size} items have too many click vectors to sum over; "
                f"at most {_ENUMERABLE} items"
            )
        vectors = every_click_vector(size)
        places = np.arange(len(attraction))[rows]
        at_once = max(1, 2**17 // len(vectors))
        for start in range(0, len(places), at_once):
            some = places[start : start + at_once]
            lists = np.repeat(attraction[some, :size], len(vectors), axis=0)
            satisfying = None
            if satisfaction is not None:
                satisfying = np.repeat(satisfaction[some, :size], len(vectors), axis=0)
            every = np.tile(vectors, (len(some), 1))
            _, joint = _log_joint(population, lists, satisfying, every, None)
            last = joint[:, :, -1].reshape(-1, len(some), len(vectors))
            for share, weights in found:
                log = _log_mean(weights[some].T[:, :, None], last)
                likely = np.where(np.isneginf(log), 0, log)
                expected[some] += share * (np.exp(log) * likely).sum(axis=1)
    return expected


def ideal_score(population: Population, attraction: np.ndarray) -> np.ndarray:
    """(items,) score of the ideal debiased ranking.

    The score is P(click | examined) of each item at the top of a list, averaged over
    types. The score and the attraction order items in the same way, including ties, if
    any user type depends on attraction.

    >>> from simulators.populations import named
    >>> ideal_score(named("impatient-picky"), np.array([0.5, 1.0])).tolist()
    [0.3125, 1.0]
    """
    attraction = checked_probability("attraction", attraction)
    weights = _weights(population, 1, None, None)[0]
    each = [b.perceive(attraction[:, None])[:, 0] for b in population.behaviours]
    return np.tensordot(weights, np.stack(each), axes=1)


def click_table(
    population: Population,
    attraction: np.ndarray,
    list_size: int,
    others: float | None = None,
    satisfaction: np.ndarray | None = None,
) -> np.ndarray:
    """(I, L) P(click) of each item at each position.

    Args:
        attraction: (I,) attractions of the items.
        list_size: L, the number of positions.
        others: Attraction of all other items of the list. None means the mean of
            `attraction`. The other items have no effect on users who read cells
            independently.
        satisfaction: (I,) satisfaction of the same items. All other items of the list
            have the mean satisfaction.

    >>> from simulators.populations import named
    >>> click_table(named("cascade"), np.array([0.5, 1.0]), 2, others=0.5).tolist()
    [[0.5, 0.25], [1.0, 0.5]]
    """
    attraction, satisfaction = _checked(attraction, satisfaction, doubles=True)
    rank = np.arange(list_size)
    shape = len(attraction), list_size, list_size

    def among(own: np.ndarray, fill: float) -> np.ndarray:
        """(I L, L) lists that hold each item at each position."""
        lists = np.full(shape, fill)
        lists[:, rank, rank] = own[:, None]
        return lists.reshape(-1, list_size)

    lists = among(attraction, attraction.mean() if others is None else others)
    satisfying = None
    if satisfaction is not None:
        satisfying = among(satisfaction, satisfaction.mean())
    pooled = click_probability(population, lists, satisfaction=satisfying)
    return pooled.reshape(shape)[:, rank, rank]


def singular_ratio(table: np.ndarray) -> float:
    """Ratio of the second to the first singular value of an item-by-position table.

    0 means that the click probability is a product of an item factor and a position
    factor, so no mixture is needed.

    >>> singular_ratio(np.outer([0.1, 0.5], [1.0, 0.6, 0.2])) < 1e-15
    True
    """
    values = np.linalg.svd(table, compute_uv=False)
    return float(values[1] / values[0])
