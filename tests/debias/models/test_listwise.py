"""Tests of debias.models.listwise."""

import keras
import numpy as np
import pytest
from scipy import special

from debias.models import Additive, Listwise, Mixture, Naive
from tests.debias.models.registry import POSITIONS, bias, relevance

RNG = np.random.default_rng(3)
BATCH = {
    "features": RNG.normal(size=(4, POSITIONS, 5)).astype("float32"),
    "position": np.tile(np.arange(1, POSITIONS + 1), (4, 1)),
}
CLICKS = np.array(
    [[1, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, -1], [0] * 6, [0, 1, -1, -1, -1, -1]],
    "float32",
)


def by_hand(clicks, logits):
    """-sum over clicks of the log share of the clicked among those shown."""
    shown = [
        special.log_softmax(z[c >= 0]) for z, c in zip(logits, clicks, strict=True)
    ]
    return [-(c[c >= 0] * z).sum() for z, c in zip(shown, clicks, strict=True)]


def test_a_session_costs_the_log_shares_of_what_was_clicked():
    model = Listwise(Additive(relevance(0), bias(0)))
    logits = model(BATCH)
    losses = np.asarray(model.session_losses(BATCH, CLICKS, logits))
    np.testing.assert_allclose(losses, by_hand(CLICKS, np.asarray(logits)), rtol=1e-5)
    assert losses[2] == 0  # nothing was clicked


def test_what_all_items_of_a_list_share_costs_nothing():
    model = Listwise(Naive(keras.layers.Identity()))
    batch = {"features": RNG.normal(size=(4, POSITIONS, 1))}
    more = {"features": batch["features"] + np.array([[[0]], [[5]], [[-9]], [[1]]])}
    losses = (model.session_losses(b, CLICKS, model(b)) for b in (batch, more))
    np.testing.assert_allclose(*map(np.asarray, losses), rtol=1e-4, atol=1e-6)


def test_a_mixture_of_listwise_models_by_hand():
    parts = [Listwise(Additive(relevance(s), bias(s))) for s in (0, 1)]
    mixture = Mixture(parts, serving="relevance")
    assert not mixture.predicts_clicks
    mixture.prior_logits.assign([0.3, -0.4])
    share = special.softmax([0.3, -0.4])
    each = np.transpose([by_hand(CLICKS, np.asarray(part(BATCH))) for part in parts])
    joint = share * np.exp(-each)
    losses = mixture.session_losses(BATCH, CLICKS, mixture(BATCH))
    np.testing.assert_allclose(losses, -np.log(joint.sum(axis=1)), rtol=1e-4, atol=1e-6)
    posterior = mixture.responsibilities(BATCH, CLICKS)
    wanted = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(posterior, wanted, rtol=1e-4)


def test_a_mixture_that_predicts_no_click_serves_relevance():
    parts = [Listwise(Naive(relevance(0))), Naive(relevance(1))]
    with pytest.raises(ValueError, match="serving must be 'relevance'"):
        Mixture(parts)
