"""Tests of debias.models.disentangled beyond the properties of every click model."""

import keras
import numpy as np
import pytest

from debias.models import Disentangled
from debias.models.disentangled import guess_errors
from tests.debias.models.registry import bias, relevance
from tests.debias.models.test_click_models import FEATURES, batch_of, numbers
from tests.gradient import gradient

CLICKS = (np.random.default_rng(4).random(FEATURES.shape[:2]) < 0.4).astype("float32")
CLICKS[:, 4:] = -1  # padding
SHOWN = CLICKS >= 0
PLACES = np.random.default_rng(5).normal(size=(*FEATURES.shape[:2], 3))


class Given(keras.layers.Layer):
    """A bias tower whose embeddings stand in the batch."""

    def call(self, batch, training=False):
        return batch["place"]


def model_of(strength, dropout=0.0):
    model = Disentangled(relevance(1), Given(), dropout, strength, seed=1)
    model({"features": FEATURES, "place": PLACES.astype("float32")})
    return model


def loss_of(model, training=True):
    """Of the embeddings of the places."""

    def loss(place):
        batch = {"features": FEATURES, "place": place}
        outputs = model(batch, training=training)
        return model.session_losses(batch, CLICKS, outputs, training)

    return loss


def test_the_head_learns_to_guess_and_the_place_not_to_be_guessed_from():
    """The gradient of the places: that of the clicks minus strength times the guess's,
    whose head is here applied without the reversal.
    """
    clicks_alone = gradient(loss_of(model_of(0.0)), PLACES)
    model = model_of(0.5)
    r = numbers(model.relevance(FEATURES))[..., 0]

    def plain(place):
        for layer in model.head.layers[1:]:
            place = layer(place)
        return guess_errors(place[..., 0], r, SHOWN)

    own = gradient(plain, PLACES)
    slope = gradient(loss_of(model), PLACES)
    assert np.abs(own[SHOWN]).max() > 0.01 and (own[~SHOWN] == 0).all()
    np.testing.assert_allclose(slope, clicks_alone - 0.5 * own, rtol=1e-4, atol=1e-5)


def test_guess_errors_by_hand():
    """Shown relevance 1, 3, 5, 7: mean 4, variance 5."""
    r = np.array([[1.0, 3.0, 99.0], [5.0, 7.0, -99.0]], "float32")
    shown = np.array([[True, True, False]] * 2)
    guess = np.array([[0.0, 1.0, 9.0], [0.0, -1.0, 9.0]], "float32")
    expected = (guess - (r - 4) / np.sqrt(5)) ** 2 * shown
    np.testing.assert_allclose(
        numbers(guess_errors(guess, r, shown)), expected, rtol=1e-5
    )


def test_the_guess_teaches_relevance_nothing():
    features = FEATURES.reshape(5, -1)

    def slope(strength):
        model = model_of(strength)

        def loss(x):
            x = keras.ops.reshape(x, FEATURES.shape)
            batch = {"features": x, "place": PLACES.astype("float32")}
            outputs = model(batch, training=True)
            return model.session_losses(batch, CLICKS, outputs, training=True)

        return gradient(loss, features)

    np.testing.assert_allclose(slope(0.0), slope(2.0), rtol=1e-5, atol=1e-7)


def test_evaluation_and_both_parts_off_are_the_additive_model():
    """Clicks by r(x) + w . z, in evaluation whatever the parts."""
    for model, training in ((model_of(0.0), True), (model_of(2.0, 0.5), False)):
        r = numbers(model.relevance(FEATURES))[..., 0]
        z = r + PLACES @ numbers(model.own_place.kernel)[:, 0]
        cells = np.logaddexp(0, z) - CLICKS * z
        losses = loss_of(model, training)(PLACES.astype("float32"))
        expected = np.where(SHOWN, cells, 0).sum(axis=1)
        np.testing.assert_allclose(numbers(losses), expected, rtol=1e-4)
    assert model_of(0.0).head is None


def test_dropout_drops_single_cells_and_scales_nothing():
    model = model_of(1.0, dropout=0.25)
    places = np.ones((3000, 4, 3), "float32")
    batch = {"features": np.zeros((3000, 4, 7), "float32"), "place": places}
    kept = numbers(model(batch)["bias"])
    found = numbers(model(batch, training=True)["bias"])
    dropped = found == 0
    np.testing.assert_allclose(found[~dropped], kept[~dropped])
    assert abs(dropped.mean() - 0.25) < 0.02  # five standard errors
    both = (dropped[:, 0] & dropped[:, 1]).mean()  # cells of a list apart: 1/16
    assert abs(both - 0.0625) < 0.02


def test_a_place_of_a_whole_list_is_one_for_its_cells():
    model = Disentangled(relevance(1), bias(1, 3), dropout=0.5, seed=1)
    batch = {**batch_of(FEATURES), "position": np.full((5, 1), 2, "int32")}
    shapes = {name: x.shape for name, x in model(batch, training=True).items()}
    assert set(shapes.values()) == {FEATURES.shape[:2]}


@pytest.mark.parametrize(
    "bad", [{"dropout": 1.0}, {"dropout": -0.1}, {"strength": -1.0}]
)
def test_rejects(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Disentangled(relevance(0), bias(0, 3), **bad)
