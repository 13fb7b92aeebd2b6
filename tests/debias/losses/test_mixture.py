"""Tests of debias.losses.mixture beyond the properties of every loss."""

from math import log

import numpy as np
import pytest
from keras import ops

from debias import losses
from tests.debias.losses.registry import batch, run, sigmoid
from tests.gradient import gradient


def run_conditional(y, z, log_prior=None):
    return ops.convert_to_numpy(losses.conditional_logits(y, z, log_prior))


def test_lists_without_a_click_count_by_hand():
    found = run("mixture_likelihood", [[0, 0]], [[[0.6, 0.9], [0.8, 0.2]]])
    first = (1 - sigmoid(0.6)) * (1 - sigmoid(0.8))
    second = (1 - sigmoid(0.9)) * (1 - sigmoid(0.2))
    np.testing.assert_allclose(found, [-log((first + second) / 2)], rtol=1e-6)


def test_one_component_is_the_plain_click_model():
    y, z, weights = batch("click_cross_entropy")
    found = run("mixture_likelihood", y, z[..., None], weights=weights)
    expected = run("click_cross_entropy", y, z, weights=weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_likelihood_of_all_sessions_sums_to_one():
    sessions = np.array(list(np.ndindex(2, 2, 2, 2)), "float32")
    z = np.random.default_rng(1).normal(0, 2, (1, 4, 3)).repeat(16, axis=0)
    value = run("mixture_likelihood", sessions, z, log_prior=[0.3, -2.0, 0.9])
    assert np.exp(-value).sum() == pytest.approx(1, rel=1e-5)


def test_a_high_temperature_tends_to_the_prior_mean_of_the_components():
    y, z, _ = batch("mixture_likelihood")
    each = [run("click_cross_entropy", y, z[..., m]) for m in range(3)]
    found = run("mixture_likelihood", y, z, temperature=1e3)
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=0.05, atol=1e-3)


def test_a_prior_of_each_session_and_its_gradient():
    y, z, _ = batch("mixture_likelihood")
    prior = np.random.default_rng(3).normal(size=(len(y), 3)).astype("float32")
    by_list = [
        run("mixture_likelihood", y[q : q + 1], z[q : q + 1], log_prior=prior[q])[0]
        for q in range(len(y))
    ]
    found = run("mixture_likelihood", y, z, log_prior=prior)
    np.testing.assert_allclose(found, by_list, rtol=1e-6)
    tangent = gradient(lambda p: losses.mixture_of_logits(y, z, log_prior=p), prior)
    shares = np.exp(prior) / np.exp(prior).sum(axis=1, keepdims=True)
    each = losses.component_losses(y, z)
    posterior = losses.responsibilities(each, np.log(shares))
    np.testing.assert_allclose(tangent, shares - posterior, atol=1e-5)
    assert (tangent[0] == 0).all()  # all padding


def test_responsibilities_by_bayes_rule():
    y, z, _ = batch("mixture_likelihood")
    each = np.stack([run("click_cross_entropy", y, z[..., m]) for m in range(3)], 1)
    np.testing.assert_allclose(losses.component_losses(y, z), each, rtol=1e-6)
    shares = np.array([0.2, 0.3, 0.5], "float32")
    joint = shares * np.exp(-each)
    found = losses.responsibilities(each, np.log(shares))
    np.testing.assert_allclose(found, joint / joint.sum(1, keepdims=True), 1e-5)


def test_the_first_conditional_logit_is_the_marginal_and_the_second_by_hand():
    """After a click the second type, which clicks more, has a larger share."""
    z = np.array([[[-1.0, 2.0], [0.5, -0.5]]], "float32")
    p, q = sigmoid(-1.0), sigmoid(2.0)
    found = run_conditional([[1, 0]], z, np.log([0.7, 0.3]))
    first, share = 0.7 * p + 0.3 * q, 0.3 * q / (0.7 * p + 0.3 * q)
    second = (1 - share) * sigmoid(0.5) + share * sigmoid(-0.5)
    np.testing.assert_allclose(sigmoid(found), [[first, second]], rtol=1e-5)


def test_conditional_likelihoods_sum_to_the_marginal():
    y, z, _ = batch("mixture_likelihood", lists=50)
    prior = [0.4, -1.0, 0.1]
    conditional = run_conditional(y, z, prior)
    np.testing.assert_allclose(
        run("click_cross_entropy", y, conditional),
        run("mixture_likelihood", y, z, log_prior=prior),
        rtol=1e-5,
        atol=1e-5,
    )


def test_conditional_logits_do_not_see_their_own_click():
    y, z, _ = batch("mixture_likelihood")
    for k in range(y.shape[1]):
        other = np.where(y >= 0, 1 - y, y)
        other[:, :k] = y[:, :k]
        np.testing.assert_allclose(
            run_conditional(other, z)[:, : k + 1],
            run_conditional(y, z)[:, : k + 1],
            rtol=1e-6,
        )


def test_mixture_logits_by_hand_and_in_the_tails():
    p = 0.25 * sigmoid(1.0) + 0.75 * sigmoid(-2.0)
    found = ops.convert_to_numpy(
        losses.mixture_logits(np.log([0.25, 0.75]), ops.array([1.0, -2.0]))
    )
    assert float(found) == pytest.approx(log(p / (1 - p)), rel=1e-5)
    far = losses.mixture_logits(
        np.log([0.5, 0.5]), ops.array([[90.0] * 2, [-90.0] * 2])
    )
    np.testing.assert_allclose(ops.convert_to_numpy(far), [90, -90], rtol=1e-6)
