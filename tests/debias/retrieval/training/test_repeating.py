"""Tests of debias.retrieval.training.repeating."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from debias.retrieval.data.interactions import from_columns, leave_last_out
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.data.taken import Taken, owners
from debias.retrieval.training import selection
from debias.retrieval.training.evaluation import evaluate, ndcg_by_query, ranks
from debias.retrieval.training.repeating import (
    SHIFTS,
    Choices,
    best_shift,
    fit_repeat,
    fit_weights,
    withheld,
)

ITEMS, USERS = 30, 400
TRUE = np.array([1.5, 1.0, -0.8, -0.6])


class Tastes:
    """A model without TensorFlow: each user's logits over the items, at one scale."""

    temperature = 0.5

    class user:
        history = None

    def __init__(self, logits):
        self.logits = logits

    def user_vectors(self, features):
        return self.temperature * self.logits[features["id"] - 2]

    def item_vectors(self, features):
        return np.eye(ITEMS)[features["id"] - 2]


def world(rng, users=USERS, events=12):
    """Users who take by their tastes and by what they took, as the bonus has it."""
    logits = rng.normal(size=(users, ITEMS))
    rows = np.empty((users, events), int)
    for user in range(users):
        for number in range(events):
            score = logits[user].copy()
            past = rows[user, :number].tolist()
            for place, item in enumerate(dict.fromkeys(reversed(past)), 1):
                past_of = np.log(past.count(item)), np.log(place)
                score[item] += TRUE @ [1, *past_of, logits[user, item]]
            rows[user, number] = np.argmax(score + rng.gumbel(size=ITEMS))
    names = [f"{item:02d}" for item in range(ITEMS)]
    log = from_columns(
        np.repeat([f"{user:04d}" for user in range(users)], events),
        np.array(names)[rows.ravel()],
        np.tile(np.arange(events), users),
        items={"id": names},
    )
    return log, logits


@pytest.fixture(scope="module")
def drawn():
    log, logits = world(np.random.default_rng(0))
    return (*leave_last_out(log, 3), Tastes(logits))


def test_weights_of_a_simulated_world_come_back(drawn):
    log, held_out, model = drawn
    # Of the three held-out events, the first follows what is known and no other.
    first = held_out.take(held_out.time == held_out.time.min())
    repeat = fit_repeat(model, log, first)
    weights = np.array(repeat.weights) / [*3 * [model.temperature], 1]
    # Over seeds they deviate by .22, .17, .14 and .08 from their mean, the truth.
    assert (abs(weights - TRUE) < [0.66, 0.52, 0.42, 0.25]).all()
    judged = {
        name: evaluate(model, log, first, [1, 5], repeat=policy)["hr@5"]
        for name, policy in (("model", repeat), ("allow", "allow"), ("not", "exclude"))
    }
    assert judged["model"] > judged["allow"] > judged["not"] + 0.1


