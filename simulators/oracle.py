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
    attraction: np.ndarray, satisfaction: np.ndarray | None
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


def _weights(
    population: Population,
    sessions: int,
    query: np.ndarray | None,
    observed: Observed | None,
) -> np.ndarray:
    """(S, K) shares of types, averaged over situations if nothing is observed."""
    if observed is not None:
        if observed.query is None:
            observed = observed._replace(query=query)
        found = shares(population, observed)
    elif population.fixed_shares is not None:
        found = population.fixed_shares
    else:
        each = [
            one.share
            * shares(
                population, situate(population, one, sessions)._replace(query=query)
            )
            for one in population.situations
        ]
        found = np.sum(each, axis=0)
    return np.broadcast_to(found, (sessions, len(population.types)))


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
    attraction, satisfaction = _checked(attraction, satisfaction)
    attraction = attraction.astype(float)
    satisfaction = None if satisfaction is None else satisfaction.astype(float)
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
    with np.errstate(divide="ignore"):
        return np.logaddexp.reduce(np.log(weights) + joint[:, :, -1], axis=0)


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
