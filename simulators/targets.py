"""Simulated targets after a click: orders and dwell time."""

from dataclasses import replace

import numpy as np

from debias.data import ClickLog
from simulators.chance import bernoulli, generator
from simulators.oracle import checked_probability

_ORDERED, _STAYED = 23, 24  # two random streams


def with_orders(
    log: ClickLog,
    seed: int,
    conversion: np.ndarray | float,
    value: np.ndarray | float = 1.0,
    name: str = "order",
) -> ClickLog:
    """Adds orders to a simulated log; P(order | click) is the same at every rank.

        P(order | click) = conversion of the item.

    The expected value of an examined impression is attraction * conversion * value.

    Args:
        log: Simulated log with clicks.
        seed: Random seed of the orders.
        conversion: (items,) probabilities of an order after a click, or one probability
            for all items.
        value: (items,) value of an order, or one number for all items. The target is
            this value where the item is ordered, and 0 elsewhere.
        name: Name of the target.

    Raises:
        ValueError: A conversion is not a probability, a value is negative or not
            finite, or an item of the log has no conversion or value.

    >>> log = ClickLog([0, 0], [[1, 0], [0, 1]], [[1, 1], [0, 1]])
    >>> with_orders(log, seed=0, conversion=np.array([0.0, 1.0])).targets["order"]
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    chance = _of_cells("conversion", conversion, log)
    checked_probability("conversion", chance)
    worth = _of_cells("value", value, log)
    ordered = bernoulli(chance, generator(seed, _ORDERED)) & log.click
    return _with(log, name, np.where(ordered, worth, 0.0))


def with_dwell(
    log: ClickLog,
    seed: int,
    seconds: np.ndarray | float,
    spread: float = 1.0,
    name: str = "dwell",
) -> ClickLog:
    """Adds dwell time in seconds after each click to a simulated log.

    Dwell time is log-normal: P(seconds > t | click) = Phi(log(median / t) / spread),
    where Phi is the standard normal distribution function.

    Args:
        log: Simulated log with clicks.
        seed: Random seed of the dwell times.
        seconds: (items,) positive median dwell times, or one median for all items.
        spread: Standard deviation of the logarithm of dwell time, 0 or more.
        name: Name of the target. The target is 0 without a click.

    Raises:
        ValueError: A median is not positive, the spread is negative, or an item of the
            log has no median.

    >>> log = ClickLog([0, 0], [[1, 0], [0, 1]], [[1, 1], [0, 1]])
    >>> with_dwell(log, 0, np.array([8.0, 2.0]), spread=0.0).targets["dwell"].tolist()
    [[2.0, 8.0], [0.0, 2.0]]
    """
    if not 0 <= spread < np.inf:
        raise ValueError(f"spread must be 0 or more, got {spread}")
    median = _of_cells("seconds", seconds, log)
    if not (median > 0).all():
        raise ValueError(f"seconds must be above 0, got {median.min():g}")
    drawn = generator(seed, _STAYED).standard_normal(log.item.shape)
    return _with(log, name, np.where(log.click, median * np.exp(spread * drawn), 0.0))


def _of_cells(name: str, values: np.ndarray | float, log: ClickLog) -> np.ndarray:
    """(S, L) value of each shown item; padding has an arbitrary valid value."""
    values = np.asarray(values, float)
    if values.ndim == 0:
        values = np.full(log.item.max() + 1, values)
    if values.ndim != 1 or len(values) <= log.item.max():
        raise ValueError(
            f"{name} must be one number, or one for each of {log.item.max() + 1} "
            f"items, got shape {values.shape}"
        )
    wrong = ~((values >= 0) & np.isfinite(values))
    if wrong.any():
        item = int(np.argmax(wrong))
        raise ValueError(
            f"{name} must be 0 or more and finite, got {values[item]:g} of item {item}"
        )
    found: np.ndarray = values[np.maximum(log.item, 0)]
    return found


def _with(log: ClickLog, name: str, values: np.ndarray) -> ClickLog:
    return replace(log, targets={**(log.targets or {}), name: values})
