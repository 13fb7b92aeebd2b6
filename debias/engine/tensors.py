"""What a tensor is to the type checker; rows, and lookups optimisers step right."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

Tensor = Any  # a backend tensor, a NumPy array or a Keras variable


def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of a small table: one_hot(ids) @ table, shape `(*ids.shape, dim)`.

    A product rather than a gather because on the TensorFlow backend a gather's gradient
    is a list of rows that Adam, Adagrad and RMSprop do not sum: an id that stands 256
    times in a batch is moved 16 times too far, and a position table repeats every id.

    >>> lookup(ops.array([[1.0, 2.0], [3.0, 4.0]]), ops.array([1, 1, 0])).shape[-1]
    2
    """
    flat = ops.reshape(ops.cast(ids, "int32"), (-1,))
    rows = ops.matmul(ops.one_hot(flat, table.shape[0], dtype=table.dtype), table)
    return ops.reshape(rows, (*ops.shape(ids), table.shape[-1]))


def rowwise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function` of the rows of `x`, `(..., in)` to `(..., out)`.

    Of a matrix alone TensorFlow fuses product, bias and activation into one step.

    >>> rowwise(lambda rows: rows[:, :2], ops.ones((4, 5, 3))).shape[-1]
    2
    """
    found = function(ops.reshape(x, (-1, x.shape[-1])))
    return ops.reshape(found, (*ops.shape(x)[:-1], found.shape[-1]))


def checked_ids(ids: Tensor, largest: int, message: str) -> Tensor:
    """`ids` as int32; on TensorFlow, a graph that runs into a larger one stops.

    The error is TensorFlow's `InvalidArgumentError`. XLA drops such checks.

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


def gather_features(batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The rows of a batch's `table` that its cells show, as its `features`.

    Args:
        batch: With `table` (items, F), and `cell` (batch, list_size) its rows; others
            come back as they are. For TensorFlow.

    Returns:
        The batch with `features` (U, F) of the U distinct rows in place of `table`, and
        `cell` which of these a cell shows.

    >>> batch = {"table": ops.array([[1.0], [2.0], [3.0]]), "cell": ops.array([[2, 2]])}
    >>> found = gather_features(batch)
    >>> ops.convert_to_numpy(found["features"]).tolist(), "table" in found
    ([[3.0]], False)
    """
    if "table" not in batch:
        return batch
    import tensorflow as tf

    rest = {name: value for name, value in batch.items() if name != "table"}
    row, cell = tf.unique(tf.reshape(batch["cell"], (-1,)))
    rest["cell"] = tf.reshape(cell, tf.shape(batch["cell"]))
    return {**rest, "features": tf.gather(batch["table"], row)}
