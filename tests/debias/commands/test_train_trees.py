"""`debias train --model trees`: trained, ranked, evaluated, exported, loaded."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import debias
from debias.presets import TREES
from tests.debias.commands.prompt import run

pytest.importorskip("lightgbm")
pytest.importorskip("xgboost")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log of 5 queries, and one of 60 queries, of which whole ones are held out."""
    folder = tmp_path_factory.mktemp("trees")
    for name, queries in (("log", 5), ("many", 60)):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(8 * queries, 2))
        item = np.argsort(rng.random((600, 8)), axis=1)[:, :3]
        query = rng.integers(0, queries, 600)
        item += 8 * query[:, None]
        p = np.where(x[item, 0] > 0, 0.8, 0.2) * [1, 0.6, 0.3]
        columns = {
            "session": np.repeat(np.arange(600), 3),
            "query": np.repeat(query, 3),
            "item": item.ravel(),
            "position": np.tile([1, 2, 3], 600),
            "click": (rng.random(p.shape) < p).ravel().astype(int),
            "f_a": x[item, 0].ravel(),
            "f_b": x[item, 1].ravel(),
        }
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("model", TREES)
def test_from_a_log_to_a_search_engine(folder, tmp_path, model):
    log, out = folder / "log.parquet", tmp_path / "trained"
    command = ["train", log, "-o", out, "--model", model, "-c", "features=f_*"]
    done = run(*command)
    assert f"{model}: chosen by --model" in done.output
    report = json.loads((out / "report.json").read_text())
    assert report["feature_names"] == ["f_a", "f_b"] and report["model"] == model
    assert "is finished" in run(*command).output
    ranked = tmp_path / "ranked.parquet"
    run("rank", out, log, "-o", ranked)
    table = pq.read_table(ranked)
    scores, a = table["score"].to_numpy(), table["f_a"].to_numpy()
    assert scores[a > 0].mean() > scores[a < 0].mean() + 0.1
    trained = debias.load(out)
    features = np.stack([a, table["f_b"].to_numpy()], axis=1)
    np.testing.assert_allclose(trained.ranker(features), scores, rtol=1e-5)
    record = json.loads(
        run("evaluate", out, log, "-c", "features=f_*", "--json").stdout
    )
    assert ("perplexity" in record["clicks"]) == (TREES[model].objective == "product")
    judged = ["judge", log, "-o", tmp_path / "judged.csv", "--model", out, "--json"]
    record = json.loads(run(*judged, "-c", "features=f_*").stdout)
    assert record["pairs"] == 40 and record["prior"] in ("normal", "beta")
    made = tmp_path / "ranker.onnx"
    assert "(onnx)" in run("export", out, "-o", made).output
    np.testing.assert_allclose(debias.load(made)(features), scores, rtol=1e-4)
    run("export", out, "-o", tmp_path / "model.json")
    assert json.loads((tmp_path / "model.json").read_text())[0]["split"] == "f_a"


def test_options_of_towers_do_not_go_with_trees(folder, tmp_path):
    command = [
        "train",
        folder / "log.parquet",
        "-o",
        tmp_path / "t",
        "--model",
        "trees",
    ]
    said = run(*command, "-c", "features=f_*", "--epochs", "3", code=1).output
    assert "only --seed" in said and not (tmp_path / "t").exists()


def test_auto_writes_trees_if_held_out_clicks_prefer_them(
    folder, tmp_path, monkeypatch
):
    """From the comparison, which is told its result here, to ranked candidates."""
    monkeypatch.setattr("debias.training.selection.RANKERS", ("product",))
    monkeypatch.setattr("debias.training.selection.FEW_QUERIES", 0)
    monkeypatch.setattr("debias.training.selection.LEAST_FOR_TREES", 0)
    monkeypatch.setattr(
        "debias.training.selection.compared_with_trees",
        lambda choice, verdicts, name, *more: choice._replace(name=name, why="told"),
    )
    out = tmp_path / "auto"
    command = ["train", folder / "many.parquet", "-o", out, "-c", "features=f_*"]
    command += ["--epochs", "1"]
    done = run(*command)
    assert "trees: told" in done.output and "product" in done.output
    report = json.loads((out / "report.json").read_text())
    assert report["model"] == "trees" and report["feature_names"] == ["f_a", "f_b"]
    assert {row["model"] for row in report["candidates"]} == {
        *("product", "softmax_naive"),
    }
    assert report["seconds"] > 0 and (out / "ranker.trees").exists()
    ranked = tmp_path / "ranked.parquet"
    run("rank", out, folder / "many.parquet", "-o", ranked)
    table = pq.read_table(ranked)
    scores, a = table["score"].to_numpy(), table["f_a"].to_numpy()
    assert scores[a > 0].mean() > scores[a < 0].mean() + 0.1  # of raw features
    # After a stop, no candidate is fitted again.
    (out / "report.json").unlink()
    monkeypatch.setattr("debias.training.selection.fit_prepared", pytest.fail)
    monkeypatch.setattr("debias.training.selection.trial_trees", pytest.fail)
    run(*command)
    monkeypatch.undo()
    assert json.loads((out / "report.json").read_text())["model"] == "trees"
    refused = [*command[:4], "--model", "product", "--no-trees"]
    assert "--no-trees is for --model auto" in run(*refused, code=1).output


def test_without_trees_auto_does_not_compare_them(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("debias.training.selection.RANKERS", ("product",))
    monkeypatch.setattr("debias.training.selection.trial_trees", pytest.fail)
    monkeypatch.setattr("debias.training.selection.FEW_QUERIES", 0)
    monkeypatch.setattr("debias.training.selection.LEAST_FOR_TREES", 0)
    command = ["train", folder / "many.parquet", "-o", tmp_path / "towers"]
    command += ["-c", "features=f_*", "--epochs", "1", "--no-trees"]
    run(*command)
    plan = json.loads((tmp_path / "towers" / "train.json").read_text())
    assert plan["trees"] is False
    said = run(*command[:-1], code=1).output
    assert "holds another run, with trees False where this has True" in said
