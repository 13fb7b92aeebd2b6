"""Functions that combine a relevance logit and a bias logit into a click logit.

Combinations take and return logits, so any click loss accepts their output. Serving
does not use the combination functions. Only the layer `Bilinear` has trainable weights.
"""

from typing import Any

import keras
from keras import ops

from debias.engine.seeds import seed_at
from debias.types import Tensor


def additive(relevance: Tensor, bias: Tensor) -> Tensor:
    """Click logit as the sum of relevance and bias.

    A bias b multiplies the odds of a click by the same factor, e^b, for all items.
    Source: Zhao et al., Recommending What Video to Watch Next, RecSys 2019.

    >>> additive(2.0, -0.5)
    1.5
    """
    return relevance + bias


def product(relevance: Tensor, bias: Tensor) -> Tensor:
    """Logit of a position-based model, P(click) = sigmoid(relevance) sigmoid(bias).

    For a relevance logit r and a bias logit b, 1 / P is (1 + e^-r)(1 + e^-b). The click
    logit, -log(1 / P - 1), equals r - softplus(softplus(r) - b). The function does not
    use `ops.logaddexp`, whose gradient on TensorFlow is wrong for equal arguments.

    Source: the examination hypothesis, with two towers after Guo et al., PAL, RecSys
    2019.

    >>> round(float(ops.sigmoid(product(0.0, 0.0))), 6)  # 1/2 * 1/2
    0.25
    """
    return relevance - ops.softplus(ops.softplus(relevance) - bias)


def trust_biased(relevance: Tensor, bias: Tensor, trust: Tensor) -> Tensor:
    """Logit of P(click) = sigmoid(bias) (1 - sigmoid(-relevance) sigmoid(-trust)).

    A user who sees an item clicks the item if it is attractive, or if the user trusts
    the place. The probability that the item is not attractive and the place is not
    trusted is sigmoid(-relevance) sigmoid(-trust). So the logit of a click on a seen
    item is -product(-relevance, -trust).

    Source: after Agarwal et al., Addressing Trust Bias for Unbiased Learning-to-Rank,
    WWW 2019.

    >>> round(float(ops.sigmoid(trust_biased(0.0, 0.0, 0.0))), 6)  # 1/2 (1 - 1/2 * 1/2)
    0.375
    """
    return product(-product(-relevance, -trust), bias)


def dot(relevance: Tensor, bias: Tensor) -> Tensor:
    """Dot product of relevance and bias embeddings, `(..., D)` to `(...)`.

    The click logit is sum_d relevance_d bias_d.

    Source: after Yan et al., Revisiting Two-tower Models for Unbiased Learning to Rank,
    SIGIR 2022.

    >>> float(dot(ops.array([1.0, 2.0]), ops.array([3.0, 0.5])))
    4.0
    """
    return ops.sum(relevance * bias, axis=-1)


@keras.saving.register_keras_serializable(package="debias")
class Bilinear(keras.layers.Layer):
    """Click logit from a learned bilinear form of relevance and bias embeddings.

    The logit is r' B e + b_r . r + b_e . e + b, where r is the relevance embedding and
    e the bias embedding. The initial weights are normal with mean 0. The standard
    deviation is 1 / D for B, and 1 / sqrt(D) for b_r and b_e. D is the dimension of r.
    The constant b starts at 0.

    Source: Yan et al., Revisiting Two-tower Models for Unbiased Learning to Rank, SIGIR
    2022, as in TensorFlow Ranking.

    Args:
        seed: int or None. Random seed of the initial weights.

    Call arguments: relevance `(..., D)`, bias `(..., E)`. Returns `(...)`.

    >>> Bilinear(seed=0)(ops.ones((2, 10, 4)), ops.ones((2, 10, 3))).shape[1]
    10
    """

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed

    def build(self, relevance_shape: Any, bias_shape: Any) -> None:
        d, e = relevance_shape[-1], bias_shape[-1]

        def weight(name: str, shape: tuple[int, ...], deviation: float) -> Any:
            seed = seed_at(self.seed, len(self.weights))
            initial = keras.initializers.RandomNormal(stddev=deviation, seed=seed)
            return self.add_weight(shape=shape, initializer=initial, name=name)

        self.matrix = weight("matrix", (d, e), 1 / d)
        self.relevance_weight = weight("relevance_weight", (d,), d**-0.5)
        self.bias_weight = weight("bias_weight", (e,), d**-0.5)
        self.constant = self.add_weight(shape=(), initializer="zeros", name="constant")

    def call(self, relevance: Tensor, bias: Tensor) -> Tensor:
        relevance, bias = ops.convert_to_tensor(relevance), ops.convert_to_tensor(bias)
        met = ops.sum(ops.matmul(relevance, self.matrix) * bias, axis=-1)
        own = ops.matmul(relevance, self.relevance_weight)
        return met + own + ops.matmul(bias, self.bias_weight) + self.constant

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}
