"""Several vectors per user: capsule routing and label-aware attention (MIND).

Source: Li et al., Multi-Interest Network with Dynamic Routing for Recommendation at
Tmall, CIKM 2019.
"""

from typing import Any

import keras
from keras import ops

from debias.engine.seeds import split_seed
from debias.losses.lists import exact
from debias.types import Tensor


def squash(z: Tensor) -> Tensor:
    """Computes |z|^2 / (1 + |z|^2) z / |z| over the last axis; zero stays zero.

    >>> [round(float(value), 4) for value in squash(ops.array([3.0, 4.0]))]
    [0.5769, 0.7692]
    """
    square = ops.sum(ops.square(z), axis=-1, keepdims=True)
    # |z| = square / sqrt(square), with a finite value and gradient at zero.
    return z * ops.sqrt(ops.maximum(square, 1e-12)) / (1.0 + square)


def _share(logits: Tensor, axis: int) -> Tensor:
    """Softmax without Keras's warning for an axis of size 1, which is valid here."""
    return ops.exp(logits - ops.logsumexp(logits, axis=axis, keepdims=True))


def interest_count(behaviours: Tensor, most: int) -> Tensor:
    """Number of interests for n behaviours: K' = max(1, min(K, floor(log2(1 + n)))).

    >>> ops.convert_to_numpy(interest_count(ops.array([0, 1, 6, 7, 500]), 4)).tolist()
    [1, 1, 2, 3, 4]
    """
    # Slightly above the power of two, so that log2(8) does not round down to 2.
    n = ops.cast(behaviours, "float32")
    count = ops.floor(ops.log(1.0 + n) / ops.log(2.0) + 1e-4)
    return ops.cast(ops.clip(count, 1, most), "int32")


def route(
    messages: Tensor, mask: Tensor, logits: Tensor, count: Tensor, iterations: int = 3
) -> Tensor:
    """Behaviour-to-interest routing with given initial logits.

    Let e_j be the messages (behaviours after the shared bilinear map) and b_kj the
    logits of interest k and message j. An iteration first computes the weights w_kj,
    the softmax of b_kj over k. The interest is then u_k = squash(sum_j w_kj e_j).
    Finally, u_k . e_j is added to b_kj. Gradients flow only through the last iteration.
    The routing is deterministic.

    Args:
        messages: (B, L, d).
        mask: (B, L), 0 at behaviours that send no message, such as padding.
        logits: (K, L) or (B, K, L).
        count: (B,) int, number of interests of each row. The vectors of a row beyond
            its number of interests are zero.
        iterations: At least 1.

    Returns:
        (B, K, d).

    With one behaviour and one interest, u = squash(e).

    >>> e = ops.array([[[3.0, 4.0]]])
    >>> u = route(e, ops.ones((1, 1)), ops.zeros((1, 1)), ops.array([1]))
    >>> [round(float(value), 4) for value in u[0, 0]]
    [0.5769, 0.7692]
    """
    live = ops.arange(logits.shape[-2]) < ops.expand_dims(count, -1)  # (B, K)
    live = ops.expand_dims(live, -1)
    sent = ops.expand_dims(ops.cast(mask, messages.dtype), 1)  # (B, 1, L)
    b = ops.cast(logits, messages.dtype) + ops.zeros_like(sent)
    fixed = ops.stop_gradient(messages)
    interests = None
    for iteration in range(iterations):
        e = messages if iteration == iterations - 1 else fixed
        weight = _share(ops.where(live, b, -1e9), axis=1)
        weight = ops.where(live, weight, 0.0) * sent
        interests = squash(ops.matmul(weight, e))
        if iteration < iterations - 1:
            b = b + ops.matmul(interests, ops.transpose(fixed, (0, 2, 1)))
    return interests


