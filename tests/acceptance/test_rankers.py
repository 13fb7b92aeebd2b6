"""From logs of four shapes to rankers in three formats that score alike."""

import json
import signal
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.acceptance import worlds
from tests.acceptance.prompt import MAPPED


@pytest.fixture(scope="module")
def prompt(prompt_in):
    return prompt_in("rankers")


@pytest.fixture(scope="module")
def simulated(prompt):
    """Two logs of the simulator over the same items, and a model of the first."""
    made = ["--queries", "40", "--sessions", "1000", "--items", "items.parquet"]
    for name, population in (("first", "pbm"), ("second", "cascade")):
        command = ["python", "-m", "simulators", name, *made]
        assert "1,000 sessions" in prompt.run(*command, "--population", population)
    data = ["--data", "items.parquet"]
    fast = ["--model", "product", "--epochs", "1", "-o", "product"]
    report = prompt.json("train", "first", *data, *fast)
    assert sum(report["sessions"].values()) == 1000
    return data


def test_a_simulated_log_is_inspected_and_diagnosed(prompt, simulated):
    found = prompt.json("inspect", "first", *simulated)
    assert found["sessions"] == 1000 and found["graded"] and found["moved"]
    found = prompt.json("diagnose", "first", "-o", "report.html")
    assert found["summary"]["sessions"] == 1000
    assert (prompt.folder / "report.html").exists()


def test_a_model_is_evaluated_on_another_log_over_its_items(prompt, simulated):
    found = prompt.json("evaluate", "product", "second", *simulated)
    assert found["sessions"] == 1000 and found["of"] == "all sessions"
    assert len(found["ranking"]) == 5 and found["off_policy"]


@pytest.mark.parametrize(
    "model, columns",
    [
        ("xpa", worlds.on_a_grid(worlds.shown())),
        ("listwise", worlds.shown(uneven=True)),
    ],
)
def test_grids_and_lists_of_unequal_length_are_learned_from(prompt, model, columns):
    worlds.write(prompt.folder / f"{model}.log.parquet", columns)
    report = prompt.train(f"{model}.log.parquet", model)
    assert report["model"] == model and sum(report["sessions"].values()) == 400
    # Its own log again: the sessions that were held out.
    found = prompt.json("evaluate", model, f"{model}.log.parquet", *MAPPED)
    assert found["sessions"] == report["sessions"]["test"]


def test_candidates_are_ranked_within_their_query(ranker):
    ranked = pq.read_table(ranker.folder / "mixture.parquet")
    score, rank = (ranked[name].to_numpy().reshape(-1, 8) for name in ("score", "rank"))
    assert (rank == (-score).argsort(axis=1).argsort(axis=1) + 1).all()


def test_each_format_scores_as_the_command_did(ranker):
    formats = ("mixture/ranker.keras", "saved", "mixture.onnx")
    ranker.debias("export", "mixture", "-o", "saved")
    code = (
        "import debias, json, sys, numpy, pyarrow.parquet as pq\n"
        "table = pq.read_table('candidates.parquet')\n"
        "x = numpy.stack([table[f'f_{n}'].to_numpy() for n in range(3)], axis=1)\n"
        "for path in sys.argv[1:]:\n"
        "    scores = debias.load(path)(x.astype('float32'))\n"
        "    print(json.dumps(numpy.asarray(scores).tolist()))\n"
    )
    said = ranker.run("python", "-c", code, *formats, noisy=True).splitlines()
    wanted = pq.read_table(ranker.folder / "mixture.parquet")["score"].to_numpy()
    for scores in said[-len(formats) :]:
        np.testing.assert_allclose(json.loads(scores), wanted, atol=1e-5)


def test_ctrl_c_stops_a_fit(prompt):
    """JAX, which TensorFlow imports, drops most of the interrupts of a fit."""
    worlds.write(prompt.folder / "log.parquet", worlds.shown())
    command = ["debias", "train", "log.parquet", *MAPPED, "--model", "additive"]
    forever = ["--epochs", "100000", "--patience", "100000", "-o", "stopped"]
    with prompt.started(*command, *forever) as process:
        while not (prompt.folder / "stopped" / "checkpoint.npz").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    whole = "interrupted; no output is incomplete. "
    assert said == whole + "Give the same command again to resume\n"
