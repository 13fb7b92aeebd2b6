"""Click models with additional targets, such as orders, ratings or dwell time."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from debias.layers import SharedBottom, product
from debias.losses import click_cross_entropy
from debias.losses.lists import exact
from debias.models.click_model import (
    ClickModel,
    intercepts_of,
    on_rows,
    only_output,
    start_intercept,
    to_cells,
)
from debias.types import Batch, Tensor

Levels = Mapping[str, Sequence[float]]
FIRST_STEP = math.log(math.e - 1)  # softplus of it is 1, the first step between levels
LEAST_STEP = 0.05  # between two levels that the same clicks reach


@keras.saving.register_keras_serializable(package="debias")
class MultiTarget(ClickModel):
    """Model of clicks and of targets that follow clicks, such as orders.

    Let e(place) be the examination, a(x) the attraction and v(x; level) the conversion
    of an item. For every impression,

        P(click) = e(place) a(x),
        P(click and target > level) = e(place) a(x) v(x; level).

    So the model learns conversion from all shown items, not only from clicked items. A
    target with several levels is ordinal, with v(x; level j) = sigmoid(u(x) - b_j). The
    thresholds b_j increase from b_1 = 0. The loss of a session is the sum of the
    cross-entropies of clicks and of all target levels. The value of a target is ignored
    if the item was not clicked.

    Items are ranked by the log of the expected worth of an examined impression,

        score(x) = log a(x) + log(w_click + sum_t w_t sum_j v_t(x; level j)),

    where w_click is the worth of a click and w_t the worth of a level of target t.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1 + T)`, such as `SharedBottom`
            or `Tower`. The outputs are the logits of attraction and of the conversion
            of each target.
        bias: Layer that maps the batch dict to `(batch, list_size, 1)`.
        targets: Names of the T target columns, or a dict from name to increasing
            levels. A target reaches a level if its value exceeds the level. A target
            without levels has the single level 0.
        worth: Dict from "click" or the name of a target to a worth of 0 or more. The
            worth of a target is added once for each level that the target exceeds. None
            means worth 1 for each level and 0 for a click.

    Raises:
        ValueError: There is no target, or levels do not increase.
        ValueError: A worth is negative or belongs to no target, or all worths are 0.
        ValueError: A batch lacks a target when the loss is computed.

    Source: after Ma et al., Entire Space Multi-Task Model, SIGIR 2018, with the
    examination of `Product`; levels after McCullagh, Regression Models for Ordinal
    Data, 1980.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> model = MultiTarget(Tower(out=2), BiasTower({"position": 10}), ["order"])
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> {name: tuple(logits.shape) for name, logits in model(batch).items()}
    {'click': (2, 10), 'order': (2, 10, 1)}
    """

    def __init__(
        self,
        relevance: keras.layers.Layer,
        bias: keras.layers.Layer,
        targets: Levels | Sequence[str],
        worth: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        levels = rising(targets)
        prices = priced(worth, levels)
        arguments = {"relevance": relevance, "bias": bias}
        super().__init__({**arguments, "targets": levels, "worth": prices}, **kwargs)
        self.relevance = relevance
        self.bias = bias
        self.targets = levels
        self.worth = prices
        initial = keras.initializers.Constant(FIRST_STEP)
        self.steps = {
            name: self.add_weight(
                shape=(len(each) - 1,), initializer=initial, name=f"steps_{place}"
            )
            for place, (name, each) in enumerate(levels.items())
            if len(each) > 1
        }

    def call(self, batch: Batch, training: bool = False) -> dict[str, Tensor]:
        relevance = self._logits(batch["features"], training)
        relevance = to_cells(relevance, batch)
        bias = only_output(self.bias, self.bias(batch, training=training))
        click = product(relevance[..., 0], bias)
        outputs = {"click": click}
        for place, name in enumerate(self.targets, 1):
            passed = self._passed(name, relevance[..., place])
            outputs[name] = product(ops.expand_dims(click, -1), passed)
        return outputs

    def click_logits(self, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor:
        return outputs["click"]

    def intercepts(self) -> list[tuple[Any, Any]]:
        return self._intercepts(0)

    def start_at(
        self, rate: float, targets: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Sets intercepts to the logits of the click rate and the conversion rates.

        The conversion rate is (k + 1/2) / (n + 1) if k of n clicked items exceed a
        level.
        """
        super().start_at(rate, targets)
        for place, (name, levels) in enumerate(self.targets.items(), 1):
            values = np.asarray((targets or {}).get(name, ()))
            if not values.size:
                continue
            passed = (values[:, None] > levels).sum(axis=0)
            rates = (passed + 0.5) / (len(values) + 1)
            for each, one in self._intercepts(place):
                start_intercept(each, one, float(rates[0]))
            if name in self.steps:
                logits = np.log(rates / (1 - rates))
                apart = np.maximum(-np.diff(logits), LEAST_STEP)
                self.steps[name].assign(np.log(np.expm1(apart)))

    def _intercepts(self, place: int) -> list[tuple[Any, Any]]:
        """Same as `intercepts`, but for one output of the relevance tower."""
        layers = getattr(self.relevance, "layers", None)  # if it is a Sequential
        last = layers[-1] if layers else self.relevance
        if isinstance(last, SharedBottom):
            return intercepts_of(last.towers[place])
        one = np.eye(1 + len(self.targets))[place]
        return [(each, one) for each, _ in intercepts_of(self.relevance)]

    def session_losses(
        self,
        batch: Batch,
        clicks: Tensor,
        outputs: Mapping[str, Tensor],
        training: bool = False,
    ) -> Tensor:
        """Summed cross-entropies of the clicks and targets of each session, in nats."""
        weight = batch.get("weight")
        losses = click_cross_entropy(clicks, outputs["click"], weight)
        for name, levels in self.targets.items():
            value = self._value(batch, name)
            for place, level in enumerate(levels):
                short = ops.cast(value > level, "float32")
                label = ops.where(clicks > 0, short * clicks, clicks)
                logits = outputs[name][..., place]
                losses += click_cross_entropy(label, logits, weight)
        return losses

    def probabilities(self, features: Tensor) -> dict[str, Tensor]:
        """Dict of the probabilities of clicks and targets for examined items.

        For features `(..., F)`, the entry "click" is P(click) `(...)`. The entry of
        each target is P(click and target > level) `(..., levels)`.
        """
        logits = self._logits(features)
        click = ops.log_sigmoid(logits[..., 0])
        found = {"click": ops.exp(click)}
        for place, name in enumerate(self.targets, 1):
            passed = ops.log_sigmoid(self._passed(name, logits[..., place]))
            found[name] = ops.exp(ops.expand_dims(click, -1) + passed)
        return found

    def score(self, features: Tensor) -> Tensor:
        logits = self._logits(features)
        click = ops.log_sigmoid(logits[..., :1])
        worth = []  # logarithms of the terms of the sum
        if self.worth["click"] > 0:
            worth.append(click * 0.0 + math.log(self.worth["click"]))
        for place, name in enumerate(self.targets, 1):
            if self.worth[name] > 0:
                passed = ops.log_sigmoid(self._passed(name, logits[..., place]))
                worth.append(passed + math.log(self.worth[name]))
        terms = ops.concatenate(worth, axis=-1)
        return click[..., 0] + ops.logsumexp(terms, axis=-1)

    def _logits(self, features: Tensor, training: bool = False) -> Tensor:
        logits = exact(on_rows(self.relevance, features, training))
        wanted = 1 + len(self.targets)
        if logits.shape[-1] != wanted:
            raise ValueError(
                f"{self.relevance.name} must have {wanted} outputs per item, one for "
                f"attraction and one for each of {' '.join(self.targets)}, got "
                f"{logits.shape[-1]}"
            )
        return logits

    def _passed(self, name: str, logits: Tensor) -> Tensor:
        """Logits `(..., levels)` of reaching each level of a target after a click."""
        logits = ops.expand_dims(logits, -1)
        if name not in self.steps:
            return logits
        steps = ops.cumsum(ops.softplus(exact(self.steps[name])))
        return ops.concatenate([logits, logits - steps], axis=-1)

    def _value(self, batch: Batch, name: str) -> Tensor:
        if name not in batch:
            raise ValueError(
                f"the batch has no target {name!r}: read the log with it, such as by "
                f"debias.read_log(path, Columns(target={name!r}))"
            )
        return exact(batch[name])


def rising(targets: Levels | Sequence[str]) -> dict[str, list[float]]:
    """The levels of each target; a target without levels has the level 0.

    >>> rising(["order"]), rising({"dwell": (10, 30)})
    ({'order': [0.0]}, {'dwell': [10.0, 30.0]})
    """
    if isinstance(targets, str):
        targets = [targets]
    if not isinstance(targets, Mapping):
        targets = {name: (0.0,) for name in targets}
    if not targets:
        raise ValueError("targets must name at least one target column, got none")
    found = {name: [float(level) for level in each] for name, each in targets.items()}
    for name, levels in found.items():
        apart = all(low < high for low, high in pairwise(levels))
        if not levels or not apart or not all(map(math.isfinite, levels)):
            raise ValueError(
                f"levels of target {name!r} must be increasing numbers, got {levels}"
            )
    return found


def priced(worth: Mapping[str, float] | None, targets: Levels) -> dict[str, float]:
    """Worth of a click and of each level of a target, by name.

    >>> priced({"order": 50}, {"order": [0.0], "dwell": [10.0]})
    {'click': 0.0, 'order': 50.0, 'dwell': 0.0}
    """
    if worth is None:
        worth = dict.fromkeys(targets, 1.0)
    known = ("click", *targets)
    strange = [name for name in worth if name not in known]
    if strange:
        raise ValueError(
            f"worth names {strange[0]!r}, expected some of {' '.join(known)}"
        )
    found = {name: float(worth.get(name, 0.0)) for name in known}
    for name, value in found.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"worth of {name} must be 0 or more, got {value:g}")
    if not any(found.values()):
        raise ValueError("worth must be above 0 for a click or for a target")
    return found
