"""Work over a Dask cluster: real worker processes on loopback."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster
from typer.testing import CliRunner

from debias.__main__ import app
from debias.commands import rank
from debias.data import ClickLog, Stream
from debias.data.events import PRESETS, import_events
from debias.data.summary import count
from debias.engine import cluster
from debias.propensity import count_cells, estimate_stream, propensities
from simulators import writer
from simulators.clicks import prepare
from simulators.policies import EpsilonGreedy, expert
from simulators.queries import generate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SESSIONS = 20_000


@pytest.fixture(scope="module")
def over():
    with cluster.joined("local:2") as found:
        yield found


@pytest.fixture(scope="module")
def ready():
    return prepare(generate(20, 1), EpsilonGreedy(expert, 0.2), "mixed", seed=4)


@pytest.fixture(scope="module")
def log(ready, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster") / "log"
    writer.write(ready, folder, SESSIONS, shards=5)
    return folder


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def once(folder, number):
    """Ends its process the first time that it is asked for 3."""
    mark = folder / "killed"
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return number * number


def refusing(number):
    raise ValueError(f"no {number}")


def test_a_killed_worker_is_replaced_and_its_piece_done_again(over, tmp_path):
    assert list(over(partial(once, tmp_path), range(9))) == [k * k for k in range(9)]
    with pytest.raises(ValueError, match="no 0"):
        list(over(refusing, range(3)))


def test_a_cluster_without_workers_is_an_error_unless_one_comes_back(monkeypatch):
    quiet = {"dashboard_address": ":0", "processes": False, "n_workers": 0}
    with LocalCluster(**quiet) as local, Client(local) as client:
        monkeypatch.setattr(cluster, "ALONE", 0.3)
        with pytest.raises(ValueError, match=r"no worker for 0\.3 s: start workers"):
            list(cluster._over(client, abs, [-1]))
        monkeypatch.setattr(cluster, "ALONE", 30)
        found = cluster._over(client, abs, [-1, 2])
        local.scale(1)
        assert list(found) == [1, 2]


def test_a_simulation_has_the_bytes_of_one_process(over, ready, log, tmp_path):
    told = []
    writer.write(ready, tmp_path / "log", SESSIONS, 5, None, None, told.append, over)
    assert bytes_of(tmp_path / "log") == bytes_of(log)
    assert told == [4000] * 5


def test_counts_and_samples_are_those_of_one_process(over, log):
    stream, shares = Stream(log), []
    one, other = count(stream), count(stream, shares.append, over)
    assert shares == [0.2, 0.4, 0.6, 0.8, 1.0]
    for name, value in vars(one).items():
        assert np.array_equal(getattr(other, name), value), name
    one, other = count_cells(stream), count_cells(stream, over)
    for name in ("pair", "rank", "shown", "clicked"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for most in (50, SESSIONS + 1):
        one, other = stream.sample(most, [7]), stream.sample(most, [7], over=over)
        for name, value in one.columns().items():
            assert np.array_equal(other.columns()[name], value), name


def test_propensities_are_those_of_one_process(over, log):
    one = propensities(ClickLog.open(log))
    other = propensities(Stream(log), over=over)
    assert one.identified and other.verdict.tolist() == one.verdict.tolist()
    for name in ("examination", "n"):
        assert np.array_equal(getattr(other, name), getattr(one, name)), name
    np.testing.assert_allclose(other.low, one.low, rtol=1e-9)
    with pytest.raises(ValueError, match="cannot be 'bootstrap'"):
        estimate_stream(Stream(log), interval="bootstrap")


def test_an_import_has_the_bytes_of_one_process(over, tmp_path):
    rng, source = np.random.default_rng(2), tmp_path / "events"
    source.mkdir()
    for number in range(3):
        rows = {
            "session": rng.integers(0, 40, 300).astype(str),
            "event": rng.choice(["impression", "click"], 300),
            "item": rng.integers(0, 9, 300),
            "time": np.arange(300) + 300 * number,
        }
        path = source / f"{number}.{('csv', 'jsonl', 'parquet')[number]}"
        table = pa.table(rows)
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        elif path.suffix == ".parquet":
            pq.write_table(table, path)
        else:
            path.write_text(
                "".join(json.dumps(row) + "\n" for row in table.to_pylist())
            )
    columns = PRESETS["generic"].replaced(["timestamp=time"])
    few, shares = 1e-5, []  # GB, so that there are several groups of buckets
    one = import_events(source, tmp_path / "one", columns, memory=few)
    other = import_events(
        source,
        tmp_path / "other",
        columns,
        memory=few,
        progress=shares.append,
        over=over,
    )
    assert other == one._replace(path=other.path) and shares[-1] == 1
    files = {n: b for n, b in bytes_of(tmp_path / "one").items() if n != "_import.json"}
    assert len(files) > 1 and files.items() <= bytes_of(tmp_path / "other").items()


class Half:
    """A ranker for workers that need no TensorFlow."""

    feature_names, kinds = ("b",), None

    def __call__(self, features):
        return features[:, 0] / 2


def use_half():
    rank._opened = lambda folder, contents: Half()


def test_ranks_are_those_of_one_file(over, tmp_path):
    over.args[0].run(use_half)  # in each worker
    table = tmp_path / "table"
    table.mkdir()
    value = np.random.default_rng(1).random(60).round(1)  # some are tied
    whole = pa.table({"session": np.arange(60) // 6, "a": np.arange(60), "b": value})
    for number in range(5):
        pq.write_table(whole.slice(12 * number, 12), table / f"{number}.parquet")
    model = rank.Model(tmp_path, 1, ("session=session",), None, "")
    assert rank.rank_files(table, tmp_path / "out", model, over=over) == 60
    rank.rank_rows(table, tmp_path / "one.parquet", Half(), 1, ["session=session"])
    one, several = (pq.read_table(tmp_path / n) for n in ("one.parquet", "out"))
    assert several.equals(one)
    pq.write_table(whole.slice(54, 6), table / "5.parquet")
    with pytest.raises(ValueError, match="9 is in several files; write each session"):
        rank.rank_files(table, tmp_path / "again", model, over=over)
    assert not (tmp_path / "again").exists()


def test_commands_say_what_is_wrong_with_a_cluster(log, tmp_path, monkeypatch):
    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    monkeypatch.setattr(cluster, "SECONDS", 1)
    done = run("inspect", log, "--cluster", "10.0.0.1:8786")
    assert done.exit_code == 1 and "must be tcp://HOST:PORT or local:" in done.output
    with (
        pytest.raises(ValueError, match="no Dask scheduler answers there"),
        cluster.joined("tcp://127.0.0.1:1", seconds=0.5),
    ):
        pass
    (tmp_path / "log.csv").write_text("session,item,click\n1,2,0\n")
    done = run("inspect", tmp_path / "log.csv", "--cluster", "local:2")
    assert done.exit_code == 1 and "needs a log of item numbers" in done.output


def test_a_worker_of_another_version_is_named(monkeypatch):
    theirs = cluster.edition()
    monkeypatch.setattr("debias.__version__", "9.9")
    with pytest.raises(ValueError, match=r"worker w: has debias .* has 9\.9"):
        cluster._check(theirs, "w")
    with pytest.raises(ValueError, match="a worker has"):
        cluster._call(abs, -1, {})


class Asked:
    """A client whose workers answer as told."""

    def __init__(self, *answers):
        self.answers = answers

    def wait_for_workers(self, count, timeout):
        assert count == 1

    def run(self, function, on_error):
        assert on_error == "return"
        return {f"w{number}": each for number, each in enumerate(self.answers)}


def test_a_worker_lost_while_it_is_asked_is_no_error():
    ours = cluster.edition()
    cluster._checked(Asked(ours, OSError("closed")), "tcp://a:1", 1.0)
    with pytest.raises(ValueError, match="a worker lacks pyarrow; install the same"):
        cluster._checked(
            Asked(ours, ModuleNotFoundError(name="pyarrow")), "tcp://a:1", 1.0
        )
    with pytest.raises(ValueError, match="worker w0: has numpy None"):
        cluster._checked(Asked({"debias": ours["debias"]}), "tcp://a:1", 1.0)
