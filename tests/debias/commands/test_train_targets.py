"""`debias train --model multi_target`, on a log with a target column."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import debias
from tests.debias.commands.prompt import run

# Small fits, of which a trace would cost more than the steps.
pytestmark = pytest.mark.usefixtures("eagerly")
FAST = ["--epochs", "1", "--batch-size", "100", "-c", "features=f_*"]
MODEL = ["--model", "multi_target", "-c", "target=order"]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("targets") / "log.parquet"
    rng = np.random.default_rng(0)
    item = rng.permuted(np.tile(np.arange(3), (400, 1)), axis=1)
    click = rng.random(item.shape) < np.array([0.8, 0.5, 0.3])[item] * [1, 0.6, 0.3]
    order = click & (rng.random(item.shape) < 0.3)
    columns = {
        "session": np.repeat(np.arange(400), 3),
        "query": np.repeat(np.arange(400) % 20, 3),
        "item": item.ravel(),
        "position": np.tile([1, 2, 3], 400),
        "click": click.ravel().astype(int),
        "order": order.ravel().astype(int),
        "f_a": item.ravel() * 1.5,
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_targets_are_learned_ranked_and_exported(log, tmp_path):
    out = tmp_path / "trained"
    asked = [*MODEL, "--worth", "click=1", "--worth", "order=50"]
    done = run("train", log, "-o", out, *FAST, *asked)
    assert "ranks by worth: click 1, order 50" in done.output
    report = json.loads((out / "report.json").read_text())
    assert report["targets"]["worth"] == {"click": 1, "order": 50}
    assert report["targets"]["levels"] == {"order": [0]}
    run("rank", out, log, "-o", tmp_path / "ranked.parquet")
    run("export", out, "-o", tmp_path / "ranker.onnx")
    rows = np.array([[0.0], [1.5], [3.0]], "float32")
    exported = debias.load(tmp_path / "ranker.onnx")(rows)
    trained = debias.load(out)
    found = {
        n: np.asarray(p)
        for n, p in trained.model.probabilities(trained.ranker.preprocess(rows)).items()
    }
    worth = np.log(found["click"] + 50 * found["order"][:, 0])
    np.testing.assert_allclose(exported, worth, rtol=1e-3, atol=1e-4)
    run("evaluate", out, log, "-c", "features=f_*")
    again = run("train", log, "-o", out, *FAST, *MODEL, code=1)
    assert "holds another run, with click 1" in again.output


@pytest.mark.parametrize(
    "asked, message",
    [
        (["--model", "product", "--worth", "order=1"], "need --model multi_target"),
        (["--model", "multi_target"], "has none: name their columns"),
        ([*MODEL, "--worth", "order"], "NAME= and a number, got 'order'"),
        ([*MODEL, "--worth", "order=a"], "NAME= and a number, got 'order=a'"),
        ([*MODEL, "--levels", "order="], "such as 10,60, got 'order='"),
        ([*MODEL, "--worth", "ordr=1"], "worth names 'ordr', expected some of click"),
    ],
)
def test_bad_options_are_said_and_nothing_is_left_behind(log, tmp_path, asked, message):
    out = tmp_path / "trained"
    said = run("train", log, "-o", out, *FAST, *asked, code=1).output
    assert message in " ".join(said.split())
    assert not (out / "report.json").exists()
