"""Simulated presentation: a badge that increases examination."""

from dataclasses import replace

import numpy as np

from debias.data import ClickLog
from simulators.chance import bernoulli, generator

_GIVEN, _CLICKED = 21, 22  # two random streams
CHANCE = (0.1, 0.7)


def with_badge(
    log: ClickLog,
    seed: int,
    boost: float = 2.0,
    merit: np.ndarray | None = None,
    chance: tuple[float, float] = CHANCE,
    name: str = "badge",
) -> ClickLog:
    """Adds a badge, which increases examination, to a simulated log.

    An item of merit m has the badge in a session with probability low + (high - low) m,
    so better items have the badge more often. Examination of items with the badge is
    unchanged; examination of items without the badge is divided by `boost`. Clicks are
    then drawn anew:

        P(click) = examination * attraction.

    This formula is correct for users whose examination does not depend on clicks, such
    as the users of the population "pbm".

    Args:
        log: Simulated log with the true `examination` and `attraction`.
        seed: Random seed of badges and clicks.
        boost: Factor by which the badge increases examination, 1 or more.
        merit: (items,) values in [0, 1] that determine the probability of a badge. With
            None, the attraction determines this probability. A merit that features do
            not explain confounds the badge with relevance.
        chance: (low, high), the probabilities of a badge for merit 0 and for merit 1.
        name: Name of the presentation column. The value of the column is 1 without a
            badge and 2 with a badge.

    Raises:
        ValueError: The log lacks `examination` or `attraction`, or an argument is out
            of range.

    >>> from simulators import generate, simulate, worst_first, Deterministic
    >>> data = generate(queries=20, seed=1)
    >>> log = simulate(data, Deterministic(worst_first), "pbm", sessions=99, seed=1)
    >>> sorted(np.unique(with_badge(log, seed=1).presentation["badge"]).tolist())
    [1, 2]
    """
    if log.examination is None or log.attraction is None:
        raise ValueError("log must be a simulated one, with examination and attraction")
    low, high = chance
    if not boost >= 1:
        raise ValueError(f"boost must be 1 or more, got {boost}")
    if not 0 <= low <= high <= 1:
        raise ValueError(f"chance must be two numbers in [0, 1], got {chance}")
    by = log.attraction
    if merit is not None:
        by = np.where(log.mask, np.asarray(merit, np.float32)[log.item], 0)
    if not ((by >= 0) & (by <= 1)).all():
        raise ValueError(f"merit must be in [0, 1], got {by.min()} to {by.max()}")
    worn = bernoulli(low + (high - low) * by, generator(seed, _GIVEN))
    examination = np.where(worn, log.examination, log.examination / boost)
    examination = examination.astype(np.float32)
    click = bernoulli(examination * log.attraction, generator(seed, _CLICKED))
    badge = np.where(log.mask, 1 + worn, 0).astype(np.int16)
    return replace(
        log,
        click=click & log.mask,
        examination=examination,
        presentation={**(log.presentation or {}), name: badge},
    )
