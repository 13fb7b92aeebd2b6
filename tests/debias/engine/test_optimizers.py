"""Tests of debias.engine.optimizers and the embedding whose rows it steps."""

import time

import keras
import numpy as np
import pytest
from keras import ops

from debias.engine.optimizers import RowLossScale, RowWiseAdam
from debias.layers.embedding import RowEmbedding

tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="other backends' gradients are dense",
)


def dense_adam(table, gradients, rate=0.01, b1=0.9, b2=0.999, epsilon=1e-7):
    """Adam as the article has it, in float64, over dense gradients."""
    table = table.astype("float64")
    m, v = np.zeros_like(table), np.zeros_like(table)
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        step = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        table = table - step * m / (np.sqrt(v) + epsilon)
    return table


def train(ids, targets, steps, optimizer, size=6, dim=3):
    """Squared distance of looked-up rows to targets; returns table before and after."""
    import tensorflow as tf

    layer = RowEmbedding(size, dim, scale=1.0, seed=0)
    layer.table.assign(np.random.default_rng(1).normal(size=(size, dim)))
    before = ops.convert_to_numpy(layer.table).copy()
    optimizer.build(layer.trainable_variables)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = ops.sum(ops.square(layer(ops.array(ids)) - targets)) / 2
        gradients = tape.gradient(loss, [v.value for v in layer.trainable_variables])
        optimizer.apply(gradients, layer.trainable_variables)
    return before, ops.convert_to_numpy(layer.table)


def dense_gradient(table, ids, targets):
    gradient = np.zeros_like(table)
    np.add.at(gradient, ids, table[ids] - targets)
    return gradient


@tensorflow_only
def test_equals_dense_adam_where_every_row_is_touched_duplicates_included():
    ids = np.array([1, 2, 2, 3, 4, 5, 5, 5, 1])  # row 0 is padding and never moves
    targets = np.random.default_rng(2).normal(size=(len(ids), 3)).astype("float32")
    before, after = train(ids, targets, 5, RowWiseAdam(0.01))
    table, gradients = before.astype("float64"), []
    for _ in range(5):
        gradients.append(dense_gradient(table, ids, targets))
        table = dense_adam(before, gradients)
    np.testing.assert_allclose(after, table, atol=1e-6)


@tensorflow_only
@pytest.mark.parametrize("dense_rows, alike", [(6, True), (5, False)])
def test_tables_of_at_most_dense_rows_are_stepped_as_adam_steps_them(dense_rows, alike):
    optimizer = RowWiseAdam(0.1, dense_rows=dense_rows)
    layer = RowEmbedding(6, 1, seed=0)
    before = ops.convert_to_numpy(layer.table).copy()
    optimizer.build(layer.trainable_variables)
    import tensorflow as tf

    gradients = []
    for ids in ([2, 2, 3], [4]):  # rows 2 and 3 are absent the second time
        values = tf.ones((len(ids), 1))
        slices = tf.IndexedSlices(values, tf.constant(ids), tf.constant([6, 1]))
        optimizer.apply([slices], layer.trainable_variables)
        gradients.append(np.bincount(ids, minlength=6)[:, None].astype(float))
    after = ops.convert_to_numpy(layer.table)
    found = np.allclose(after, dense_adam(before, gradients, 0.1), atol=1e-6)
    assert found == alike


@tensorflow_only
@pytest.mark.parametrize("count", [1, 4, 256])
def test_an_id_that_repeats_is_stepped_once(count):
    # The first step of Adam is the learning rate, whatever the gradient's size.
    ids, targets = np.full(count, 3), np.zeros((count, 3), "float32")
    before, after = train(ids, targets, 1, RowWiseAdam(0.01))
    np.testing.assert_allclose(np.abs(after - before)[3], 0.01, rtol=1e-2)


@tensorflow_only
def test_rows_outside_the_batch_and_their_moments_do_not_move():
    optimizer = RowWiseAdam(0.01)
    before, after = train(np.array([2, 4]), np.zeros((2, 3), "float32"), 3, optimizer)
    assert (before[[1, 3, 5]] == after[[1, 3, 5]]).all()
    assert (before[[2, 4]] != after[[2, 4]]).all()
    for moments in (optimizer._momentums[0], optimizer._velocities[0]):
        rows = ops.convert_to_numpy(moments)
        assert (rows[[1, 3, 5]] == 0).all() and (rows[[2, 4]] != 0).all()


