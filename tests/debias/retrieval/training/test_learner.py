"""Tests of debias.retrieval.training.learner: what is saved, what is judged.

What is copied.
"""

import numpy as np
import pytest

from debias.retrieval.data.events import Events
from debias.retrieval.training.evaluate import dot_scores
from debias.retrieval.training.learner import (
    TrainingConfig,
    forget,
    judge,
    learn,
    load,
    new_learner,
    replace_by,
    save,
)
from tests.debias.retrieval.streams import BUILD, LOG, PACE

pytestmark = [
    pytest.mark.usefixtures("eagerly"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config"),
]


@pytest.fixture(scope="module")
def learner():
    found = new_learner(BUILD, LOG, PACE)
    learn(found)
    return found


def values(learner):
    return [np.array(variable) for variable in learner.variables]


def test_a_saved_learner_learns_on_as_if_it_had_never_stopped(learner, tmp_path):
    save(learner, tmp_path / "one")
    with pytest.raises(ValueError, match="exists"):
        save(learner, tmp_path / "one")
    one, other = (load(tmp_path / "one", BUILD, PACE) for _ in range(2))
    learn(one, only_ids=True)
    save(one, tmp_path / "two")
    learn(one)
    other = load(tmp_path / "two", BUILD, PACE)
    learn(other)
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.log.users.columns["age"].tolist() == LOG.users.columns["age"].tolist()
    assert (
        int(one.optimizer.iterations) == 2 * 11
        and int(one.id_optimizer.iterations) == 11
    )  # of 174 events, 16 a step


def test_loading_into_another_model_is_an_error(learner, tmp_path):
    from functools import partial

    save(learner, tmp_path / "one")
    with pytest.raises(ValueError, match="one: was saved from another model"):
        load(tmp_path / "one", partial(BUILD, dim=8), PACE)


def test_a_replaced_learner_is_the_other_and_no_more_tied_to_it(learner):
    other = new_learner(BUILD, LOG.take(np.arange(9)), PACE)
    replace_by(other, learner)
    for a, b in zip(values(other), values(learner), strict=True):
        np.testing.assert_array_equal(a, b)
    assert other.log is learner.log
    before = values(learner)
    learn(other)
    for a, b in zip(before, values(learner), strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_what_memory_holds_is_kept_of_each_user():
    found = new_learner(BUILD, LOG, TrainingConfig(memory=2))
    forget(found)
    order, offsets = LOG.by_user()
    expected = [set(LOG.item[order[end - 2 : end]]) for end in offsets[1:]]
    kept = [set(found.log.item[found.log.user == user]) for user in range(29)]
    assert kept == expected


def test_judging_ranks_what_a_user_has_not_taken_and_misses_what_is_unknown(learner):
    log = learner.log
    free = [np.setdiff1d(np.arange(20), log.item[log.user == user]) for user in (3, 5)]
    users = learner.model.user_vectors(learner.user_features(np.array([3, 5])))
    vectors = learner.model.item_vectors(log.items.columns)
    scores = dot_scores(users, vectors)
    names = log.items.vocabularies["id"]
    best = [items[np.argmax(scores[q, items])] for q, items in enumerate(free)]
    ids = log.users.vocabularies["id"][[3, 5]]
    events = Events(
        np.array([ids[0], ids[1], "stranger"]),
        np.array([names[best[0]], "nothing", names[0]]),
        np.zeros(3, int),
    )
    found = judge(learner, events, [1, 20])
    # User 3's best is first, user 5's item is unknown; the stranger's is in 20.
    assert found["hr@20"] == pytest.approx(2 / 3)
    assert found["hr@1"] in (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert (found["unknown_users"], found["unknown_items"]) == (1, 1)
    assert (found["users"], found["events"]) == (3, 3)
