"""Combinations of a relevance logit and a bias logit into a click logit.

Combinations take and return logits, so any click loss can follow. Serving does not use
them. They have no weights, except `Bilinear`, which learns a bilinear form.
"""

from typing import Any

import keras
from keras import ops

from debias.engine.seeds import seed_at
from debias.types import Tensor


def additive(relevance: Tensor, bias: Tensor) -> Tensor:
    """logit P(click) = relevance + bias.

    The bias multiplies the odds of a click by the same factor for all items. Source:
    Zhao et al., Recommending What Video to Watch Next, RecSys 2019.

    >>> additive(2.0, -0.5)
    1.5
    """
    return relevance + bias


def product(relevance: Tensor, bias: Tensor) -> Tensor:
    """logit of P(click) = sigmoid(relevance) sigmoid(bias), the position-based model.

    With r and b the two logits, 1 / P = (1 + e^-r)(1 + e^-b), hence
    logit P = -log(e^-r + e^-b + e^(-r-b)) = r - softplus(softplus(r) - b), computed in
    log space. (`ops.logaddexp` has a wrong gradient on TensorFlow if its arguments are
    equal.)

    Source: after Guo et al., PAL, RecSys 2019, and the examination hypothesis.

    >>> round(float(ops.sigmoid(product(0.0, 0.0))), 6)  # 1/2 * 1/2
    0.25
    """
    return relevance - ops.softplus(ops.softplus(relevance) - bias)


def trust_biased(relevance: Tensor, bias: Tensor, trust: Tensor) -> Tensor:
    """logit of P(click) = sigmoid(bias) (1 - sigmoid(-relevance) sigmoid(-trust)).

    A user who sees an item clicks because the item is attractive, or because the user
    trusts the place. Neither reason holds with probability sigmoid(-relevance)
    sigmoid(-trust). So the logit of a click on a seen item is -product(-relevance,
    -trust).

    Source: after Agarwal et al., Addressing Trust Bias for Unbiased Learning-to-Rank,
    WWW 2019.

    >>> round(float(ops.sigmoid(trust_biased(0.0, 0.0, 0.0))), 6)  # 1/2 (1 - 1/2 * 1/2)
    0.375
    """
    return product(-product(-relevance, -trust), bias)


def dot(relevance: Tensor, bias: Tensor) -> Tensor:
    """logit P(click) = sum_d relevance_d bias_d, embeddings `(..., D)` to `(...)`.

    Source: after Yan et al., Revisiting Two-tower Models for Unbiased Learning to Rank,
    SIGIR 2022.

    >>> float(dot(ops.array([1.0, 2.0]), ops.array([3.0, 0.5])))
    4.0
    """
    return ops.sum(relevance * bias, axis=-1)


@keras.saving.register_keras_serializable(package="debias")
class Bilinear(keras.layers.Layer):
    """logit P(click) = r' B e + b_r . r + b_e . e + b.

    Initially B is N(0, 1/D), b_r and b_e are N(0, 1/sqrt(D)), and b is 0. N(m, s) has
    the standard deviation s, and D is the dimension of r. Source: Yan et al., SIGIR
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
