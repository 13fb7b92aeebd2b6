"""What users did beside clicks, as weights of clicks."""

import numpy as np

from debias.data.log import ClickLog


def amount_weights(log: ClickLog, name: str, most: float = 10.0) -> np.ndarray:
    """(S, L) weights that make a click count by an amount, such as seconds or revenue.

    A click weighs min(most, amount / mean amount of the clicks), what was not clicked
    1. So weighed, the odds that a click model learns are about those of a click times
    the expected amount, where clicks are rare.

    Args:
        log: With the target.
        name: Of the target, 0 or more where an item was clicked.
        most: Largest weight, above 0.

    Raises:
        ValueError: The log lacks the target, no click has an amount, or one is below 0;
            names its row and column.

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
        raise ValueError(f"{name} is 0 at every click, which leaves nothing to weigh")
    weight = amount * (log.click.sum() / total)
    return np.where(log.click, np.minimum(weight, most), 1.0)
