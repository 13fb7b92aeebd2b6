"""Tests of benchmarks.rates.gpu: the peers compute the models' own losses."""

import numpy as np
import pytest

from benchmarks.rates import gpu, hand_written


@pytest.mark.parametrize("name", ["product", "mixture", "xpa"])
def test_a_loss_by_hand_is_that_of_the_model(name):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, gpu.LIST_SIZE, 5)).astype("float32")
    click = (rng.random((6, gpu.LIST_SIZE)) < 0.3).astype("float32")
    place = np.tile(np.arange(1, gpu.LIST_SIZE + 1, dtype="int32"), (6, 1))
    batch = {"features": features, "position": place, "mask": place > 0}
    model = gpu.click_model(name)
    model(batch)
    for weight in model.trainable_weights:  # biases and places start at zero
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    model.compile(jit_compile=False)
    loss = model.compute_loss(batch, click, model(batch), training=False)
    by_hand = getattr(hand_written, f"{name}_loss")
    found = by_hand(model.trainable_weights, features, click)
    assert float(found) == pytest.approx(float(loss), rel=1e-5)


def test_the_loss_of_two_towers_by_hand_is_that_of_the_model():
    from debias import retrieval
    from debias.retrieval.losses import RetrievalLoss

    schema = {"id": {"kind": "categorical", "size": 12}}
    model = retrieval.dssm(schema, schema, 4, history=None, seed=0)
    user, item = np.array([2, 5, 5, 7]), np.array([3, 9, 4, 2])
    positive = np.arange(4, dtype="int32")
    batch = {"user": {"id": user}, "item": {"id": item}, "positive": positive}
    scores = model(batch)
    loss = RetrievalLoss()(positive, scores)
    found = hand_written.two_tower_loss(model.trainable_weights, user, item)
    assert float(found) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("name", ["product", "dssm"])
def test_every_way_trains(name, monkeypatch):
    monkeypatch.setattr(gpu, "COMPILED", ("",))  # XLA takes its time
    monkeypatch.setattr(gpu, "HIDDEN", (4,))
    monkeypatch.setattr(gpu, "FEATURES", 3)
    monkeypatch.setattr(gpu, "IDS", 50)
    found = gpu.measure(name, 2048, rounds=1)
    assert set(found) == {"loop", "keras", "by_hand"} and min(found.values()) > 0


def test_the_device_and_a_verdict_are_told(monkeypatch):
    told = []
    rates = dict.fromkeys(("loop", "loop_xla", "by_hand", "by_hand_xla"), 50.0)
    rates |= {"keras": 100.0, "keras_xla": 25.0}
    monkeypatch.setattr(gpu, "measure", lambda name, sessions, rounds: rates)
    gpu.main(["xpa"], told.append)
    assert told[0].startswith("Device: ")
    assert told[-1] == (
        "xpa: the compiled loop does not pay: .50 of the rate of Keras, "
        "1.00 of that of a loop by hand"
    )


@pytest.mark.parametrize(
    "wrong", [["trees"], ["--sessions", "1000"]], ids=["model", "sessions"]
)
def test_what_cannot_be_measured_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        gpu.main(wrong)
    assert "must be" in capsys.readouterr().err
