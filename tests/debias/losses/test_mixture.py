"""Tests of debias.losses.mixture beyond the properties of every loss."""

from math import log

import numpy as np
import pytest
from keras import ops

from debias import losses
from tests.debias.losses.registry import batch, run, sigmoid, slope
from tests.gradient import gradient

FIXTURE = np.array([[[0.6, 0.9], [0.8, 0.2]]], "float32")


def test_mixture_em_gives_the_value_of_tf_ranking():
    value = run("mixture_em", [[1, 0]], FIXTURE)
    np.testing.assert_allclose(value, [1.3198698], rtol=5e-7)


def test_mixture_em_drops_lists_without_a_click_and_the_likelihood_keeps_them():
    lists = [[0, 0], [1, 0]]
    z = np.tile(FIXTURE, (2, 1, 1))
    assert run("mixture_em", lists, z)[0] == 0
    assert (slope("mixture_em", lists, z)[0] == 0).all()
    assert run("mixture_em", lists, z, drop_clickless=False)[0] > 0
    assert run("mixture_likelihood", lists, z)[0] > 0


def test_em_gradient_is_the_gradient_of_the_likelihood():
    y, z, _ = batch("mixture_em", lists=20)
    arguments = {"log_prior": [0.1, 0.7, 0.2], "temperature": 1.7}
    np.testing.assert_allclose(
        slope("mixture_em", y, z, drop_clickless=False, **arguments),
        slope("mixture_likelihood", y, z, **arguments),
        rtol=1e-5,
        atol=1e-6,
    )


def test_one_component_is_the_plain_click_model():
    y, z, weights = batch("click_cross_entropy")
    for name in ("mixture_likelihood", "mixture_em"):
        found = run(name, y, z[..., None], weights=weights)
        expected = run("click_cross_entropy", y, z, weights=weights)
        expected = expected * ((y > 0).any(axis=1) | (name == "mixture_likelihood"))
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
    tangent = gradient(lambda p: losses.mixture_likelihood(y, z, log_prior=p), prior)
    posterior = run("responsibilities", y, z, log_prior=prior)
    shares = np.exp(prior) / np.exp(prior).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(tangent, shares - posterior, atol=1e-5)
    assert (tangent[0] == 0).all()  # all padding


def test_responsibilities_by_bayes_rule():
    y, z, _ = batch("mixture_likelihood")
    each = np.stack([run("click_cross_entropy", y, z[..., m]) for m in range(3)], 1)
    shares = np.array([0.2, 0.3, 0.5]) * np.exp(-each)
    found = run("responsibilities", y, z, log_prior=np.log([0.2, 0.3, 0.5]))
    np.testing.assert_allclose(found, shares / shares.sum(1, keepdims=True), 1e-5)


def test_prefix_responsibilities_have_seen_only_what_is_above():
    y, z, _ = batch("mixture_likelihood")
    prior = np.log([0.2, 0.3, 0.5])
    found = run("prefix_responsibilities", y, z, log_prior=prior)
    np.testing.assert_allclose(found[:, 0], np.tile([0.2, 0.3, 0.5], (8, 1)), 1e-6)
    for k in range(1, y.shape[1]):
        above = run("responsibilities", y[:, :k], z[:, :k], log_prior=prior)
        np.testing.assert_allclose(found[:, k], above, rtol=1e-4, atol=1e-6)


def test_conditional_likelihoods_sum_to_the_marginal():
    y, z, _ = batch("mixture_likelihood", lists=50)
    prior = [0.4, -1.0, 0.1]
    conditional = run("conditional_logits", y, z, log_prior=prior)
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
            run("conditional_logits", other, z)[:, : k + 1],
            run("conditional_logits", y, z)[:, : k + 1],
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
