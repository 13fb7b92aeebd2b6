"""`debias distill`: from a trained model to trees that the other commands take."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import debias
from tests.acceptance import worlds
from tests.debias.commands.prompt import run, run_json

pytest.importorskip("lightgbm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log of 60 queries with a category, and a product model of it."""
    folder = tmp_path_factory.mktemp("distill")
    columns = worlds.shown(sessions=800, queries=60)
    columns["kind"] = [f"k{doc}" for doc in columns["doc"]]
    pq.write_table(pa.table(columns), folder / "log.parquet")
    options = ["-c", "session=sid", "-c", "item=doc", "-c", "features=f_*,kind"]
    train = ["--model", "product", "--epochs", "1", "--batch-size", "64"]
    run("train", folder / "log.parquet", *options, *train, "-o", folder / "trained")
    return folder


def test_from_a_network_to_a_search_engine(folder, tmp_path):
    log, out = folder / "log.parquet", tmp_path / "trees"
    command = ["distill", folder / "trained", log, "-o", out, "--trees", "80"]
    done = run(*command)
    assert "as the teacher does" in done.output
    assert "options of the training: " in done.output  # read as in training
    report = json.loads((out / "report.json").read_text())
    assert report["model"] == "distilled" and report["teacher"] == "product"
    assert report["pairs"] > 0.8 and "kind" in report["feature_names"]
    assert "is finished" in run(*command).output

    # Each item is scored nearly as the network does, categories by name included.
    rows = pq.read_table(log)
    scores = {}
    for name in (folder / "trained", out):
        run("rank", name, log, "-o", tmp_path / f"{name.name}.parquet")
        scores[name.name] = pq.read_table(tmp_path / f"{name.name}.parquet")["score"]
    network, trees = (np.array(scores[name]) for name in ("trained", "trees"))
    assert len(trees) == rows.num_rows and np.corrcoef(network, trees)[0, 1] > 0.95

    # The sessions that the network did not see are those that judge the trees.
    found = {
        name: run_json("evaluate", path, log)
        for name, path in (("network", folder / "trained"), ("trees", out))
    }
    assert found["trees"]["of"] == found["network"]["of"]
    assert found["trees"]["sessions"] == found["network"]["sessions"] < 800
    assert "held out by query" in found["trees"]["of"]

    made = tmp_path / "model.json"
    assert "distilled written to" in run("export", out, "-o", made).output
    assert "(ltr)" in run("export", out, "-o", made, "--force").output
    assert len(json.loads(made.read_text())) > 5
    assert debias.load(out).report["teacher"] == "product"


def test_what_cannot_be_distilled_is_refused(folder, tmp_path):
    log, out = folder / "log.parquet", tmp_path / "trees"
    command = ["distill", folder / "trained", log, "-o", out]
    run(*command, "--trees", "3", "--library", "xgboost")
    said = run(*command, "--trees", "4", code=1).output
    assert "holds another run" in said
    run(*command, "--trees", "4", "--force")
    said = run("distill", out, log, "-o", tmp_path / "again", code=1).output
    assert f"{out}: holds trees already" in said.replace("\n", "")
    said = run(
        *("distill", folder / "trained", log, "-o", folder / "trained", "--force"),
        code=1,
    ).output
    assert "--out must not be" in said and (folder / "trained/ranker.keras").exists()
    said = run("distill", folder, log, "-o", tmp_path / "no", code=1).output
    assert "was not written by debias train" in said
    few = tmp_path / "few.parquet"
    pq.write_table(pq.read_table(log)[:8], few)
    command = ("distill", folder / "trained", few, "-o", tmp_path / "no")
    said = run(*command, code=1).output.replace("\n", "")
    assert "few.parquet: distillation needs 20 items, got" in said
    assert not (tmp_path / "no").exists()
    short = tmp_path / "short.parquet"
    pq.write_table(pq.read_table(log).drop_columns(["f_1"]), short)
    said = run(
        *("distill", folder / "trained", short, "-o", tmp_path / "no"), code=1
    ).output
    assert "f_1" in said and "short.parquet" in said.replace("\n", "")
