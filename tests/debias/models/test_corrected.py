"""Tests of debias.models.corrected beyond the properties of every click model."""

import keras
import numpy as np
import pytest

from debias.models import (
    DoublyRobust,
    DualLearning,
    InverseWeighted,
    Mixture,
    Naive,
    PairDebias,
    Product,
    RegressionEM,
)
from tests.debias.models.registry import POSITIONS, bias, relevance
from tests.debias.models.test_click_models import FEATURES, batch_of, numbers

CLICKS = (np.random.default_rng(4).random(FEATURES.shape[:2]) < 0.4).astype("float32")


def trained(model, steps=3):
    keras.utils.set_random_seed(0)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    model.fit(batch_of(FEATURES), CLICKS, epochs=steps, verbose=0)
    return model


def test_regression_em_walks_the_path_of_the_product_model():
    """Its gradient is that of the likelihood, so every step is the same."""
    em = trained(RegressionEM(relevance(5), bias(5)))
    likelihood = trained(Product(relevance(5), bias(5)))
    for mine, other in zip(em.weights, likelihood.weights, strict=True):
        np.testing.assert_allclose(numbers(mine), numbers(other), rtol=1e-4, atol=1e-6)


def test_examination_of_one_changes_nothing():
    """Full examination: the plain pointwise loss, and click logits are the scores."""
    model = InverseWeighted(relevance(1), [1.0] * POSITIONS)
    batch = batch_of(FEATURES)
    z = numbers(model(batch))
    expected = (np.logaddexp(0, z) - CLICKS * z).sum(axis=1)
    losses = numbers(model.session_losses(batch, CLICKS, model(batch)))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(
        numbers(model.click_logits(batch, z)), z, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("listwise", [False, True])
@pytest.mark.parametrize("robust", [False, True])
def test_what_a_fit_is_judged_by_has_a_bound_where_its_loss_has_none(robust, listwise):
    """Scores that grow without end: labels of -2 and +5 pay for them for ever."""
    towers = [relevance(1), relevance(2)][: 1 + robust]
    kind = DoublyRobust if robust else InverseWeighted
    model = kind(*towers, [0.2] * 2, [0.4] * 2, listwise=listwise)
    batch = batch_of(FEATURES[:1, :2])
    clicks = np.array([[1.0, 0.0]])
    z = np.array([[500.0, -500.0]], "float32")
    outputs = {"relevance": z, "direct": 0 * z} if robust else z
    learned, judged = (
        numbers(model.session_losses(batch, clicks, outputs, training))[0]
        for training in (True, False)
    )
    assert learned < -900 and judged >= 0
    if not listwise and not robust:  # P(click) is .6 and .4
        np.testing.assert_allclose(judged, -2 * np.log(0.6), rtol=1e-5)


def test_click_logits_are_affine_in_attraction():
    alpha, beta = np.linspace(0.8, 0.3, POSITIONS), np.linspace(0.1, 0.0, POSITIONS)
    model = InverseWeighted(relevance(1), alpha, beta)
    batch = batch_of(FEATURES)
    p = 1 / (1 + np.exp(-numbers(model.click_logits(batch, model(batch)))))
    attraction = 1 / (1 + np.exp(-numbers(model(batch))))
    np.testing.assert_allclose(p, beta + alpha * attraction, rtol=1e-4)


def test_the_ranker_does_not_teach_the_guess():
    """Under full examination the guess is the naive model, whatever the ranker does."""
    model = trained(DoublyRobust(relevance(1), relevance(2), [1.0] * POSITIONS))
    alone = trained(Naive(relevance(2)))
    for mine, other in zip(model.direct.weights, alone.weights, strict=True):
        np.testing.assert_allclose(numbers(mine), numbers(other), rtol=1e-4, atol=1e-6)


def test_ratios_of_pairs_move_by_hand():
    """One session, click at 2, skip at 1: no ratio against place 1 of clicks, so only
    the skips' ratio of place 1, which is 1 by construction, is known."""
    model = PairDebias(relevance(1), positions=3, momentum=0.5, power=1.0)
    batch = batch_of(FEATURES[:2, :3])
    clicks = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    z = numbers(model(batch))
    soft = lambda x: np.log1p(np.exp(x))  # noqa: E731
    first = soft(z[0, 1] - z[0, 0]) + soft(z[0, 2] - z[0, 0])  # clicked at 1
    second = soft(z[1, 0] - z[1, 1]) + soft(z[1, 2] - z[1, 1])  # clicked at 2
    model.compute_loss(batch, clicks, model(batch))
    ratio = np.sqrt(second / first)
    np.testing.assert_allclose(
        numbers(model.plus)[:, 0], [1, 1, 0.5 + 0.5 * ratio, 1], rtol=1e-4
    )
    skipped = [
        soft(z[1, 0] - z[1, 1]),
        soft(z[0, 1] - z[0, 0]),
        soft(z[0, 2] - z[0, 0]) + soft(z[1, 2] - z[1, 1]),
    ]
    expected = 0.5 + 0.5 * np.sqrt(np.array(skipped) / skipped[0])
    np.testing.assert_allclose(numbers(model.minus)[1:, 0], expected, rtol=1e-4)
    before = numbers(model.plus)
    model.compute_loss(batch, clicks, model(batch), training=False)
    assert (numbers(model.plus) == before).all()  # evaluation moves nothing


def test_a_mixture_moves_the_ratios_of_its_components():
    parts = [PairDebias(relevance(s), POSITIONS) for s in (1, 2)]
    mixture, batch = Mixture(parts, serving="relevance"), batch_of(FEATURES)
    mixture.compute_loss(batch, CLICKS, mixture(batch))
    alone = PairDebias(relevance(2), POSITIONS)
    alone.compute_loss(batch, CLICKS, alone(batch))
    np.testing.assert_array_equal(numbers(parts[1].plus), numbers(alone.plus))
    assert (numbers(alone.plus) != 1).any()


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: InverseWeighted(relevance(0), []), "alpha"),
        (lambda: InverseWeighted(relevance(0), [1.0, np.nan]), "alpha"),
        (lambda: InverseWeighted(relevance(0), [1.0], beta=[0.0, 0.1]), "beta"),
        (lambda: InverseWeighted(relevance(0), [1.0], clip=0.0), "clip"),
        (lambda: DualLearning(relevance(0), bias(0), clip=0.0), "clip"),
        (lambda: PairDebias(relevance(0), 0), "positions"),
        (lambda: PairDebias(relevance(0), 3, momentum=1.0), "momentum"),
        (lambda: PairDebias(relevance(0), 3, power=-1.0), "power"),
    ],
)
def test_rejects(make, argument):
    with pytest.raises(ValueError, match=argument):
        make()


def test_a_position_beyond_the_propensities_is_an_error():
    model = InverseWeighted(relevance(0), [1.0, 0.5])
    batch = batch_of(FEATURES)
    with pytest.raises(Exception, match="position is out of range, alpha has 2"):
        model.session_losses(batch, CLICKS, model(batch))
