"""Tests of debias.presets."""

import numpy as np
import pytest

from debias.data import ClickLog
from debias.data.kinds import Feature
from debias.data.layout import layout_of
from debias.presets import PRESETS, build

GRID = ClickLog(
    [0, 0],
    [[0, 1], [1, 0]],
    [[0, 1], [0, 0]],
    row=[[1, 2], [1, 2]],
    column=[[1, 1], [1, 1]],
    device=[0, 2],
    targets={"order": [[0, 1], [0, 0]]},
)


def test_layout_of_a_grid_and_devices():
    columns, places, *_ = layout_of(GRID)
    assert columns == {"position": 2, "row": 2, "column": 1, "device": 2}
    stands = [
        {"position": 1, "row": 1, "column": 1},
        {"position": 2, "row": 2, "column": 1},
    ]
    assert places == [{**place, "device": on} for on in (1, 2) for place in stands]


def test_columns_that_are_all_missing_are_no_layout():
    log = ClickLog([0], [[0, 1]], [[0, 1]], device=[0])
    assert layout_of(log)[:2] == ({"position": 2}, [{"position": 1}, {"position": 2}])


@pytest.mark.parametrize("name", PRESETS)
def test_candidates_embed_categories(name):
    """Codes come as numbers; items that differ in their brand alone differ in score."""
    kinds = (Feature("price"), Feature("brand", "category", ("a", "b")))
    model = build(name, layout_of(GRID)._replace(kinds=kinds), 0)
    features = np.array([[[1.0, 2.0], [1.0, 3.0]]] * 2, "float32")
    places = {n: getattr(GRID, n) for n in ("row", "column", "device", "mask")}
    position = np.array([[1, 2], [1, 2]])
    model({"features": features, "position": position, **places})
    first, second = np.asarray(model.score(features))[0]
    assert np.isfinite([first, second]).all() and first != second


@pytest.mark.parametrize("name", PRESETS)
def test_candidates_read_their_layout_and_score(name):
    model = build(name, layout_of(GRID), 0)
    features = np.ones((2, 2, 3), "float32")
    batch = {
        "features": features,
        "position": np.array([[1, 2], [1, 2]]),
        "row": GRID.row,
        "column": GRID.column,
        "device": GRID.device,
        "mask": GRID.mask,
    }
    logits = model.click_logits(batch, model(batch))
    assert tuple(logits.shape) == tuple(model.score(features).shape) == (2, 2)
