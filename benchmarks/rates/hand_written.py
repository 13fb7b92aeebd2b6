"""The additive click model once more, by hand: what `fit` is measured against.

One model, one epoch a call, variables and Adam by hand, nothing that is not needed.
`in_tensorflow` compiles the epoch as one tf.function, `in_jax` as one scan.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np


def initial(sizes: Sequence[int], length: int, seed: int) -> list[np.ndarray]:
    """Glorot kernels and zero biases of the tower, then the bias of each position."""
    rng = np.random.default_rng(seed)
    weights = []
    for a, b in pairwise(sizes):
        limit = (6 / (a + b)) ** 0.5
        weights.append(rng.uniform(-limit, limit, (a, b)).astype("float32"))
        weights.append(np.zeros(b, "float32"))
    return [*weights, np.zeros(length, "float32")]


class Job(NamedTuple):
    """What a loop learns from, and how: tower of `hidden` units, sessions a step."""

    features: np.ndarray
    item: np.ndarray
    click: np.ndarray
    hidden: Sequence[int]
    batch: int
    seed: int


def in_tensorflow(job: Job) -> Callable[[], list[np.ndarray]]:
    """A function that trains one epoch and returns the weights."""
    import tensorflow as tf

    features, item, click, hidden, batch, seed = job
    width, length = features.shape[1], item.shape[1]
    weights = [tf.Variable(w) for w in initial((width, *hidden, 1), length, seed)]
    first = [tf.Variable(tf.zeros_like(w)) for w in weights]
    second = [tf.Variable(tf.zeros_like(w)) for w in weights]
    count = tf.Variable(0.0)
    table, shown = tf.constant(features), tf.constant(item)
    clicked = tf.constant(click, tf.float32)

    def step(rows: tf.Tensor) -> None:
        x, y = tf.gather(table, tf.gather(shown, rows)), tf.gather(clicked, rows)
        with tf.GradientTape() as tape:
            h = tf.reshape(x, (-1, width))
            for layer in range(len(hidden)):
                h = tf.matmul(h, weights[2 * layer])
                h = tf.nn.relu(tf.nn.bias_add(h, weights[2 * layer + 1]))
            h = h @ weights[-3] + weights[-2]
            logits = tf.reshape(h, (-1, length)) + weights[-1]
            losses = tf.nn.sigmoid_cross_entropy_with_logits(y, logits)
            loss = tf.reduce_mean(tf.reduce_sum(losses, axis=1))
        gradients = tape.gradient(loss, weights)
        count.assign_add(1.0)
        rate = 1e-3 * tf.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        for w, m, v, g in zip(weights, first, second, gradients, strict=True):
            m.assign_add(0.1 * (g - m))
            v.assign_add(0.001 * (g * g - v))
            w.assign_sub(rate * m / (tf.sqrt(v) + 1e-7))

    @tf.function
    def epoch() -> None:
        order = tf.random.shuffle(tf.range(len(item)))
        for start in tf.range(0, len(item), batch):
            step(order[start : start + batch])

    def run() -> list[np.ndarray]:
        epoch()
        return [w.numpy() for w in weights]

    return run


def in_jax(job: Job) -> Callable[[], list[np.ndarray]]:
    """The same; sessions must be a multiple of the batch."""
    from functools import partial

    import jax
    import jax.numpy as jnp

    features, item, click, hidden, batch, seed = job
    width, length = features.shape[1], item.shape[1]
    table, shown = jnp.asarray(features), jnp.asarray(item)
    clicked = jnp.asarray(click, jnp.float32)

    def loss(weights: list[Any], rows: Any) -> Any:
        y = clicked[rows]
        h = table[shown[rows]].reshape(-1, width)
        for layer in range(len(hidden)):
            h = jax.nn.relu(h @ weights[2 * layer] + weights[2 * layer + 1])
        logits = (h @ weights[-3] + weights[-2]).reshape(-1, length) + weights[-1]
        return jnp.mean(jnp.sum(jax.nn.softplus(logits) - y * logits, axis=1))

    def step(state: Any, rows: Any) -> tuple[Any, None]:
        weights, first, second, count = state
        gradients = jax.grad(loss)(weights, rows)
        count = count + 1.0
        rate = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        first = [m + 0.1 * (g - m) for m, g in zip(first, gradients, strict=True)]
        second = [
            v + 0.001 * (g * g - v) for v, g in zip(second, gradients, strict=True)
        ]
        weights = [
            w - rate * m / (jnp.sqrt(v) + 1e-7)
            for w, m, v in zip(weights, first, second, strict=True)
        ]
        return (weights, first, second, count), None

    @partial(jax.jit, donate_argnums=0)
    def epoch(state: Any, key: Any) -> Any:
        order = jax.random.permutation(key, len(item)).reshape(-1, batch)
        return jax.lax.scan(step, state, order)[0]

    start = initial((width, *hidden, 1), length, seed)
    weights, first, second = ([jnp.array(w * k) for w in start] for k in (1, 0, 0))
    state: Any = (weights, first, second, jnp.float32(0))
    key = jax.random.key(seed)

    def run() -> list[np.ndarray]:
        nonlocal state, key
        key, now = jax.random.split(key)
        state = epoch(state, now)
        return [np.asarray(w) for w in state[0]]

    return run
