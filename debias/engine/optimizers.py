"""Row-wise Adam: a step costs what the batch touches, not what the vocabulary holds."""

from typing import Any

import keras

from debias.types import Tensor


@keras.saving.register_keras_serializable(package="debias")
class RowWiseAdam(keras.optimizers.Adam):
    """Adam that steps only the rows of an embedding table that a batch has looked up.

    With g the sum of the gradients of all occurrences of a row in the batch:

        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        row <- row - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)

    for the rows that occur; table and moments are neither read nor written elsewhere.
    t counts steps of the optimiser. Equal to Adam where a batch touches every row;
    elsewhere Adam would go on moving an absent row by its old momentum, and this does
    not. Plain variables are stepped by Adam.

    On the TensorFlow backend, where gradients of a gather arrive as lists of rows, this
    also sums repeated rows before squaring; Keras's own Adam, Adagrad and RMSprop do
    not and step an id that occurs 256 times 16 times too far. Other backends compute
    dense gradients, so there it is Adam, cost included.

    Where a batch looks up more ids than a table has rows, rows one by one cost more
    than the table as a whole: `dense_rows` says up to which size a table is stepped
    densely, by plain Adam on summed gradients, absent rows by their momentum. If it
    covers all tables, `compile` may be given `jit_compile=True`.

    `weight_decay`, `use_ema` and `gradient_accumulation_steps` are kept, but each reads
    whole tables.

    Source: Kingma and Ba, Adam, ICLR 2015; the lazy form as in Abadi et al.,
    TensorFlow: A System for Large-Scale Machine Learning, OSDI 2016, section 4.2.

    Args:
        learning_rate: float or schedule.
        beta_1, beta_2, epsilon: As in `keras.optimizers.Adam`.
        dense_rows: Tables of at most so many rows are stepped whole.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    >>> RowWiseAdam(0.01).get_config()["beta_2"]
    0.999
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        dense_rows: int = 0,
        name: str = "row_wise_adam",
        **kwargs: Any,
    ):
        if kwargs.pop("amsgrad", False):
            raise ValueError("amsgrad is not available row by row")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs)
        self.dense_rows = dense_rows

    def update_step(
        self, gradient: Tensor, variable: Tensor, learning_rate: Tensor
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        place, dtype = self._get_variable_index(variable), variable.dtype
        moment, velocity = self._momentums[place].value, self._velocities[place].value
        step, rate = tf.cast(self.iterations + 1, dtype), tf.cast(learning_rate, dtype)
        # Constants of the type itself: a cast would round them to float32 on its way.
        b1, b2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        if not hasattr(gradient, "indices") or variable.shape[0] <= self.dense_rows:
            tf.raw_ops.ResourceApplyAdam(  # what Keras does in a dozen operations
                var=variable.handle,
                m=moment.handle,
                v=velocity.handle,
                beta1_power=b1**step,
                beta2_power=b2**step,
                lr=rate,
                beta1=b1,
                beta2=b2,
                epsilon=tf.constant(self.epsilon, dtype),
                grad=tf.cast(tf.convert_to_tensor(gradient), dtype),  # of rows, sums
            )
            return
        rows, occurrence = tf.unique(gradient.indices)
        total = tf.math.unsorted_segment_sum(
            tf.cast(gradient.values, dtype), occurrence, tf.size(rows)
        )
        m = b1 * tf.gather(moment, rows) + (1 - b1) * total
        v = b2 * tf.gather(velocity, rows) + (1 - b2) * tf.square(total)
        rate = rate * tf.sqrt(1 - b2**step) / (1 - b1**step)
        move = rate * m / (tf.sqrt(v) + self.epsilon)
        moment.scatter_update(tf.IndexedSlices(m, rows))
        velocity.scatter_update(tf.IndexedSlices(v, rows))
        variable.scatter_sub(tf.IndexedSlices(move, rows))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dense_rows": self.dense_rows}
