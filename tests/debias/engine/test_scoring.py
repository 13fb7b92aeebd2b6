"""Tests of debias.engine.scoring."""

import numpy as np
import pytest

from debias.data.kinds import Feature
from debias.engine.scoring import Scorer

KINDS = (
    Feature("brand", "category", ("acme", "birch")),
    Feature("tags", "categories", ("new",), 2),
    Feature("price"),
)
NAMES = ("brand", "tags[0]", "tags[1]", "price")


@pytest.mark.parametrize(
    "place, value, rule",
    [(0, 4, "brand must be a code below 4"), (2, 3, "tags must be a code below 3")]
    + [(0, wrong, "brand must be a code below 4") for wrong in (-1, 1.5, np.nan)],
)
def test_codes_outside_a_vocabulary_are_refused(place, value, rule):
    scorer = Scorer(lambda x: x[..., 0], NAMES, KINDS, name="ranker.onnx")
    features = np.array([[3, 2, 0, -9.5], [0, 0, 0, np.nan]])
    assert scorer(features).tolist() == [3, 0]
    features[1, place] = value
    with pytest.raises(ValueError, match=f"^ranker.onnx: the feature {rule}, got .* 1"):
        scorer(features)
