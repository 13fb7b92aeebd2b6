"""`debias train --model ips` and its kin."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.debias.commands.prompt import run

FAST = ["--epochs", "1", "--batch-size", "100", "-c", "features=f_*"]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("corrections") / "log.parquet"
    rng = np.random.default_rng(0)
    item = rng.permuted(np.tile(np.arange(3), (400, 1)), axis=1)
    p = np.array([0.8, 0.5, 0.3])[item] * [1, 0.6, 0.3]
    columns = {
        "session": np.repeat(np.arange(400), 3),
        "query": np.repeat(np.arange(400) % 20, 3),
        "item": item.ravel(),
        "position": np.tile([1, 2, 3], 400),
        "click": (rng.random(p.shape) < p).ravel().astype(int),
        "f_a": item.ravel() * 1.5,
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_a_correction_is_trained_by_a_file_and_ranks(log, tmp_path):
    given, out = tmp_path / "p.csv", tmp_path / "trained"
    given.write_text("rank,examination\n1,1\n2,0.6\n3,0.3\n")
    model = ["--model", "ips_listwise", "--propensities", given]
    done = run("train", log, "-o", out, *FAST, *model)
    assert "clicks, effective sample" in done.output
    report = json.loads((out / "report.json").read_text())
    assert report["correction"]["alpha"] == [1.0, 0.6, 0.3]
    assert report["model"] == "ips_listwise"
    again = run("train", log, "-o", out, *FAST, *model, "--clip", "2", code=1)
    assert "holds another run, with clip" in again.output
    run("rank", out, log, "-o", tmp_path / "ranked.parquet")


def test_options_of_corrections_go_with_corrections(log, tmp_path):
    out = tmp_path / "trained"
    said = run("train", log, "-o", out, *FAST, "--clip", "5", code=1).output
    assert "--propensities and --clip need a correction" in said
    model = ["--model", "affine"]
    said = run("train", log, "-o", out, *FAST, *model, code=1).output
    assert "affine needs a column trust" in said
