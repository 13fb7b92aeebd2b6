"""Tests of benchmarks.rates.large: what is measured, and that the limit is one."""

import json
import os

import pyarrow.parquet as pq
import pytest

from benchmarks.rates import large
from benchmarks.rates.large import GROUPS, Large, Mixed, Run, group, run


def test_a_run_is_measured_and_its_failure_told(tmp_path):
    (tmp_path / "fill.py").write_text("print(len(bytearray(300_000_000)))")
    (tmp_path / "fail.py").write_text("raise SystemExit('no more')")
    done = run(["fill"], tmp_path)
    assert done.output == "300000000\n"
    assert done.cpu_seconds > 0 and done.seconds > 0
    with pytest.raises(RuntimeError, match=r"fail: exit status 1: no more"):
        run(["fail"], tmp_path)


@pytest.mark.parametrize(
    ("tree", "file"), [("memory", "memory.limit_in_bytes"), ("", "memory.max")]
)
def test_a_group_is_that_of_either_version(tree, file, tmp_path, monkeypatch):
    root = tmp_path / "groups"
    (root / tree).mkdir(parents=True)
    monkeypatch.setattr(large.Path, "rmdir", lambda folder: None)  # files are no limits
    with group(1.5, root) as inside:
        assert inside == root / tree / f"debias-{os.getpid()}"
        assert (inside / file).read_text() == "1500000000"


def test_without_groups_nothing_is_limited(tmp_path):
    with group(3.0, tmp_path / "none") as inside:
        assert inside is None


def test_what_takes_more_than_its_group_is_killed(tmp_path):
    (tmp_path / "fill.py").write_text("print(sum(bytearray(b'1') * 300_000_000))")
    with group(0.1, GROUPS) as inside:
        if inside is None:
            pytest.skip("no control group can be made here")
        with pytest.raises(RuntimeError, match="exit status -9"):
            run(["fill"], tmp_path, inside)


def test_a_row_is_of_the_command_that_trains(monkeypatch):
    asked = []

    def noted(command, folder, inside=None):
        asked.append((command, inside))
        assert len(asked) == 1 or (folder / "items.parquet").exists()
        return Run('{"log_likelihood": -2.5, "peak_memory_gb": 1.5}', 4.0, 6.0)

    monkeypatch.setattr(large, "run", noted)
    monkeypatch.setattr(large, "QUERIES", 5)
    found = Large("500k", limit=2.0).measure(3, None)
    limit = found.pop("limit_gb", None)
    (simulate, free), (train, inside) = asked
    assert simulate[:2] == ["simulators", "log"] and "500000" in simulate
    assert train[:2] == ["debias", "train"] and free is None
    assert (inside is None) == (limit is None) and limit in (None, 2.0)
    assert found == {
        "rate": 125_000,
        "cpu_seconds": 6,
        "peak_gb": 1.5,
        "log_likelihood": -2.5,
    }


def test_a_table_of_mixed_features_is_trained_on_and_ranked(monkeypatch):
    asked = []

    def noted(command, folder, inside=None):
        asked.append(command[:2])
        table = pq.read_table(folder / "log.parquet")
        assert table.num_rows == 60 and len(set(table["item"].to_pylist())) == 60
        assert sum(name.startswith("f_") for name in table.column_names) == 20
        told = {"log_likelihood": -2.5, "peak_memory_gb": 1.5, "rows": 60}
        return Run(json.dumps(told), 4.0, 6.0)

    monkeypatch.setattr(large, "run", noted)
    monkeypatch.setattr(large, "PIECE", 4)
    found = Mixed(lists=6).measure(3, None)
    assert asked == [["debias", "train"], ["debias", "rank"]]
    assert found["rate"] == found["rank_rate"] == 1.5
    assert found["peak_gb"] == found["rank_peak_gb"] == 1.5


@pytest.mark.parametrize("row", ["inspect", "rank"])
def test_a_command_runs_alone_and_on_two_workers(monkeypatch, row):
    asked = []

    def noted(command, folder, inside=None):
        asked.append(command)
        clustered = "local:2" in command
        return Run("", 4.0 if clustered else 6.0, 9.0)

    monkeypatch.setattr(large, "run", noted)
    monkeypatch.setattr(large, "QUERIES", 5)
    found = large.Clustered(row, sessions=40).measure(0, None)
    assert found == {"rate": 10, "ratio": 1.5, "cpu_seconds": 9}
    one, two = asked[-2:]
    assert one[1] == two[1] == row and two[-2:] == ["--cluster", "local:2"]
    assert ("-o" in one) == (row == "rank")