@tensorflow_only
def test_a_row_that_was_away_resumes_with_its_own_moments():
    import tensorflow as tf

    layer = RowEmbedding(4, 1, seed=0)
    layer.table.assign([[0.0], [0.0], [1.0], [1.0]])
    optimizer = RowWiseAdam(0.1)
    optimizer.build(layer.trainable_variables)
    for row in (2, 3, 2):
        slices = tf.IndexedSlices(tf.constant([[1.0]]), tf.constant([row]))
        optimizer.apply([slices], layer.trainable_variables)
    # Row 2: g = 1 at t = 1 and t = 3. m = .19, v = .001999.
    first = 0.1
    third = 0.1 * np.sqrt(1 - 0.999**3) / (1 - 0.9**3) * 0.19 / np.sqrt(0.001999)
    moved = 1.0 - float(ops.convert_to_numpy(layer.table)[2, 0])
    assert moved == pytest.approx(first + third, rel=1e-4)


def test_plain_variables_are_stepped_by_adam():
    """In float64 to twelve digits; where there is none, as Keras steps, to the bit."""
    plain = keras.backend.backend() == "tensorflow"
    dtype, rate = "float64" if plain else "float32", 0.125  # a rate float32 can hold
    gradients = [np.array([[1.0, -2.0], [0.5, step]], dtype) for step in range(3)]
    variables = [keras.Variable(np.ones((2, 2)), dtype=dtype) for _ in range(2)]
    for variable, optimizer in zip(
        variables, (RowWiseAdam(rate), keras.optimizers.Adam(rate)), strict=True
    ):
        optimizer.build([variable])
        for gradient in gradients:
            optimizer.apply([ops.array(gradient)], [variable])
    own, theirs = (ops.convert_to_numpy(v) for v in variables)
    if plain:
        expected = dense_adam(np.ones((2, 2)), gradients, rate)
        np.testing.assert_allclose(own, expected, rtol=1e-12)
    else:
        np.testing.assert_array_equal(own, theirs)


def test_fit_moves_only_rows_of_the_batch_under_a_schedule():
    inputs = keras.Input((2,), dtype="int32")
    layer = RowEmbedding(50, 4, seed=0)
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(layer(inputs)))
    model = keras.Model(inputs, outputs)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model.compile(RowWiseAdam(schedule), "mse", jit_compile=False)
    before = ops.convert_to_numpy(layer.table).copy()
    model.fit(np.array([[3, 3], [7, 9]]), np.ones((2, 1)), epochs=2, verbose=0)
    moved = (before != ops.convert_to_numpy(layer.table)).any(axis=1)
    assert np.flatnonzero(moved).tolist() == [3, 7, 9]


def test_config_round_trip():
    config = RowWiseAdam(0.02, 0.8, 0.95, 1e-5, 7).get_config()
    again = keras.optimizers.deserialize(
        keras.optimizers.serialize(RowWiseAdam(0.02, 0.8, 0.95, 1e-5, 7))
    )
    assert isinstance(again, RowWiseAdam) and again.get_config() == config


def test_rejects_amsgrad():
    with pytest.raises(ValueError, match="amsgrad"):
        RowWiseAdam(amsgrad=True)


@tensorflow_only
def test_a_step_does_not_read_the_whole_table():
    def seconds(size):
        inputs = keras.Input((1,), dtype="int32")
        outputs = keras.layers.Flatten()(RowEmbedding(size, 16)(inputs))
        model = keras.Model(inputs, outputs)
        model.compile(RowWiseAdam(), "mse", jit_compile=False)
        ids = np.random.default_rng(0).integers(2, size, (256, 1))
        batch = ids, np.zeros((256, 16), "float32")
        for _ in range(3):
            model.train_on_batch(*batch)
        times = []
        for _ in range(8):
            start = time.process_time()
            model.train_on_batch(*batch)
            times.append(time.process_time() - start)
        return min(times)

    # A dense Adam reads and writes 3 tables of 64 MB a step at the larger size.
    assert seconds(1_000_000) < 3 * seconds(10_000)


