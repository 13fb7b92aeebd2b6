"""Two processes on one machine come to what one comes to, also when one dies."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from debias.data import ClickLog, RankingData
from debias.engine.distributed import join, share
from debias.models.batches import batches
from debias.retrieval.training.batches import Batches
from simulators.interactions import generate_interactions

ROOT = Path(__file__).parents[3]
MODELS = ("dssm", "mixture", "product")
LIMIT = 240  # seconds; a loaded machine needs a minute


def start(folder, names, processes, dies=None):
    """The processes of a run; `dies` is which of them dies, and in what round."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for process in range(processes):
        own = {
            "DEBIAS_COORDINATOR": f"127.0.0.1:{port}",
            "DEBIAS_PROCESSES": str(processes),
            "DEBIAS_PROCESS": str(process),
        }
        last = [str(dies[1])] if dies is not None and dies[0] == process else []
        started.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.debias.engine.worker",
                    folder,
                    names,
                    *last,
                ],
                cwd=ROOT,
                env={
                    **os.environ,
                    "KERAS_BACKEND": "jax",
                    "JAX_PLATFORMS": "cpu",
                    "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles soon
                    **(own if processes > 1 else {}),
                },
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def ended(started):
    """Exit codes and what was said on standard error; nothing is left running."""
    try:
        said = [each.communicate(timeout=LIMIT)[1] for each in started]
        return [each.returncode for each in started], said
    finally:
        for each in started:
            each.kill()
            each.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log of 225 sessions in three shards, its items and some to judge by."""
    pytest.importorskip("jax")
    folder = tmp_path_factory.mktemp("distributed")
    rng = np.random.default_rng(0)
    item = rng.integers(0, 40, (225, 4))
    log = ClickLog(np.zeros(225, int), item, rng.random((225, 4)) < 0.3)
    log.write(folder / "log", shards=3)
    log.take(slice(0, 50)).write(folder / "judges.parquet")
    features = rng.normal(size=(40, 3)).astype("float32")
    RankingData(features, np.zeros(40), [0, 40]).write_parquet(folder / "items.parquet")
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    """One process trains all models, then two do, of which one dies in the last model.

    Returns:
        How the two ended: exit codes and standard errors.
    """
    codes, said = ended(start(folder, ",".join(MODELS), 1))
    assert codes == [0], said[0][-3000:]
    return ended(start(folder, ",".join(MODELS), 2, dies=(1, 2)))


def assert_two_learned_what_one_did(folder, name):
    one, two = (np.load(folder / f"{name}-of-{n}.npz") for n in (1, 2))
    with one, two:
        assert len(one.files) == len(two.files) > 0
        for each in one.files:
            np.testing.assert_allclose(two[each], one[each], atol=1e-4)


@pytest.mark.parametrize("name", MODELS[:-1])
def test_two_processes_learn_what_one_learns(folder, runs, name):
    """Batches of 25 sessions: the second process gets 12, and one of weight 0.

    Dropout and candidates of the whole batch included.
    """
    assert_two_learned_what_one_did(folder, name)


def test_a_run_whose_process_died_goes_on_from_the_last_checkpoint(folder, runs):
    codes, said = runs
    assert codes[1] == 9 and codes[0] not in (0, -9)
    assert "start the same command again for all processes" in said[0]
    checkpoint = folder / f"{MODELS[-1]}-2.npz"
    with np.load(checkpoint) as found:
        assert 1 <= json.loads(str(found["state"]))["round"] < 6
    codes, said = ended(start(folder, MODELS[-1], 2))
    assert codes == [0, 0], said[0][-3000:]
    assert_two_learned_what_one_did(folder, MODELS[-1])


# Without other processes


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9])
def test_shares_make_the_batch_and_weigh_as_its_mean(size):
    import tensorflow as tf

    values = np.arange(float(size), dtype="float32")
    batch = tf.data.Dataset.from_tensors(({"x": values}, -values))
    parts = [next(iter(share(batch, process, 3))) for process in range(3)]
    x, y, weight = (
        np.concatenate(each)
        for each in zip(*((x["x"], y, weight) for x, y, weight in parts), strict=True)
    )
    assert len({len(part[1]) for part in parts}) == 1 and len(x) % 3 == 0
    np.testing.assert_array_equal(x[weight > 0], values)
    np.testing.assert_array_equal(y, -x)
    assert (x * weight).mean() == pytest.approx(values.mean())


def test_packed_batches_are_not_shared():
    data = RankingData(np.zeros((3, 2), "float32"), None, np.array([0, 3]))
    log = ClickLog(query=[0], item=[[2, 0, 1]], click=[[True, False, False]])
    with pytest.raises(ValueError, match="packed=False"):
        share(batches(log, data, packed=True), 0, 2)
    events, _ = generate_interactions(np.random.default_rng(0), 9, 8, events=4)
    with pytest.raises(ValueError, match="packed=False"):
        share(Batches(events, 4, packed=True), 0, 2)


def test_candidates_of_a_retrieval_batch_are_shared_as_its_rows_are():
    class Batches(keras.utils.PyDataset):
        ended = 0

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"user": np.arange(4), "item": np.arange(6)}, np.arange(4)

        def on_epoch_end(self):
            self.ended += 1

    whole = Batches()
    part = share(whole, 1, 2)
    batch, positive = part[0]
    assert len(part) == 2 and positive.tolist() == [2, 3]
    assert batch["user"].tolist() == [2, 3] and batch["item"].tolist() == [3, 4, 5]
    part.on_epoch_end()
    assert whole.ended == 1
    with pytest.raises(ValueError, match="4 rows or candidates, which 3 processes"):
        share(whole, 0, 3)[0]


def test_what_is_missing_is_said(monkeypatch):
    if keras.backend.backend() != "jax":
        with pytest.raises(ValueError, match="set KERAS_BACKEND=jax before"):
            join("127.0.0.1:1", 2, 0)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"HOST:PORT.*DEBIAS_COORDINATOR"):
        join()
    with pytest.raises(ValueError, match=r"process must be in 0\.\.1, got 2"):
        join("127.0.0.1:1", 2, 2)
