"""Tests of debias.retrieval.training.fitting: one loop, and where it stops."""

import numpy as np
import pytest

from debias.engine.optimizers import RowWiseAdam
from debias.retrieval.training.batches import Batches
from debias.retrieval.training.fitting import Diverged, fit, optimizer_of, xla_pays
from tests.debias.retrieval.models.registry import LENGTH, LOG, MODELS

pytestmark = pytest.mark.usefixtures("eagerly")


def weights(model):
    return [np.asarray(v) for v in model.trainable_variables]


def test_fit_is_the_fit_of_keras_over_the_batches():
    one, other = MODELS["fm"](), MODELS["fm"]()
    events = []
    losses = fit(one, LOG, epochs=2, batch_size=100, seed=3, progress=events.append)
    other.compile(optimizer_of())
    batches = Batches(LOG, 100, history=LENGTH, seed=3)
    history = other.fit(batches, epochs=2, verbose=0).history
    assert losses == history["loss"]
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert events == [100] * 10  # of 480 events, five steps a pass


def test_the_weights_kept_are_the_average_over_a_growing_window():
    """Step t = 0, 1, ... moves the average by 4 / (t + 4) towards the weights."""
    raw = {}
    model = MODELS["fm"]()
    optimizer = RowWiseAdam(0.003, dense_rows=1 << 15)
    model.compile(optimizer)

    def note(events):
        raw[len(raw)] = weights(model)

    fit(model, LOG, epochs=2, batch_size=160, seed=1, progress=note)
    averages = raw[0]
    for step in range(1, len(raw)):
        share = 4 / (step + 4)
        averages = [
            a + share * (w - a) for a, w in zip(averages, raw[step], strict=True)
        ]
    kept = MODELS["fm"]()
    fit(kept, LOG, epochs=2, batch_size=160, seed=1)
    for a, b in zip(averages, weights(kept), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_xla_pays_for_many_steps_without_dropout_on_small_tables():
    model = MODELS["fm"]()
    model.build(None)
    assert xla_pays(model, 100) and not xla_pays(model, 99)
    transformer = MODELS["transformer"]()  # drops
    transformer.build(None)
    assert not xla_pays(transformer, 1000)


def test_batches_decide_for_themselves():
    one, other = MODELS["fm"](), MODELS["fm"]()
    for model, batches in ((one, None), (other, Batches(LOG, 100, history=LENGTH))):
        fit(model, batches or LOG, epochs=1, batch_size=100)
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_compiled_model_keeps_its_optimizer_and_another_takes_its_place():
    model = MODELS["fm"]()
    model.compile(RowWiseAdam(0.5))
    mine = model.optimizer
    fit(model, LOG, epochs=1, batch_size=240)
    assert model.optimizer is mine and int(mine.iterations) == 2
    other = RowWiseAdam(0.1)
    fit(model, LOG, epochs=1, batch_size=240, optimizer=other)
    assert model.optimizer is other and int(other.iterations) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_no_number_stops_at_its_step(value):
    model = MODELS["bare"]()
    model.build(None)
    steps = []

    def poison(events):
        steps.append(events)
        if len(steps) == 2:
            table = model.item.fields.tables["id"].table
            table.assign(np.full(table.shape, value))

    with pytest.raises(Diverged, match=r"loss nan at step 3, learning rate 0\.02; "):
        fit(
            model,
            LOG,
            batch_size=100,
            optimizer=RowWiseAdam(0.02),
            progress=poison,
        )
    assert len(steps) == 2


def test_rejects_no_pass():
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        fit(MODELS["fm"](), LOG, epochs=0)


@pytest.mark.parametrize("repeat", ["exclude", "allow", "model"])
def test_only_where_repeats_are_excluded_what_was_taken_is_no_negative(
    repeat, monkeypatch
):
    from debias.retrieval.training import fitting

    asked = {}

    class Stop(Exception):
        pass

    def batches(*given, **options):
        asked.update(options)
        raise Stop

    monkeypatch.setattr(fitting, "Batches", type("B", (), {"__new__": batches}))
    with pytest.raises(Stop):
        fit(MODELS["fm"](), LOG, repeat=repeat)
    assert asked["exclude_known"] == (repeat == "exclude")
