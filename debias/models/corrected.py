"""Rankers trained on corrected clicks: published baselines for the click models.

| model | method | learns bias |
|---|---|---|
| `InverseWeighted` | inverse propensity or affine, pointwise or listwise | no |
| `DoublyRobust` | doubly robust correction of a direct model's predictions | no |
| `RegressionEM` | expectation maximisation for examination and relevance | yes |
| `DualLearning` | dual learning algorithm | yes |
| `PairDebias` | pairwise loss, divided by learned position ratios | yes |

Compile, fit and serve these rankers like click models. Listwise and pairwise models
rank items but do not predict clicks, so their attribute `predicts_clicks` is False.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from debias.engine.tensors import checked_ids, lookup
from debias.layers import additive, product
from debias.losses import click_cross_entropy
from debias.losses.corrected import (
    click_em,
    corrected_clicks,
    dual_learning,
    pairs_debiased,
    soft_cross_entropy,
    soft_softmax,
)
from debias.models.click_model import on_rows, only_output, to_cells
from debias.models.towers import OneTowerClickModel, Product, TwoTowerClickModel
from debias.types import Batch, Tensor


def _by_position(name: str, values: Sequence[float]) -> np.ndarray:
    """`(K + 1, 1)`: the value of each position, with 0 for padding."""
    found = np.asarray(values, "float32")
    if found.ndim != 1 or len(found) == 0 or not np.isfinite(found).all():
        raise ValueError(
            f"{name} must be finite numbers, one per position, got {values}"
        )
    return np.concatenate([[0.0], found]).astype("float32")[:, None]


def _at(table: np.ndarray, batch: Batch, name: str) -> Tensor:
    """Looks up the values of the batch's positions, `(batch, list_size)`."""
    size = len(table) - 1
    message = f"position is out of range, {name} has {size} positions"
    positions = checked_ids(ops.convert_to_tensor(batch["position"]), size, message)
    return lookup(ops.convert_to_tensor(table), positions)[..., 0]


