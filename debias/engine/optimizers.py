"""Row-wise Adam: a step costs what the batch touches, not what the vocabulary holds."""

from typing import Any

import keras
from keras import ops

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

    `weight_decay`, decoupled from the gradient, and `use_ema` work as Keras has them;
    each reads whole tables. With `averaging=eta` the average is not exponential but
    spans a growing window: after step t = 0, 1, 2, ...

        average <- average + (eta + 1) / (t + eta + 1) (weights - average)

    At eta = 3 it is, about, the mean of the last quarter of all steps, however many
    there were. `overwrite_at_end` says whether Keras's `fit` replaces the weights by
    their average when it returns.

    Source: Kingma and Ba, Adam, ICLR 2015; the lazy form as in Abadi et al.,
    TensorFlow: A System for Large-Scale Machine Learning, OSDI 2016, section 4.2; decay
    as in Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019;
    polynomial-decay averaging as in Shamir and Zhang, Stochastic Gradient Descent for
    Non-smooth Optimization, ICML 2013.

    Args:
        learning_rate: float or schedule.
        beta_1, beta_2, epsilon: As in `keras.optimizers.Adam`.
        dense_rows: Tables of at most so many rows are stepped whole.
        averaging: eta of the average over a growing window, 0 or more; None: none, or
            with `use_ema` that of a fixed momentum.
        overwrite_at_end: Whether `fit` leaves the averaged weights in the model.
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
        averaging: float | None = None,
        overwrite_at_end: bool = True,
        name: str = "row_wise_adam",
        **kwargs: Any,
    ):
        if kwargs.pop("amsgrad", False):
            raise ValueError("amsgrad is not available row by row")
        if averaging is not None:
            if not 0 <= averaging < float("inf"):
                raise ValueError(f"averaging must be 0 or more, got {averaging}")
            kwargs["use_ema"] = True
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs)
        self.dense_rows = dense_rows
        self.averaging = averaging
        self.overwrite_at_end = overwrite_at_end

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        if self.averaging is None:
            super()._update_model_variables_moving_average(trainable_variables)
            return
        last = self.averaging + 1
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            weight = last / (ops.cast(self.iterations, variable.dtype) + last)
            average.assign(average + weight * (variable - average))

    def finalize_variable_values(self, var_list: Any) -> None:
        if self.overwrite_at_end:
            super().finalize_variable_values(var_list)

    def averages(self) -> list[Tensor]:
        """The averages of the trainable variables, in their order.

        Raises:
            ValueError: No average is taken.
        """
        if not self.use_ema:
            raise ValueError("no average is taken: give averaging=3 or use_ema=True")
        return list(self._model_variables_moving_average)

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
        own = {
            "dense_rows": self.dense_rows,
            "averaging": self.averaging,
            "overwrite_at_end": self.overwrite_at_end,
        }
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="debias")
class RowLossScale(keras.optimizers.LossScaleOptimizer):
    """Loss scaling for float16 that sees every gradient of a row.

    Keras's own, on TensorFlow, looks at one occurrence of each row of a batch, and
    steps by the infinite gradients of the others.

    >>> RowLossScale(RowWiseAdam(0.01)).inner_optimizer.name
    'row_wise_adam'
    """

    def __init__(
        self,
        inner_optimizer: Any,
        initial_scale: float = 2.0**10,
        dynamic_growth_steps: int = 2000,
        **kwargs: Any,
    ):
        super().__init__(inner_optimizer, initial_scale, dynamic_growth_steps, **kwargs)

    def check_finite(self, grads: Any) -> Tensor:
        return super().check_finite([getattr(g, "values", g) for g in grads])
