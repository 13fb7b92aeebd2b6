"""Tests of debias.losses.corrected: expectations over all clicks, and arithmetic."""

from itertools import product
from math import exp, log

import keras
import numpy as np
import pytest

from debias.losses.corrected import (
    click_em,
    corrected_clicks,
    dual_learning,
    pairs_debiased,
    soft_cross_entropy,
    soft_softmax,
)
from tests.gradient import gradient

ATTRACTION = np.array([0.9, 0.3, 0.6])
ALPHA = np.array([0.8, 0.5, 0.2])
BETA = np.array([0.15, 0.1, 0.05])


def numbers(x):
    return keras.ops.convert_to_numpy(x)


def expectation(of, p):
    """Of a function of a click vector, over all of them, items independent."""
    every = np.array(list(product((0.0, 1.0), repeat=len(p))))
    chance = np.where(every > 0, p, 1 - p).prod(axis=1)
    return sum(w * of(clicks[None]) for w, clicks in zip(chance, every, strict=True))


@pytest.mark.parametrize(
    ("alpha", "beta", "guess"),
    [
        (ALPHA, 0.0, 0.0),
        (ALPHA, BETA, 0.0),
        (ALPHA, BETA, np.array([0.1, 0.9, 0.5])),  # a guess that is far off
    ],
)
def test_corrections_are_unbiased(alpha, beta, guess):
    p = alpha * ATTRACTION + beta
    mean = expectation(
        lambda clicks: numbers(corrected_clicks(clicks, alpha, beta, guess)), p
    )
    np.testing.assert_allclose(mean[0], ATTRACTION, rtol=1e-5)


def test_doubly_robust_is_unbiased_by_its_guess_alone_too():
    """Clipping and wrong factors do no harm where the guess explains the clicks."""
    wrong = np.array([0.5, 0.5, 0.5])
    p = wrong * ATTRACTION  # as the wrong factors have it
    mean = expectation(
        lambda clicks: numbers(
            corrected_clicks(clicks, wrong, 0.0, ATTRACTION, clip=10 / 9)
        ),
        p,
    )
    np.testing.assert_allclose(mean[0], ATTRACTION, rtol=1e-5)


def test_weights_are_clipped():
    found = numbers(corrected_clicks([[1.0, 1.0]], [[0.01, 0.5]], clip=4.0))
    np.testing.assert_allclose(found, [[4.0, 2.0]])


@pytest.mark.parametrize("loss", [soft_cross_entropy, soft_softmax])
def test_the_expected_loss_is_that_of_full_information(loss):
    scores, mask = np.array([[0.4, -1.0, 2.0]]), np.ones((1, 3), bool)
    p = ALPHA * ATTRACTION + BETA
    mean = expectation(
        lambda clicks: numbers(
            loss(corrected_clicks(clicks, ALPHA, BETA), scores, mask)
        ),
        p,
    )
    sigma = 1 / (1 + np.exp(-scores[0]))
    full = {
        soft_cross_entropy: -(
            ATTRACTION * np.log(sigma) + (1 - ATTRACTION) * np.log(1 - sigma)
        ).sum(),
        soft_softmax: -(
            ATTRACTION * np.log(np.exp(scores[0]) / np.exp(scores[0]).sum())
        ).sum(),
    }
    np.testing.assert_allclose(mean, [full[loss]], rtol=1e-5)


def test_em_is_the_expected_loss_of_the_latent_variables_by_hand():
    """Skipped items are examined, or relevant, with their posterior chance."""
    clicks = np.array([[1, 0, -1]])
    e, r = np.array([[[0.3, -1.0, 50.0]], [[-0.7, 2.0, 50.0]]], "float32")
    p, q = 1 / (1 + np.exp(-e[0])), 1 / (1 + np.exp(-r[0]))
    examined = [1, p[1] * (1 - q[1]) / (1 - p[1] * q[1])]
    relevant = [1, q[1] * (1 - p[1]) / (1 - p[1] * q[1])]
    value = sum(
        -t * log(s) - (1 - t) * log(1 - s)
        for t, s in zip(examined + relevant, [*p[:2], *q[:2]], strict=True)
    )
    np.testing.assert_allclose(numbers(click_em(clicks, e, r)), [value], rtol=1e-5)
    # The gradient is that of the likelihood: d/de of -log(p q), and of -log(1 - p q).
    slope = gradient(lambda e: click_em(clicks, e, r), e)
    skipped = p[1] * q[1] * (1 - p[1]) / (1 - p[1] * q[1])
    np.testing.assert_allclose(slope, [[p[0] - 1, skipped, 0]], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("click", [-0.5, np.nan])
def test_corrected_clicks_have_no_other_padding_than_minus_one(click):
    found = numbers(corrected_clicks([[1, click, -1]], ALPHA))
    assert np.isnan(found).tolist() == [[False, True, False]]


def test_dual_learning_by_hand_and_padding_adds_nothing():
    f, g = [1.0, 0.0], [0.5, -0.5]
    of_items = exp(g[0] - g[1]) * (log(exp(1) + 1) - 0)  # w_2 SCE of the second item
    of_places = exp(f[0] - f[1]) * (log(exp(0.5) + exp(-0.5)) + 0.5)
    first = np.array([[True, False, False]])
    for filler in (0.0, 50.0):
        loss = dual_learning([[0, 1, -1]], [[*f, filler]], [[*g, filler]], first)
        np.testing.assert_allclose(numbers(loss), [of_items + of_places], rtol=1e-5)
    clipped = dual_learning([[0, 1, -1]], [[*f, 0.0]], [[*g, 0.0]], first, clip=1.0)
    expected = of_items / exp(1) + of_places / exp(1)
    np.testing.assert_allclose(numbers(clipped), [expected], rtol=1e-5)


def test_dual_learning_holds_its_weights_fixed():
    """d/df_2 of w_2 (logsumexp f - f_2), with v's dependence on f left out."""
    first = np.array([[True, False]])
    moved = gradient(
        lambda f: dual_learning([[0.0, 1.0]], f, [[0.5, -0.5]], first),
        np.array([[1.0, 0.0]], "float32"),
    )
    w = exp(1.0)
    softmax = np.exp([1.0, 0.0]) / np.exp([1.0, 0.0]).sum()
    np.testing.assert_allclose(moved, [w * (softmax - [0, 1])], rtol=1e-5)


def test_pairs_by_hand():
    clicks, scores = [[1, 0, 0, -1]], [[1.0, 0.0, 2.0, 9.0]]
    plus, minus = [[2.0, 1.0, 1.0, 1.0]], [[1.0, 4.0, 0.5, 1.0]]
    l12, l13 = log(1 + exp(-1)), log(1 + exp(1))
    loss, of_clicked, of_unclicked = pairs_debiased(clicks, scores, plus, minus)
    np.testing.assert_allclose(numbers(loss), [(l12 / 4 + l13 / 0.5) / 2], rtol=1e-5)
    np.testing.assert_allclose(
        numbers(of_clicked), [[l12 / 4 + l13 / 0.5, 0, 0, 0]], rtol=1e-5
    )
    np.testing.assert_allclose(
        numbers(of_unclicked), [[0, l12 / 2, l13 / 2, 0]], rtol=1e-5
    )
