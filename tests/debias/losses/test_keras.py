"""Tests of debias.losses.keras: the shells."""

import keras
import numpy as np
import pytest

from debias.losses import LOSSES
from tests.debias.losses.registry import DEPTH, OTHER, batch, every_loss, run


def test_every_loss_has_other_arguments_to_test():
    assert OTHER.keys() == LOSSES.keys()


@every_loss
def test_config_round_trip_keeps_every_argument(name):
    given = {**OTHER[name], "reduction": "sum", "name": "mine"}
    loss = LOSSES[name](**given)
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert given.items() <= restored.get_config().items()
    y, z, _ = batch(name)
    assert float(restored(y, z)) == float(loss(y, z))
    values = run(name, y, z, **OTHER[name])
    assert float(loss(y, z)) == pytest.approx(values.sum(), rel=1e-5)


@every_loss
def test_shell_averages_over_lists_and_takes_both_kinds_of_weights(name):
    y, z, weights = batch(name, lists=6, size=6)  # square: nothing may broadcast
    loss = LOSSES[name]()
    assert float(loss(y, z)) == pytest.approx(run(name, y, z).mean(), rel=1e-5)
    for given in (weights, weights[:, 0], weights[:, :1]):
        expected = run(name, y, z, weights=given).mean()
        assert float(loss(y, z, sample_weight=given)) == pytest.approx(
            expected, rel=1e-5
        )


@pytest.mark.parametrize("jit", [False, True])
def test_fit_learns_by_every_loss_with_weights_and_a_batch_of_padding(jit):
    x = np.random.default_rng(0).normal(size=(32, 6, 4)).astype("float32")
    padded, _, weights = batch("click_cross_entropy", lists=32)
    y = np.where(padded < 0, -1, x[..., 0] > 0).astype("float32")
    y[:8] = -1  # one batch
    inputs = keras.Input((6, 4))
    outputs = {}
    for name in LOSSES:
        dense = keras.layers.Dense(DEPTH.get(name, 1), kernel_initializer="zeros")
        z = dense(inputs)
        outputs[name] = z if name in DEPTH else keras.layers.Reshape((-1,))(z)
    model = keras.Model(inputs, outputs)
    each = {name: LOSSES[name](name=None) for name in LOSSES}
    model.compile(keras.optimizers.SGD(0.1), loss=each, jit_compile=jit)
    history = model.fit(
        x,
        dict.fromkeys(LOSSES, y),
        sample_weight=dict.fromkeys(LOSSES, weights),
        batch_size=8,
        epochs=3,
        shuffle=False,
        verbose=0,
    ).history
    for name in LOSSES:
        start, *_, end = history[f"{name}_loss"]
        assert np.isfinite(end) and end < start, name


def test_shells_reject_a_temperature_at_once():
    with pytest.raises(ValueError, match="temperature"):
        LOSSES["mixture_likelihood"](temperature=0)
