"""Trees with the softmax loss: the objective, and what it finds."""

import numpy as np
import pytest
from scipy.optimize import minimize

from debias.data import ClickLog
from debias.models.tree_lists import (
    Lists,
    boost_lists,
    list_likelihood,
    list_probabilities,
    list_slopes,
    lists_of,
    newton_biases,
)
from debias.models.trees import Trees, TreesConfig

pytest.importorskip("lightgbm")
pytest.importorskip("xgboost")
LISTS = Lists(
    np.array([[0, 1, 2], [2, 0, 0], [1, 2, 0]]),
    np.array([[0, 1, 2], [0, 1, -1], [3, 4, 5]]),  # the third session on a device
    np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
)
LOGIT = np.array([0.3, -1.0, -0.4])
BIAS = np.array([0.0, -0.5, -1.0, 0.0, -0.2, -0.7])
TRUE = np.array([0.0, -0.7, -1.5])


def world(seed=0, sessions=4000, rows=400):
    """Lists of three items whose logits step with their first feature."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    logit = np.where(x[:, 0] > 0, 1.0, -1.0) + 0.5 * (x[:, 1] > 0.5)
    row = rng.integers(rows, size=(sessions, 3))
    total = np.exp(logit[row] + TRUE)
    chosen = (
        rng.random((sessions, 1)) > np.cumsum(total, 1) / total.sum(1, keepdims=True)
    ).sum(axis=1)
    click = np.eye(3)[chosen]
    place = np.broadcast_to(np.arange(3), row.shape)
    return x, logit, Lists(row, place, click)


def test_probabilities_are_arithmetic():
    p = list_probabilities(LOGIT, BIAS, LISTS)
    first = np.exp([0.3, -1.5, -1.4])
    np.testing.assert_allclose(p[0], first / first.sum())
    second = np.exp([-0.4, -0.2])
    np.testing.assert_allclose(p[1], [*(second / second.sum()), 0])
    likelihood = np.log(p[0, 0]) + np.log(p[0, 2]) + np.log(p[1, 1]) + np.log(p[2, 2])
    assert list_likelihood(LOGIT, BIAS, LISTS) == pytest.approx(likelihood)


def test_slopes_are_those_of_the_likelihood():
    gradient, curvature = list_slopes(LOGIT, BIAS, LISTS)
    for k in range(3):
        step = 1e-5 * np.eye(3)[k]
        up, down = (list_likelihood(LOGIT + s, BIAS, LISTS) for s in (step, -step))
        assert gradient[k] == pytest.approx(-(up - down) / 2e-5, rel=1e-6)
        up, down = (list_slopes(LOGIT + s, BIAS, LISTS)[0][k] for s in (step, -step))
        if k == 1:  # no list shows this row twice, or beside itself
            assert curvature[k] == pytest.approx((up - down) / 2e-5, rel=1e-4)


def test_newton_steps_end_at_the_best_biases():
    """Against an optimiser that knows neither the gradient nor the devices."""
    _, logit, lists = world(sessions=600)
    found = np.zeros(3)
    for _ in range(20):
        found = newton_biases(logit, found, lists, 3)

    def loss(free):
        return -list_likelihood(logit, np.array([0.0, *free]), lists)

    wanted = minimize(loss, np.zeros(2), method="Nelder-Mead", tol=1e-10).x
    np.testing.assert_allclose(found, [0, *wanted], atol=1e-4)


def test_each_device_has_its_own_biases_and_ranks_without_items_keep_theirs():
    _, logit, lists = world(sessions=600)
    both = lists._replace(place=lists.place + 4 * (np.arange(600) % 2)[:, None])
    found = newton_biases(logit, np.zeros(8), both, 4)
    for number in range(2):
        own = Lists(*(each[number::2] for each in lists))
        alone = newton_biases(logit, np.zeros(3), own, 3)
        np.testing.assert_allclose(found[4 * number :][:3], alone, atol=1e-3)
    assert (found[[0, 3, 4, 7]] == 0).all()


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_both_libraries_find_the_order_and_the_biases(library):
    x, _, lists = world()
    config = TreesConfig(
        library=library, rounds=60, rate=0.2, leaves=4, items=5, patience=10
    )
    judged = world(1)
    features = np.concatenate([x, judged[0]])
    held = judged[2]._replace(row=judged[2].row + len(x))
    booster, bias, history = boost_lists(features, lists, held, np.zeros(3), 3, config)
    np.testing.assert_allclose(bias, TRUE, atol=0.15)
    scores = Trees(library, booster)(judged[0]).astype(float)
    assert np.corrcoef(scores, judged[1])[0, 1] > 0.97
    every = Trees(library, booster)(features).astype(float)
    value = list_likelihood(every, bias, held) / len(held.row)
    assert value == pytest.approx(max(history), abs=1e-6)  # cut at its best round


def test_only_sessions_with_clicks_take_part():
    item = np.array([[5, 7, 9], [9, 5, -1], [7, 9, 5]])
    click = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    lists = lists_of(ClickLog([0, 0, 0], item, click), np.array([5, 7, 9]), 3)
    assert lists.row.tolist() == [[0, 1, 2], [2, 0, 0]]
    assert lists.place.tolist() == [[0, 1, 2], [0, 1, -1]]
    none = Lists(*(each[:0] for each in lists))
    config = TreesConfig(rounds=1)
    with pytest.raises(ValueError, match="no held-out session has a click"):
        boost_lists(np.ones((3, 1)), lists, none, np.zeros(3), 3, config)
