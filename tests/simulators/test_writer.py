"""Tests of simulators.writer and of the command."""

import errno
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from debias.data import ClickLog, RankingData, read_batches
from debias.data.files import alone
from simulators import writer
from simulators.__main__ import app
from simulators.clicks import prepare
from simulators.policies import Deterministic, EpsilonGreedy, expert
from simulators.queries import generate

typer_testing = pytest.importorskip("typer.testing")
SESSIONS = 20_000


@pytest.fixture(scope="module")
def ready():
    data = generate(20, 1)
    return prepare(data, EpsilonGreedy(expert, 0.2), "mixed", seed=4)


def content(folder):
    """Every file by name, with the hash of its bytes."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).iterdir())
    }


def visible(folder):
    return [path for path in folder.glob("*") if not path.name.startswith(".")]


def test_what_is_written_is_what_is_simulated(ready, tmp_path):
    manifest = writer.write(ready, tmp_path / "log", SESSIONS, shards=3)
    log = ClickLog.open(tmp_path / "log")
    expected = ready.sessions(0, SESSIONS)
    for name, value in expected.columns().items():
        np.testing.assert_array_equal(getattr(log, name), value, err_msg=name)
    counts = [shard["sessions"] for shard in manifest["shards"]]
    assert sum(counts) == SESSIONS and max(counts) - min(counts) <= 1
    assert list(manifest["schema"]) == list(expected.columns())
    writer.verify(tmp_path / "log")
    assert writer.read_manifest(tmp_path / "log") == manifest


def test_neither_shards_nor_workers_change_the_sessions(ready, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    writer.write(ready, one, SESSIONS, shards=5, workers=1)
    writer.write(ready, other, SESSIONS, shards=5, workers=4)
    assert content(one) == content(other)
    writer.write(ready, tmp_path / "cut", SESSIONS, shards=7)
    logs = [
        ClickLog.concatenate(list(read_batches(folder)))
        for folder in (one, tmp_path / "cut")
    ]
    for name, value in logs[0].columns().items():
        np.testing.assert_array_equal(value, getattr(logs[1], name), err_msg=name)


def test_killed_ten_times_and_continued(ready, tmp_path):
    """Kill -9 at random moments; the folder ends as if nothing had happened."""
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    shards = 60
    writer.write(ready, whole, SESSIONS, shards)
    # Children are forked from a clean server: quick, and without this one's threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["simulators.writer"])
    chance = random.Random(0)
    killed = 0
    seen = 0
    for _ in range(10):
        child = context.Process(
            target=writer.write, args=(ready, folder, SESSIONS, shards)
        )
        child.start()
        # From the moment it gets on, not while Python starts.
        until = time.monotonic() + 60
        while child.is_alive() and time.monotonic() < until:
            if len(visible(folder)) > seen:
                break
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        child.kill()
        child.join()
        killed += child.exitcode == -9
        seen = len(visible(folder))
        names = content(folder)
        for name, digest in content(whole).items():
            if name.endswith(".parquet") and name in names:
                assert names[name] == digest  # visible means whole
    assert killed >= 5
    writer.write(ready, folder, SESSIONS, shards)
    assert content(folder) == content(whole)


def test_a_finished_run_is_left_alone(ready, tmp_path):
    writer.write(ready, tmp_path, SESSIONS, shards=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    told = []
    writer.write(ready, tmp_path, SESSIONS, shards=2, progress=told.append)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert sum(told) == SESSIONS


def test_progress_counts_every_session_once(ready, tmp_path):
    told = []
    writer.write(ready, tmp_path, SESSIONS, shards=3, workers=1, progress=told.append)
    assert sum(told) == SESSIONS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sessions": SESSIONS + 1}, f"sessions {SESSIONS} where this has"),
        ({"shards": 3}, "shard_count 2 where this has 3"),
        ({"run": {"note": "other"}}, "run.note one where this has other"),
    ],
)
def test_another_run_is_refused_and_stays(ready, tmp_path, change, message):
    run = {"sessions": SESSIONS, "shards": 2, "run": {"note": "one"}}
    writer.write(ready, tmp_path, **run)
    before = content(tmp_path)
    with pytest.raises(ValueError, match=f"holds another run, with {message}"):
        writer.write(ready, tmp_path, **{**run, **change})
    assert content(tmp_path) == before


def test_the_same_words_over_other_data_are_another_run(ready, tmp_path):
    writer.write(ready, tmp_path, SESSIONS, shards=2)
    data = generate(20, 2)
    other = prepare(data, EpsilonGreedy(expert, 0.2), "mixed", seed=4)
    with pytest.raises(ValueError, match="another run, with first_block_sha256"):
        writer.write(other, tmp_path, SESSIONS, shards=2)


def test_a_folder_of_something_else_is_refused_and_stays(ready, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes.txt and no manifest"):
        writer.write(ready, tmp_path, 100)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="not a manifest"):
        writer.write(ready, tmp_path, 100)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a manifest of a click log"):
        writer.write(ready, tmp_path, 100)


def test_a_disk_that_fills_up_keeps_whole_shards_and_can_go_on(
    ready, tmp_path, monkeypatch
):
    whole, folder = tmp_path / "whole", tmp_path / "full"
    writer.write(ready, whole, SESSIONS, shards=6)
    sync, calls = os.fsync, []

    def full_at_the_fourth_shard(handle):
        calls.append(handle)
        if len(calls) > 4:  # a manifest and three shards
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_at_the_fourth_shard)
        with pytest.raises(OSError, match="the disk is full: 3 of 6 shards"):
            writer.write(ready, folder, SESSIONS, shards=6, workers=1)
    found, expected = content(folder), content(whole)
    assert [*found] == [
        "manifest.json",
        "part-00000.parquet",
        "part-00001.parquet",
        "part-00002.parquet",
    ]
    assert all(found[n] == expected[n] for n in found if n != "manifest.json")
    writer.write(ready, folder, SESSIONS, shards=6)
    assert content(folder) == expected


def test_too_little_room_is_said_before_anything_is_written(
    ready, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        ValueError, match=r"needs \d\d\d.\d GB, but the disk has 0.0 GB"
    ):
        writer.write(ready, tmp_path / "log", 10**10)
    assert not list((tmp_path / "log").glob("*.parquet"))


def test_one_writer_at_a_time(ready, tmp_path):
    pytest.importorskip("fcntl")
    with alone(tmp_path), pytest.raises(ValueError, match="another process"):
        writer.write(ready, tmp_path, 100)


@pytest.mark.parametrize(
    ("sessions", "shards", "message"),
    [
        (0, None, "sessions must be at least 1"),
        (5, 6, "shards must be in 1..5"),
        (5, 0, "shards must be in 1..5"),
    ],
)
def test_impossible_counts(ready, tmp_path, sessions, shards, message):
    with pytest.raises(ValueError, match=message):
        writer.write(ready, tmp_path / "log", sessions, shards)
    assert not (tmp_path / "log").exists()


def test_damage_is_found(ready, tmp_path):
    writer.write(ready, tmp_path, 1000, shards=2)
    shard = tmp_path / "part-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"part-00001.parquet: is missing or has"):
        writer.verify(tmp_path)
    manifest = writer.read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "shards": []}))
    with pytest.raises(ValueError, match="did not finish"):
        writer.verify(tmp_path)
    with pytest.raises(ValueError, match="does not exist; it is the manifest"):
        writer.verify(tmp_path / "none")


# The command

run = typer_testing.CliRunner().invoke
QUICK = ["--queries", "25", "--sessions", "3000"]


def test_the_command_writes_a_log(tmp_path):
    out = tmp_path / "log"
    found = run(app, [str(out), *QUICK, "--shards", "2", "--policy", "epsilon-greedy"])
    assert found.exit_code == 0, found.output
    log = ClickLog.open(out)
    assert log.sessions == 3000 and log.logging_propensity.min() < 1
    manifest = writer.read_manifest(out)
    assert manifest["run"]["population"] == "mixed"
    again = run(app, [str(out), *QUICK, "--shards", "2", "--policy", "epsilon-greedy"])
    assert again.exit_code == 0
    other = run(app, [str(out), *QUICK, "--shards", "2"])
    assert other.exit_code == 1
    assert "another run, with run.policy epsilon-greedy where" in other.output


def test_by_default_lists_vary_and_the_command_says_by_what(tmp_path):
    items = tmp_path / "items.parquet"
    command = [str(tmp_path / "log"), *QUICK, "--items", str(items)]
    found = run(app, command)
    said = "3,000 sessions in {}: mixed users, lists of plackett-luce (temperature 1)\n"
    assert (found.exit_code, found.output) == (0, said.format(tmp_path / "log"))
    log, data = ClickLog.open(tmp_path / "log"), RankingData.read_parquet(items)
    log.check(data.items)
    assert data.queries == 25
    assert any(len(np.unique(log.item[log.query == q, 0])) > 1 for q in range(25))
    before = items.read_bytes()
    assert run(app, command).exit_code == 0  # as after a kill
    other = run(app, [str(tmp_path / "other"), *command[1:], "--queries", "26"])
    assert other.exit_code == 1 and "holds other items" in other.output
    assert items.read_bytes() == before


def test_the_command_prints_json(tmp_path):
    given = [str(tmp_path / "log"), "--sessions", "50", "--queries", "5", "--json"]
    found = json.loads(run(app, given).output)
    assert found["sessions"] == 50 and found["population"] == "mixed"


def test_the_command_says_what_lists_that_never_vary_cannot_show(tmp_path):
    found = run(app, [str(tmp_path / "log"), *QUICK, "--policy", "expert"])
    assert (
        "lists of expert\nEvery session of a query shows the same list" in found.output
    )


def test_the_command_takes_a_population_file_and_letor_data(tmp_path):
    crowd = tmp_path / "crowd.py"
    crowd.write_text(
        "from simulators import Cascade\npopulation = ((1.0, Cascade()),)\n"
    )
    letor = tmp_path / "train.txt"
    lines = [f"{i % 3} qid:{i // 5} 1:{i} 2:{-i}" for i in range(100)]
    letor.write_text("\n".join(lines) + "\n")
    arguments = [str(tmp_path / "log"), "--population", str(crowd)]
    arguments += ["--data", str(letor), "--sessions", "500"]
    found = run(app, arguments, env={"DEBIAS_CACHE": str(tmp_path / "cache")})
    assert found.exit_code == 0, found.output
    log = ClickLog.open(tmp_path / "log")
    assert log.click.sum(axis=1).max() == 1 and log.mask.sum(axis=1).max() == 5
    assert "population_sha256" in writer.read_manifest(tmp_path / "log")["run"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--population", "mixt"], "did you mean mixed?"),
        (["--population", "none.py"], "population file none.py does not exist"),
        (["--policy", "week"], "did you mean weak?"),
        (["--attraction", "liner"], "did you mean linear"),
        (["--data", "nowhere.txt"], "nowhere.txt"),
        (["--sessions", "0"], "sessions must be at least 1"),
        (["--queries", "0"], "queries must be at least 1"),
        (["--policy", "epsilon-greedy", "--randomness", "7"], "epsilon must be in"),
        (["--list-size", "12"], "has parameters for 10 positions, got a list of 12"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, arguments, message):
    found = run(app, [str(tmp_path / "log"), *QUICK, *arguments])
    assert found.exit_code == 1
    assert message in found.output and "Traceback" not in found.output
    assert not (tmp_path / "log").exists()


def test_presets_are_listed():
    found = run(app, ["--presets"])
    assert found.exit_code == 0
    assert "mixed" in found.output and "plackett-luce" in found.output


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys\n"
        "import simulators, simulators.__main__\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'pyarrow', 'sklearn'}\n"
        "assert not heavy & {*sys.modules}, heavy & {*sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    import simulators

    for name in simulators.__all__:
        assert getattr(simulators, name) is not None
    with pytest.raises(AttributeError, match="No simulators attribute nothing"):
        _ = simulators.nothing
    assert Deterministic is simulators.Deterministic
