"""Tests of debias.metrics.clicks."""

from math import exp, log, log2

import numpy as np
import pytest

from debias.metrics import (
    click_log_likelihood,
    click_mrr,
    click_share,
    item_log_likelihood,
    perplexity,
    perplexity_per_rank,
    session_log_likelihood,
)

CLICKS = [[1, 0, -1], [0, 1, 1]]
LOGITS = [[0.5, -1.0, 9.0], [2.0, 0.0, -3.0]]


def sigmoid(z):
    return 1 / (1 + exp(-z))


def test_click_likelihoods_by_hand():
    first = [log(sigmoid(0.5)), log(1 - sigmoid(-1.0)), 0.0]
    second = [log(1 - sigmoid(2.0)), log(sigmoid(0.0)), log(sigmoid(-3.0))]
    np.testing.assert_allclose(item_log_likelihood(CLICKS, LOGITS), [first, second])
    sums = [sum(first), sum(second)]
    np.testing.assert_allclose(session_log_likelihood(CLICKS, LOGITS), sums)
    assert click_log_likelihood(CLICKS, LOGITS) == pytest.approx(sum(sums) / 5)
    expected = [exp(-(a + b) / 2) for a, b in zip(first[:2], second[:2], strict=True)]
    expected.append(2 ** -log2(sigmoid(-3.0)))
    np.testing.assert_allclose(perplexity_per_rank(CLICKS, LOGITS), expected)
    assert perplexity(CLICKS, LOGITS) == pytest.approx(np.mean(expected))


def test_probabilities_and_masks_say_the_same_as_logits_and_padding():
    p = 1 / (1 + np.exp(-np.array(LOGITS)))
    mask = np.array(CLICKS) >= 0
    clicks = np.array(CLICKS) == 1
    for metric in (item_log_likelihood, click_log_likelihood, perplexity_per_rank):
        np.testing.assert_allclose(
            metric(clicks, p, mask=mask, from_logits=False), metric(CLICKS, LOGITS)
        )


def test_logits_are_exact_in_both_tails():
    value = item_log_likelihood([[1, 0, 1, 0]], [[-800.0, 800.0, 800.0, -800.0]])
    np.testing.assert_array_equal(value, [[-800, -800, 0, 0]])
    assert click_log_likelihood([[1]], [[0.0]], from_logits=False) == -np.inf


def test_long_logs_in_float32_keep_their_sum():
    logits = np.full((200_000, 10), -2.0, dtype=np.float32)
    clicks = np.zeros((200_000, 10), dtype=bool)
    assert click_log_likelihood(clicks, logits) == pytest.approx(
        log(1 - sigmoid(-2.0)), rel=1e-6
    )


def test_a_rank_without_items_is_left_out_of_perplexity():
    clicks = [[1, -1], [0, -1]]
    value = perplexity_per_rank(clicks, np.zeros((2, 2)))
    assert value[0] == pytest.approx(2) and np.isnan(value[1])
    assert perplexity(clicks, np.zeros((2, 2))) == pytest.approx(2)
    assert np.isnan(perplexity([[-1]], [[0.0]]))
    assert np.isnan(click_log_likelihood([[-1]], [[0.0]]))


def test_clicks_after_re_ranking_by_hand():
    clicks = [[1, 0, 1], [0, 0, 0], [0, 0, 1]]
    scores = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [2.0, 3.0, 1.0]]
    assert click_mrr(clicks, scores) == pytest.approx((1 + 1 / 3) / 2)
    np.testing.assert_allclose(click_share(clicks, scores, [1, 3]), [1 / 3, 1])
    assert click_share(clicks, np.zeros((3, 3)), 1) == pytest.approx(1 / 3)  # chance
    mask = [[True, True, False]] * 3
    assert click_share(clicks, scores, 1, mask) == 0.0
    assert np.isnan(click_share([[0]], [[0.0]]))
    assert np.isnan(click_share([[0]], [[0.0]], [1, 2])).tolist() == [True, True]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([[1, 0]], [[1.0]]), "same shape"),
        (([[2, 0]], [[1.0, 1.0]]), "0 or 1"),
        (([[-2, 0]], [[1.0, 1.0]]), "0 or 1"),
        (([[np.nan, 0]], [[1.0, 1.0]]), "0 or 1"),
        (([[1, 0]], [[1.0, np.nan]]), "predictions of session 0"),
        (([[1], [0]], [[0.5], [1.5]], None, False), "predictions of session 1"),
        (([[1, 0]], [[1.0, 1.0]], [[True]]), "mask must have"),
    ],
)
def test_click_metrics_reject(arguments, message):
    with pytest.raises(ValueError, match=message):
        item_log_likelihood(*arguments)
