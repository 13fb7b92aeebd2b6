"""Weights and thresholds of targets, for `debias.fit` and `debias train`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from debias.data.layout import Layout
from debias.models import ClickModel
from debias.models.builders import multi_target


@dataclass(frozen=True)
class Targets:
    """The preset "multi_target" with custom weights or thresholds, for `debias.fit`.

    Attributes:
        worth: Weights in the ranking score, by name: "click" weights a click, and the
            name of a target weights each of its exceeded thresholds. If empty, the
            weight is 1 for each threshold and 0 for a click.
        levels: Increasing thresholds of each target, by name. The model predicts
            whether the target exceeds each threshold. A target without an entry has the
            threshold 0.

    >>> from debias.data import ClickLog
    >>> from debias.data.layout import layout_of
    >>> log = ClickLog([0], [[4]], [[1]], targets={"order": [[2.0]], "seconds": [[9]]})
    >>> asked = Targets({"click": 1, "order": 50}, {"seconds": (10, 60)})
    >>> asked.build(layout_of(log), seed=0).worth
    {'click': 1.0, 'order': 50.0, 'seconds': 0.0}
    """

    worth: Mapping[str, float] = field(default_factory=dict)
    levels: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def build(self, layout: Layout, seed: int) -> ClickModel:
        """Builds a new model for a layout; `seed` sets its initial weights.

        Raises:
            ValueError: The log has no target, or an entry of `worth` or `levels` is
                invalid.
        """
        return multi_target(layout, seed, self.worth or None, self.levels)
