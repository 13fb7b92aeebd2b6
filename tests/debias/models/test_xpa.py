"""Tests of debias.models.xpa."""

import numpy as np
import pytest

from debias.models import XPA
from tests.debias.models.registry import bias, relevance
from tests.debias.models.test_click_models import FEATURES, batch_of, numbers


@pytest.fixture
def model():
    model = XPA(relevance(0, 4), bias(0, 3), seed=0)
    model(batch_of(FEATURES))
    return model


def test_logits_are_the_four_terms(model):
    batch = batch_of(FEATURES)
    h, z = numbers(model.relevance(FEATURES)), numbers(model.bias(batch))
    own = h @ numbers(model.own_relevance.kernel) + numbers(model.own_relevance.bias)
    own = own + z @ numbers(model.own_place.kernel)
    heard = numbers(model.attention(batch)) @ (
        h @ numbers(model.heard["relevance"].value.kernel)
    )
    places = numbers(model.heard["places"].weights_between(z, batch["mask"]))
    heard = heard + places @ (z @ numbers(model.heard["places"].value.kernel))
    np.testing.assert_allclose(
        numbers(model(batch)), (own + heard)[..., 0], rtol=1e-3, atol=1e-5
    )


def test_neighbours_move_clicks_and_not_scores(model):
    changed = FEATURES.copy()
    changed[:, 0] += 3.0
    before, after = (numbers(model(batch_of(x))) for x in (FEATURES, changed))
    assert (np.abs(before - after)[:, 1:] > 1e-6).all()
    scores = [numbers(model.score(x))[:, 1:] for x in (FEATURES, changed)]
    np.testing.assert_allclose(*scores, rtol=1e-5)


def test_attention_is_a_property_of_the_layout(model):
    other = batch_of(np.flip(FEATURES, 0).copy())
    np.testing.assert_allclose(
        numbers(model.attention(batch_of(FEATURES))), numbers(model.attention(other))
    )


def test_an_item_standing_alone_is_its_own_terms(model):
    alone = numbers(model.logits_at(FEATURES, 2))
    lists = batch_of(FEATURES.reshape(-1, 1, 7))
    lists["position"] = np.full((len(lists["features"]), 1), 2)
    np.testing.assert_allclose(alone.ravel(), numbers(model(lists)).ravel(), rtol=1e-4)