def label_aware(interests: Tensor, label: Tensor, live: Tensor, power: float) -> Tensor:
    """Label-aware user vector: sum_k softmax_k((u_k . v)^p) u_k.

    The power keeps the sign of a negative product, so it never changes the order of the
    products. In the article's formula, an even p would change the order of the
    products. The result is the mean of the interests if p = 0, and the interest nearest
    to the label if p is infinite.

    Args:
        interests: (B, K, d).
        label: (B, d).
        live: (B, K) bool, whether an interest exists. Each row has at least one
            interest.
        power: p >= 0.

    Returns:
        (B, d).

    >>> u = ops.array([[[1.0, 0.0], [0.0, 2.0]]])
    >>> live = ops.ones((1, 2), "bool")
    >>> nearest = label_aware(u, ops.ones((1, 2)), live, float("inf"))
    >>> ops.convert_to_numpy(nearest).tolist()
    [[0.0, 2.0]]
    """
    match = ops.sum(interests * ops.expand_dims(label, 1), axis=-1)
    if power == float("inf"):
        best = ops.argmax(ops.where(live, match, -1e9), axis=-1)
        weight = ops.one_hot(best, interests.shape[1], dtype=interests.dtype)
    else:
        # |x|^p has no gradient at 0 for p < 1. A lower bound keeps it finite.
        size = ops.power(ops.maximum(ops.abs(match), 1e-6), power)
        weight = _share(ops.where(live, ops.sign(match) * size, -1e9), axis=-1)
        if power == 0:
            weight = ops.cast(live, interests.dtype)
            weight = weight / ops.sum(weight, axis=-1, keepdims=True)
    return ops.sum(ops.expand_dims(weight, -1) * interests, axis=1)


@keras.saving.register_keras_serializable(package="debias")
class InterestCapsules(keras.layers.Layer):
    """Maps a user's behaviours to up to K interests, by `route`.

    The initial logits are drawn once, when the layer is built, and saved with the
    layer. So equal histories give equal interests, even after the layer is saved and
    loaded.

    Args:
        interests: K, the largest number of interests.
        length: L, the length of the longest history.
        iterations: Number of routing iterations.
        seed: int or None. Random seed of the logits and the bilinear map.

    Shapes: `(B, L, d)` vectors and `(B, L)` mask to `(B, K, d)`, with zero vectors for
    missing interests.

    >>> layer = InterestCapsules(interests=4, length=2, seed=0)
    >>> u = layer(ops.ones((1, 2, 3)), ops.ones((1, 2)))
    >>> tuple(u.shape), float(ops.max(ops.abs(u[0, 1:])))
    ((1, 4, 3), 0.0)
    """

    def __init__(
        self,
        interests: int = 4,
        length: int = 50,
        iterations: int = 3,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if min(interests, length, iterations) < 1:
            raise ValueError(
                "interests, length and iterations must be at least 1, got "
                f"{interests}, {length} and {iterations}"
            )
        self.interests, self.length = interests, length
        self.iterations, self.seed = iterations, seed

    def build(self, vectors_shape: Any, mask_shape: Any = None) -> None:
        dim = vectors_shape[-1]
        seeds = split_seed(self.seed, 2)
        self.bilinear = self.add_weight(
            shape=(dim, dim),
            initializer=keras.initializers.Orthogonal(seed=seeds[0]),
            autocast=False,
            name="bilinear",
        )
        self.logits = self.add_weight(
            shape=(self.interests, self.length),
            initializer=keras.initializers.RandomNormal(0.0, 1.0, seeds[1]),
            trainable=False,
            autocast=False,
            name="logits",
        )

    def call(self, vectors: Tensor, mask: Tensor) -> Tensor:
        count = interest_count(ops.sum(ops.cast(mask, "int32"), -1), self.interests)
        messages = ops.matmul(exact(vectors), self.bilinear)
        found = route(messages, mask, self.logits, count, self.iterations)
        return ops.cast(found, self.compute_dtype)

    def compute_output_shape(self, vectors_shape: Any, mask_shape: Any = None) -> Any:
        return (vectors_shape[0], self.interests, vectors_shape[-1])

    def get_config(self) -> dict[str, Any]:
        names = ("interests", "length", "iterations", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