def test_a_loss_scale_sees_each_occurrence_of_a_row():
    import tensorflow as tf

    table = keras.Variable(np.ones((3, 1), "float32"))
    optimizer = RowLossScale(keras.optimizers.SGD(1.0), initial_scale=8.0)
    for first, moved, scale in ((float("inf"), 1.0, 4.0), (8.0, 1 - 16 / 4, 4.0)):
        values = tf.constant([[first], [8.0]])
        slices = tf.IndexedSlices(values, tf.constant([1, 1]), tf.constant([3, 1]))
        optimizer.apply([slices], [table])
        assert np.asarray(table)[:, 0].tolist() == [1.0, moved, 1.0]
        assert float(optimizer.dynamic_scale) == scale


@tensorflow_only
@pytest.mark.parametrize("dense_rows", [0, 100])
def test_a_table_is_averaged_over_a_growing_window_though_rows_are_absent(dense_rows):
    """After step t the average moves by 4 / (t + 4) towards all rows; twice begun."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    table = keras.Variable(rng.normal(size=(7, 3)).astype("float32"))
    kernel = keras.Variable(np.ones((2, 2), "float32"))
    optimizer = RowWiseAdam(0.1, averaging=3.0, dense_rows=dense_rows)
    optimizer.build([table, kernel])
    for _ in range(2):
        average = None
        for t in range(25):
            rows = rng.integers(0, 5 if t < 5 else 3, size=4)  # 3 to 6 are absent later
            values = tf.constant(rng.normal(size=(4, 3)).astype("float32"))
            rows = tf.IndexedSlices(values, tf.constant(rows), tf.constant([7, 3]))
            optimizer.apply([rows, 0.1 * tf.ones((2, 2))])
            weights = np.asarray(table)
            average = weights if t == 0 else average + 4 / (t + 4) * (weights - average)
            kept = np.asarray(optimizer.averages()[0])
            np.testing.assert_allclose(kept, average, atol=1e-5)
        assert np.abs(average - np.asarray(table)).max() > 0.01
        optimizer.keep_averages()
        np.testing.assert_allclose(np.asarray(table), average, atol=1e-5)
        optimizer.keep_averages()  # nothing more to keep
        np.testing.assert_allclose(np.asarray(table), average, atol=1e-5)


def test_keeping_an_average_asks_for_one():
    with pytest.raises(ValueError, match="give averaging=3"):
        RowWiseAdam(0.1).keep_averages()
    with pytest.raises(ValueError, match="ema_overwrite_frequency needs use_ema"):
        RowWiseAdam(0.1, averaging=3.0, ema_overwrite_frequency=10)


@tensorflow_only
@pytest.mark.parametrize("fresh", [True, False])
def test_a_table_that_outgrows_dense_rows_keeps_its_average(fresh):
    """The state of a table that was stepped whole, in an optimiser that steps rows."""
    import tensorflow as tf

    def gradient(seed):
        values = tf.constant(
            np.random.default_rng(seed).normal(size=(4, 3)), tf.float32
        )
        return tf.IndexedSlices(values, tf.constant([0, 1, 1, 2]), tf.constant([7, 3]))

    start = np.random.default_rng(9).normal(size=(7, 3)).astype("float32")
    small, large = keras.Variable(start), keras.Variable(start)
    one = RowWiseAdam(0.1, averaging=3.0, dense_rows=100)
    other = RowWiseAdam(0.1, averaging=3.0)
    one.build([small]), other.build([large])
    for seed in range(3):
        one.apply([gradient(seed)])
    if fresh:
        one.keep_averages()
    large.assign(small)
    for new, old in zip(other.variables, one.variables, strict=True):
        new.assign(old)
    average = np.asarray(one.averages()[0])
    for t in range(2):
        other.apply([gradient(5 + t)])
        share = 4 / (t + 4) if fresh else 4 / (3 + t + 4)
        average = average + share * (np.asarray(large) - average)
    np.testing.assert_allclose(np.asarray(other.averages()[0]), average, atol=1e-5)


def test_without_a_step_there_is_no_average_to_keep():
    table = keras.Variable(np.ones((3, 2), "float32"))
    optimizer = RowWiseAdam(0.1, averaging=3.0)
    optimizer.build([table])
    optimizer.keep_averages()
    assert (np.asarray(table) == 1).all()
