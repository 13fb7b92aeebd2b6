"""Tests of simulators.policies."""

from itertools import permutations

import numpy as np
import pytest

from debias.data import RankingData
from simulators.chance import generator
from simulators.policies import (
    POLICIES,
    Deterministic,
    EpsilonGreedy,
    Interleaved,
    PlackettLuce,
    RandPair,
    RandTopN,
    expert,
    weak_ranker,
    worst_first,
)
from simulators.queries import generate

# Queries of 4, 2 and 5 items; lists of 3 leave one query short and cut two.
SMALL = RankingData(
    np.arange(11.0)[:, None], [1, 3, 0, 2, 0, 4, 2, 2, 1, 0, 3], [0, 4, 6, 11]
)


def by_number(data):
    return data.features[:, 0]


RANDOM = {
    "plackett-luce": PlackettLuce(by_number, 1.0),
    "plackett-luce-cold": PlackettLuce(by_number, 0.1),
    "epsilon-greedy": EpsilonGreedy(by_number, 0.4),
    "epsilon-one": EpsilonGreedy(by_number, 1.0),
    "rand-pair-adjacent": RandPair(by_number, 0.7),
    "rand-pair-pivot": RandPair(by_number, 1.0, "pivot"),
    "rand-pair-all": RandPair(by_number, 0.9, "all"),
    "rand-top-2": RandTopN(by_number, 2),
    "rand-top-4": RandTopN(by_number, 4),
    "interleaved": Interleaved(
        (
            (0.3, Deterministic(by_number)),
            (0.3, Deterministic(expert)),
            (0.4, EpsilonGreedy(worst_first, 0.5)),
        )
    ),
    "interleaved-swaps": Interleaved(
        ((0.5, Deterministic(expert)), (0.5, RandPair(by_number)))
    ),
}
EVERY = {
    **RANDOM,
    "deterministic": Deterministic(by_number),
    "epsilon-zero": EpsilonGreedy(by_number, 0.0),
    "rand-pair-never": RandPair(by_number, 0.0),
    "rand-top-1": RandTopN(by_number, 1),
}
ANY = pytest.mark.parametrize("policy", EVERY.values(), ids=EVERY)


def every_list(query, size=3):
    """All lists that could be shown of a query, padded with -1."""
    items = range(*SMALL.offsets[query : query + 2])
    shown = min(size, len(items))
    lists = [[*p, *[-1] * (size - shown)] for p in permutations(items, shown)]
    return np.array(lists, np.int32)


@ANY
@pytest.mark.parametrize("query", range(3))
def test_propensities_are_a_distribution_over_lists_and_true(policy, query):
    shelf = policy.prepare(SMALL, 3)
    lists = every_list(query)
    sequential = shelf.propensity(np.full(len(lists), query), lists)
    assert sequential.shape == lists.shape and (sequential <= 1 + 1e-12).all()
    exact = sequential.prod(axis=1)
    assert exact.sum() == pytest.approx(1)
    assert (sequential[lists < 0] == 1).all()
    sessions = 40_000
    shown = shelf.show(np.full(sessions, query), generator(3, query))
    key = 100 ** np.arange(3)
    place = {int((row + 1) @ key): n for n, row in enumerate(lists)}
    drawn = [place[k] for k in ((shown.item + 1) @ key).tolist()]
    rates = np.bincount(drawn, minlength=len(lists)) / sessions
    error = np.sqrt(exact * (1 - exact) / sessions)
    assert (np.abs(rates - exact) <= 4 * error + 1e-9).all()
    np.testing.assert_allclose(shown.propensity, sequential[drawn], rtol=1e-6)


@ANY
def test_propensity_is_given_the_items_above(policy):
    """P(item at k | above) from the enumerated lists themselves."""
    shelf = policy.prepare(SMALL, 3)
    for query in range(3):
        lists = every_list(query)
        sequential = shelf.propensity(np.full(len(lists), query), lists)
        exact = sequential.prod(axis=1)
        for row in np.flatnonzero(exact > 0):
            for k in range(3):
                above = (lists[:, :k] == lists[row, :k]).all(axis=1)
                now = above & (lists[:, k] == lists[row, k])
                expected = exact[now].sum() / exact[above].sum()
                assert sequential[row, k] == pytest.approx(expected)


@ANY
def test_sessions_of_several_queries_at_once(policy):
    query = generator(0, 1).integers(0, 3, 5000)
    shown = policy.prepare(SMALL, 3).show(query, generator(0))
    size = np.minimum(SMALL.sizes[query], 3)
    assert ((shown.item >= 0).sum(axis=1) == size).all()
    held = shown.item >= 0
    owner = SMALL.query_of_item()[np.maximum(shown.item, 0)]
    assert (owner == query[:, None])[held].all()
    assert shown.item.dtype == np.int32 and shown.propensity.dtype == np.float32
    assert ((shown.propensity > 0) & (shown.propensity <= 1)).all()


def test_plackett_luce_by_hand():
    data = RankingData(np.zeros((3, 1)), [0, 0, 0], [0, 3])
    score = np.log([1.0, 2.0, 4.0])
    policy = PlackettLuce(lambda _: score, 1 / score.std())  # weights 1, 2, 4
    shelf = policy.prepare(data, 2)
    found = shelf.propensity(np.zeros(2, int), np.array([[2, 0], [0, 1]]))
    np.testing.assert_allclose(found, [[4 / 7, 1 / 3], [1 / 7, 2 / 6]])


