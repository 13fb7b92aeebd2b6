"""Tests of debias.engine.steps: fits by a compiled loop are those of Keras."""

import keras
import numpy as np
import pytest

from debias.data import ClickLog, RankingData
from debias.engine.steps import loop_over_log
from debias.layers import BiasTower, Tower
from debias.models import Product, ranker
from debias.models.batches import batches
from debias.models.export import export

SESSIONS, BATCH, STEPS = 90, 8, 5  # twelve batches: two executions and a rest


def world():
    rng = np.random.default_rng(0)
    data = RankingData(rng.normal(size=(30, 3)).astype("f"), None, np.array([0, 30]))
    item = rng.integers(0, 30, (SESSIONS, 4))
    return data, ClickLog(np.zeros(SESSIONS, int), item, rng.random(item.shape) < 0.3)


def made(jit=False, steps=STEPS):
    model = Product(Tower((4,), seed=1), BiasTower({"position": 4}, seed=2))
    model.compile("adam", jit_compile=jit, steps_per_execution=steps)
    return model


def feed(shuffle=True, sessions=SESSIONS, list_size=4, folder=None, **options):
    """Batches of the first sessions, from memory or from a folder."""
    data, log = world()
    kept = log.take(np.arange(sessions))
    log = ClickLog(kept.query, kept.item[:, :list_size], kept.click[:, :list_size])
    if folder is not None and not folder.exists():
        log.write(folder)
    return batches(folder or log, data, BATCH, shuffle=shuffle, seed=5, **options)


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "xla"])
def test_fit_is_that_of_keras_to_the_bit(jit):
    weights, histories, seen = [], [], []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append((batch, logs["loss"]))
    )
    for fit in (Product.fit, keras.Model.fit):
        model, data = made(jit), feed(packed=not jit)
        held = None if jit else feed(shuffle=False)  # slow to compile by XLA
        for epochs in (3, 2):  # the second goes on where orders of the first ended
            done = fit(
                model,
                data,
                epochs=epochs,
                validation_data=held,
                callbacks=[count],
                shuffle=False,
                verbose=0,
            )
            histories.append(done.history)
        assert int(model.optimizer.iterations) == 5 * 12
        weights.append(model.get_weights())
    assert histories[:2] == histories[2:]
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]
    assert [batch for batch, _ in seen[:3]] == [4, 9, 14]
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_logs_of_other_sizes_and_on_disk_are_fitted_in_turn(tmp_path):
    weights = []
    for fit in (Product.fit, keras.Model.fit):
        model = made()
        for logs in (
            {},
            {"sessions": 41, "packed": True},
            {"folder": tmp_path / "log", "packed": True},
            {"sessions": 50, "list_size": 3},
        ):
            fit(model, feed(**logs), epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    assert int(model.optimizer.iterations) == 2 * (12 + 6 + 12 + 7)
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_new_model_is_traced_once_for_logs_of_all_sizes(monkeypatch):
    """A first trace that creates variables would make TensorFlow trace again."""
    traced, usual = [], Product.train_step

    def train_step(model, batch):
        traced.append(model)
        return usual(model, batch)

    monkeypatch.setattr(Product, "train_step", train_step)
    model = made()
    for sessions in (90, 41, 60):
        model.fit(feed(sessions=sessions), epochs=2, verbose=0)
    # The rest of an epoch is shorter; that length is an input of the loop.
    assert len(traced) == 1


def test_a_loop_takes_the_steps_of_a_log_in_memory_alone(tmp_path):
    model = made()
    model.fit(feed(folder=tmp_path / "log"), verbose=0)
    model.fit(feed().map(lambda batch, clicks: (batch, clicks)), verbose=0)
    assert not model._loops.made and model.train_function is not None
    usual = model.train_function
    model.fit(feed(), verbose=0)
    assert set(model._loops.made) == {loop_over_log} and model.train_function is usual


def test_what_is_stopped_or_interrupted_can_be_fitted_again():
    model, data = made(), feed()

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 9:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(data, verbose=0, callbacks=[Interrupt()])
    assert int(model.optimizer.iterations) == 10
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(model, "stop_training", True)
    )
    model.fit(data, epochs=4, verbose=0, callbacks=[stop])
    assert int(model.optimizer.iterations) == 15
    model.fit(data, verbose=0)
    assert int(model.optimizer.iterations) == 27


@pytest.mark.parametrize(
    "data, options",
    [
        (lambda: feed().repeat(), {"steps_per_epoch": 7}),
        (lambda: feed().take(7), {"class_weight": None}),
        (lambda: feed().take(7).filter(lambda batch, clicks: True), {}),
    ],
    ids=["without end", "weights", "unknown"],
)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_what_is_not_counted_in_whole_batches_is_left_to_keras(data, options):
    model = made(steps=7)
    model.fit(data(), verbose=0, **options)
    assert int(model.optimizer.iterations) == 7


def test_compile_is_heeded_by_the_next_fit():
    model, data = made(), feed()
    model.fit(data, verbose=0)
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False, steps_per_execution=3)
    model.fit(data, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_that_was_just_fitted_can_be_exported(tmp_path):
    """Its compiled loops are no part of it."""
    model = made()
    model.fit(feed(), verbose=0)
    export(ranker(model), tmp_path / "saved", features=world()[0].feature_count)
