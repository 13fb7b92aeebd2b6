"""Evaluation and diagnosis of a log that does not fit the memory a process may take."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from debias.data import ClickLog, RankingData, log_files

LIMITED = """
import contextlib, io, json, os, resource, sys
from pathlib import Path
import typer
from debias.__main__ import app
from debias.commands.start import quiet_start

quiet_start()
from debias.training import evaluation

evaluation.PIECE, evaluation.SOME = 1_250, 1_000
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # threads take memory
folder = Path(sys.argv[1])
own = ["--data", str(folder / "items.parquet"), "--memory"]
page = ["-o", str(folder / "page.html"), "--force", "--no-features"]
page += ["--max-sessions", "60"]

def run(command, log, memory):
    given = [str(folder / log), *own, str(memory), "--json"]
    given = (
        ["diagnose", *given, *page]
        if command == "diagnose"
        else ["evaluate", str(folder / "trained"), *given]
    )
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            app(given, standalone_mode=False)
    except MemoryError:
        return None
    return json.loads(out.getvalue())

def taken():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmData:")[1].split()[0]) * 1024

with contextlib.redirect_stdout(io.StringIO()):
    app(
        ["train", str(folder / "small.parquet"), *own, "0", "--model", "mixture",
         "-o", str(folder / "trained"), "--epochs", "1"],
        standalone_mode=False,
    )
commands = ("evaluate", "diagnose")
for command in commands:  # what is loaded and compiled once
    assert run(command, "small.parquet", 0)
most = taken() + 200_000_000
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
for memory in (0, 1):  # streamed, then held, which may end the process
    found = [run(command, "large", memory) for command in commands]
    print(json.dumps(found), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds maps on Linux")
def test_a_log_above_the_limit_is_judged_and_one_held_is_not(tmp_path, monkeypatch):
    """200 MB decoded; of 200 MB more, streams take a half, one held wants 440.

    Nearly all of the log is context, which is read fast.
    """
    monkeypatch.setattr(log_files, "ROW_GROUP", 1_250)
    rng = np.random.default_rng(0)
    sessions = 25_000
    query = rng.integers(60, size=sessions)
    item = 3 * query[:, None] + rng.permuted(
        np.tile(np.arange(3), (sessions, 1)), axis=1
    )
    click = rng.random(item.shape) < [0.5, 0.3, 0.2]
    context = np.zeros((sessions, 2000), np.float32)
    log = ClickLog(query, item, click, context=context)
    log.write(tmp_path / "large", shards=2)
    log.take(slice(0, 1000)).write(tmp_path / "small.parquet")
    features = rng.normal(size=(180, 2)).astype(np.float32)
    data = RankingData(features, np.arange(180) % 2, np.arange(0, 181, 3))
    data.write_parquet(tmp_path / "items.parquet")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},
    )
    assert done.stdout, (done.returncode, done.stderr)
    (evaluated, diagnosed), *held = map(json.loads, done.stdout.splitlines())
    # Native code that gets no memory may crash before Python can raise anything.
    assert held == [[None, None]] or (done.returncode < 0 and not held)
    assert evaluated["sessions"] == sessions
    assert diagnosed["summary"]["sessions"] == sessions
    assert diagnosed["summary"]["clicks"] == click.sum()
    assert diagnosed["sessions_analysed"] == 60


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only getrusage tells")
def test_the_peak_is_not_that_of_the_process_that_started_this_one():
    large = bytearray(b"1") * 400_000_000
    code = "from debias.commands.runs import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 0 < float(done.stdout) < len(large) / 1e9, done.stderr
