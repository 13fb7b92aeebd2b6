"""Weights of clicks by targets such as seconds or revenue."""

import numpy as np

from debias.data.log import ClickLog


def amount_weights(log: ClickLog, name: str, most: float = 10.0) -> np.ndarray:
    """(S, L) weights of clicks in proportion to an amount, such as seconds.

    The weight of a click is min(most, its amount / mean amount of all clicks).
    Impressions without a click have weight 1. If clicks are rare, a click model with
    these weights approximately learns the odds of a click, multiplied by the expected
    amount.

    Args:
        log: A log with the target.
        name: Name of the target, whose values at clicks must be at least 0.
        most: Largest weight; must be above 0.

    Raises:
        ValueError: The log lacks the target, no click has a positive amount, or the
            amount of a click is negative. The message names the row and the column.

    Source: after Covington et al., Deep Neural Networks for YouTube Recommendations,
    RecSys 2016.

    >>> log = ClickLog([0], [[4, 5, 6]], [[1, 0, 1]], targets={"dwell": [[10, 0, 30]]})
    >>> amount_weights(log, "dwell").tolist()
    [[0.5, 1.0, 1.5]]
    """
    if name not in (log.targets or {}):
        there = ", ".join(log.targets or ()) or "none"
        raise ValueError(f"name must be a target of the log, which has {there}")
    if not most > 0:
        raise ValueError(f"most must be above 0, got {most}")
    assert log.targets is not None
    amount = log.targets[name].astype(float)
    wrong = log.click & (amount < 0)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"{name} must be 0 or more, got {amount[row, column]:g} at row {row}, "
            f"column {column}"
        )
    total = amount[log.click].sum()
    if not total > 0:
        raise ValueError(f"{name} is 0 at every click, so every weight would be 0")
    weight = amount * (log.click.sum() / total)
    return np.where(log.click, np.minimum(weight, most), 1.0)
