"""Tensor helpers: row-wise application, and lookups with correct gradients."""

from collections.abc import Callable

import keras
from keras import ops

from debias.engine.seeds import seed_at
from debias.types import Tensor


def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """Looks up rows of a small table by a matrix product, one_hot(ids) @ table.

    The result has the shape `(*ids.shape, dim)`. A matrix product replaces a gather,
    whose gradient on TensorFlow is a list of rows. Keras's Adam, Adagrad and RMSprop do
    not sum repeated rows of such a list. If an id occurs 256 times in a batch, these
    optimisers move its row 16 times too far. The error matters for positions, which
    repeat in every batch of lists.

    >>> lookup(ops.array([[1.0, 2.0], [3.0, 4.0]]), ops.array([1, 1, 0])).shape[-1]
    2
    """
    flat = ops.reshape(ops.cast(ids, "int32"), (-1,))
    rows = ops.matmul(ops.one_hot(flat, table.shape[0], dtype=table.dtype), table)
    return ops.reshape(rows, (*ops.shape(ids), table.shape[-1]))


def rowwise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies `function` to the rows of `x`, `(..., in)` to `(..., out)`.

    `x` is reshaped to a matrix for speed: TensorFlow fuses product, bias and activation
    only for matrices.

    >>> rowwise(lambda rows: rows[:, :2], ops.ones((4, 5, 3))).shape[-1]
    2
    """
    if len(x.shape) == 2:
        return function(x)
    found = function(ops.reshape(x, (-1, x.shape[-1])))
    return ops.reshape(found, (*ops.shape(x)[:-1], found.shape[-1]))


def glorot(seed: int | None, place: int) -> keras.initializers.Initializer:
    """Glorot uniform initial weights, with the seed of `seed_at`."""
    return keras.initializers.GlorotUniform(seed_at(seed, place))


def checked_ids(ids: Tensor, largest: int, message: str) -> Tensor:
    """`ids` as int32; on TensorFlow, ids above `largest` raise an error.

    The error is TensorFlow's `InvalidArgumentError`, also in graphs. XLA and other
    backends do not check ids.

    >>> checked_ids(ops.array([[1, 2]]), 2, "too far").shape[1]
    2
    """
    ids = ops.cast(ids, "int32")
    if keras.backend.backend() != "tensorflow" or isinstance(ids, keras.KerasTensor):
        return ids
    import tensorflow as tf

    check = tf.debugging.assert_less_equal(ids, largest, message, summarize=3)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(ids)
