"""Tests of debias.retrieval.models.extended: coordinates beside the learned ones."""

import keras
import numpy as np
import pytest

from debias.retrieval.models import MIND, fm_tower
from debias.retrieval.models.encoder import tower
from debias.retrieval.models.extended import Extended, ExtendedUser, Extra
from debias.retrieval.training.evaluation import dot_scores
from tests.debias.retrieval.models.registry import LOG

pytestmark = pytest.mark.usefixtures("eagerly")
SCHEMAS = LOG.users.schema, LOG.items.schema
CODES = LOG.items.size("id")


def extra(rank: int) -> Extra:
    rng = np.random.default_rng(0)
    items, past = rng.normal(size=(CODES, rank + 1)), rng.normal(size=(CODES, rank))
    items[:2], past[:2] = 0, 0  # of codes that stand for no item
    return Extra(items.astype("f4"), past.astype("f4"), 0.5)


def features() -> dict:
    history, _ = LOG.histories(50, np.arange(len(LOG.users)))
    return {**LOG.users.columns, "history": history}


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("make", [fm_tower, MIND])
def test_scores_are_those_of_the_model_and_what_is_added(make, rank):
    model, more = make(*SCHEMAS, 4, length=2, seed=0), extra(rank)
    whole, asked = Extended(model, more), features()
    plain = dot_scores(
        model.user_vectors({**asked, "history": asked["history"][:, :2]}),
        model.item_vectors(LOG.items.columns),
    )
    if not rank:
        asked["history"] = asked["history"][:, :2]
    found = dot_scores(whole.user_vectors(asked), whole.item_vectors(LOG.items.columns))
    added = np.tile(more.items[2:, -1], (len(LOG.users), 1))
    if rank:
        for user, codes in enumerate(asked["history"]):
            for age, code in enumerate(codes[codes > 0]):
                added[user] += 0.5**age * more.items[2:, :-1] @ more.past[code]
    np.testing.assert_allclose(found, plain + added, atol=1e-4)


def test_ids_beyond_the_table_add_nothing():
    model, more = fm_tower(*SCHEMAS, 4, length=2, seed=0), extra(3)
    known = Extra(more.items[:-1], more.past[:-1], 0.5)
    last = LOG.items.take(np.array([CODES - 3]))
    assert Extended(model, more).item_vectors(last)[0, 4:].any()
    assert not Extended(model, known).item_vectors(last)[0, 4:].any()
    row = {name: column[:1] for name, column in LOG.users.columns.items()}
    row["history"] = np.full((1, 50), CODES - 1)
    assert not Extended(model, known).user_vectors(row)[0, 4:-1].any()
    grown = known.grown(np.arange(CODES - 2.0))
    assert grown.items.shape == more.items.shape and grown.past.shape == (CODES, 3)
    assert grown.items[-1].tolist() == [0, 0, 0, CODES - 3]
    np.testing.assert_array_equal(grown.items[:-1], known.items)


def test_the_user_side_is_saved_with_what_is_added(tmp_path):
    model = fm_tower(*SCHEMAS, 4, length=2, seed=0)
    side = Extended(model, extra(3)).user
    made = tower(side)
    made.save(tmp_path / "side.keras")
    loaded = keras.models.load_model(tmp_path / "side.keras")
    wanted = Extended(model, extra(3)).user_vectors(features())
    read = {given.name for given in made.inputs}
    asked = {k: v for k, v in features().items() if k in read}
    np.testing.assert_allclose(loaded(asked), wanted, atol=1e-6)
    again = ExtendedUser.from_config(side.get_config())
    assert (again.rank, again.decay, again.history["length"]) == (3, 0.5, 50)
