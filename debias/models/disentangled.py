"""Disentangling: a bias tower that is kept from explaining relevance."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from debias.engine.tensors import glorot
from debias.layers import GradientReversal, additive
from debias.models.click_model import on_rows, only_output, to_cells
from debias.models.towers import TwoTowerClickModel
from debias.types import Batch, Tensor

HEAD = 8  # units of the head that guesses relevance: enough for a curve over places
TINY = 1e-6  # variance below which relevance has nothing to guess


def guess_errors(guess: Tensor, relevance: Tensor, shown: Tensor) -> Tensor:
    """Squared error of a guess of the relevance of each item, 0 at padding.

    (g - (r - m) / sqrt(v))^2 with m and v the mean and variance of r over the shown
    items of the batch; r is held constant. All three are `(batch, list_size)`.

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
    """The additive model, with a bias that is kept from learning logged relevance.

    With z = bias(place) an embedding, logit P(click) = r(x) + D(w . z); ranks by r(x).
    Where good items were shown high, a place tells relevance, and w . z can learn what
    r should. Two parts of training, each off at 0, stand against it:

    - D drops the bias logit of single cells, so that r explains their clicks alone.
      What it keeps it does not scale up: the logit that is fitted is the one that
      predicts, and w . z is a bias rather than a share of one.
    - A head h guesses relevance from the place behind a reversed gradient: the loss of
      a session gains sum over its shown items of (h(z) - s(x))^2, with s(x) = r(x) held
      fixed and scaled to mean 0 and variance 1 over the batch, so that the strength
      means the same however far r has grown. The head learns to guess, and z to leave
      it nothing to guess from; then each item adds its variance, 1.

    Args:
        relevance: Layer `(..., F)` to `(..., 1)`.
        bias: Layer from the batch's dict to `(batch, list_size, E)`.
        dropout: In [0, 1), chance that a training step drops the bias logit of a cell.
        strength: 0 or more; times -1 what the gradient of the guess is multiplied by on
            its way to z.
        seed: int or None. Names the initial weights and the dropout.

    `call` returns a dict of `relevance` and `bias`, logits `(batch, list_size)`, and of
    the head's `guess` of the first unless `strength` is 0. The guess is part of the
    loss in training alone: evaluation is the likelihood of the clicks.

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
        # A constant of all places is the relevance tower's to learn.
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
        relevance = on_rows(self.relevance, batch["features"], training)
        relevance = to_cells(only_output(self.relevance, relevance), batch)
        place = self.bias(batch, training=training)
        everywhere = ops.zeros_like(relevance)  # a place may be one for a whole list
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
        """-log P(clicks) of each session, in training with the errors of its guesses.

        Both are sums over the shown items, each times its `weight` if the batch has it.
        """
        logits = self.click_logits(batch, outputs)
        losses = super().session_losses(batch, clicks, logits, training)
        if not training or self.head is None:
            return losses
        shown = ops.convert_to_tensor(clicks) >= 0
        errors = guess_errors(outputs["guess"], outputs["relevance"], shown)
        return losses + ops.sum(errors * batch.get("weight", 1.0), axis=1)
