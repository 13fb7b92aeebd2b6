"""Tests of debias.models.builders: what stands in front of towers."""

import keras
import pytest

from debias.data.kinds import Feature
from debias.data.layout import Layout
from debias.layers import Features, Tower
from debias.models.builders import embedded

NUMBERS = (Feature("price"), Feature("stock", "boolean"), Feature("since", "date"))
BRAND = Feature("brand", "category", ("acme", "birch"))


@pytest.mark.parametrize("kinds", [None, (), NUMBERS])
def test_numbers_alone_cost_what_they_did_without_categories(kinds):
    """The tower itself is built: no layer stands in front of it that a step passes."""
    tower = Tower((4,), seed=1)
    assert embedded(tower, 1, kinds) is tower


def test_categories_pass_a_layer_in_front():
    found = embedded(Tower((4,), seed=1), 1, (BRAND, *NUMBERS))
    assert isinstance(found, keras.Sequential)
    first, last = found.layers
    assert isinstance(first, Features) and isinstance(last, Tower)


@pytest.mark.parametrize("name", ["product", "mixture", "listwise_xpa", "multi_target"])
def test_presets_of_numbers_hold_no_such_layer(name):
    from debias.presets import build

    places = [{"position": place} for place in range(1, 5)]
    made = Layout({"position": 4}, places, NUMBERS)
    if name == "multi_target":
        made = made._replace(targets=("order",))
    layers = build(name, made, 0)._flatten_layers()
    assert not any(isinstance(each, Features) for each in layers)