def _affine_logits(attraction: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """logit P(click) of P = beta + alpha attraction."""
    p = ops.clip(beta + alpha * attraction, 1e-6, 1 - 1e-6)
    return ops.log(p) - ops.log1p(-p)


@keras.saving.register_keras_serializable(package="debias")
class InverseWeighted(OneTowerClickModel):
    """A ranker trained on corrected clicks, with labels (c - beta_k) / alpha_k.

    In the label, c is the click on an item and k is the position of the item.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1)`.
        alpha: Increase of the click probability at each position when attraction goes
            from 0 to 1. In a position-based model, alpha is the examination
            probability, which `debias.propensity.estimate` estimates.
        beta: Click probability at each position for attraction 0. beta is above 0 if
            users trust high ranks. None means 0.
        listwise: Whether to use a softmax loss over the list instead of a cross-entropy
            per item.
        clip: Largest weight: divisors below 1 / clip are raised to 1 / clip.

    Source: Joachims et al., WSDM 2017, for inverse propensities; Vardasbi et al., CIKM
    2020, for the affine correction.

    >>> import numpy as np
    >>> from debias.layers import Tower
    >>> model = InverseWeighted(Tower(), alpha=[1.0, 0.5, 0.25])
    >>> batch = {"features": np.zeros((2, 3, 5)), "position": np.ones((2, 3), int)}
    >>> tuple(model(batch).shape)
    (2, 3)
    """

    takes_weight = False

    def __init__(
        self,
        relevance: keras.layers.Layer,
        alpha: Sequence[float],
        beta: Sequence[float] | None = None,
        listwise: bool = False,
        clip: float = 10.0,
        **kwargs: Any,
    ):
        if clip <= 0:
            raise ValueError(f"clip must be above 0, got {clip}")
        beta = [0.0] * len(alpha) if beta is None else beta
        self._alpha = _by_position("alpha", alpha)
        self._beta = _by_position("beta", beta)
        if len(self._alpha) != len(self._beta):
            raise ValueError(
                f"alpha and beta must have one number per position, got {len(alpha)} "
                f"and {len(beta)}"
            )
        super().__init__(relevance, **kwargs)
        self._arguments |= {
            "alpha": [float(a) for a in alpha],
            "beta": [float(b) for b in beta],
            "listwise": listwise,
            "clip": clip,
        }
        self.predicts_clicks = not listwise
        self.listwise = listwise
        self.clip = clip

    def click_logits(self, batch: Batch, outputs: Tensor) -> Tensor:
        if self.listwise:
            return outputs
        return _affine_logits(ops.sigmoid(outputs), *self.places(batch))

    def places(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """alpha and beta at the batch's positions, `(batch, list_size)` each."""
        return _at(self._alpha, batch, "alpha"), _at(self._beta, batch, "beta")

    def session_losses(
        self, batch: Batch, clicks: Tensor, outputs: Tensor, training: bool = False
    ) -> Tensor:
        """Loss on corrected clicks in training, or a non-negative loss in evaluation.

        The training loss does not measure fit, because it has no lower bound if a label
        is below 0 or above 1. A pointwise model is evaluated by the click likelihood. A
        listwise model is evaluated by the softmax loss of the labels above 0.
        """
        if not (training or self.listwise):
            return click_cross_entropy(clicks, self.click_logits(batch, outputs))
        labels = corrected_clicks(clicks, *self.places(batch), clip=self.clip)
        return self._loss(labels, clicks, outputs, training)

    def _loss(
        self, labels: Tensor, clicks: Tensor, scores: Tensor, training: bool
    ) -> Tensor:
        loss = soft_softmax if self.listwise else soft_cross_entropy
        labels = labels if training else ops.maximum(labels, 0.0)
        return loss(labels, scores, ops.convert_to_tensor(clicks) >= 0)


@keras.saving.register_keras_serializable(package="debias")
class DoublyRobust(InverseWeighted):
    """Doubly robust ranker, trained jointly with the direct model that it corrects.

    The direct model d fits P(c) = beta_k + alpha_k sigma(d(x)) by maximum likelihood.
    The ranker's labels are g + (c - beta_k - alpha_k g) / alpha_k, where g =
    sigma(d(x)) has no gradient. The labels have a lower variance if d predicts clicks
    well.

    Args:
        relevance: The ranker, a layer that maps `(..., F)` to `(..., 1)`.
        direct: The direct model, a layer that maps `(..., F)` to `(..., 1)`.
        alpha, beta, listwise, clip: See `InverseWeighted`.

    Source: after Oosterhuis, TOIS 2023.

    >>> import numpy as np
    >>> from debias.layers import Tower
    >>> model = DoublyRobust(Tower(seed=1), Tower(seed=2), alpha=[1.0, 0.5, 0.25])
    >>> batch = {"features": np.zeros((2, 3, 5)), "position": np.ones((2, 3), int)}
    >>> tuple(model(batch)["relevance"].shape)
    (2, 3)
    """

    def __init__(
        self,
        relevance: keras.layers.Layer,
        direct: keras.layers.Layer,
        alpha: Sequence[float],
        beta: Sequence[float] | None = None,
        listwise: bool = False,
        clip: float = 10.0,
        **kwargs: Any,
    ):
        super().__init__(relevance, alpha, beta, listwise, clip, **kwargs)
        self._arguments["direct"] = direct
        self.direct = direct

    def call(self, batch: Batch, training: bool = False) -> dict[str, Tensor]:
        guess = on_rows(self.direct, batch["features"], training)
        return {
            "relevance": super().call(batch, training),
            "direct": to_cells(only_output(self.direct, guess), batch),
        }

    def click_logits(self, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor:
        return super().click_logits(batch, outputs["relevance"])

    def session_losses(
        self,
        batch: Batch,
        clicks: Tensor,
        outputs: Mapping[str, Tensor],
        training: bool = False,
    ) -> Tensor:
        alpha, beta = self.places(batch)
        guess = ops.sigmoid(outputs["direct"])
        direct = click_cross_entropy(clicks, _affine_logits(guess, alpha, beta))
        if not (training or self.listwise):
            return direct + click_cross_entropy(
                clicks, self.click_logits(batch, outputs)
            )
        guess = ops.stop_gradient(guess)
        labels = corrected_clicks(clicks, alpha, beta, guess, self.clip)
        return direct + self._loss(labels, clicks, outputs["relevance"], training)


@keras.saving.register_keras_serializable(package="debias")
class RegressionEM(Product):
    """The model `Product`, trained by expectation maximisation in mini-batches.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1)`.
        bias: Layer that maps the batch dict to `(batch, list_size, 1)`.

    Every batch has its own E-step. The gradient equals the gradient of the likelihood
    of `Product`, so both models converge to the same solution. Source: Wang et al.,
    Position Bias Estimation for Unbiased Learning to Rank in Personal Search, WSDM
    2018.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> model = RegressionEM(Tower(), BiasTower({"position": 10}))
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> tuple(model(batch).shape)  # logits of examination, then of relevance
    (2, 10, 2)
    """

    takes_weight = False

    def combine(self, relevance: Tensor, bias: Tensor) -> Tensor:
        return ops.stack([bias, relevance + ops.zeros_like(bias)], axis=-1)

    def click_logits(self, batch: Batch, outputs: Tensor) -> Tensor:
        return product(outputs[..., 1], outputs[..., 0])

    def session_losses(
        self, batch: Batch, clicks: Tensor, outputs: Tensor, training: bool = False
    ) -> Tensor:
        if training:
            return click_em(clicks, outputs[..., 0], outputs[..., 1])
        return click_cross_entropy(clicks, self.click_logits(batch, outputs))


@keras.saving.register_keras_serializable(package="debias")
class DualLearning(TwoTowerClickModel):
    """Dual learning, where ranker and bias tower weight each other's clicks.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1)`.
        bias: Layer that maps the batch dict to `(batch, list_size, 1)`.
        clip: Largest weight.

    Source: Ai et al., SIGIR 2018.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> model = DualLearning(Tower(), BiasTower({"position": 10}))
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> sorted(model(batch))
    ['bias', 'relevance']
    """

    predicts_clicks = False
    takes_weight = False

    def __init__(
        self,
        relevance: keras.layers.Layer,
        bias: keras.layers.Layer,
        clip: float = 10.0,
        **kwargs: Any,
    ):
        if clip <= 0:
            raise ValueError(f"clip must be above 0, got {clip}")
        super().__init__(relevance, bias, **kwargs)
        self._arguments["clip"] = clip
        self.clip = clip

    def combine(self, relevance: Tensor, bias: Tensor) -> dict[str, Tensor]:
        return {"relevance": relevance, "bias": bias + ops.zeros_like(relevance)}

    def click_logits(self, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor:
        return additive(outputs["relevance"], outputs["bias"])

    def session_losses(
        self,
        batch: Batch,
        clicks: Tensor,
        outputs: Mapping[str, Tensor],
        training: bool = False,
    ) -> Tensor:
        first = ops.convert_to_tensor(batch["position"]) == 1
        return dual_learning(
            clicks, outputs["relevance"], outputs["bias"], first, self.clip
        )


@keras.saving.register_keras_serializable(package="debias")
class PairDebias(OneTowerClickModel):
    """Pairwise ranker whose pair losses are divided by learned position ratios.

    Position k has the ratio t+_k for clicked items and the ratio t-_k for unclicked
    items. After each batch, t+_k moves towards (S_k / S_1)^(1 / (p + 1)). The statistic
    S_k is the sum of L_ij / t-_j over clicked items i at position k. The ratio t-_k is
    updated in the same way from unclicked items.
    `debias.losses.corrected.pairs_debiased` defines the pair loss L_ij.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1)`.
        positions: The largest position.
        momentum: Weight of the old ratios in the update after a batch, in [0, 1).
        power: Regularisation p, 0 or more. Larger values pull the ratios towards 1.

    Source: Hu et al., WWW 2019.

    >>> import numpy as np
    >>> from debias.layers import Tower
    >>> model = PairDebias(Tower(), positions=10)
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> tuple(model(batch).shape)
    (2, 10)
    """

    predicts_clicks = False
    takes_weight = False

    def __init__(
        self,
        relevance: keras.layers.Layer,
        positions: int,
        momentum: float = 0.95,
        power: float = 1.0,
        **kwargs: Any,
    ):
        if positions < 1:
            raise ValueError(f"positions must be at least 1, got {positions}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if power < 0:
            raise ValueError(f"power must be 0 or more, got {power}")
        super().__init__(relevance, **kwargs)
        self._arguments |= {
            "positions": positions,
            "momentum": momentum,
            "power": power,
        }
        self.positions = positions
        self.momentum = momentum
        self.power = power
        self.plus, self.minus = (
            self.add_weight(
                shape=(positions + 1, 1),
                initializer="ones",
                trainable=False,
                name=name,
            )
            for name in ("plus", "minus")
        )

    def session_losses(
        self, batch: Batch, clicks: Tensor, outputs: Tensor, training: bool = False
    ) -> Tensor:
        return self._pairs(batch, clicks, outputs)[0]

    def learn_from(self, batch: Batch, clicks: Tensor, outputs: Tensor) -> None:
        """Updates the ratios of all positions that have a pair in the batch.

        The ratios t+ do not change if no pair has a clicked item at position 1. The
        ratios t- do not change if no pair has an unclicked item at position 1.
        """
        _, *explained = self._pairs(batch, clicks, ops.stop_gradient(outputs))
        for table, items in zip((self.plus, self.minus), explained, strict=True):
            table.assign(self._moved(ops.convert_to_tensor(table), batch, items))

    def _pairs(
        self, batch: Batch, clicks: Tensor, outputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        message = f"position is out of range, the model was built for {self.positions}"
        position = ops.convert_to_tensor(batch["position"])
        position = checked_ids(position, self.positions, message)
        plus, minus = (
            lookup(ops.stop_gradient(ops.convert_to_tensor(table)), position)[..., 0]
            for table in (self.plus, self.minus)
        )
        return pairs_debiased(clicks, outputs, plus, minus)

    def _moved(self, table: Tensor, batch: Batch, items: Tensor) -> Tensor:
        """Moves the ratios towards the ratios of the pair losses of this batch."""
        cells = ops.one_hot(batch["position"], self.positions + 1, dtype=items.dtype)
        sums = ops.einsum("blk,bl->k", cells, items)[:, None]
        known = (sums > 0) & (sums[1] > 0)
        ratio = sums / ops.where(sums[1] > 0, sums[1], 1.0)
        ratio = ops.where(known, ratio, 1.0) ** (1 / (self.power + 1))
        moved = self.momentum * table + (1 - self.momentum) * ratio
        return ops.where(known, moved, table)
