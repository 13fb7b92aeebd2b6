"""`debias weights` at a prompt."""

import json
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.debias.commands import prompt

run = partial(prompt.run, "weights")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "log.parquet"
    rng = np.random.default_rng(0)
    item = rng.permuted(np.tile(np.arange(3), (400, 1)), axis=1)
    p = np.array([0.8, 0.5, 0.3])[item] * [1, 0.6, 0.3]
    columns = {
        "session": np.repeat(np.arange(400), 3),
        "query": np.repeat(["red", "blue"], 600),
        "item": item.ravel(),
        "position": np.tile([1, 2, 3], 400),
        "click": (rng.random(p.shape) < p).ravel().astype(int),
        "f_a": item.ravel() * 1.5,
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_rows_with_weights_by_an_estimate(log, tmp_path):
    out = tmp_path / "rows.parquet"
    arguments = [log, "-o", out, "--for", "lightgbm", "-c", "features=f_*"]
    record = json.loads(run(*arguments, "--json").stdout)
    assert record["rows"] == 1200 and record["groups"] == 400
    assert record["effective_clicks"] <= record["clicks"]
    table = pq.read_table(out)
    assert set(table["query"].to_pylist()) == {"red", "blue"}
    weight = table["weight"].to_numpy()
    late = (table["position"].to_numpy() == 3) & (table["label"].to_numpy() == 1)
    assert weight[late] == pytest.approx(1 / 0.3, rel=0.5) and weight.min() == 1
    assert "--force" in run(*arguments, code=1).output
    said = " ".join(run(*arguments, "--force", "--clip", "1").output.split())
    clicks = f"{record['clicks']:,}"
    worth = f"{clicks} clicks have an effective sample of {clicks} (clip 1)"
    assert worth in said and "about as well as from raw clicks" in said


def test_what_a_log_lacks_is_said(log, tmp_path):
    out = tmp_path / "rows"
    said = run(log, "-o", out, "--for", "xgboost", code=1).output
    assert "has no features for a ranker" in said and not out.exists()
    given = tmp_path / "p.csv"
    given.write_text("rank,examination\n1,1\n2,1\n3,0.0001\n")
    arguments = ["-c", "features=f_*", "--propensities", given, "--clip", "1000"]
    said = run(log, "-o", out, "--for", "xgboost", *arguments).output
    assert "and a few clicks dominate: expect a noisier ranker" in said
    assert "debias judge" in said and "debias plan" in said
    assert "trust" not in said
    given.write_text("rank,examination,trust\n1,1,0.1\n2,0.5,0\n3,0.3,0\n")
    said = run(log, "-o", tmp_path / "other", "--for", "xgboost", *arguments).stderr
    assert "p.csv: weights cannot correct the column trust" in " ".join(said.split())
    said = run(log, "-o", out, "--for", "xgboost", *arguments, "--force", code=1).output
    assert "which --force does not replace" in said and (out / "rows.txt").exists()
