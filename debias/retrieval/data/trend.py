"""Trends: an item prior from the latest part of a log."""

import numpy as np

from debias.retrieval.data.interactions import Interactions

STRENGTH = 1000.0  # pseudo-events of the share in the whole log, for the latest part


def late_events(log: Interactions, count: int) -> Interactions:
    """The `count` latest events, and all events that tie with the earliest of them.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> log = from_columns(["u"] * 4, ["i", "j", "k", "l"], [1, 2, 2, 3])
    >>> late_events(log, 2).time.tolist()
    [2, 2, 3]
    """
    count = min(max(count, 1), len(log))
    if not count:
        return log
    return log.take(log.time >= np.partition(log.time, -count)[-count])


def trend(log: Interactions, share: float) -> np.ndarray:
    """(items,) float32 log ratio of the recent to the overall popularity of items.

    Let n_i be the number of events of item i. Let q_i = (n_i + 1) / (N + I) be the
    smoothed share of item i in all N events over I items. Let r_i be the number of
    events of item i among the R latest events. Then

        t_i = log((r_i + m q_i) / (R + m)) - log(q_i),   m = `STRENGTH`

    t_i is about 0 if the popularity of item i is constant, and positive if the
    popularity rises. The constant m limits the effect of a few events on t_i. A tower
    learns from the whole log. Adding a multiple of t to the logits of the tower adapts
    the tower to the current popularity of items. Adding t corrects a classifier for new
    class frequencies (Saerens et al., Adjusting the Outputs of a Classifier to New a
    Priori Probabilities, Neural Computation 2002).

    Args:
        log: Events of users and items.
        share: Share of the events that count as latest, above 0 and at most 1. Events
            with the same time as the earliest of the latest events also count as
            latest.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> item = np.repeat(["old", "new", "old"], [3000, 2000, 1000])
    >>> time = np.repeat([1, 2, 3], [3000, 2000, 1000])
    >>> log = from_columns(np.arange(6000), item, time)
    >>> [round(float(t), 2) for t in trend(log, 0.15)]  # of "new" and of "old"
    [-0.69, 0.22]
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    counts = log.popularity()
    if log.before is not None:  # events dropped by a window also count as taken
        dropped = log.before.counts.astype(float)
        counts = counts + np.bincount(log.before.rows, dropped, len(counts))
    often = (counts + 1) / (counts.sum() + len(counts))
    latest = late_events(log, round(share * counts.sum())).popularity()
    now = (latest + STRENGTH * often) / (latest.sum() + STRENGTH)
    return (np.log(now) - np.log(often)).astype(np.float32)
