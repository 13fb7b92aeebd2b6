"""Tests of debias.retrieval.training.learner: what is saved, kept and copied."""

import numpy as np
import pytest

from debias.retrieval.training import learner as learners
from debias.retrieval.training.batches import Batches
from debias.retrieval.training.learner import (
    TrainingConfig,
    copy_state,
    drop_old_events,
    learn,
    load,
    new_learner,
    save,
)
from tests.debias.retrieval.streams import BUILD, CONFIG, LOG

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def learner():
    found = new_learner(BUILD, LOG, CONFIG)
    learn(found)
    return found


def values(learner):
    return [np.array(variable) for variable in learner.variables]


def test_a_saved_learner_learns_on_as_if_it_had_never_stopped(learner, tmp_path):
    save(learner, tmp_path / "one")
    with pytest.raises(ValueError, match="exists"):
        save(learner, tmp_path / "one")
    one, other = (load(tmp_path / "one", BUILD, CONFIG) for _ in range(2))
    learn(one, only_ids=True)
    save(one, tmp_path / "two")
    learn(one)
    other = load(tmp_path / "two", BUILD, CONFIG)
    learn(other)
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.log.users.columns["age"].tolist() == LOG.users.columns["age"].tolist()
    assert (
        int(one.optimizer.iterations) == 2 * 11
        and int(one.id_optimizer.iterations) == 11
    )  # of 174 events, 16 a step


def test_every_pass_has_an_order_of_its_own_and_keeps_it_in_a_rerun(monkeypatch):
    from debias.retrieval.training import learner as module

    orders = []

    def spy(*arguments, seed, **options):
        orders.append(Batches(LOG, 16, seed=seed).order.tolist())
        return fit(*arguments, seed=seed, **options)

    fit = module.fit
    monkeypatch.setattr(module, "fit", spy)
    for _ in range(2):
        found = new_learner(BUILD, LOG, CONFIG)
        learn(found)
        learn(found)
    assert orders[:2] == orders[2:] and orders[0] != orders[1]


def test_loading_into_another_model_is_an_error(learner, tmp_path):
    from functools import partial

    save(learner, tmp_path / "one")
    with pytest.raises(ValueError, match="one: was saved from another model"):
        load(tmp_path / "one", partial(BUILD, dim=8), CONFIG)


def test_a_copied_state_is_the_other_and_shares_nothing_with_it(learner):
    other = new_learner(BUILD, LOG.take(np.arange(9)), CONFIG)
    copy_state(other, learner)
    for a, b in zip(values(other), values(learner), strict=True):
        np.testing.assert_array_equal(a, b)
    assert other.log is learner.log
    before = values(learner)
    learn(other)
    for a, b in zip(before, values(learner), strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_the_window_of_events_is_kept_of_each_user():
    found = new_learner(BUILD, LOG, TrainingConfig(window_events=2))
    drop_old_events(found)
    order, offsets = LOG.by_user()
    expected = [set(LOG.item[order[end - 2 : end]]) for end in offsets[1:]]
    kept = [set(found.log.item[found.log.user == user]) for user in range(29)]
    assert kept == expected


def test_what_a_window_dropped_is_saved_and_goes_with_its_users(learner, tmp_path):
    short = new_learner(BUILD, LOG, CONFIG._replace(window_events=2))
    drop_old_events(short)
    save(short, tmp_path / "short")
    again = load(tmp_path / "short", BUILD, CONFIG)
    for log in (short.log, again.log):
        assert len(log) == 2 * 29
        for one, other in zip(log.seen(), LOG.seen(), strict=True):
            assert one.tolist() == other.tolist()  # no item twice, so in this order
    # Of two users alone, as an increment learns from them.
    mask = np.isin(again.log.user, [3, 7])
    part, learned = learners._users_with_events(again.log, mask)
    assert learned.all() and len(part.users) == 2
    for row, user in enumerate((3, 7)):
        rows, _ = part.seen(np.array([row]))
        assert rows.tolist() == LOG.seen(np.array([user]))[0].tolist()


@pytest.mark.parametrize("more, rank", [((), 5), ((0.25,), 5), ((0.0, 3.0), 3)])
def test_the_rank_of_a_linear_part_is_that_of_its_settings(monkeypatch, more, rank):
    monkeypatch.setattr(learners, "RANK", 5)
    config = CONFIG._replace(linear=(8.0, 10.0, 0.9, *more))
    learner = new_learner(BUILD, LOG, config)
    learner.add_extra()
    assert learner.served.linear == rank
