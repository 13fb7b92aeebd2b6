"""A click model that keeps the bias tower from explaining relevance."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from debias.engine.tensors import glorot
from debias.layers import GradientReversal, additive
from debias.models.click_model import only_output
from debias.models.towers import TwoTowerClickModel
from debias.types import Batch, Tensor

HEAD = 8  # units of the head that predicts relevance, enough for a curve over places
TINY = 1e-6  # variance below which relevance cannot be predicted


def guess_errors(guess: Tensor, relevance: Tensor, shown: Tensor) -> Tensor:
    """Squared error of a prediction of each item's relevance, 0 at padding.

    For the prediction g of relevance r, the error is (g - (r - m) / sqrt(v))^2. In this
    formula, m and v are the mean and variance of r over the shown items of the batch.
    The error has no gradient in r. The arguments and the result have the shape `(batch,
    list_size)`.

    >>> errors = guess_errors(ops.zeros((1, 3)), ops.array([[1.0, 3.0, 9.0]]),
    ...     ops.array([[True, True, False]]))
    >>> ops.convert_to_numpy(errors).round(4).tolist()
    [[1.0, 1.0, 0.0]]
    """
    relevance = ops.stop_gradient(relevance)
    shown = ops.cast(shown, relevance.dtype)
    count = ops.maximum(ops.sum(shown), 1.0)
    off = shown * (relevance - ops.sum(shown * relevance) / count)
    deviation = ops.sqrt(ops.sum(ops.square(off)) / count + TINY)
    return shown * ops.square(guess - off / deviation)


@keras.saving.register_keras_serializable(package="debias")
class Disentangled(TwoTowerClickModel):
    """An additive model whose bias tower is kept from learning relevance.

    The click logit is r(x) + D(w . z), where z = bias(place) is an embedding and D is
    dropout. The model ranks by r(x). In a log that shows relevant items at the top, the
    place predicts relevance. The bias term w . z could then learn relevance in place of
    r. Dropout and an adversarial head keep relevance out of w . z in training:

    - The dropout D sets the bias logit of random cells to 0, so that r alone explains
      the clicks on these cells. Other bias logits are not scaled up, so training and
      prediction use the same logit. `dropout=0` switches the dropout off.

    - A head h predicts relevance from z through a gradient reversal. The loss of a
      session grows by the sum of (h(z) - s(x))^2 over the shown items. The target s(x)
      is r(x) without its gradient, scaled to mean 0 and variance 1 over the batch. So
      the scale of r does not matter. The head learns to predict s(x), and z learns to
      prevent this prediction. At the optimum, the head predicts the mean of s(x), so
      each item adds the variance of s(x), 1, to the loss. `strength=0` switches the
      head off.

    Args:
        relevance: Layer that maps `(..., F)` to `(..., 1)`.
        bias: Layer that maps the batch dict to `(batch, list_size, E)`.
        dropout: Probability in [0, 1) of dropping the bias logit of a cell in training.
        strength: Strength of the gradient reversal, 0 or more. The gradient of the
            head's error is multiplied by -strength before it reaches z.
        seed: int or None. Random seed of the initial weights and the dropout.

    `call` returns a dict of the logits `relevance` and `bias`, `(batch, list_size)`. If
    `strength` is above 0, the dict also has `guess`, the head's prediction of
    relevance. The training loss includes the error of `guess`. Evaluation uses only the
    click likelihood.

    Raises:
        ValueError: `dropout` or `strength` is out of range.

    Source: after Zhang et al., Towards Disentangling Relevance and Bias in Unbiased
    Learning to Rank, KDD 2023.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> model = Disentangled(Tower(), BiasTower({"position": 10}, out=4))
    >>> batch = {"features": np.zeros((2, 10, 5)), "position": np.ones((2, 10), int)}
    >>> {name: tuple(x.shape) for name, x in model(batch).items()}
    {'relevance': (2, 10), 'bias': (2, 10), 'guess': (2, 10)}
    """

    def __init__(
        self,
        relevance: keras.layers.Layer,
        bias: keras.layers.Layer,
        dropout: float = 0.5,
        strength: float = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        reverse = GradientReversal(strength)
        super().__init__(relevance, bias, **kwargs)
        self._arguments |= {"dropout": dropout, "strength": strength, "seed": seed}
        self.dropout = dropout
        self.strength = strength
        self.draw = keras.random.SeedGenerator(seed)
        initial = [glorot(seed, place) for place in range(3)]
        # The relevance tower learns what is constant over all places.
        self.own_place = keras.layers.Dense(
            1, use_bias=False, kernel_initializer=initial[0]
        )
        self.head: keras.Sequential | None = None
        if strength > 0:
            self.head = keras.Sequential(
                [
                    reverse,
                    keras.layers.Dense(HEAD, "relu", kernel_initializer=initial[1]),
                    keras.layers.Dense(1, kernel_initializer=initial[2]),
                ]
            )

    def call(self, batch: Batch, training: bool = False) -> dict[str, Tensor]:
        relevance = self.relevance_of(batch, training)
        place = self.bias(batch, training=training)
        everywhere = ops.zeros_like(relevance)  # a place may hold for a whole list
        bias = only_output(self.own_place, self.own_place(place)) + everywhere
        if training and self.dropout:
            kept = keras.random.uniform(ops.shape(bias), seed=self.draw) >= self.dropout
            bias = ops.where(kept, bias, 0.0)
        outputs = {"relevance": relevance, "bias": bias}
        if self.head is not None:
            guess = only_output(self.head, self.head(place))
            outputs["guess"] = guess + everywhere
        return outputs

    def click_logits(self, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor:
        return additive(outputs["relevance"], outputs["bias"])

    def session_losses(
        self,
        batch: Batch,
        clicks: Tensor,
        outputs: Mapping[str, Tensor],
        training: bool = False,
    ) -> Tensor:
        """-log P(clicks) of each session, plus the errors of `guess` in training.

        The log-likelihood and the errors are sums over the shown items, with the cell
        weights of the batch.
        """
        logits = self.click_logits(batch, outputs)
        losses = super().session_losses(batch, clicks, logits, training)
        if not training or self.head is None:
            return losses
        shown = ops.convert_to_tensor(clicks) >= 0
        errors = guess_errors(outputs["guess"], outputs["relevance"], shown)
        return losses + ops.sum(errors * batch.get("weight", 1.0), axis=1)

    def without_decay(self) -> list[keras.layers.Layer]:
        return [*super().without_decay(), self.own_place]
