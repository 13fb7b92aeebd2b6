"""Tests of benchmarks.retrieval.updates, on a few days of a small generated world."""

import json

import numpy as np
import pytest

from benchmarks.retrieval import updates
from benchmarks.retrieval.updates import (
    ROWS,
    TABLE,
    UpdateSize,
    UpdateTrial,
    known_part,
    target_ranks,
    world,
)

pytestmark = pytest.mark.usefixtures("eagerly")
SMALL = UpdateSize(
    60, 40, events=2, before=4, dim=4, hidden=(4,), length=4, batch_size=64, epochs=1
)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(updates, "DAYS", 2)
    monkeypatch.setattr(updates, "LOTS", 2)
    updates.first_model.cache_clear()
    yield
    updates.first_model.cache_clear()


def test_rows_begin_alike_and_part_with_their_updates(short):
    found = {row: UpdateTrial(row, "drifting", SMALL).measure(1, None) for row in ROWS}
    for metrics in found.values():
        assert set(metrics) >= {"hr@50", "hr@50-day-1", "hr@50-day-2"}
        assert all(np.isfinite(value) for value in metrics.values())
    # Nothing but increments happens before the end of the first day.
    assert found["never"]["hr@50-day-1"] == found["full"]["hr@50-day-1"]
    assert found["incremental"]["hr@50-day-1"] == found["both"]["hr@50-day-1"]
    assert found["never"]["update_cpu_seconds"] == 0.0
    assert found["never"].get("new_hr@50", 0.0) == 0.0  # it knows no new item


def test_ranks_are_against_known_items_and_what_is_unknown_is_missed():
    from debias.retrieval.models import dssm
    from debias.retrieval.training.learner import TrainingConfig, new_learner

    log = world("drifting", 0, SMALL)
    known = known_part(log.take(log.time < 4))
    learner = new_learner(
        lambda u, i: dssm(u, i, dim=4, hidden=(4,), length=4, seed=0),
        known,
        TrainingConfig(4),
    )
    vectors = learner.model.item_vectors(known.items.columns)
    past, lot = log.take(log.time < 4), log.take(log.time == 4)
    rank, query = target_ranks(learner, vectors, past, lot)
    names = log.items.vocabularies["id"]
    new = ~np.isin(names[lot.item], known.items.vocabularies["id"])
    assert np.isinf(rank[new]).all() and np.isfinite(rank[~new]).all()
    users = np.unique(lot.user)
    assert (users[query] == lot.user).all()
    # By hand, for a user whom the model knows: items not taken, by inner product.
    place = np.flatnonzero(
        ~new
        & np.isin(
            log.users.vocabularies["id"][lot.user], known.users.vocabularies["id"]
        )
    )[0]
    row = list(known.users.vocabularies["id"]).index(
        log.users.vocabularies["id"][lot.user[place]]
    )
    user = learner.model.user_vectors(learner.user_features(np.array([row])))[0]
    taken = known.item[known.user == row]
    scores = np.delete(vectors @ user, taken)
    target = list(known.items.vocabularies["id"]).index(names[lot.item[place]])
    assert rank[place] == pytest.approx(
        1 + (scores > vectors[target] @ user).sum(), abs=1
    )


def test_settings_tell_sizes_apart_and_are_json():
    one, other = (UpdateTrial("full", "drifting", s) for s in (UpdateSize(), SMALL))
    assert json.dumps(one.settings()) != json.dumps(other.settings())
    assert set(TABLE.rows) == set(ROWS) and len(TABLE.experiments) == 8


def test_an_unknown_population_is_named():
    with pytest.raises(ValueError, match="'mars'"):
        world("mars", 0, SMALL)
