"""What one process saves, another opens that has imported Keras and the models alone.

Every click model, compiled with the library's optimiser and with the losses that there
are in turn; and its ranker as it is exported, with preprocessing and another tower.
"""

import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import keras
import numpy as np
import pytest

from debias import losses
from debias.engine.optimizers import RowWiseAdam
from debias.layers import Standardize
from debias.metrics.keras import METRICS, Perplexity
from debias.models import ranker
from debias.models.export import export
from tests.debias.models.registry import CLICK_MODELS, POSITIONS, TOWERS
from tests.debias.models.test_click_models import (
    FEATURES,
    batch_of,
    new,
    numbers,
    of_towers,
)

ROOT = Path(__file__).parents[3]
FUNCTIONS = [loss.function for loss in losses.LOSSES.values()]
OTHERS = [kind for kind in TOWERS if kind != "tower"]
RANKERS = [*zip(CLICK_MODELS, cycle(OTHERS), strict=False)]
GIVEN = [None, *FUNCTIONS, *(loss() for loss in losses.LOSSES.values())]
OPEN = """
import sys
from pathlib import Path
import keras, numpy as np
import debias.models
batch = dict(np.load("batch.npz"))
for path in map(Path, sys.argv[1:]):
    model = keras.models.load_model(path)
    if path.stem.startswith("ranker"):
        found = model(batch["features"])
        assert not model.model.compiled
    else:
        found = model.click_logits(batch, model(batch))
        assert model.compiled and model.optimizer.name == "row_wise_adam"
    np.save(path.with_suffix(".npy"), keras.ops.convert_to_numpy(found))
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """By file: what it gave before, and what it gave opened."""
    folder, batch = tmp_path_factory.mktemp("saved"), batch_of(FEATURES)
    np.savez(folder / "batch.npz", **batch)
    scale, before, every = Standardize().adapt(FEATURES[0]), {}, cycle(GIVEN)
    for name, tower in RANKERS:
        model = new(name)
        before[f"model {name}"] = numbers(model.click_logits(batch, model(batch)))
        measures = [METRICS["ndcg"](), Perplexity(POSITIONS)]
        model.compile(RowWiseAdam(), next(every), metrics=measures)
        model.save(folder / f"model {name}.keras")
        model = of_towers(name, tower)
        model(batch)
        model.compile(RowWiseAdam(), next(every))
        served = ranker(model, scale)
        before[f"ranker {name} {tower}"] = numbers(served(FEATURES))
        export(served, folder / f"ranker {name} {tower}.keras")
    done = subprocess.run(
        [sys.executable, "-c", OPEN, *map(str, folder.glob("*.keras"))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {k: (value, np.load(folder / f"{k}.npy")) for k, value in before.items()}


@pytest.mark.parametrize("name", CLICK_MODELS)
def test_another_process_gives_equal_clicks(name, opened):
    before, after = opened[f"model {name}"]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name, tower", RANKERS)
def test_another_process_gives_equal_scores(name, tower, opened):
    before, after = opened[f"ranker {name} {tower}"]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "function", [losses.click_cross_entropy, losses.softmax_cross_entropy]
)
def test_a_loss_that_is_a_function_is_that_loss_when_loaded(function, tmp_path):
    model, batch = CLICK_MODELS["additive"](3), batch_of(FEATURES)
    model(batch)
    model.compile("sgd", loss=function)
    model.save(tmp_path / "model.keras")
    clicks = (FEATURES[..., 0] > 0).astype("float32")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = numbers(function(clicks, model(batch))).mean()
    assert loaded.evaluate(batch, clicks, verbose=0) == pytest.approx(expected)
