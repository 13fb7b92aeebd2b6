"""Tests of debias.retrieval.training.recipe: names of towers, and what they make."""

import pytest

from debias.retrieval.training.learner import TrainingConfig
from debias.retrieval.training.recipe import TOWERS, Recipe
from tests.debias.retrieval.models.registry import ITEMS, USERS


@pytest.mark.parametrize("name", TOWERS)
def test_every_name_makes_a_model_by_its_settings(name):
    config = TrainingConfig(length=5)._asdict()
    recipe = Recipe(name, 4, [6], 0.25, 1, config)
    model = recipe.build()(USERS, ITEMS)
    assert model.temperature == 0.25 and model.user.history["length"] == 5
    assert model.item_vectors({key: [2] for key in ITEMS}).shape == (1, 4)
    assert recipe.training_config() == TrainingConfig(length=5)
