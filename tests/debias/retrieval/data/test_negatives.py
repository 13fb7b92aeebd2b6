"""Tests of debias.retrieval.data.negatives."""

import numpy as np
import pytest

from debias.retrieval.data.negatives import (
    Listed,
    Mixture,
    Queue,
    Weighted,
    by_popularity,
    from_ranking,
    uniform,
)

COUNTS = np.array([16.0, 1.0, 0.0, 81.0])
DRAWS = 200_000


def rng(seed=0):
    return np.random.default_rng(seed)


SAMPLERS = {
    "uniform": (uniform(4), np.full(4, 0.25)),
    # 16^.75 = 8, 1, 0, 81^.75 = 27.
    "popularity": (by_popularity(COUNTS), np.array([8, 1, 0, 27]) / 36),
    "mixture": (
        Mixture([(0.5, uniform(4)), (0.5, by_popularity(COUNTS))]),
        0.125 + np.array([8, 1, 0, 27]) / 72,
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_follow_log_q(name):
    sampler, expected = SAMPLERS[name]
    drawn = sampler(np.zeros(DRAWS // 4, int), 4, rng())
    assert drawn.shape == (DRAWS // 4, 4) and drawn.dtype == np.int32
    share = np.bincount(drawn.ravel(), minlength=4) / DRAWS
    error = 4.5 * np.sqrt(expected * (1 - expected) / DRAWS) + 1e-12
    assert (np.abs(share - expected) <= error).all()
    np.testing.assert_allclose(np.exp(sampler.log_q), expected, atol=1e-6)


def test_listed_draws_from_each_users_own_list():
    sampler = Listed(
        np.array([1, 2, 7]), np.array([0, 2, 2, 3]), Weighted(np.eye(4)[3])
    )
    drawn = sampler(np.array([2, 0, 1]), 200, rng())
    assert set(drawn[0]) == {7} and set(drawn[1]) == {1, 2} and set(drawn[2]) == {3}
    assert sampler.log_q is None


def test_hard_negatives_are_ranks_101_to_500():
    best = np.tile(np.arange(1, 601), (2, 1))
    best[1, 300:] = -1  # the second user's list is short
    sampler = from_ranking(best, uniform(1))
    first, second = sampler(np.array([0, 1]), 5000, rng())
    assert (first.min(), first.max()) == (101, 500)
    assert (second.min(), second.max()) == (101, 300)


def test_mixture_meets_its_ratio():
    sampler = Mixture(
        [(100 / 101, Weighted(np.eye(2)[0])), (1 / 101, Weighted(np.eye(2)[1]))]
    )
    hard = sampler(np.zeros(1000, int), 101, rng()).sum()
    assert abs(hard - 1000) < 5 * np.sqrt(1000)


def test_mixture_with_a_sampler_by_user_has_no_log_q():
    listed = Listed(np.array([1]), np.array([0, 1]), uniform(2))
    assert Mixture([(0.5, listed), (0.5, uniform(2))]).log_q is None


def test_queue_forgets_the_oldest_and_knows_its_chances():
    queue = Queue(4, uniform(9), items=9)
    np.testing.assert_allclose(np.exp(queue.log_q), 1 / 9, rtol=1e-6)
    queue.push(np.array([1, 2, 3]))
    queue.push(np.array([3, 4]))
    assert queue.held.tolist() == [2, 3, 3, 4]
    assert set(queue(np.zeros(50, int), 3, rng()).ravel()) == {2, 3, 4}
    np.testing.assert_allclose(np.exp(queue.log_q)[[2, 3, 4]], [0.25, 0.5, 0.25])


def test_a_seed_names_the_draws():
    for sampler, _ in SAMPLERS.values():
        users = np.arange(50)
        assert (sampler(users, 3, rng(1)) == sampler(users, 3, rng(1))).all()
        assert (sampler(users, 3, rng(1)) != sampler(users, 3, rng(2))).any()


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda: Weighted(np.array([0.0])), "weight"),
        (lambda: Weighted(np.array([1.0, -1.0])), "weight"),
        (lambda: Mixture([(0.5, uniform(2))]), "sum to 1"),
        (lambda: Listed(np.array([1]), np.array([0, 2]), uniform(2)), "offsets"),
        (lambda: from_ranking(np.zeros((1, 9), int), uniform(2), 5, 4), "ranks"),
        (lambda: Queue(0, uniform(2), 2), "size"),
    ],
)
def test_rejects(function, message):
    with pytest.raises(ValueError, match=message):
        function()