def test_weights_are_where_the_likelihood_is_highest():
    """Against the likelihood written out over all items, one event at a time."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20, 6))
    rows = rng.integers(0, 6, 60)
    seen = rows, np.arange(0, 61, 3)
    taken = Taken.of(*seen)
    target = np.where(rng.random(20) < 0.6, rows[::3], rng.integers(0, 6, 20))
    owner = owners(taken.offsets)
    mine = logits[owner, taken.rows]
    past = np.log(taken.counts), np.log(taken.places)
    x = np.stack([np.ones(len(owner)), *past, mine], axis=1)

    def loss(w):
        score = logits.copy()
        for event, item, features in zip(owner, taken.rows, x, strict=True):
            score[event, item] += features @ w
        chance = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
        return -np.log(chance[np.arange(20), target]).sum() + 0.01 * (w @ w) / 2

    free = logits.copy()
    free[owner, taken.rows] = -np.inf
    rest = np.log(np.exp(free).sum(axis=1))
    chosen = taken.rows == target[owner]
    found = fit_weights(Choices(rest, owner, mine, x, chosen))
    assert abs(approx_fprime(found, loss, 1e-6)).max() < 1e-2
    np.testing.assert_allclose(found, minimize(loss, np.zeros(4)).x, atol=1e-3)


def test_the_score_of_an_own_item_never_counts_against_it():
    """Ten users own two items of logits 2 and 1, and all repeat the second."""
    owner = np.repeat(np.arange(10), 2)
    logit = np.tile([2.0, 1.0], 10)
    x = np.stack([np.ones(20), np.zeros(20), np.zeros(20), logit], axis=1)
    choices = Choices(np.zeros(10), owner, logit, x, logit == 1.0)
    found = fit_weights(choices)
    assert found[3] == -1.0
    # Both then have the logit w0, where the slope 10 / (1 + 2 e^w0) is the prior's.
    assert 10 / (1 + 2 * np.exp(found[0])) == pytest.approx(0.01 * found[0], rel=1e-2)


def test_a_constant_puts_own_items_where_ranks_are_best():
    """Against ranks of scores with the bonus: of logits ten times too sure."""
    rng = np.random.default_rng(3)
    logits = 10 * rng.normal(size=(300, ITEMS))
    own = rng.integers(0, ITEMS, 300)
    again = rng.random(300) < 0.7
    target = np.where(again, own, rng.integers(0, ITEMS, 300))
    free = logits.copy()
    free[np.arange(300), own] = -np.inf
    rest = np.log(np.exp(free).sum(axis=1))
    x = np.tile([1.0, 0.0, 0.0, 0.0], (300, 1))
    mine = logits[np.arange(300), own]
    choices = Choices(rest, np.arange(300), mine, x, target == own)
    weights = fit_weights(choices)
    wanted = np.where(target == own, -np.inf, logits[np.arange(300), target])

    def worth(shift):
        repeat = Repeat("model", (weights[0] + shift, 0.0, 0.0, 0.0))
        query = np.arange(300)
        rank, _ = ranks(
            lambda q: logits[q], query, target, (own, np.arange(301)), repeat=repeat
        )
        return ndcg_by_query(rank, query, 50, target).mean()

    found = best_shift(choices, weights, np.sort(free, axis=1), wanted)
    assert found == max(SHIFTS, key=worth) and worth(found) > worth(0.0) + 0.05


def test_without_a_repeat_the_weights_are_finite_and_push_away():
    log = from_columns(["u", "u", "v", "v"], ["a", "b", "b", "c"], [1, 2, 1, 2])
    rest, held_out = leave_last_out(log)
    found = fit_repeat(Tastes(np.zeros((2, ITEMS))), rest, held_out)
    assert found.policy == "model" and -20 < found.weights[0] < -0.5
    assert Repeat.of(found) == found
    with pytest.raises(ValueError, match="at least one event"):
        fit_repeat(Tastes(np.zeros((2, ITEMS))), rest, held_out.take([]))


@pytest.mark.parametrize("policy", ["exclude", "allow", "model"])
def test_a_choice_judges_by_the_policy_of_its_recipe(drawn, policy):
    log, held_out, model = drawn
    held = selection.HeldOut(log, held_out, "last")
    config = SimpleNamespace(repeat=policy)
    learner = SimpleNamespace(config=config, model=model)

    def scorers(users):
        return (model.temperature * model.logits[users] for _ in range(2))

    found, other = selection.policies(scorers, learner, held, 2)
    assert found == other
    assert found.policy == policy and (found.weights is None) == (policy != "model")
    if policy == "model":
        assert found == fit_repeat(model, log, held_out)

    def score(users):
        return model.temperature * model.logits[users]

    values = selection.judge(held)(score, found)
    query = held_out.user  # all users have held-out events, so they number the queries
    rank, _ = ranks(score, query, held_out.item, log.seen(), repeat=found)
    np.testing.assert_allclose(values, ndcg_by_query(rank, query, 50, held_out.item))
    assert np.isinf(rank).any() == (policy == "exclude")


def test_a_basket_is_withheld_whole():
    """u ends with two at once, v with one; all of w is one basket."""
    log = from_columns(
        ["u", "u", "u", "v", "v", "w", "w"],
        ["i", "j", "k", "i", "j", "i", "j"],
        [1, 2, 2, 1, 2, 5, 5],
    )
    out = withheld(log)
    assert out[:5].tolist() == [False, True, True, False, True] and out[5:].sum() == 1


@pytest.mark.parametrize("users, count", [(100, 100), (1000, 600), (7000, 700)])
def test_weights_rest_on_the_last_events_of_some_hundred_users(users, count):
    user, time = np.repeat(np.arange(users), 2), np.tile([1, 2], users)
    out = withheld(from_columns(user, time, time))
    assert out.sum() == count and not out[time == 1].any()
