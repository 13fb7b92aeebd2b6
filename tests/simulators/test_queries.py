"""Tests of simulators.queries."""

import numpy as np
import pytest
from scipy.stats import kurtosis
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from simulators.policies import symlog
from simulators.queries import GRADES, generate, generate_graded


def ndcg10(data, scores):
    """Mean over queries with a relevant item, by the textbook."""
    discount = 1 / np.log2(np.arange(2, 12))
    found = []
    for start, stop in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        gain = 2.0 ** data.labels[start:stop] - 1
        best = np.sort(gain)[::-1][:10]
        if best[0] > 0:
            got = gain[np.argsort(-scores[start:stop])[:10]]
            found.append(got @ discount[: got.size] / (best @ discount[: best.size]))
    return np.mean(found)


@pytest.fixture(scope="module")
def graded():
    return generate_graded(queries=1000, seed=11)


def test_shaped_like_mslr(graded):
    data = graded.data
    assert data.feature_count == 136 and data.queries == 1000
    assert data.sizes.min() >= 10 and data.sizes.max() <= 200
    assert 90 < np.median(data.sizes) < 110
    shares = np.bincount(data.labels, minlength=5) / data.items
    np.testing.assert_allclose(shares, GRADES, atol=0.01)


def test_features_are_correlated_and_heavy_tailed(graded):
    features = graded.data.features[:20_000].astype(float)
    correlation = np.corrcoef(symlog(features), rowvar=False)
    np.fill_diagonal(correlation, 0)
    assert (np.abs(correlation).max(axis=0) > 0.3).mean() > 0.9
    assert (kurtosis(features, axis=0) > 3).mean() > 0.5
    assert (features[:, :40] == np.floor(features[:, :40])).all()  # counts


def test_no_seed_is_harder_than_another():
    reachable = []
    for seed in range(4):
        data, score = generate_graded(queries=800, seed=seed)
        reachable.append(ndcg10(data, score))
    assert np.ptp(reachable) < 0.02
    assert 0.75 < np.mean(reachable) < 0.85  # room above what anything learns


def test_relevance_is_nonlinear_and_can_be_learnt(graded):
    data, score = graded
    train = data.select(np.arange(500))
    test = data.select(np.arange(500, 1000))
    scale = symlog(train.features).std(axis=0)
    x, z = symlog(train.features) / scale, symlog(test.features) / scale
    linear = Ridge(10.0).fit(x, train.labels)
    perceptron = MLPRegressor(
        hidden_layer_sizes=(64, 32),
        batch_size=512,
        learning_rate_init=0.002,
        max_iter=5,
        n_iter_no_change=100,
        random_state=0,
    )
    one_thread = threadpool_limits(1)  # more cost more than they save, by far
    with one_thread, pytest.warns(UserWarning, match="Maximum iterations"):
        perceptron.fit(x - x.mean(axis=0), train.labels)
    straight = ndcg10(test, linear.predict(z))
    bent = ndcg10(test, perceptron.predict(z - x.mean(axis=0)))
    best = ndcg10(test, score[train.items :])
    assert straight + 0.05 < bent < best - 0.05


def test_a_seed_names_the_data():
    one, again, other = generate(5, 1), generate(5, 1), generate(5, 2)
    assert (one.features == again.features).all() and (one.labels == again.labels).all()
    assert one.items != other.items or (one.features != other.features).any()


@pytest.mark.parametrize(
    "wrong", [{"queries": 0}, {"min_items": 0}, {"median_items": 300}, {"seed": -1}]
)
def test_impossible_data(wrong):
    with pytest.raises(ValueError, match=r"queries|items|seed"):
        generate(**{"queries": 2, **wrong})


def test_other_worlds_have_other_relevance_and_the_same_grades():
    """As hard as the usual one: what can be reached at best is about the same."""
    reachable = []
    for world in (1, 2, 3):
        data, score = generate_graded(queries=300, seed=5, world=world)
        shares = np.bincount(data.labels, minlength=5) / data.items
        np.testing.assert_allclose(shares, GRADES, atol=0.02)
        reachable.append(ndcg10(data, score))
    assert 0.72 < min(reachable) < max(reachable) < 0.88
    usual, one, two = (
        generate_graded(queries=20, seed=5, world=world) for world in (None, 1, 2)
    )
    assert usual.data.items == one.data.items == two.data.items
    again = generate_graded(queries=20, seed=5, world=1)
    np.testing.assert_array_equal(again.data.features, one.data.features)
    for other in (one, two):
        assert abs(np.corrcoef(usual.score, other.score)[0, 1]) < 0.6
        assert (other.data.features != usual.data.features).mean() > 0.9
    assert abs(np.corrcoef(one.score, two.score)[0, 1]) < 0.6
