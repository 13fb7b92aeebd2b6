"""Losses of retrieval models with one positive column and several negatives.

Each loss takes the column of each row's positive, (B,) int, and scores (B, C). The
scores are already divided by the temperature and corrected for sampling. Scores at or
below -1e8 count as masked and are ignored. Each loss returns one value per row, (B,).
The value is a mean over the columns of the row, except for the softmax loss. So the
learning rate has the same meaning for any batch size and number of negatives.
"""

from typing import Any

import keras
from keras import ops

from debias.data.text import one_of
from debias.types import Tensor

LOWEST = -1e8


def _split(positive: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B, 1) of the positives, and a mask (B, C) of valid negatives."""
    positive = ops.expand_dims(ops.cast(positive, "int32"), -1)
    columns = ops.expand_dims(ops.cast(ops.arange(ops.shape(scores)[1]), "int32"), 0)
    own = ops.take_along_axis(scores, positive, axis=1)
    return own, ops.cast((columns != positive) & (scores > LOWEST), scores.dtype)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return ops.sum(values * weight, axis=-1) / ops.maximum(ops.sum(weight, -1), 1.0)


def softmax(positive: Tensor, scores: Tensor) -> Tensor:
    """Listwise loss: -log(exp s+ / sum_c exp s_c) over the candidates c of the row.

    >>> row = softmax(ops.array([1]), ops.array([[0.0, 0.0, -1e9]]))
    >>> round(float(row[0]), 4)  # log 2
    0.6931
    """
    return ops.sparse_categorical_crossentropy(positive, scores, from_logits=True)


def pointwise(positive: Tensor, scores: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over the positive and its negatives.

    The loss is (softplus(-s+) + sum softplus(s-)) / (1 + number of negatives).

    >>> round(float(pointwise(ops.array([0]), ops.array([[0.0, 0.0, -1e9]]))[0]), 4)
    0.6931
    """
    own, negative = _split(positive, scores)
    total = ops.softplus(-own[:, 0]) + ops.sum(ops.softplus(scores) * negative, -1)
    return total / (1.0 + ops.sum(negative, -1))


def hinge(positive: Tensor, scores: Tensor, margin: float = 1.0) -> Tensor:
    """Triplet loss: mean of max(0, s- + margin - s+) over the negatives.

    >>> float(hinge(ops.array([0]), ops.array([[2.0, 1.5, -3.0]]))[0])  # (.5 + 0) / 2
    0.25
    """
    own, negative = _split(positive, scores)
    return _mean(ops.relu(scores + margin - own), negative)


def logistic(positive: Tensor, scores: Tensor, sigma: float = 1.0) -> Tensor:
    """Triplet loss: mean of log(1 + exp(sigma (s- - s+))) over the negatives.

    >>> round(float(logistic(ops.array([0]), ops.array([[1.0, 1.0]]))[0]), 4)  # log 2
    0.6931
    """
    own, negative = _split(positive, scores)
    # Masked scores become the score of the positive, because gradients of -1e9 are
    # useless.
    gap = ops.where(negative > 0, scores - own, 0.0)
    return _mean(ops.softplus(sigma * gap), negative)


def bpr(positive: Tensor, scores: Tensor) -> Tensor:
    """Bayesian personalised ranking: mean of -log sigmoid(s+ - s-) over the negatives.

    This loss is `logistic` with sigma 1. Source: Rendle et al., BPR, UAI 2009.

    >>> round(float(bpr(ops.array([0]), ops.array([[1.0, 0.0]]))[0]), 4)
    0.3133
    """
    return logistic(positive, scores, 1.0)


RETRIEVAL_LOSSES: dict[str, Any] = {
    "softmax": softmax,
    "pointwise": pointwise,
    "hinge": hinge,
    "logistic": logistic,
    "bpr": bpr,
}


@keras.saving.register_keras_serializable(package="debias")
class RetrievalLoss(keras.losses.Loss):
    """A Keras loss with a name in `RETRIEVAL_LOSSES`, averaged over the batch.

    Args:
        kind: str. Name of the loss.
        margin: Margin of "hinge".
        sigma: Scale of "logistic".
        **kwargs: Arguments of `keras.losses.Loss`.

    Call arguments:
        y_true: (B,) int, column of each row's positive.
        y_pred: (B, C) scores.

    >>> round(float(RetrievalLoss("bpr")(ops.array([0]), ops.array([[1.0, 0.0]]))), 4)
    0.3133
    """

    def __init__(
        self,
        kind: str = "softmax",
        margin: float = 1.0,
        sigma: float = 1.0,
        name: str = "retrieval_loss",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        if kind not in RETRIEVAL_LOSSES:
            raise ValueError(one_of("kind", RETRIEVAL_LOSSES, kind))
        if margin < 0 or sigma <= 0:
            raise ValueError(
                f"margin must be >= 0 and sigma > 0, got {margin} and {sigma}"
            )
        self.kind, self.margin, self.sigma = kind, margin, sigma

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true = ops.reshape(y_true, (-1,))
        own = {"hinge": {"margin": self.margin}, "logistic": {"sigma": self.sigma}}
        return RETRIEVAL_LOSSES[self.kind](y_true, y_pred, **own.get(self.kind, {}))

    def get_config(self) -> dict[str, Any]:
        own = {"kind": self.kind, "margin": self.margin, "sigma": self.sigma}
        return {**super().get_config(), **own}
