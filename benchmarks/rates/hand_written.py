"""Hand-written click models and a DSSM, to compare with `fit`.

Each loop trains one model, one epoch per call, with hand-written variables and Adam.
`by_adam` compiles the epoch as one tf.function. `in_jax`, which only trains the
additive model, compiles the epoch as one scan.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Weights = Sequence[Any]


def initial(sizes: Sequence[int], length: int, seed: int) -> list[np.ndarray]:
    """Initial weights: Glorot kernels, zero biases, and a bias per position."""
    rng = np.random.default_rng(seed)
    weights = []
    for a, b in pairwise(sizes):
        limit = (6 / (a + b)) ** 0.5
        weights.append(rng.uniform(-limit, limit, (a, b)).astype("float32"))
        weights.append(np.zeros(b, "float32"))
    return [*weights, np.zeros(length, "float32")]


class Job(NamedTuple):
    """Data and settings of a training loop."""

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
    table = tf.constant(features)
    start = initial((features.shape[1], *hidden, 1), item.shape[1], seed)

    def loss(weights: Weights, shown: tf.Tensor, clicked: tf.Tensor) -> tf.Tensor:
        return additive_loss(weights, tf.gather(table, shown), clicked)

    return by_adam(loss, start, (item, click.astype("float32")), batch)


def by_adam(
    loss: Callable[..., Any],
    start: Sequence[Any],
    columns: Sequence[np.ndarray],
    batch: int,
    jit: bool = False,
) -> Callable[[], list[np.ndarray]]:
    """A function that trains one epoch with hand-written Adam.

    Args:
        loss: Function of the weights and of the columns of a batch.
        start: The initial weights.
        columns: Arrays with one row per session.
        batch: Number of sessions per step, a divisor of the number of sessions.
        jit: Whether XLA compiles a step.
    """
    import tensorflow as tf

    weights = [tf.Variable(w) for w in start]
    first = [tf.Variable(tf.zeros_like(w)) for w in weights]
    second = [tf.Variable(tf.zeros_like(w)) for w in weights]
    count = tf.Variable(0.0)
    tables = [tf.constant(column) for column in columns]

    @tf.function(jit_compile=jit)
    def step(rows: tf.Tensor) -> None:
        taken = [tf.gather(table, rows) for table in tables]
        with tf.GradientTape() as tape:
            found = loss(weights, *taken)
        gradients = tape.gradient(found, weights)
        count.assign_add(1.0)
        rate = 1e-3 * tf.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        for w, m, v, g in zip(weights, first, second, gradients, strict=True):
            dense = tf.convert_to_tensor(g)
            m.assign_add(0.1 * (dense - m))
            v.assign_add(0.001 * (dense * dense - v))
            w.assign_sub(rate * m / (tf.sqrt(v) + 1e-7))

    @tf.function
    def epoch() -> None:
        order = tf.random.shuffle(tf.range(len(columns[0])))
        for place in tf.range(0, len(columns[0]), batch):
            # XLA compiles one shape.
            step(tf.reshape(order[place : place + batch], (batch,)))

    def run() -> list[np.ndarray]:
        epoch()
        return [w.numpy() for w in weights]

    return run


# Losses of a batch of full lists: features (B, L, F), clicks (B, L). Weights are in the
# order of the model with the same name, so tests can compare the two.


def tower(x: Any, weights: Weights) -> Any:
    """Dense layers with ReLU, from alternating kernels and biases."""
    import tensorflow as tf

    *hidden, (kernel, bias) = zip(weights[::2], weights[1::2], strict=True)
    for inner, shift in hidden:
        x = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, inner), shift))
    return x @ kernel + bias


def relevances(x: Any, weights: Weights) -> Any:
    """Output of the tower for each item of a list, (B, L, D)."""
    import tensorflow as tf

    found = tower(tf.reshape(x, (-1, x.shape[-1])), weights)
    return tf.reshape(found, (-1, x.shape[1], found.shape[-1]))


def entropy(clicked: Any, logits: Any) -> Any:
    """Negative log-likelihood of each session in nats, (B,)."""
    import tensorflow as tf

    losses = tf.nn.sigmoid_cross_entropy_with_logits(clicked, logits)
    return tf.reduce_sum(losses, axis=1)


def additive_loss(weights: Weights, x: Any, clicked: Any) -> Any:
    """Loss of the additive model; the last weight is the position biases, (L,)."""
    import tensorflow as tf

    logits = relevances(x, weights[:-1])[..., 0] + weights[-1]
    return tf.reduce_mean(entropy(clicked, logits))


def product_logits(weights: Weights, x: Any) -> Any:
    """Logits of the product model; the last weight is a position table (L + 1, 1)."""
    import tensorflow as tf

    r = relevances(x, weights[:-1])[..., 0]
    b = tf.broadcast_to(weights[-1][1:, 0], tf.shape(r))
    # 1 / p - 1 = exp(-r) + exp(-b) + exp(-r - b)
    return -tf.reduce_logsumexp(tf.stack([-r, -b, -r - b]), axis=0)


def product_loss(weights: Weights, x: Any, clicked: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_mean(entropy(clicked, product_logits(weights, x)))


def mixture_loss(weights: Weights, x: Any, clicked: Any) -> Any:
    """Loss of the mixture; weights: logits of the shares, then the product models."""
    import tensorflow as tf

    shares, *rest = weights
    size = len(rest) // shares.shape[0]
    parts = [rest[i : i + size] for i in range(0, len(rest), size)]
    likely = [-entropy(clicked, product_logits(part, x)) for part in parts]
    joint = tf.nn.log_softmax(shares) + tf.stack(likely, axis=1)
    return -tf.reduce_mean(tf.reduce_logsumexp(joint, axis=1))


def xpa_loss(weights: Weights, x: Any, clicked: Any) -> Any:
    """Loss of XPA; weights: tower, position table, own terms, two attention terms."""
    import tensorflow as tf

    *inner, places, own, shift, place = weights[:-10]
    h, z = relevances(x, inner), places[1:]
    logits = (h @ own + shift + z @ place)[..., 0]
    alone = tf.eye(len(z), dtype=tf.bool)
    for values, at in ((h, -10), (z[None], -5)):
        query, query_shift, key, key_shift, value = weights[at : at + 5 or None]
        match = (z @ query + query_shift) @ tf.transpose(z @ key + key_shift)
        match = tf.where(alone, -1e9, match / query.shape[1] ** 0.5)
        logits += (tf.nn.softmax(match) @ (values @ value))[..., 0]
    return tf.reduce_mean(entropy(clicked, logits))


def two_tower_loss(weights: Weights, user: Any, item: Any) -> Any:
    """In-batch softmax loss of a DSSM on ids: (B,) users and (B,) distinct items.

    Each half of the weights is an id table and a tower. Item vectors have length 1.
    """
    import tensorflow as tf

    from debias.retrieval.models.two_tower import TEMPERATURE

    half = len(weights) // 2
    u = tower(tf.gather(weights[0], user), weights[1:half])
    v = tower(tf.gather(weights[half], item), weights[half + 1 :])
    v = tf.nn.l2_normalize(v, axis=1)
    scores = tf.matmul(u, v, transpose_b=True) / TEMPERATURE
    same = tf.linalg.diag_part(scores)
    return tf.reduce_mean(tf.reduce_logsumexp(scores, axis=1) - same)


def in_jax(job: Job) -> Callable[[], list[np.ndarray]]:
    """`in_tensorflow` in JAX; the batch size must divide the number of sessions."""
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