def test_plackett_luce_keeps_its_digits_when_one_item_has_all_the_odds():
    data = RankingData(np.zeros((4, 1)), [0] * 4, [0, 4])
    score = np.array([100.0, 2.0, 1.0, 0.0])
    policy = PlackettLuce(lambda _: score, 1 / score.std())
    found = policy.prepare(data, 2).propensity(np.array([0]), np.array([[0, 1]]))
    e = np.exp
    np.testing.assert_allclose(found, [[1, e(2) / (e(2) + e(1) + 1)]])


def test_epsilon_greedy_by_hand():
    shelf = EpsilonGreedy(by_number, 0.4).prepare(SMALL, 3)
    found = shelf.propensity(np.array([0]), np.array([[3, 0, 2]]))
    np.testing.assert_allclose(found, [[0.6 + 0.1, 0.4 / 3, 0.6 + 0.2]])


def test_swaps_are_marked():
    shelf = RandPair(by_number, 0.5, "all").prepare(SMALL, 3)
    query = np.repeat([0, 1, 2], 400)
    shown = shelf.show(query, generator(0))
    base = Deterministic(by_number).prepare(SMALL, 3).show(query, generator(0)).item
    rows = np.arange(len(query))
    one, other = np.maximum(shown.swap.T, 1) - 1
    base[rows, one], base[rows, other] = base[rows, other], base[rows, one]
    assert (base == shown.item).all()
    marked = shown.swap.any(axis=1)
    assert 0.4 < marked.mean() < 0.6
    assert (shown.swap[query == 1].max(axis=0) == [1, 2]).all()  # only two items


def test_equal_scores_do_not_let_file_order_leak():
    data = RankingData(np.zeros((400, 1)), [0, 4] * 200, [0, 400])
    top = Deterministic(lambda d: np.zeros(d.items)).prepare(data, 400)
    order = top.show(np.array([0]), generator(0)).item[0]
    assert abs(np.corrcoef(order, np.arange(400))[0, 1]) < 0.2


def test_lists_do_not_depend_on_labels_the_ranker_has_not_seen():
    train, test = generate(60, 1), generate(30, 2)
    ranker = weak_ranker(train, seed=0)
    upside_down = RankingData(test.features, 4 - test.labels, test.offsets)
    query = np.arange(30)
    lists = [
        Deterministic(ranker).prepare(data, 10).show(query, generator(0)).item
        for data in (test, upside_down)
    ]
    assert (lists[0] == lists[1]).all()


def mean_grade(policy, data):
    query = np.arange(data.queries)
    item = policy.prepare(data, 10).show(query, generator(0)).item
    return data.labels[item].mean()


def test_the_weak_ranker_is_weak():
    train, test = generate(300, 1), generate(300, 2)
    weak = mean_grade(Deterministic(weak_ranker(train, seed=0)), test)
    best = mean_grade(Deterministic(expert), test)
    worst = mean_grade(Deterministic(worst_first), test)
    lot = mean_grade(RandTopN(expert, 200), test)
    assert worst < lot + 0.1 < lot + 0.3 < weak < best - 0.5


def test_the_weak_ranker_sees_one_query_in_a_hundred_and_at_least_twenty():
    data = generate(40, 1)
    all_alike = weak_ranker(data, 0.01, seed=0, min_queries=40)
    np.testing.assert_array_equal(
        all_alike.weights, weak_ranker(data, 1.0, seed=0).weights
    )
    twenty = weak_ranker(data, 0.01, seed=0)
    assert (twenty.weights != all_alike.weights).any()
    np.testing.assert_array_equal(
        twenty.weights, weak_ranker(data, 0.5, seed=0).weights
    )
    assert (twenty.weights != weak_ranker(data, 0.01, seed=1).weights).any()


@pytest.mark.parametrize("name", POLICIES)
def test_policies_by_name(name):
    data = generate(25, 1)
    for randomness in (None, 0.5):
        if name == "rand-top-n" and randomness:
            randomness = 5
        shelf = POLICIES[name](data, 0, randomness).prepare(data, 10)
        shown = shelf.show(np.arange(25), generator(0))
        assert shown.item.shape == (25, 10)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (PlackettLuce(by_number, 0.0), "temperature must be above 0"),
        (PlackettLuce(by_number, 1e-4), r"odds below exp\(-600\)"),
        (EpsilonGreedy(by_number, 1.5), r"epsilon must be in \[0, 1\]"),
        (RandPair(by_number, -0.1), r"rate must be in \[0, 1\]"),
        (RandPair(by_number, pairs="some"), "pairs must be one of"),
        (RandTopN(by_number, 0), "n must be at least 1"),
        (Interleaved(((0.5, Deterministic(expert)),)), "sum to 1"),
        (Interleaved(()), "sum to 1"),
        (Deterministic(lambda data: np.zeros(3)), "11 finite scores"),
        (Deterministic(lambda data: np.full(11, np.nan)), "11 finite scores"),
    ],
)
def test_impossible_policies(policy, message):
    with pytest.raises(ValueError, match=message):
        policy.prepare(SMALL, 3)


def test_what_rankers_need():
    ungraded = RankingData(np.zeros((2, 1)), None, [0, 2])
    with pytest.raises(ValueError, match="needs labels, but"):
        Deterministic(expert).prepare(ungraded, 2)
    with pytest.raises(ValueError, match="needs labels, but"):
        weak_ranker(ungraded)
    with pytest.raises(ValueError, match="must have 136 features"):
        weak_ranker(generate(3, 1))(ungraded)
    with pytest.raises(ValueError, match="fraction must be in"):
        weak_ranker(SMALL, 0.0)
    for policy in EVERY.values():
        with pytest.raises(ValueError, match=r"list_size must be at least 1|positive"):
            policy.prepare(SMALL, 0)
