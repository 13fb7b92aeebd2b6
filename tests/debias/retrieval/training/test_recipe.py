"""Tests of debias.retrieval.training.recipe: names of towers, and what they make."""

import numpy as np
import pytest

from debias.retrieval.models.ids import id_tables
from debias.retrieval.training.learner import TrainingConfig
from debias.retrieval.training.recipe import TOWERS, Recipe, candidates, recipe_of
from tests.debias.retrieval.models.registry import ITEMS, LOG, USERS


@pytest.mark.parametrize("name", TOWERS)
def test_every_name_makes_a_model_by_its_settings(name):
    config = TrainingConfig(length=5)._asdict()
    recipe = Recipe(name, 4, [6], 0.25, 1, config)
    model = recipe.build()(USERS, ITEMS)
    assert model.temperature == 0.25 and model.user.history["length"] == 5
    assert model.item_vectors({key: [2] for key in ITEMS}).shape == (1, 4)
    assert recipe.training_config() == TrainingConfig(length=5)


@pytest.mark.parametrize("name", TOWERS)
def test_ids_share_rows_in_every_table_of_ids_or_the_tower_refuses(name):
    config = TrainingConfig(length=5)._asdict()
    recipe = Recipe(name, 4, [6], 0.25, 1, config, "quotient_remainder", 2)
    if name in ("mind", "dat"):
        with pytest.raises(ValueError, match=f"the tower {name} cannot share rows"):
            recipe.build()
        return
    model = recipe.build()(USERS, ITEMS)
    tables = [table for side in id_tables(model) for table in side]
    assert len(tables) >= 2 and {tuple(t.table.shape) for t in tables} == {(4, 4)}
    past = np.array([[2, 3, 0, 0, 0]], np.int32)
    users = {**{key: np.array([2]) for key in USERS}, "history": past}
    loaded = type(model).from_config(model.get_config())
    for each in (model, loaded):
        each.build(None)
    loaded.set_weights(model.get_weights())
    wanted = model.user_vectors(users)
    np.testing.assert_allclose(loaded.user_vectors(users), wanted, atol=1e-6)


def test_towers_whose_ids_cannot_share_rows_are_left_out_of_a_choice():
    shared = Recipe(compress="hash", rows=4)
    found = {each.tower for each in candidates(shared, list(TOWERS))}
    assert found == set(TOWERS) - {"mind", "dat"}
    with pytest.raises(ValueError, match="the tower mind cannot share rows"):
        candidates(shared, ["mind"])


def test_targets_have_parts_of_their_own_or_the_tower_refuses():
    worth = {"click": 1.0, "order": 5.0}
    tried = candidates(Recipe(dim=4, worth=worth), list(TOWERS))
    assert {each.tower for each in tried} == {"dssm", "senet"}
    model = tried[0].build()(USERS, ITEMS)
    assert model.worth == (1.0, 5.0)
    assert model.item_vectors(LOG.items.columns).shape == (len(LOG.items), 2 * 4)
    assert recipe_of(tried[0]._asdict()) == tried[0]
    with pytest.raises(ValueError, match="the tower fm has no parts for targets"):
        candidates(Recipe(worth=worth), ["fm"])
    with pytest.raises(ValueError, match="the tower fm has no parts for targets"):
        Recipe("fm", worth=worth).build()


def test_a_recipe_of_before_histories_were_chosen_learns_as_it_did():
    stored = Recipe("dssm", 4, [6], 0.1, 1, {"length": 5})._asdict()
    stored = {
        k: v for k, v in stored.items() if k not in ("history", "normalize_users")
    }
    old = recipe_of(stored)
    assert old.history == "recency" and old.normalize_users
    config = old.training_config()
    assert config.averaging is None and config.dense_rows == 0 and config.length == 5
