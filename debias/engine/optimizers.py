"""Row-wise Adam: the cost of a step depends on the batch, not on the vocabulary."""

from typing import Any

import keras
import numpy as np
from keras import ops

from debias.types import Tensor


def _assigned(variable: Any, value: Tensor) -> Tensor:
    """Assigns a variable, and returns a tensor because a `tf.cond` branch must."""
    import tensorflow as tf

    with tf.control_dependencies([variable.assign(value)]):
        return tf.constant(True)


@keras.saving.register_keras_serializable(package="debias")
class RowWiseAdam(keras.optimizers.Adam):
    """Adam that updates only the embedding rows that occur in the batch.

    For a row that occurs in the batch, let g be the sum of its gradients over all
    occurrences. Let t be the number of optimiser steps. The update of the row is:

        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        row <- row - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)

    Rows of the table and of its moments are neither read nor written if they do not
    occur in the batch. This optimiser equals Adam if every batch contains every row. If
    a row is absent from the batch, Adam moves it by its momentum, but this optimiser
    does not. Variables that are not embedding tables are updated by plain Adam.

    On TensorFlow, the gradient of a gather is a list of rows. This optimiser sums the
    gradients of repeated rows before it squares them. Keras's own Adam, Adagrad and
    RMSprop do not sum repeated rows. If an id occurs 256 times in a batch, Keras's
    optimisers move its row 16 times too far. On backends other than TensorFlow,
    gradients are dense, and this optimiser equals Adam in result and cost.

    If a batch looks up more ids than a table has rows, updating single rows costs more
    than updating the whole table. Plain Adam therefore updates every row of a table
    that has at most `dense_rows` rows. Plain Adam also moves absent rows by their
    momentum. `compile` accepts `jit_compile=True` if no table has more than
    `dense_rows` rows.

    `weight_decay` (decoupled from the gradient) and `use_ema` work as in Keras, and
    read whole tables. With `averaging=eta`, the optimiser averages the weights over a
    growing window, not with exponential decay. After step t = 0, 1, 2, ..., the
    optimiser computes:

        average <- average + (eta + 1) / (t + eta + 1) (weights - average)

    With eta = 3, the average is roughly the mean of the weights over the last quarter
    of all steps. If `overwrite_at_end` is set, Keras's `fit` finally replaces the
    weights by their average.

    Tables that are updated by row are also averaged by row, without approximation. Let
    G(t) = 1/(eta + 2) 2/(eta + 3) ... t/(t + eta + 1). While a row is absent, the
    difference between average and weights shrinks by the factor G(t) / G(s) from step s
    to step t. So the optimiser stores D = (average - weights) / G instead of the
    average. For absent rows, D is constant. A step that moves a row by x subtracts x /
    G(t - 1) from D. With `weight_decay`, all rows move, so the whole table is averaged.

    Source: Kingma and Ba, Adam, ICLR 2015; the lazy form is from Abadi et al.,
    TensorFlow: A System for Large-Scale Machine Learning, OSDI 2016, section 4.2; decay
    is from Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019;
    polynomial-decay averaging is from Shamir and Zhang, Stochastic Gradient Descent for
    Non-smooth Optimization, ICML 2013.

    Args:
        learning_rate: float or schedule.
        beta_1, beta_2, epsilon: See `keras.optimizers.Adam`.
        dense_rows: Largest number of rows of a table that is updated as a whole.
        averaging: eta of the average over a growing window, 0 or more. None turns this
            average off.
        overwrite_at_end: Whether the model has averaged weights after `fit`.
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
            if kwargs.get("ema_overwrite_frequency"):
                raise ValueError(
                    "ema_overwrite_frequency needs use_ema; averaging uses the "
                    "average only at the end"
                )
            kwargs["use_ema"] = True
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs)
        self.dense_rows = dense_rows
        self.averaging = averaging
        self.overwrite_at_end = overwrite_at_end

    def build(self, variables: Any) -> None:
        already = self.built
        super().build(variables)
        if already or self.averaging is None:
            return
        self._rowwise: set[int] = set()  # indices of tables, found by tracing a step
        # The same as a variable, so a loaded optimiser knows them.
        self._averaged_by_rows = self.add_variable(
            shape=(len(variables),), initializer="zeros", name="averaged_by_rows"
        )
        self._average_start = self.add_variable(
            shape=(), initializer="zeros", dtype="int64", name="average_start"
        )

    def _averaged_steps(self) -> Tensor:
        """t: the number of steps since averaging began."""
        return ops.cast(self.iterations, "int64") - self._average_start

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        if self.averaging is None:
            super()._update_model_variables_moving_average(trainable_variables)
            return
        last, step = self.averaging + 1, self._averaged_steps()
        averages = self._model_variables_moving_average
        for place, variable in enumerate(trainable_variables):
            if place not in self._rowwise:
                weight = last / (ops.cast(step, variable.dtype) + last)
                average = averages[place]
                average.assign(average + weight * (variable - average))
        if self._rowwise:
            marks = [float(p in self._rowwise) for p in range(len(averages))]
            self._averaged_by_rows.assign(marks)

    def _shrinkage(self, steps: Tensor) -> Tensor:
        """G(steps) in float64: product over s = 1 .. steps of s / (s + eta + 1)."""
        import tensorflow as tf

        eta = self.averaging or 0.0
        steps = tf.cast(steps, tf.float64)
        log = tf.math.lgamma(steps + 1) - tf.math.lgamma(steps + eta + 2)
        return tf.exp(log + tf.math.lgamma(tf.constant(eta + 2, tf.float64)))

    def _average_rows(
        self, place: int, variable: Any, rows: Tensor, move: Tensor
    ) -> None:
        """Adds `move` (R, d) / G(t - 1) to D of the rows, before the step."""
        import tensorflow as tf

        self._rowwise.add(place)
        step = tf.cast(self._averaged_steps(), tf.float64)
        # After the first step, the average equals the weights, so D stays 0.
        share = tf.where(step > 0, 1 / self._shrinkage(tf.maximum(step - 1, 0)), 0.0)
        difference = self._model_variables_moving_average[place].value
        share = tf.cast(share, move.dtype)
        # The average of a table that has outgrown `dense_rows` is still stored here.
        tf.cond(
            self._averaged_by_rows.value[place] > 0,
            lambda: tf.constant(False),
            lambda: _assigned(
                difference, share * (difference - tf.convert_to_tensor(variable))
            ),
        )
        change = move * share
        difference.scatter_add(tf.IndexedSlices(change, rows))

    def finalize_variable_values(self, var_list: Any) -> None:
        if self.overwrite_at_end:
            if self.averaging is None:
                super().finalize_variable_values(var_list)
            else:
                self.keep_averages()

    def keep_averages(self) -> None:
        """Replaces the trainable variables by their averages, and restarts averaging.

        Raises:
            ValueError: `averaging` is None.
        """
        if self.averaging is None:
            raise ValueError(
                "this optimizer keeps no average over a growing window: give "
                "averaging=3"
            )
        if int(self._averaged_steps()) < 1:
            return  # before the first step there is no average
        averages = self.averages()
        for place, (variable, kept) in enumerate(
            zip(self._trainable_variables, averages, strict=True)
        ):
            variable.assign(kept)
            own = self._model_variables_moving_average[place]
            own.assign(ops.zeros_like(own) if self._by_rows(place) else kept)
        self._average_start.assign(ops.cast(self.iterations, "int64"))

    def _by_rows(self, place: int) -> bool:
        return bool(np.asarray(self._averaged_by_rows)[place])

    def averages(self) -> list[Tensor]:
        """The averages of the trainable variables, in their order.

        Raises:
            ValueError: `averaging` is None and `use_ema` is not set.
        """
        if not self.use_ema:
            raise ValueError(
                "this optimizer keeps no average: give averaging=3 or use_ema=True"
            )
        averages = list(self._model_variables_moving_average)
        if self.averaging is None:
            return averages
        for place, variable in enumerate(self._trainable_variables):
            if self._by_rows(place):
                last = ops.maximum(self._averaged_steps() - 1, 0)
                shrunk = self._shrinkage(last)
                difference = ops.cast(shrunk, variable.dtype) * averages[place]
                averages[place] = variable + difference
        return averages

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
        # Constants in the type itself: a cast would round them to float32.
        b1, b2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        if not hasattr(gradient, "indices") or variable.shape[0] <= self.dense_rows:
            tf.raw_ops.ResourceApplyAdam(  # Keras takes a dozen operations for this
                var=variable.handle,
                m=moment.handle,
                v=velocity.handle,
                beta1_power=b1**step,
                beta2_power=b2**step,
                lr=rate,
                beta1=b1,
                beta2=b2,
                epsilon=tf.constant(self.epsilon, dtype),
                grad=tf.cast(tf.convert_to_tensor(gradient), dtype),  # summed by row
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
        if self.averaging is not None and self.weight_decay is None:
            self._average_rows(place, variable, rows, move)
        variable.scatter_sub(tf.IndexedSlices(move, rows))

    def get_config(self) -> dict[str, Any]:
        names = ("dense_rows", "averaging", "overwrite_at_end")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="debias")
class RowLossScale(keras.optimizers.LossScaleOptimizer):
    """Loss scaling for float16 that checks every gradient of a row.

    On TensorFlow, Keras's own loss scaling checks only one occurrence of each row in a
    batch. If another occurrence of the row has an infinite gradient, Keras applies this
    gradient.

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
        every = [g.values if hasattr(g, "dense_shape") else g for g in grads]
        return super().check_finite(every)
