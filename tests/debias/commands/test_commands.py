"""From a log to a ranker at a prompt: one small log through all commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from debias.artifacts import load
from debias.commands.evaluate import _examination
from debias.data import RankingData
from simulators import PlackettLuce, generate, simulate, weak_ranker
from tests.debias.commands.prompt import run, run_json

ROOT = Path(__file__).parents[3]
DATA = generate(queries=60, seed=2)
POLICY = PlackettLuce(weak_ranker(DATA), 1.0)
LOG = simulate(DATA, POLICY, "pbm", sessions=900, seed=1, list_size=4)
FAST = ["--epochs", "2", "--model", "additive", "--every", "300", "--batch-size", "64"]


def flat(log=LOG, data=DATA):
    """The log as somebody else's table, a row per shown item."""
    session, rank = np.nonzero(log.mask)
    item = log.item[log.mask]
    columns = {
        "sid": session,
        "q": [f"q{query}" for query in log.query[session]],
        "item": item,
        "position": rank + 1,
        "click": log.click[log.mask].astype(int),
        "propensity": log.logging_propensity[log.mask],
        "label": data.labels[item],
    }
    features = {f"f_{i}": data.features[item, i] for i in range(4)}
    return pa.table({**columns, **features})


MAPPED = ["-c", "session=sid", "-c", "query=q", "-c", "features=f_*"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds both kinds of log and, in `trained`, a model of the table."""
    folder = tmp_path_factory.mktemp("commands")
    pq.write_table(flat(), folder / "log.parquet")
    LOG.write(folder / "own.parquet")
    DATA.write_parquet(folder / "items.parquet")
    events = ["--tensorboard", folder / "events"]
    out = ["-o", folder / "trained"]
    done = run("train", folder / "log.parquet", *out, *MAPPED, *FAST, *events)
    assert "sessions/s" in done.output and "peak memory" in done.output
    return folder


def test_inspect_counts_what_is_there(folder):
    found = run_json("inspect", folder / "log.parquet", *MAPPED)
    assert found["sessions"] == 900 and found["features"] == 4 and found["graded"]
    assert found["queries"] == len(np.unique(LOG.query))
    np.testing.assert_allclose(found["ctr"], LOG.click.mean(axis=0), atol=1e-6)
    own = run_json("inspect", folder / "own.parquet")
    assert own["ctr"] == found["ctr"] and own["moved"] == found["moved"] > 0
    assert "position" in run("inspect", folder / "own.parquet").output


@pytest.mark.parametrize("data", [[], ["--data", "items.parquet"]])
def test_inspect_streams_what_it_would_hold(folder, data):
    given = [folder / name if name.endswith("parquet") else name for name in data]
    held = run_json("inspect", folder / "own.parquet", *given)
    streamed = run_json("inspect", folder / "own.parquet", *given, "--memory", "0")
    assert streamed == held
    assert held["graded"] == bool(data)


def test_training_leaves_a_report_and_starts_no_second_time(folder):
    report = json.loads((folder / "trained" / "report.json").read_text())
    assert report["model"] == "additive" and report["held_out_by"] == "query"
    assert sum(report["sessions"].values()) == 900 and report["features"] == 4
    command = ["train", folder / "log.parquet", "-o", folder / "trained", *MAPPED]
    before = (folder / "trained" / "ranker.keras").stat().st_mtime_ns
    again = run(*command, *FAST)
    assert "is finished" in again.output
    other = run(*command, *FAST, "--seed", "3", code=1)
    assert "holds another run, with seed 0 where this has 3" in other.output
    model = run(*command, "--model", "ips", code=1)
    assert "with model additive where this has ips" in " ".join(model.output.split())
    assert (folder / "trained" / "ranker.keras").stat().st_mtime_ns == before


def test_tensorboard_events_hold_the_passes(folder):
    import tensorflow as tf

    (path,) = (folder / "events").iterdir()
    report = json.loads((folder / "trained" / "report.json").read_text())
    found = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    for epoch, metrics in enumerate(report["history"]):
        assert found["loss", epoch] == pytest.approx(metrics["loss"], rel=1e-5)


def test_examination_is_numbers_or_a_file_of_propensities(tmp_path):
    path = tmp_path / "propensities.csv"
    path.write_text("rank,examination\n2,0.6\n1,1\n3,0.3\n")
    assert _examination(str(path)) == [1, 0.6, 0.3] == _examination("1,.6,.3")
    path.write_text("rank,examination,device\n1,1,a\n1,1,b\n")
    with pytest.raises(ValueError, match=f"{path.name}: .* without --by"):
        _examination(str(path))
    path.write_text("rank,examination\n1,1\n3,0.3\n")
    with pytest.raises(ValueError, match=f"{path.name}: .* rank 3 where rank 2 is"):
        _examination(str(path))
    path.write_text("rank,examination\n1,1\n2,\n")
    with pytest.raises(ValueError, match="rank 2 is unknown: keep fewer ranks"):
        _examination(str(path))
    path.write_text("rank,examination\n1,1\n2,1.25\n3,0.5\n")  # over rank 1, by chance
    assert _examination(str(path)) == [0.8, 1, 0.4]
    with pytest.raises(ValueError, match="a file of debias propensities"):
        _examination("nowhere.csv")


def test_evaluate_takes_held_out_sessions_of_its_own_log(folder):
    report = json.loads((folder / "trained" / "report.json").read_text())
    command = ["evaluate", folder / "trained", folder / "log.parquet"]
    found = run_json(*command, *MAPPED, "--examination", "1,.7,.5,.4")
    assert found["sessions"] == report["sessions"]["test"]
    clicks = found["clicks"]
    assert clicks["log_likelihood_per_session"] == pytest.approx(
        report["log_likelihood"], abs=1e-4
    )
    assert clicks["perplexity"] == pytest.approx(np.mean(clicks["perplexity_per_rank"]))
    names = [row["metric"] for row in found["ranking"]]
    assert names == ["ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10", "mrr"]
    assert all(row["low"] < row["mean"] < row["high"] for row in found["ranking"])
    cascade, plain, robust, by_examination, by_placement = found["off_policy"]
    assert plain["estimator"].startswith("plain") and cascade["clip"] >= 1
    assert found["off_policy_note"] is None
    assert cascade["low"] < cascade["value"] < cascade["high"]
    assert by_examination["logged"] == cascade["logged"] == by_placement["logged"]
    assert abs(robust["value"] - plain["value"]) < 2 * (plain["high"] - plain["low"])
    # A copy is the log it learned from; the same sessions in other bytes are not.
    shutil.copy(folder / "log.parquet", folder / "copy.parquet")
    copy = ["evaluate", folder / "trained", folder / "copy.parquet", *MAPPED]
    assert run_json(*copy)["sessions"] == report["sessions"]["test"]
    pq.write_table(flat(), folder / "other.parquet", compression="none")
    whole = run_json("evaluate", folder / "trained", folder / "other.parquet", *MAPPED)
    again = run_json(*command, *MAPPED, "-c", "label=")
    assert "those of the training" in again["of"] and again["sessions"] == 900
    silent = flat().drop(["click"]).append_column("click", pa.array([0] * 3600))
    pq.write_table(silent, folder / "silent.parquet")
    silent = run_json(
        "evaluate", folder / "trained", folder / "silent.parquet", *MAPPED
    )
    assert silent["clicks"]["click_mrr"] is None
    assert whole["of"] == "all sessions" and whole["sessions"] == 900
    assert "perplexity" in run(*command, *MAPPED).output


def test_evaluate_reads_a_log_as_in_training_and_says_so(folder, tmp_path):
    command = ["evaluate", folder / "trained", folder / "log.parquet"]
    told, plain = run_json(*command, *MAPPED), run(*command, "--json")
    assert json.loads(plain.stdout) == told
    said = "note: options of the training: -c session=sid -c query=q -c features=f_*"
    assert said in plain.stderr and said not in run(*command, *MAPPED).stderr
    renamed = [{"q": "term"}.get(name, name) for name in flat().column_names]
    pq.write_table(flat().rename_columns(renamed), tmp_path / "other.parquet")
    done = run(*command[:2], tmp_path / "other.parquet", "-c", "query=term")
    assert "training: -c session=sid -c features=f_*\n" in done.stderr


def test_pages_of_a_training_and_an_evaluation(folder, tmp_path):
    page = tmp_path / "page.html"
    log = [folder / "log.parquet", "--report", page]
    run("train", *log, "-o", folder / "trained", *MAPPED, *FAST)  # which is finished
    text = page.read_text(encoding="utf-8")
    assert "additive, trained on log.parquet" in text and "Passes</h2>" in text
    assert "</i>the model</li>" in text and "<svg" in text
    for part in ("Predicted clicks by position", "A list before and after"):
        assert f"<h2>{part}" in text  # of the sessions held out for tests
    found = run_json("evaluate", folder / "trained", *log)  # a page of ours is replaced
    text = page.read_text(encoding="utf-8")
    assert f"additive was evaluated on {found['sessions']} sessions" in text
    assert "A list before and after" in text and "(clicked)" in text
    assert "<h2>Predicted clicks by position</h2>" in text
    page.write_text("years of work")
    refused = run("evaluate", folder / "trained", *log, code=1)
    assert "exists; --force replaces it" in refused.output
    log[-1] = tmp_path / "page.pdf"
    assert "must end with .html" in run("evaluate", folder, *log, code=1).output


def test_features_are_looked_up_by_name(folder, tmp_path):
    """Columns in another order give the same scores, to the bit."""
    orders = [[0, 1, 2, 3], [3, 1, 0, 2]]
    scores, evaluated = [], []
    for number, order in enumerate(orders):
        names = [f"f_{i}" for i in order]
        path, out = tmp_path / f"{number}.parquet", tmp_path / f"ranked{number}.parquet"
        pq.write_table(flat().select(["sid", "q", "item", "click", *names]), path)
        table = flat().select(["q", *names]).sort_by("q")
        pq.write_table(table, tmp_path / "table.parquet")
        run("rank", folder / "trained", tmp_path / "table.parquet", "-o", out)
        scores.append(pq.read_table(out)["score"].to_numpy())
        evaluated.append(run_json("evaluate", folder / "trained", path, *MAPPED))
    np.testing.assert_array_equal(*scores)
    there = pq.read_table(tmp_path / "table.parquet")
    backwards = there.take(np.arange(len(there))[::-1])
    pq.write_table(backwards, tmp_path / "backwards.parquet")
    out = tmp_path / "ranked_backwards.parquet"
    run("rank", folder / "trained", tmp_path / "backwards.parquet", "-o", out)
    found = pq.read_table(out)["score"].to_numpy()
    np.testing.assert_array_equal(found[::-1], scores[1])
    assert evaluated[0] == evaluated[1]
    few = [*MAPPED[:-1], "features=f_1"]
    done = run("evaluate", folder / "trained", path, *few, code=1)
    assert "f_0" in done.output


def test_rank_streams_scores_and_ranks(folder, monkeypatch):
    from debias.data import tables

    monkeypatch.setattr(tables, "BATCH", 37)  # queries straddle batches
    items = pa.table(
        {
            "q": [f"q{query}" for query in DATA.query_of_item()],
            **{f"f_{i}": DATA.features[:, i] for i in range(4)},
        }
    )
    pq.write_table(items, folder / "table.parquet")
    command = ["rank", folder / "trained", folder / "table.parquet"]
    found = run_json(*command, "-o", folder / "ranked.parquet")
    assert found["rows"] == DATA.items
    ranked = pq.read_table(folder / "ranked.parquet")
    assert ranked.drop(["score", "rank"]).equals(items)
    import keras

    ranker = keras.models.load_model(folder / "trained" / "ranker.keras")
    scores = ranked["score"].to_numpy()
    wanted = np.asarray(ranker(DATA.features[:, :4]))
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5)
    rank = ranked["rank"].to_numpy()
    for start, stop in zip(DATA.offsets[:-1], DATA.offsets[1:], strict=True):
        order = np.argsort(-scores[start:stop], kind="stable")
        assert rank[start:stop][order].tolist() == list(range(1, stop - start + 1))
    halves = []
    cut = int(DATA.offsets[len(DATA.offsets) // 2])  # no query is in both
    for name, half in (("first", items[:cut]), ("second", items[cut:])):
        pq.write_table(half, folder / f"{name}.parquet")
        out = folder / f"{name}_ranked.parquet"
        run("rank", folder / "trained", folder / f"{name}.parquet", "-o", out)
        halves.append(pq.read_table(out))
    assert pa.concat_tables(halves)["rank"].to_pylist() == rank.tolist()
    again = run(*command, "-o", folder / "ranked.parquet", code=1)
    assert "exists; --force" in again.output
    run(*command, "-o", folder / "ranked.parquet", "--force")


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda t: t.take(np.r_[0, len(t) - 1, 1]),
            r"table.parquet: column q .query.: .* at row 2, .*; sort",
        ),
        (lambda t: t.drop(["f_3"]), "table.parquet: no feature f_3"),
        (lambda t: t.drop([f"f_{i}" for i in range(4)]), "no feature f_0"),
        (lambda t: t.rename_columns(["q", "a", "f_1", "f_2", "f_3"]), "no feature f_0"),
        (lambda t: t.append_column("score", t["f_0"]), "has a column score already"),
        (
            lambda t: t.set_column(1, "f_0", [[np.nan] * len(t)]),
            r"column f_0 \(features\) must be finite, got nan at row 0",
        ),
    ],
)
def test_rank_refuses(change, message, folder, tmp_path):
    table = flat().select(["q", *(f"f_{i}" for i in range(4))]).sort_by("q")
    pq.write_table(change(table), tmp_path / "table.parquet")
    command = ["rank", folder / "trained", tmp_path / "table.parquet"]
    import re

    done = run(*command, "-o", tmp_path / "out.parquet", code=1)
    assert re.search(message, " ".join(done.output.split())), done.output
    assert not (tmp_path / "out.parquet").exists()


def test_a_log_of_this_library_trains_and_ranks_its_sessions(folder):
    own = [folder / "own.parquet", "--data", folder / "items.parquet"]
    run("train", own[0], *own[1:], "-o", folder / "of_own", *FAST)
    out = folder / "sessions.parquet"
    found = run_json("rank", folder / "of_own", own[0], *own[1:], "-o", out)
    assert found["rows"] == 900
    table = pq.read_table(out)
    score, rank = (np.array(table[name].to_pylist()) for name in ("score", "rank"))
    assert (np.sort(rank, axis=1) == np.arange(1, 5)).all()
    best_first = np.take_along_axis(score, np.argsort(rank, axis=1), axis=1)
    assert (np.diff(best_first, axis=1) <= 0).all()
    assert table["item"].to_pylist() == LOG.item.tolist()
    no_data = run("train", own[0], "-o", folder / "none", *FAST, code=1)
    assert "--data FILE" in no_data.output


def test_export_writes_a_ranker(folder, tmp_path):
    path = tmp_path / "ranker.keras"
    found = run_json("export", folder / "trained", "-o", path)
    assert found == {"path": str(path), "format": "keras", "features": 4}
    assert "--force" in run("export", folder / "trained", "-o", path, code=1).output
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    strange = ["export", folder / "trained", "-o", tmp_path / "thesis", "--force"]
    assert "is not a SavedModel" in run(*strange, code=1).output
    assert (tmp_path / "thesis" / "thesis.tex").exists()
    missing = run("export", tmp_path / "none", "-o", tmp_path / "x", code=1)
    assert "none: no such folder" in missing.output
    (tmp_path / "empty").mkdir()
    foreign = run("export", tmp_path / "empty", "-o", tmp_path / "x", code=1)
    assert "was not written by debias train" in foreign.output


def test_a_retrieval_model_is_no_ranker(folder, tmp_path):
    """The advice to train again would overwrite it."""
    of = tmp_path / "of"
    of.mkdir()
    (of / "train.json").write_text('{"model": "retrieval", "source": {}}')
    (of / "report.json").write_text('{"tower": "dssm", "recipe": {}}')
    done = run("export", of, "-o", tmp_path / "x.keras", code=1)
    assert "of: holds a retrieval model; train a click" in " ".join(done.output.split())
    with pytest.raises(ValueError, match="of: holds a retrieval model"):
        load(of)
    again = run("train", folder / "log.parquet", "-o", of, *MAPPED, *FAST, code=1)
    told = " ".join(again.output.split())
    assert "holds another run, with model retrieval where this has additive" in told


@pytest.mark.parametrize(
    "change, message",
    [
        ({"click": 0}, "cannot be learned from: no click"),
        ({"position": 1, "sid": "unique"}, "cannot be learned from: one position only"),
        ({"click": 7}, "must be 0 or 1, got 7 at row 0"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(change, message, tmp_path):
    table = flat()
    for name, value in change.items():
        values = np.arange(len(table)) if value == "unique" else [value] * len(table)
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.array(values))
    path = tmp_path / "log.parquet"
    pq.write_table(table, path)
    done = run("train", path, "-o", tmp_path / "out", *MAPPED, *FAST, code=1)
    said = " ".join(done.output.split())
    assert message in said and "log.parquet" in said
    assert not (tmp_path / "out").exists()  # with the fault repaired it goes through


def test_a_log_with_a_fault_costs_no_finished_run(folder):
    pq.write_table(flat().drop(["click"]), folder / "fault.parquet")
    report = (folder / "trained" / "report.json").read_text()
    command = ["train", folder / "fault.parquet", "-o", folder / "trained", *MAPPED]
    assert "no column click" in run(*command, *FAST, "--force", code=1).output
    assert (folder / "trained" / "report.json").read_text() == report


def test_train_keeps_off_what_is_not_its_own(tmp_path):
    pq.write_table(flat(), tmp_path / "log.parquet")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    command = [
        "train",
        tmp_path / "log.parquet",
        *MAPPED,
        *FAST,
        "-o",
        tmp_path / "out",
    ]
    for force in ([], ["--force"]):
        assert "thesis.tex" in run(*command, *force, code=1).output
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
    wrong = run("train", tmp_path / "log.parquet", "-o", "x", "--model", "best", code=1)
    assert "--model must be one of auto naive" in wrong.output


@pytest.mark.parametrize(
    "command, meant",
    [
        ("train LOG -o x --model prodct", "product"),
        ("judge LOG -o x.csv --format lettor", "letor"),
        ("propensities LOG -o x.csv --method all_pair", "all_pairs"),
        ("weights LOG -o x --for lightgb", "lightgbm"),
        ("weights LOG -o x --for xgboost --with wieght", "weight"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(command, meant, tmp_path):
    said = run(*command.replace("LOG", str(tmp_path / "log.csv")).split(), code=1)
    option, typed = command.split()[-2:]
    assert f"{option} must be one of" in said.output
    assert f"got '{typed}': did you mean {meant}" in said.output


def test_killed_training_ends_as_if_nothing_had_happened(folder, tmp_path):
    """kill -9 behind the first checkpoint; the same command again."""
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "debias", "train", folder / "log.parquet"]
    command += ["-o", out, *MAPPED, *FAST]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    for _ in range(6000):
        if (out / "checkpoint.npz").exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (out / "checkpoint.npz").exists()
    (out / "report.json").unlink(missing_ok=True)  # it may have been that fast
    run("train", folder / "log.parquet", "-o", out, *MAPPED, *FAST)
    ours, theirs = (
        json.loads((path / "report.json").read_text())
        for path in (out, folder / "trained")
    )
    assert ours["log_likelihood"] == pytest.approx(theirs["log_likelihood"], abs=1e-4)
    for mine, other in zip(ours["history"], theirs["history"], strict=True):
        assert mine == pytest.approx(other, abs=1e-4)


def test_auto_tries_every_candidate_once_and_says_why(folder, tmp_path, monkeypatch):
    """Two candidates stand for all; what was tried before a stop is not tried again."""
    few = ("additive", "naive")
    monkeypatch.setattr("debias.training.selection.RANKERS", few)
    monkeypatch.setattr("debias.training.selection.FEW_QUERIES", 0)
    command = ["train", folder / "log.parquet", "-o", tmp_path / "auto", *MAPPED]
    command += ["--epochs", "1", "--batch-size", "64", "--no-trees"]
    found = run_json(*command)
    tried = {row["model"] for row in found["candidates"]}
    assert tried == {*few, "softmax_naive"}
    assert found["model"] in tried and found["model"] in found["why"]
    (tmp_path / "auto" / "report.json").unlink()
    monkeypatch.setattr("debias.training.selection.fit_prepared", pytest.fail)
    assert run_json(*command)["candidates"] == found["candidates"]


def test_a_listwise_ranker_is_evaluated_by_its_order_alone(folder, tmp_path):
    out = tmp_path / "listwise"
    fast = ["--epochs", "1", "--batch-size", "64", "--model", "listwise"]
    run("train", folder / "log.parquet", "-o", out, *MAPPED, *fast)
    command = ["evaluate", out, folder / "log.parquet", *MAPPED]
    found = run_json(*command)
    assert found["clicks"].keys() == {"click_mrr"} and len(found["ranking"]) == 5
    assert "by position" not in run(*command).output


def test_help_is_quick_and_names_the_commands():
    def once():
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-m", "debias", "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        after = os.times()  # of the child, whatever else the machine is busy with
        used = after.children_user + after.children_system
        used -= before.children_user + before.children_system
        assert done.returncode == 0
        return used, done.stdout

    # A process beside it slows even CPU time down, so the quickest of five counts.
    used, shown = min(once() for _ in range(5))
    assert used < 0.5
    for name in ("inspect", "diagnose", "train", "evaluate", "export", "rank"):
        assert name in shown


def test_ranking_data_comes_from_letor_too(folder, tmp_path):
    from debias.commands.inputs import ranking_data

    path = tmp_path / "items.txt"
    path.write_text("1 qid:7 1:0.5 2:0\n0 qid:7 1:1 2:2\n")
    assert isinstance(ranking_data(path), RankingData)
    assert ranking_data(path).features.tolist() == [[0.5, 0], [1, 2]]


def test_a_run_that_was_refused_leaves_its_folder_free(tmp_path):
    from debias.commands.runs import started

    folder = tmp_path / "run"
    with pytest.raises(ValueError, match="bad"), started(folder, {"a": 1}, False):
        raise ValueError("bad option")
    assert not folder.exists()
    folder.mkdir()  # by the user, who keeps it
    with pytest.raises(ValueError, match="bad"), started(folder, {"a": 1}, False):
        raise ValueError("bad option")
    assert not [*folder.iterdir()]
    with pytest.raises(ValueError, match="bad"), started(folder, {"a": 1}, False):
        (folder / "checkpoint.npz").touch()
        raise ValueError("bad log")
    assert len([*folder.iterdir()]) == 2  # to be resumed


def test_force_goes_on_with_an_interrupted_run_and_wipes_any_other(tmp_path):
    from debias.commands.runs import started

    def begin(asked):
        with started(tmp_path / "run", asked, True):
            pass

    asked = {"model": "additive"}
    begin(asked)
    checkpoint = tmp_path / "run" / "checkpoint.npz"
    checkpoint.write_bytes(b"half a run")
    begin(asked)
    assert checkpoint.exists()
    (tmp_path / "run" / "report.json").write_text("{}")  # now it is finished
    begin(asked)
    assert not checkpoint.exists()
    checkpoint.write_bytes(b"half a run")
    begin({"model": "dot"})
    assert not checkpoint.exists()


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    from debias.commands.runs import started

    folder = tmp_path / "run"
    with started(folder, {"model": "dot"}, False):
        with (
            pytest.raises(ValueError, match="run: another process is writing here"),
            started(folder, {"model": "product"}, True),
        ):
            pass
        assert "dot" in (folder / "train.json").read_text()
    with started(folder, {"model": "product"}, True):
        assert "product" in (folder / "train.json").read_text()


def test_a_log_above_the_memory_given_is_streamed(folder, tmp_path, monkeypatch):
    """The report is that of the log in memory, and the whole log is never opened."""
    command = ["train", folder / "own.parquet", "--data", folder / "items.parquet"]
    held = run_json(*command, *FAST, "-o", tmp_path / "held")
    monkeypatch.setattr("debias.data.ClickLog.open", pytest.fail)
    streamed = run_json(*command, *FAST, "-o", tmp_path / "streamed", "--memory", 0)
    assert (tmp_path / "streamed" / "ranker.keras").exists()
    assert len(streamed["history"]) == len(held["history"]) == 2
    for key in ("model", "held_out_by", "features", "list_size", "devices"):
        assert streamed[key] == held[key]
    again = run(*command, *FAST, "-o", tmp_path / "streamed", code=1)
    assert "streamed True where this has False" in again.output
    _judge_the_sessions_tested_by(command[1:], tmp_path, streamed)
    assert streamed["sessions"]["test"] == held["sessions"]["test"]
    few = DATA.select(np.arange(55))
    few.write_parquet(tmp_path / "few.parquet")
    command[-1] = tmp_path / "few.parquet"
    done = run(*command, *FAST, "-o", tmp_path / "few", "--memory", 0, code=1)
    assert "few.parquet" in done.output and "to other items" in done.output
    done = run(*command[:2], *FAST, "-o", tmp_path / "none", "--memory", 0, code=1)
    assert "say where they are: --data FILE" in done.output


def _judge_the_sessions_tested_by(log, trained, report):
    """Of the log that was streamed in training, the same sessions as then."""
    found = run_json("evaluate", trained / "streamed", *log)
    assert found["sessions"] == report["sessions"]["test"] < 200
    assert found["of"] == "sessions drawn at random from those held out by query"
    assert found["clicks"]["log_likelihood_per_session"] == pytest.approx(
        report["log_likelihood"], abs=1e-4
    )
    refused = run("evaluate", trained / "held", *log, "--memory", 0, code=1)
    assert "was trained with this log in memory" in refused.output


def test_a_streamed_log_is_evaluated_as_in_memory(folder, tmp_path, monkeypatch):
    some = RankingData(DATA.features[:, :4], DATA.labels, DATA.offsets)
    LOG.of_items(some).write(tmp_path / "log", shards=3)
    command = ["evaluate", folder / "trained", tmp_path / "log"]
    some.write_parquet(tmp_path / "items.parquet")
    command += ["--data", tmp_path / "items.parquet", "--examination", "1,.7,.5,.4"]
    held = run_json(*command)
    monkeypatch.setattr("debias.data.ClickLog.open", pytest.fail)
    monkeypatch.setattr("debias.training.evaluation.PIECE", 128)
    streamed = run_json(*command, "--memory", 0)
    assert streamed["of"] == "all sessions" and streamed["sessions"] == 900
    clicks, wanted = streamed.pop("clicks"), held.pop("clicks")
    for name in ("click_rate", "predicted", "perplexity"):
        assert wanted.pop(f"{name}_per_rank") == pytest.approx(
            clicks.pop(f"{name}_per_rank"), rel=1e-6
        )
    assert clicks == pytest.approx(wanted, rel=1e-6)
    assert streamed == held  # the sample of so short a log is the log
    monkeypatch.setattr("debias.training.evaluation.SOME", 500)
    done = run(*command, "--memory", 0)
    assert "from 500 sessions drawn at random" in " ".join(done.stdout.split())
    few = some.select(np.arange(55))
    few.write_parquet(tmp_path / "few.parquet")
    command[4] = tmp_path / "few.parquet"
    done = run(*command, "--memory", 0, code=1)
    assert "few.parquet" in done.output and "to other items" in done.output
